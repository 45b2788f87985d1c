//! Numbers as pages write them.

use super::bytes::is_blank;

/// The number that `text` begins with, and how many bytes it has; it ends at a blank or the line's end.
#[inline]
pub fn read(text: &[u8]) -> Option<(f64, usize)> {
    match short(text) {
        Some(found) => Some(found),
        None => long(text),
    }
}

const EXACT: u64 = 1 << 53;
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

const fn ends(byte: u8) -> bool {
    is_blank(byte) || matches!(byte, b'\n' | b'\r')
}

/// Plain decimals that fit a double exactly: digits and the power of ten both do, so that one multiplication or
/// division rounds once, as it must (Clinger's fast path).
#[inline]
fn short(text: &[u8]) -> Option<(f64, usize)> {
    let mut at = 0;
    let negative = text.first() == Some(&b'-');
    if negative {
        at += 1;
    }
    let (mut digits, mut places, mut seen, mut point) = (0_u64, 0_usize, 0_usize, false);
    loop {
        match text.get(at) {
            Some(digit @ b'0'..=b'9') => {
                digits = digits * 10 + u64::from(digit - b'0');
                seen += 1;
                places += usize::from(point);
            }
            Some(b'.') if !point => point = true,
            None => break,
            Some(byte) if ends(*byte) => break,
            Some(_) => return None,
        }
        if seen > 18 {
            return None;
        }
        at += 1;
    }
    if seen == 0 || digits > EXACT {
        return None;
    }
    let value = digits as f64 / POWERS.get(places)?;
    Some((if negative { -value } else { value }, at))
}

#[cold]
fn long(text: &[u8]) -> Option<(f64, usize)> {
    let len = text.iter().position(|b| ends(*b)).unwrap_or(text.len());
    // No double needs more to be written, whoever writes it.
    let word = text.get(..len).filter(|w| !w.is_empty() && w.len() <= 400)?;
    let value = std::str::from_utf8(word).ok()?.parse().ok()?;
    Some((value, len))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words() {
        for (text, value) in [
            ("0", 0.0),
            ("-1.5 ", -1.5),
            ("1e3\n", 1000.0),
            ("+Inf", f64::INFINITY),
            ("-Inf\r\n", f64::NEG_INFINITY),
            ("1.7952471799493153e+09\t", 1_795_247_179.949_315_3),
            ("18446744073709551616", 18_446_744_073_709_551_616.0),
            ("9007199254740993", 9_007_199_254_740_993.0),
            (".5", 0.5),
            ("5.", 5.0),
        ] {
            assert_eq!(read(text.as_bytes()).unwrap().0.to_bits(), f64::to_bits(value), "{text}");
        }
        assert!(read(b"NaN").unwrap().0.is_nan());
        assert!(read(b"-0").unwrap().0.is_sign_negative());
        for bad in ["", " ", "x", "1x", "--1", ".", "-", "1.2.3", "0x10", "1_000", "<html>"] {
            assert_eq!(read(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn as_the_standard_library_reads(value: f64, shape in 0..4) {
            prop_assume!(!value.is_nan());
            let text = match shape {
                0 => format!("{value}"),
                1 => format!("{value:?}"),
                2 => format!("{value:e}"),
                _ => format!("{:.3}", value % 1e6),
            };
            let wanted: f64 = text.parse().unwrap();
            let (got, len) = read(text.as_bytes()).unwrap();
            prop_assert_eq!(got.to_bits(), wanted.to_bits());
            prop_assert_eq!(len, text.len());
        }

        #[test]
        fn small_decimals(digits in 0..10_000_000_000_000_000_u64, places in 0..25_usize) {
            let mut text = digits.to_string();
            while text.len() <= places {
                text.insert(0, '0');
            }
            text.insert(text.len() - places, '.');
            let wanted: f64 = text.parse().unwrap();
            prop_assert_eq!(read(text.as_bytes()).unwrap().0.to_bits(), wanted.to_bits());
        }

        #[test]
        fn any_bytes(text: Vec<u8>) {
            let _ = read(&text);
        }
    }
}
