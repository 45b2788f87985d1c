//! The kernel's words for rates.

/// What a link runs at.
#[derive(Debug, PartialEq, Eq)]
pub struct Rate {
    pub bits_per_second: u64,
    pub lanes: u32,
}

/// `200 Gb/sec (4X HDR)`, `2.5 Gb/sec (1X SDR)`
pub fn rate(text: &str) -> Option<Rate> {
    let (number, rest) = text.split_once(" Gb/sec")?;
    let gigabits: f64 = number.parse().ok()?;
    let lanes: u32 = rest.trim().strip_prefix('(')?.split('X').next()?.parse().ok()?;
    if !(0.0..1e6).contains(&gigabits) || lanes == 0 {
        return None;
    }
    Some(Rate { bits_per_second: (gigabits * 1e9) as u64, lanes })
}

/// `16.0 GT/s PCIe`, as transfers a second.
pub fn transfers(text: &str) -> Option<f64> {
    let number: f64 = text.split_once(" GT/s")?.0.parse().ok()?;
    (number > 0.0 && number < 1e4).then_some(number * 1e9)
}

/// `0x1a`
pub fn hexadecimal(text: &str) -> Option<f64> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok().map(f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let of = |gigabits: f64, lanes| Some(Rate { bits_per_second: (gigabits * 1e9) as u64, lanes });
        for (text, wanted) in [
            ("200 Gb/sec (4X HDR)", of(200.0, 4)),
            ("2.5 Gb/sec (1X SDR)", of(2.5, 1)),
            ("400 Gb/sec (4X NDR)", of(400.0, 4)),
            ("25 Gb/sec (1X EDR)", of(25.0, 1)),
            ("", None),
            ("200 Gb/sec", None),
            ("200 Gb/sec (0X)", None),
            ("nan Gb/sec (4X)", None),
            ("-1 Gb/sec (4X)", None),
        ] {
            assert_eq!(rate(text), wanted, "{text}");
        }
        assert_eq!(transfers("16.0 GT/s PCIe"), Some(16e9));
        assert_eq!(transfers("Unknown"), None);
        assert_eq!(hexadecimal("0x1a"), Some(26.0));
        assert_eq!(hexadecimal("26"), None);
    }
}
