//! The kernel's text files, read as bytes and without copying.

use picket_sdk::{Collect, Failure};

/// The lines, without their ends; an empty last one is none.
pub fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|b| *b == b'\n').filter(|line| !line.is_empty())
}

/// The words between blanks.
pub fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|b| *b == b' ' || *b == b'\t').filter(|word| !word.is_empty())
}

/// A decimal number without a sign.
pub fn unsigned(word: &[u8]) -> Option<u64> {
    if word.is_empty() {
        return None;
    }
    word.iter().try_fold(0u64, |n, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 { None } else { n.checked_mul(10)?.checked_add(u64::from(digit)) }
    })
}

/// A decimal number.
pub fn decimal(word: &[u8]) -> Option<f64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// As text, where it is.
pub fn utf8(word: &[u8]) -> Option<&str> {
    std::str::from_utf8(word).ok()
}

/// What could not be understood in a file: counted, and said once.
pub struct Malformed<'a> {
    file: &'a str,
    count: usize,
    first: String,
}

impl<'a> Malformed<'a> {
    pub fn new(file: &'a str) -> Self {
        Self { file, count: 0, first: String::new() }
    }

    pub fn add(&mut self, line: &[u8]) {
        if self.count == 0 {
            self.first = String::from_utf8_lossy(line.get(..80).unwrap_or(line)).into_owned();
        }
        self.count += 1;
    }

    pub fn report(self, c: &mut Collect<'_>) {
        if self.count > 0 {
            c.failed(Failure::new(
                "parse",
                format!("{}: {} lines not understood; the first: {:?}", self.file, self.count, self.first),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (word, want) in [
            ("0", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("-1", None),
            ("1x", None),
        ] {
            assert_eq!(unsigned(word.as_bytes()), want, "{word:?}");
        }
    }

    #[test]
    fn words_of_a_line() {
        assert_eq!(words(b"  a\t b ").collect::<Vec<_>>(), [b"a", b"b"]);
    }
}
