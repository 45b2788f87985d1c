//! Durations and sizes as LogQL writes them: `5m`, `1h30m`, `1.5s`; `10KB`, `1MiB`.

/// A duration in nanoseconds: numbers with units, one after the other.
pub fn duration_ns(text: &str) -> Option<f64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let (number, after) = number(rest)?;
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(end)?;
        total += number
            * match unit {
                "ns" => 1.0,
                "us" | "µs" | "μs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                "d" => 86_400e9,
                "w" => 7.0 * 86_400e9,
                "y" => 365.0 * 86_400e9,
                _ => return None,
            };
        rest = after;
    }
    Some(if negative { -total } else { total })
}

/// A size in bytes: a number with a unit.
pub fn bytes(text: &str) -> Option<f64> {
    let (number, unit) = number(text)?;
    let factor = match unit.trim_start().to_ascii_lowercase().as_str() {
        "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "pb" => 1e15,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        "tib" => 1024.0f64.powi(4),
        "pib" => 1024.0f64.powi(5),
        _ => return None,
    };
    Some(number * factor)
}

/// A decimal number at the beginning, and what follows it.
fn number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_duration_and_what_is_a_size() {
        for (text, want) in [
            ("5m", Some(300e9)),
            ("1h30m", Some(5400e9)),
            ("1.5s", Some(1.5e9)),
            ("10ms", Some(1e7)),
            ("3µs", Some(3e3)),
            ("-2s", Some(-2e9)),
            ("5", None),
            ("m", None),
            ("", None),
            ("5x", None),
            ("1..2s", None),
        ] {
            assert_eq!(duration_ns(text), want, "{text}");
        }
        for (text, want) in [
            ("10KB", Some(10_000.0)),
            ("1MiB", Some(1_048_576.0)),
            ("1.5 GB", Some(1.5e9)),
            ("7B", Some(7.0)),
            ("7", None),
            ("KB", None),
        ] {
            assert_eq!(bytes(text), want, "{text}");
        }
    }
}
