//! What an earlier process left in the folder.

use tracing::{info, warn};

use crate::disk::Disk;
use crate::format::{Scan, SegmentHead, Source, read_segment_head};
use crate::position::{Corrupt, Position};
use crate::state::{Segment, State};

const PREFIX: &str = "seg-";
const SUFFIX: &str = ".spool";
/// 2020. A record from before was appended while the clock was not set: its age is not known, and taken for none.
const CLOCK_SET_MS: i64 = 1_577_836_800_000;

pub(crate) fn segment_name(number: u64) -> String {
    format!("{PREFIX}{number:020}{SUFFIX}")
}

pub(crate) fn segment_number(name: &str) -> Option<u64> {
    let number = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()?;
    (segment_name(number) == name).then_some(number)
}

struct Found {
    number: u64,
    /// None: the head is damaged, and so nothing in the segment can be used.
    head: Option<SegmentHead>,
    scan: Scan,
    /// Of the file, without what a crash cut short.
    bytes: u64,
}

/// Reads all segments: cuts what a crash left half written, counts what is damaged, keeps the rest for replay.
///
/// A file that can't be read (an I/O error) is left as it is and tried again by the next process.
pub(crate) fn recover(disk: &dyn Disk, life: u64, wall_ms: i64) -> std::io::Result<State> {
    let mut position = Position::load(disk).unwrap_or_default();
    let mut numbers: Vec<u64> = disk.list()?.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    let last_number = numbers.last().copied().unwrap_or(0).max(position.dropped);
    let (dropped, kept) = numbers.split_at(numbers.partition_point(|&number| number <= position.dropped));
    for &number in dropped {
        let _ = disk.remove(&segment_name(number));
    }
    let (mut found, mut unread) = (Vec::new(), None);
    for &number in kept {
        match examine(disk, number, position.corrupt.get(&number)) {
            Ok(segment) => found.push(segment),
            Err(error) => {
                warn!(file = segment_name(number), %error, "a segment of the spool can't be read");
                unread.get_or_insert(number);
            }
        }
    }
    position.corrupt.retain(|number, _| kept.contains(number));
    position.acked.retain(|known, _| {
        *known == life || found.iter().any(|f| f.head.as_ref().is_some_and(|head| head.life == *known))
    });

    let next_sequence = position.acked.get(&life).copied().unwrap_or(0) + 1;
    let mut state =
        State { position, unread, next_sequence, next_number: last_number + 1, ..State::default() };
    for (index, segment) in found.iter().enumerate() {
        take(disk, &mut state, segment, found.get(index + 1), wall_ms);
    }
    // A life is one process's. Should one be used again, its sequences go on.
    let used =
        state.segments.values().filter(|segment| segment.life == life).map(|segment| segment.next).max();
    state.next_sequence = state.next_sequence.max(used.unwrap_or(1));
    state.unsaved = true;
    let stats = state.stats(true);
    if stats.segments > 0 {
        info!(
            records = stats.records_pending,
            segments = stats.segments,
            bytes = stats.bytes,
            "the spool has records of before"
        );
    }
    Ok(state)
}

fn examine(disk: &dyn Disk, number: u64, counted: Option<&Corrupt>) -> std::io::Result<Found> {
    let file = disk.open(&segment_name(number))?;
    let end = file.len()?;
    let mut source = Source::new(file.clone());
    let head = read_segment_head(&mut source, end)?;
    let counted_from = counted.map_or(u64::MAX, |counted| counted.from);
    let mut scan = head.as_ref().map_or_else(|| Scan::of_damaged(counted_from), Scan::new);
    while scan.step(&mut source, end, false)?.is_some() {}
    if head.is_some() && scan.first_bad.is_none() && scan.offset < end {
        warn!(
            file = segment_name(number),
            bytes = end - scan.offset,
            "a crash cut the spool's last write short"
        );
        // It is left out in any case; cut, it need not be looked at again.
        let _ = file.cut(scan.offset);
    }
    let bytes = if scan.first_bad.is_some() { end } else { scan.offset };
    Ok(Found { number, head, scan, bytes })
}

fn take(disk: &dyn Disk, state: &mut State, found: &Found, next: Option<&Found>, wall_ms: i64) {
    let Found { number, head, scan, bytes } = found;
    let Some(head) = head else {
        warn!(file = segment_name(*number), "a segment of the spool has a damaged head and is left out");
        let counted = state.position.corrupt.get(number).map_or(0, |counted| counted.records);
        state.corrupt(*number, counted + scan.frames_lost, 0);
        // Nothing in it can be used by anyone.
        if state.position.save(disk).is_ok() {
            let _ = disk.remove(&segment_name(*number));
        }
        return;
    };
    let follows = next.filter(|next| next.number == number + 1).and_then(|next| next.head.as_ref());
    let after = follows.filter(|next| next.life == head.life).map(|next| next.first);
    let acked = state.acked_of(head.life);
    let first_lost = scan.first_bad.unwrap_or(scan.next).max(acked.saturating_add(1));
    // Damage before what was found damaged earlier may hide how far that went.
    let counted = state.position.corrupt.get(number).filter(|_| scan.first_bad.is_some());
    let since = counted.map_or(0, |counted| counted.records + counted.from.saturating_sub(first_lost));
    let lost = scan.lost(after, acked).max(since);
    state.corrupt(*number, lost, first_lost);
    let segment = Segment {
        life: head.life,
        first: head.first,
        next: scan.next,
        damaged: lost,
        bytes: *bytes,
        first_ms: head.time_ms,
        last_ms: scan.time_ms,
        last_elapsed_ms: if scan.time_ms < CLOCK_SET_MS {
            0
        } else {
            scan.time_ms.saturating_sub(wall_ms).min(0)
        },
    };
    state.segments.insert(*number, segment);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_are_ours() {
        assert_eq!(segment_number(&segment_name(7)), Some(7));
        for foreign in ["seg-7.spool", "seg-.spool", "lock", "position", "seg-0000000000000000007x.spool"] {
            assert_eq!(segment_number(foreign), None);
        }
    }
}
