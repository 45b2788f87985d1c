//! What is remembered of a file, and how it is written down: who it is and how far it was read.
//!
//! A file is known by device, inode and its first bytes: an inode is used again for another file, and a file that is
//! emptied and written anew keeps its inode. The last bytes before the place that was read to tell whether that place is
//! still the same one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

/// So many first bytes know a file.
const HEAD: usize = 1024;
/// So many bytes before a place know the place.
const TAIL: usize = 64;

/// A file, whatever its name is by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct FileId {
    pub device: u64,
    pub inode: u64,
}

/// A place in a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub offset: u64,
    /// Within a line that was too long: what is left of it is not handed out.
    pub skipping: bool,
}

/// What stands in the first bytes, and before a place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Print {
    head_length: usize,
    head: u32,
    tail: u32,
}

/// How a file is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It stands at its path.
    Following,
    /// Its path is another file's by now, or nothing's: what is left is read.
    Leaving,
    /// A copy of a followed file: read only if that one is emptied.
    Aside,
    /// Read to its end, and no longer followed; remembered for as long as it is there.
    Done,
}

/// The line that stands for a file in the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub position: Position,
    pub print: Print,
    pub phase: Phase,
}

impl Print {
    /// # Errors
    /// The file can't be read.
    pub fn of(file: &File, offset: u64) -> io::Result<Self> {
        let mut head = [0; HEAD];
        let head_length = read(file, &mut head, 0)?;
        let head = crc(head.get(..head_length).unwrap_or_default());
        Ok(Self { head_length, head, tail: tail(file, offset)? })
    }

    /// Whether the file still begins as it did, and the same bytes stand before the place.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn fits(&self, file: &File, offset: u64) -> io::Result<bool> {
        let mut head = [0; HEAD];
        let Some(room) = head.get_mut(..self.head_length) else { return Ok(false) };
        let length = read(file, room, 0)?;
        Ok(length == self.head_length && crc(room) == self.head && tail(file, offset)? == self.tail)
    }

    /// Whether these bytes stand before the place; true where they are too few to tell.
    pub fn ends_with(&self, bytes: &[u8], offset: u64) -> bool {
        let known = usize::try_from(offset).unwrap_or(TAIL).min(TAIL);
        let end = bytes.len().checked_sub(known).and_then(|from| bytes.get(from..));
        end.is_none_or(|end| crc(end) == self.tail)
    }

    /// Enough is known to tell a copy from a file that begins alike by chance.
    pub const fn telling(&self) -> bool {
        self.head_length >= 32
    }
}

impl Mark {
    pub fn text(&self) -> String {
        let Self { position, print, phase } = self;
        let phase = match phase {
            Phase::Following => 'f',
            Phase::Leaving => 'l',
            Phase::Aside => 'a',
            Phase::Done => 'd',
        };
        format!(
            "1 {phase} {} {} {} {:08x} {:08x}",
            position.offset,
            u8::from(position.skipping),
            print.head_length,
            print.head,
            print.tail
        )
    }

    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        if words.next()? != "1" {
            return None;
        }
        let phase = match words.next()? {
            "f" => Phase::Following,
            "l" => Phase::Leaving,
            "a" => Phase::Aside,
            "d" => Phase::Done,
            _ => return None,
        };
        let offset = words.next()?.parse().ok()?;
        let skipping = words.next()? == "1";
        let head_length = words.next()?.parse().ok().filter(|length| *length <= HEAD)?;
        let head = u32::from_str_radix(words.next()?, 16).ok()?;
        let tail = u32::from_str_radix(words.next()?, 16).ok()?;
        Some(Self {
            position: Position { offset, skipping },
            print: Print { head_length, head, tail },
            phase,
        })
    }
}

/// The key of a file among the cursors.
pub(super) fn key(id: FileId, path: &str) -> String {
    format!("file {:x}:{:x} {path}", id.device, id.inode)
}

pub(super) fn parse_key(key: &str) -> Option<(FileId, &str)> {
    let (id, path) = key.strip_prefix("file ")?.split_once(' ')?;
    let (device, inode) = id.split_once(':')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some((FileId { device: number(device)?, inode: number(inode)? }, path))
}

fn tail(file: &File, offset: u64) -> io::Result<u32> {
    let mut bytes = [0; TAIL];
    let length = usize::try_from(offset).unwrap_or(TAIL).min(TAIL);
    let Some(room) = bytes.get_mut(..length) else { return Ok(0) };
    let read = read(file, room, offset - length as u64)?;
    Ok(crc(room.get(..read).unwrap_or_default()))
}

/// Fills the buffer, unless the file ends before.
pub(super) fn read(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
        match file.read_at(room, offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

fn crc(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(offset: u64, skipping: bool, head_length in 0usize..=HEAD, head: u32, tail: u32, phase in 0usize..4) {
            let phase = [Phase::Following, Phase::Leaving, Phase::Aside, Phase::Done][phase];
            let mark = Mark { position: Position { offset, skipping }, print: Print { head_length, head, tail }, phase };
            prop_assert_eq!(Mark::parse(&mark.text()), Some(mark));
        }

        #[test]
        fn any_text_is_answered(text in ".{0,60}") {
            let _ = (Mark::parse(&text), parse_key(&text));
        }

        #[test]
        fn keys(device: u64, inode: u64, path in "/[a-z /]{0,20}") {
            let id = FileId { device, inode };
            let key = key(id, &path);
            prop_assert_eq!(parse_key(&key), Some((id, path.as_str())));
        }
    }

    #[test]
    fn a_file_is_known_by_its_head_and_its_place() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"first line of this file\nsecond line\n").unwrap();
        let print = Print::of(&file, 24).unwrap();
        file.write_all(b"third line\n").unwrap();
        assert!(print.fits(&file, 24).unwrap());
        assert!(!print.fits(&file, 23).unwrap());
        file.set_len(0).unwrap();
        assert!(!print.fits(&file, 24).unwrap());
        file.write_at(b"First line of this file\nsecond line\nthird line\n", 0).unwrap();
        assert!(!print.fits(&file, 24).unwrap());
    }
}
