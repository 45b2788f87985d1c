//! What is known of the spool, behind one lock that is never held over a disk's work.

use std::collections::{BTreeMap, VecDeque};

use tracing::warn;

use crate::position::{Corrupt, Position};
use crate::recovery::segment_name;

pub(crate) const CAP: &str = "cap";
pub(crate) const AGE: &str = "age";
pub(crate) const CORRUPT: &str = "corrupt";
pub(crate) const WRITE_ERROR: &str = "write-error";
pub(crate) const STALL: &str = "stall";
pub(crate) const LOSS_REASONS: [&str; 5] = [CAP, AGE, CORRUPT, WRITE_ERROR, STALL];

/// How the spool does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Of the segments on disk.
    pub bytes: u64,
    pub segments: u64,
    /// Not acknowledged yet, those that wait to be written among them.
    pub records_pending: u64,
    /// What waits to be written, in bytes.
    pub unwritten_bytes: u64,
    /// About when the oldest pending record was appended, Unix ms (exact at a segment's ends, between them by its place).
    pub oldest_ms: Option<i64>,
    /// Since this spool was opened.
    pub appended: u64,
    /// Since this spool was opened, of all lives.
    pub acked: u64,
    /// Records, by reason: `cap`, `age`, `corrupt`, `write-error`, `stall`. Since the folder was made.
    pub lost: BTreeMap<&'static str, u64>,
    /// False: in memory.
    pub durable: bool,
    /// What is wrong now; none once writing works again.
    pub last_error: Option<String>,
}

/// One segment on disk.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub life: u64,
    /// Its records are `first..next`.
    pub first: u64,
    pub next: u64,
    /// Of its records, those that were found damaged when the spool was opened; they are not in `first..next`.
    pub damaged: u64,
    /// How much of the file is durable.
    pub bytes: u64,
    /// When its first and last record were appended, Unix ms.
    pub first_ms: i64,
    pub last_ms: i64,
    /// When its last record was appended, by the spool's own clock; before 0 for what was found.
    pub last_elapsed_ms: i64,
}

/// A record that waits to be written.
pub(crate) struct Entry {
    pub sequence: u64,
    pub time_ms: i64,
    pub elapsed_ms: i64,
    pub record: Box<[u8]>,
    /// A new segment begins with this record.
    pub header: Option<Vec<u8>>,
}

impl Entry {
    pub fn bytes(&self) -> usize {
        self.record.len() + self.header.as_ref().map_or(0, Vec::len)
    }
}

#[derive(Default)]
pub(crate) struct State {
    pub segments: BTreeMap<u64, Segment>,
    /// The first file that could not be read: it is left to the next process.
    pub unread: Option<u64>,
    /// The one that is written to.
    pub active: Option<u64>,
    pub position: Position,
    /// The position on disk is older.
    pub unsaved: bool,

    pub queue: VecDeque<Entry>,
    /// Records and bytes that are not durable yet, those being written among them.
    pub unwritten: u64,
    pub unwritten_bytes: usize,
    pub unwritten_since_ms: i64,
    pub next_sequence: u64,
    pub next_number: u64,
    /// Bytes in the segment that the last appended record goes to; none: the next begins a new one.
    pub fill: Option<u64>,

    pub appended: u64,
    pub acked: u64,
    pub last_error: Option<String>,
    pub closing: bool,
    pub closed: bool,
}

impl State {
    pub fn lose(&mut self, reason: &'static str, records: u64) {
        if records > 0 {
            *self.position.lost.entry(reason).or_default() += records;
            self.unsaved = true;
        }
    }

    /// Notes how many records of a segment are damaged, the first of them `from`, however often that is found.
    pub fn corrupt(&mut self, number: u64, records: u64, from: u64) {
        let known = self.position.corrupt.get(&number).map_or(0, |known| known.records);
        if records > known {
            warn!(file = segment_name(number), records, "records of the spool are damaged and are left out");
            self.position.corrupt.insert(number, Corrupt { records, from });
            self.lose(CORRUPT, records - known);
        }
    }

    /// From this record on, a segment turned out to be damaged while it was read.
    pub fn damaged(&mut self, number: u64, bad: u64) {
        let Some(segment) = self.segments.get(&number) else { return };
        let first = self.first_pending(segment).max(bad);
        let records = segment.damaged + segment.next.saturating_sub(first);
        self.corrupt(number, records, first);
        if self.active == Some(number) {
            // What comes now is safe in a segment of its own.
            self.fill = None;
        } else if let Some(segment) = self.segments.get_mut(&number) {
            segment.next = segment.next.min(bad);
        }
    }

    pub fn acked_of(&self, life: u64) -> u64 {
        self.position.acked.get(&life).copied().unwrap_or(0)
    }

    /// The first record of a segment that is not acknowledged; `next` if there is none.
    pub fn first_pending(&self, segment: &Segment) -> u64 {
        segment.first.max(self.acked_of(segment.life).saturating_add(1)).min(segment.next)
    }

    pub fn pending(&self, segment: &Segment) -> u64 {
        segment.next - self.first_pending(segment)
    }

    /// The oldest segment that may be dropped.
    pub fn oldest_sealed(&self) -> Option<u64> {
        self.segments.keys().copied().find(|number| Some(*number) != self.active)
    }

    pub fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }

    pub fn stats(&self, durable: bool) -> Stats {
        let oldest = self.segments.values().find(|segment| self.pending(segment) > 0);
        let oldest_ms = match oldest {
            Some(segment) => Some(self.oldest_ms(segment)),
            None => (self.unwritten > 0).then_some(self.unwritten_since_ms),
        };
        Stats {
            bytes: self.bytes(),
            segments: self.segments.len() as u64,
            records_pending: self.unwritten + self.segments.values().map(|s| self.pending(s)).sum::<u64>(),
            unwritten_bytes: self.unwritten_bytes as u64,
            oldest_ms,
            appended: self.appended,
            acked: self.acked,
            lost: self.position.lost.clone(),
            durable,
            last_error: self.last_error.clone(),
        }
    }

    fn oldest_ms(&self, segment: &Segment) -> i64 {
        let steps = i128::from(segment.next - segment.first).max(2) - 1;
        let step = i128::from(self.first_pending(segment) - segment.first);
        let span = i128::from(segment.last_ms) - i128::from(segment.first_ms);
        (i128::from(segment.first_ms) + span * step / steps) as i64
    }
}
