//! The manifest inside a component: a custom section at its outermost level, so that it is among the signed bytes and one
//! file is the whole plugin.
//!
//! A component is a preamble and sections, each an id, a length and so many bytes; what is nested lies inside a section.
//! So the outermost level is read without knowing what any section means.

use crate::manifest::{Manifest, ManifestError, Need};

/// The custom section's name.
pub const SECTION: &str = "picket:manifest";
/// `\0asm`, version 13, layer 1: a component.
const PREAMBLE: [u8; 8] = *b"\0asm\x0d\0\x01\0";
/// A component with more sections than this was not made by a compiler.
const MAX_SECTIONS: usize = 1 << 20;

/// Why a file's outermost level can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    #[error("it is no WebAssembly component")]
    Kind,
    #[error("it breaks off or is damaged at byte {at}")]
    At { at: usize },
    #[error("it has {count} sections {SECTION}, one is allowed")]
    Twice { count: usize },
}

/// Why a manifest was not put into a component.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmbedError {
    #[error(transparent)]
    Damaged(#[from] Damaged),
    #[error("the manifest is not valid: {0}")]
    Manifest(#[from] ManifestError),
    #[error("the component has a manifest already")]
    Present,
}

/// The manifest's bytes; none where the component has none.
///
/// # Errors
/// [`Damaged`]
pub fn manifest_bytes(component: &[u8]) -> Result<Option<&[u8]>, Damaged> {
    if !component.starts_with(&PREAMBLE) {
        return Err(Damaged::Kind);
    }
    let mut reader = Reader { bytes: component, at: PREAMBLE.len() };
    let mut found = None;
    let mut count = 0;
    for _ in 0..MAX_SECTIONS {
        let Some(id) = reader.byte() else {
            return if count > 1 { Err(Damaged::Twice { count }) } else { Ok(found) };
        };
        let body = reader.counted()?;
        if id != 0 {
            continue;
        }
        let mut custom = Reader { bytes: body, at: 0 };
        let begin = reader.at - body.len();
        let name = custom.counted().map_err(|_| Damaged::At { at: begin })?;
        if name == SECTION.as_bytes() {
            count += 1;
            found = body.get(custom.at..);
        }
    }
    Err(Damaged::At { at: reader.at })
}

/// A component with this manifest inside.
///
/// # Errors
/// [`EmbedError`]: one of the two is not valid, or there is a manifest already.
pub fn embed(component: &[u8], manifest: &str) -> Result<Vec<u8>, EmbedError> {
    Manifest::<Need>::parse(manifest.as_bytes())?;
    if manifest_bytes(component)?.is_some() {
        return Err(EmbedError::Present);
    }
    let mut body = Vec::with_capacity(SECTION.len() + manifest.len() + 2);
    number(&mut body, SECTION.len());
    body.extend_from_slice(SECTION.as_bytes());
    body.extend_from_slice(manifest.as_bytes());
    let mut out = Vec::with_capacity(component.len() + body.len() + 8);
    out.extend_from_slice(component);
    out.push(0);
    number(&mut out, body.len());
    out.append(&mut body);
    Ok(out)
}

/// LEB128.
fn number(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied()?;
        self.at += 1;
        Some(byte)
    }

    /// A length and so many bytes.
    fn counted(&mut self) -> Result<&'a [u8], Damaged> {
        let begin = self.at;
        let damaged = Damaged::At { at: begin };
        let mut len = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte().ok_or(damaged)?;
            len |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let len = u32::try_from(len).map_err(|_| damaged)? as usize;
                let end = self.at.checked_add(len).ok_or(damaged)?;
                let body = self.bytes.get(self.at..end).ok_or(damaged)?;
                self.at = end;
                return Ok(body);
            }
        }
        Err(damaged)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) const MANIFEST: &str = "manifest = 1\nid = \"a\"\nversion = \"1.0.0\"\nworld = \"w\"\nlicense = \"l\"\ndescription = \"d\"\n";

    #[test]
    fn put_in_and_found() {
        let long = format!("{MANIFEST}# {}", "x".repeat(300));
        for manifest in [MANIFEST, &long] {
            // A section of another kind and another custom one before it.
            let mut component = PREAMBLE.to_vec();
            component.extend_from_slice(&[7, 2, 0xaa, 0xbb, 0, 3, 1, b'x', 0]);
            assert_eq!(manifest_bytes(&component), Ok(None));
            let whole = embed(&component, manifest).unwrap();
            assert_eq!(manifest_bytes(&whole), Ok(Some(manifest.as_bytes())));
            assert_eq!(embed(&whole, manifest), Err(EmbedError::Present));
        }
    }

    #[test]
    fn what_is_not_taken() {
        for (bytes, wanted) in [
            (&b""[..], Damaged::Kind),
            (b"\0asm\x01\0\0\0", Damaged::Kind),
            (b"\0asm\x0d\0\x01\0\x00", Damaged::At { at: 9 }),
            (b"\0asm\x0d\0\x01\0\x00\x05ab", Damaged::At { at: 9 }),
            (b"\0asm\x0d\0\x01\0\x00\xff\xff\xff\xff\xff\x01", Damaged::At { at: 9 }),
            (b"\0asm\x0d\0\x01\0\x00\x02\x05a", Damaged::At { at: 10 }),
        ] {
            assert_eq!(manifest_bytes(bytes), Err(wanted), "{bytes:02x?}");
        }
        let once = embed(&PREAMBLE, MANIFEST).unwrap();
        let twice = [once.as_slice(), once.get(8..).unwrap()].concat();
        assert_eq!(manifest_bytes(&twice), Err(Damaged::Twice { count: 2 }));
        assert!(matches!(embed(&PREAMBLE, "manifest = 2"), Err(EmbedError::Manifest(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut tail in proptest::collection::vec(any::<u8>(), 0..400), whole in any::<bool>()) {
            if whole {
                tail.splice(0..0, PREAMBLE);
            }
            let _ = manifest_bytes(&tail);
        }

        #[test]
        fn every_damage_of_the_length_is_noticed_or_harmless(cut in 0usize..100) {
            let whole = embed(&PREAMBLE, MANIFEST).unwrap();
            let cut = whole.get(..whole.len().saturating_sub(cut + 1)).unwrap();
            prop_assert_ne!(manifest_bytes(cut), Ok(Some(MANIFEST.as_bytes())));
        }
    }
}
