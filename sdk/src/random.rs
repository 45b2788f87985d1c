//! Random bytes of the node's own source.

use crate::sys;

/// Cryptographically random bytes, 4,096 at most.
pub fn bytes(len: u32) -> Vec<u8> {
    sys::random(len)
}

/// A random number.
pub fn number() -> u64 {
    let mut word = [0; 8];
    for (to, from) in word.iter_mut().zip(bytes(8)) {
        *to = from;
    }
    u64::from_le_bytes(word)
}
