//! Times that a line says itself, where they are sure: with a zone, or since the epoch. Anything else is the time at which
//! the line was read.

use serde_json::Value;

const SECOND: u64 = 1_000_000_000;
/// 2000-01-01 and 2100-01-01: what lies outside is no time of a log line.
const FIRST: u64 = 946_684_800 * SECOND;
const LAST: u64 = 4_102_444_800 * SECOND;

/// RFC 3339 at the beginning of the text (a space for the `T` is allowed), as nanoseconds since the epoch. Gives also how
/// long it is.
pub fn rfc3339(text: &str) -> Option<(u64, usize)> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = bytes.get(from..to)?;
        digits.iter().all(u8::is_ascii_digit).then_some(())?;
        Some(digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
    };
    let is = |at: usize, wanted: &[u8]| bytes.get(at).is_some_and(|b| wanted.contains(b));
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let shape = is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":");
    if !shape || !(1..=12).contains(&month) || !(1..=days(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut at = 19;
    let mut nanos = 0;
    if is(at, b".,") {
        let digits = bytes.get(at + 1..)?.iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 || digits > 9 {
            return None;
        }
        let scale = 10_i64.pow(u32::try_from(9 - digits).ok()?);
        nanos = number(at + 1, at + 1 + digits)? * scale;
        at += 1 + digits;
    }
    let offset = if is(at, b"Zz") {
        at += 1;
        0
    } else if is(at, b"+-") {
        let sign = if is(at, b"-") { -1 } else { 1 };
        let hours = number(at + 1, at + 3)?;
        let colon = usize::from(is(at + 3, b":"));
        let minutes = number(at + 3 + colon, at + 5 + colon)?;
        at += 5 + colon;
        sign * (hours * 3600 + minutes * 60)
    } else {
        return None;
    };
    let seconds = epoch_days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    let time = u64::try_from(seconds).ok()?.checked_mul(SECOND)?.checked_add(u64::try_from(nanos).ok()?)?;
    plausible(time).map(|time| (time, at))
}

/// Of the field of a JSON line: RFC 3339, or seconds, milli-, micro- or nanoseconds since the epoch.
pub fn of_value(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => {
            let (time, length) = rfc3339(text)?;
            (length == text.len()).then_some(time)
        }
        Value::Number(number) => match number.as_u64() {
            Some(number) => [SECOND, 1_000_000, 1000, 1]
                .into_iter()
                .find_map(|unit| number.checked_mul(unit).and_then(plausible)),
            None => {
                let seconds = number.as_f64().filter(|s| *s > 0.0 && *s < 1e10)?;
                // The float has microseconds at best.
                plausible((seconds * 1e6) as u64 * 1000)
            }
        },
        _ => None,
    }
}

/// At the beginning of a line, in brackets or not, or after `time=`.
pub fn of_text(text: &str) -> Option<u64> {
    let start = text.trim_start_matches('[');
    rfc3339(start).map(|(time, _)| time).or_else(|| {
        let end = text.floor_char_boundary(64);
        let head = text.get(..end)?;
        let at = ["time=", "ts="].into_iter().find_map(|key| head.find(key).map(|at| at + key.len()))?;
        let rest = text.get(at..)?.trim_start_matches('"');
        rfc3339(rest).map(|(time, _)| time)
    })
}

pub fn plausible(time: u64) -> Option<u64> {
    (FIRST..LAST).contains(&time).then_some(time)
}

fn days(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the Gregorian calendar.
fn epoch_days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use picket_sdk::serde_json::json;

    use super::*;

    #[test]
    fn sure_times() {
        for (text, expected) in [
            ("2026-11-21T14:00:01.123456789Z x", Some(1_795_269_601_123_456_789)),
            ("2026-11-21 14:00:01Z", Some(1_795_269_601_000_000_000)),
            ("[2026-11-21T15:00:01.5+01:00] x", Some(1_795_269_601_500_000_000)),
            ("time=\"2026-11-21T14:00:01Z\" level=info", Some(1_795_269_601_000_000_000)),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800_000_000_000)),
            ("2023-02-29T00:00:00Z", None),
            ("2026-11-21 14:00:01,123 no zone", None),
            ("1026-11-21T14:00:01Z", None),
            ("INFO 11-21 14:00:01", None),
        ] {
            assert_eq!(of_text(text), expected, "{text}");
        }
        for value in [json!(1_795_269_601), json!(1_795_269_601_000_u64), json!(1_795_269_601_000_000_u64)] {
            assert_eq!(of_value(&value), Some(1_795_269_601_000_000_000), "{value}");
        }
        assert_eq!(of_value(&json!(1_795_269_601.5)), Some(1_795_269_601_500_000_000));
        assert_eq!(of_value(&json!(7)), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,80}") {
            let _ = of_text(&text);
        }

        #[test]
        fn days_go_up_by_one(year in 2000i64..2099, month in 1i64..=12, day in 1i64..28) {
            proptest::prop_assert_eq!(epoch_days(year, month, day) + 1, epoch_days(year, month, day + 1));
            let (next, of) = if month == 12 { (1, year + 1) } else { (month + 1, year) };
            let last = days(year, month);
            proptest::prop_assert_eq!(epoch_days(year, month, last) + 1, epoch_days(of, next, 1));
        }
    }
}
