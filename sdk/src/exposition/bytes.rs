//! Looking through bytes eight at a time: a guest has no vector instructions.

/// Where the first newline is.
#[inline]
pub fn newline(text: &[u8]) -> Option<usize> {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let (words, rest) = text.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let x = u64::from_le_bytes(*word) ^ (LOW * b'\n' as u64);
        let hit = x.wrapping_sub(LOW) & !x & HIGH;
        if hit != 0 {
            return Some(i * 8 + hit.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|b| *b == b'\n').map(|i| words.len() * 8 + i)
}

/// Whether `text` begins with `start`.
#[inline]
pub fn starts_with(text: &[u8], start: &[u8]) -> bool {
    let Some(text) = text.get(..start.len()) else { return false };
    let (a, a_rest) = text.as_chunks::<8>();
    let (b, b_rest) = start.as_chunks::<8>();
    a.iter().zip(b).all(|(a, b)| u64::from_le_bytes(*a) == u64::from_le_bytes(*b))
        && a_rest.iter().zip(b_rest).all(|(a, b)| a == b)
}

/// Quick, and good enough for a table whose size is bounded.
#[inline]
pub fn hash(text: &[u8]) -> u64 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |h: u64, word: u64| (h.rotate_left(5) ^ word).wrapping_mul(K);
    let (words, rest) = text.as_chunks::<8>();
    let h = words.iter().fold(text.len() as u64, |h, word| mix(h, u64::from_le_bytes(*word)));
    let tail = rest.iter().fold(0, |tail, byte| tail << 8 | u64::from(*byte));
    let h = mix(h, tail);
    (h ^ (h >> 32)).wrapping_mul(K)
}

pub const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Without leading blanks.
#[inline]
pub fn skip_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|b| is_blank(**b)).count();
    text.get(blanks..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newlines_are_found_wherever_they_are() {
        for len in 0..40 {
            let mut text = vec![0x8a_u8; len];
            assert_eq!(newline(&text), None);
            for at in 0..len {
                text[at] = b'\n';
                assert_eq!(newline(&text), Some(at), "{len} {at}");
                text[at] = 0x0b;
            }
        }
        assert_eq!(newline(b"\x0a\x0a\x0a\x0a\x0a\x0a\x0a\x0a"), Some(0));
        assert_eq!(newline(b"\x0b\x0a\x0b\x0a\x0b\x0a\x0b\x0a"), Some(1));
    }

    #[test]
    fn beginnings() {
        let text = b"0123456789abcdefghij";
        for n in 0..=text.len() {
            assert!(starts_with(text, &text[..n]));
            let mut other = text[..n].to_vec();
            for i in 0..n {
                other[i] ^= 1;
                assert!(!starts_with(text, &other), "{n} {i}");
                other[i] ^= 1;
            }
        }
        assert!(!starts_with(b"012", b"0123"));
    }
}
