//! What is acknowledged and what was lost: a small text file, replaced as a whole.
//!
//! It is written before a segment is removed, and names the highest one up to which all are, so that a crash between the
//! two neither forgets a loss nor counts it twice, nor brings back what was acknowledged. Acknowledgements within a
//! segment are written with the next occasion.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use crate::disk::Disk;
use crate::state::LOSS_REASONS;

const NAME: &str = "position";
const NEW: &str = "position.new";
const FIRST_LINE: &str = "picket-spool-position 1";
/// Far more than lives and segments give.
const MAX_BYTES: u64 = 4 << 20;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// By life: all up to this sequence.
    pub acked: BTreeMap<u64, u64>,
    pub lost: BTreeMap<&'static str, u64>,
    /// By segment: which of its records were counted as corrupt.
    pub corrupt: BTreeMap<u64, Corrupt>,
    /// Segments up to this number are gone: acknowledged, or dropped and their records counted.
    pub dropped: u64,
}

/// What of a segment was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Corrupt {
    pub records: u64,
    /// None of them is before this sequence.
    pub from: u64,
}

impl Position {
    /// `None`: there is none, or it is damaged; then nothing is acknowledged and nothing was lost, as far as is known.
    pub fn load(disk: &dyn Disk) -> Option<Self> {
        let file = disk.open(NAME).ok()?;
        let length = file.len().ok().filter(|&length| length <= MAX_BYTES)?;
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        let mut at = 0;
        while at < bytes.len() {
            match file.read_at(&mut bytes[at..], at as u64).ok()? {
                0 => return None,
                count => at += count,
            }
        }
        Self::parse(std::str::from_utf8(&bytes).ok()?)
    }

    /// Durable on return.
    pub fn save(&self, disk: &dyn Disk) -> io::Result<()> {
        let file = disk.create(NEW)?;
        file.write_all_at(self.text().as_bytes(), 0)?;
        file.sync()?;
        disk.rename(NEW, NAME)?;
        disk.sync_dir()
    }

    fn text(&self) -> String {
        let mut text = format!("{FIRST_LINE}\ndropped {}\n", self.dropped);
        for (life, sequence) in &self.acked {
            let _ = writeln!(text, "acked {life:016x} {sequence}");
        }
        for (reason, count) in &self.lost {
            let _ = writeln!(text, "lost {reason} {count}");
        }
        for (segment, Corrupt { records, from }) in &self.corrupt {
            let _ = writeln!(text, "corrupt {segment} {records} {from}");
        }
        let sum = crc32fast::hash(text.as_bytes());
        let _ = writeln!(text, "sum {sum:08x}");
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let (body, sum) = text.rsplit_once("sum ")?;
        if u32::from_str_radix(sum.trim_end(), 16).ok()? != crc32fast::hash(body.as_bytes()) {
            return None;
        }
        let mut lines = body.lines();
        if lines.next()? != FIRST_LINE {
            return None;
        }
        let mut position = Self::default();
        for line in lines {
            let mut words = line.split(' ');
            match (words.next()?, words.next()?, words.next()) {
                ("dropped", segment, None) => position.dropped = segment.parse().ok()?,
                ("acked", life, Some(sequence)) => {
                    position.acked.insert(u64::from_str_radix(life, 16).ok()?, sequence.parse().ok()?);
                }
                ("lost", reason, Some(count)) => {
                    // A reason of a later version is forgotten.
                    if let Some(reason) = LOSS_REASONS.into_iter().find(|known| *known == reason) {
                        position.lost.insert(reason, count.parse().ok()?);
                    }
                }
                ("corrupt", segment, Some(count)) => {
                    // A version before this one did not write from where.
                    let from = words.next().map_or(Ok(0), str::parse).ok()?;
                    position
                        .corrupt
                        .insert(segment.parse().ok()?, Corrupt { records: count.parse().ok()?, from });
                }
                _ => {}
            }
        }
        Some(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use crate::state::{CAP, CORRUPT};

    #[test]
    fn what_is_saved_is_loaded() {
        let disk = Memory::default();
        assert_eq!(Position::load(&disk), None);
        let position = Position {
            acked: [(u64::MAX, 7), (3, u64::MAX)].into(),
            lost: [(CAP, 5), (CORRUPT, 1)].into(),
            corrupt: [(9, Corrupt { records: 1, from: 4 })].into(),
            dropped: 8,
        };
        position.save(&disk).unwrap();
        assert_eq!(Position::load(&disk), Some(position.clone()));
        assert_eq!(disk.list().unwrap(), [NAME]);

        let text = position.text();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let parsed = String::from_utf8(bytes).ok().and_then(|text| Position::parse(&text));
            assert!(parsed.is_none() || parsed.as_ref() == Some(&position), "{at}");
            assert!(text.get(..at).and_then(Position::parse).is_none() || at + 1 == text.len());
        }
    }
}
