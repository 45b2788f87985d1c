//! SHA-256, the name of a file's bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Printed as 64 hexadecimal digits; in documents as `sha256:` and the digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no SHA-256 digest: 64 hexadecimal digits are, `sha256:` may stand before them")]
pub struct InvalidDigest(String);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        let mut digest = [0; 32];
        for (to, from) in digest.iter_mut().zip(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref()) {
            *to = *from;
        }
        Self(digest)
    }

    /// The bytes, 32 of them.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Of 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// With its algorithm, as registries and documents write it.
    pub fn tagged(&self) -> String {
        format!("sha256:{self}")
    }

    /// As much of it as a person compares.
    pub fn short(&self) -> String {
        self.to_string().chars().take(12).collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let invalid = || InvalidDigest(text.chars().take(80).collect());
        let digits = text.strip_prefix("sha256:").unwrap_or(text).as_bytes();
        if digits.len() != 64 {
            return Err(invalid());
        }
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|v| u8::try_from(v).ok());
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            match pair {
                [high, low] => {
                    *byte = value(*high).zip(value(*low)).map(|(h, l)| h << 4 | l).ok_or_else(invalid)?;
                }
                _ => return Err(invalid()),
            }
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.tagged())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let digest = Digest::of(b"");
        assert_eq!(digest.to_string(), empty);
        assert_eq!(digest.short(), "e3b0c44298fc");
        assert_eq!(empty.parse(), Ok(digest));
        assert_eq!(digest.tagged().parse(), Ok(digest));
        assert_eq!(empty.to_uppercase().parse(), Ok(digest));
        assert_eq!(serde_json::from_str::<Digest>(&serde_json::to_string(&digest).unwrap()).unwrap(), digest);
        let shorter: String = empty.chars().skip(1).collect();
        for bad in ["", "sha256:", &shorter, &format!("{empty}0"), &empty.replace('e', "g"), "sha512:00"] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
