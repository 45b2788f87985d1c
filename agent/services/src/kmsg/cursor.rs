//! Where a reader stands: the boot and the kernel's number of the last message that was looked at.

use std::fmt;

use super::Error;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    pub boot: String,
    /// 0 stands before the first message too: the kernel's first one is never of interest.
    pub sequence: u64,
}

impl Cursor {
    pub fn parse(text: &str) -> Result<Self, Error> {
        let parsed = text.split_once(':').and_then(|(boot, sequence)| {
            let plain = boot.len() == 36 && boot.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
            Some(Self { boot: plain.then(|| boot.to_owned())?, sequence: sequence.parse().ok()? })
        });
        parsed.ok_or_else(|| Error::Invalid(text.chars().take(64).collect()))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.boot, self.sequence)
    }
}

/// The running kernel's.
pub(super) fn boot_id() -> Result<String, Error> {
    const FILE: &str = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(FILE)
        .map_err(|error| Error::Unavailable(format!("{FILE} cannot be read: {error}")))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(boot in "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", sequence: u64) {
            let cursor = Cursor { boot, sequence };
            prop_assert_eq!(Cursor::parse(&cursor.to_string()), Ok(cursor));
        }

        #[test]
        fn foreign_texts_are_invalid_not_a_panic(text in "\\PC{0,80}") {
            if let Ok(cursor) = Cursor::parse(&text) {
                prop_assert_eq!(cursor.boot.len(), 36);
            }
        }
    }
}
