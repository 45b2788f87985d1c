//! The thread that writes: it alone changes files. What waits in the queue is written together and made durable by one
//! fsync. After a failed fsync the kernel may have forgotten which pages are dirty, so everything that isn't durable is
//! written again, at the same place, before the next.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tracing::{debug, error, info, warn};

use crate::disk::{File, is_full};
use crate::format::Packer;
use crate::recovery::segment_name;
use crate::spool::Shared;
use crate::state::{AGE, CAP, Entry, Segment, State};

/// What is written and made durable at once, at most (one record more than this).
const GROUP: usize = 1 << 20;
/// How long an acknowledgement may be only in memory.
const SAVE_AFTER_MS: i64 = 10_000;
/// How often ages are looked at.
const LOOK: Duration = Duration::from_secs(30);
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

pub(crate) struct Writer {
    shared: Arc<Shared>,
    active: Option<Active>,
    packer: Packer,
    buffer: Vec<u8>,
    saved_ms: i64,
}

struct Active {
    number: u64,
    /// None: the file is still to be made.
    file: Option<Arc<dyn File>>,
    /// Where the next bytes go: all before are durable.
    offset: u64,
}

impl Writer {
    pub fn new(shared: Arc<Shared>) -> Self {
        let saved_ms = -SAVE_AFTER_MS;
        Self { shared, active: None, packer: Packer::default(), buffer: Vec::new(), saved_ms }
    }

    /// Before the first record: what was found is kept only as far as age and size allow.
    pub fn tidy_found(&mut self) {
        self.tidy();
        self.make_room();
    }

    pub fn run(mut self) {
        loop {
            self.tidy();
            let (group, closing) = self.next_group();
            if group.is_empty() {
                if closing {
                    break;
                }
            } else if !self.persist(&group) {
                break;
            }
        }
        self.tidy();
        self.save();
        let mut state = self.shared.lock();
        state.closed = true;
        let why = state.last_error.clone().unwrap_or_else(|| "closed".into());
        drop(state);
        self.shared.progress.send_modify(|progress| progress.closed = Some(why.into()));
        self.shared.wake.notify_all();
    }

    /// Waits for records of one segment, or for something to tidy up (then there are none).
    fn next_group(&self) -> (Vec<Entry>, bool) {
        let mut state = self.shared.lock();
        if state.queue.is_empty() && !state.closing {
            let wait = if state.unsaved { Duration::from_millis(SAVE_AFTER_MS as u64) } else { LOOK };
            state = self.shared.wake.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        let (mut group, mut bytes) = (Vec::new(), 0);
        while let Some(entry) = state.queue.front() {
            if !group.is_empty() && (entry.header.is_some() || bytes + entry.bytes() > GROUP) {
                break;
            }
            bytes += entry.bytes();
            group.extend(state.queue.pop_front());
        }
        (group, state.closing)
    }

    /// Writes until it is durable. False: the spool was closed and the disk refused once more.
    fn persist(&mut self, group: &[Entry]) -> bool {
        let head = self.encode(group);
        let mut wait = RETRY_MIN;
        loop {
            let closing = self.shared.lock().closing;
            self.make_room();
            let Err(error) = self.write() else {
                self.done(group, head);
                return true;
            };
            self.complain(&error, group.len());
            if is_full(&error) && self.drop_oldest(CAP) {
                continue;
            }
            if closing {
                return false;
            }
            self.pause(wait);
            wait = (wait * 2).min(RETRY_MAX);
            self.tidy();
        }
    }

    /// Between two attempts; closing ends it.
    fn pause(&self, wait: Duration) {
        let state = self.shared.lock();
        let wake = &self.shared.wake;
        drop(
            wake.wait_timeout_while(state, wait, |state| !state.closing)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Fills the buffer. Returns how much of it is a new segment's head.
    fn encode(&mut self, group: &[Entry]) -> u64 {
        self.buffer.clear();
        self.buffer.shrink_to(GROUP);
        let mut head = 0;
        if let Some((first, header)) = group.first().and_then(|first| Some((first, first.header.as_ref()?))) {
            self.packer.segment(self.shared.life, first.sequence, first.time_ms, header, &mut self.buffer);
            head = self.buffer.len() as u64;
            let mut state = self.shared.lock();
            let number = state.next_number;
            state.next_number += 1;
            state.active = None;
            self.active = Some(Active { number, file: None, offset: 0 });
        }
        for entry in group {
            self.packer.frame(entry.sequence, entry.time_ms, &entry.record, &mut self.buffer);
        }
        head
    }

    fn write(&mut self) -> io::Result<()> {
        let disk = &*self.shared.disk;
        let Some(active) = &mut self.active else {
            return Err(io::Error::other("no segment was begun"));
        };
        if let Some(file) = &active.file {
            file.write_all_at(&self.buffer, active.offset)?;
            file.sync()?;
        } else {
            let file = disk.create(&segment_name(active.number))?;
            file.write_all_at(&self.buffer, 0)?;
            file.sync()?;
            disk.sync_dir()?;
            active.file = Some(file);
        }
        active.offset += self.buffer.len() as u64;
        Ok(())
    }

    fn done(&mut self, group: &[Entry], head: u64) {
        let (Some(active), Some(first), Some(last)) = (&self.active, group.first(), group.last()) else {
            return;
        };
        let mut state = self.shared.lock();
        let segment = state.segments.entry(active.number).or_insert_with(|| Segment {
            life: self.shared.life,
            first: first.sequence,
            next: first.sequence,
            damaged: 0,
            bytes: 0,
            first_ms: first.time_ms,
            last_ms: first.time_ms,
            last_elapsed_ms: first.elapsed_ms,
        });
        segment.next = last.sequence + 1;
        segment.bytes = active.offset;
        segment.last_ms = last.time_ms;
        segment.last_elapsed_ms = last.elapsed_ms;
        state.active = Some(active.number);
        state.unwritten -= group.len() as u64;
        state.unwritten_bytes -= group.iter().map(Entry::bytes).sum::<usize>();
        state.unwritten_since_ms = state.queue.front().map_or(last.time_ms, |entry| entry.time_ms);
        // What compression saved can still be filled, unless a later segment was begun meanwhile.
        if state.queue.iter().all(|entry| entry.header.is_none()) {
            let queued: usize = state.queue.iter().map(Entry::bytes).sum();
            let header = if head > 0 { head } else { 0 };
            state.fill = state.fill.map(|_| (active.offset - header).saturating_add(queued as u64));
        }
        if state.last_error.take().is_some() {
            info!("the spool writes again");
        }
        drop(state);
        self.shared.progress.send_modify(|progress| progress.durable = last.sequence);
        self.shared.wake.notify_all();
    }

    fn complain(&self, error: &io::Error, records: usize) {
        let text = format!("cannot write to the spool in {}: {error}", self.shared.options.dir.display());
        let mut state = self.shared.lock();
        if state.last_error.as_ref() != Some(&text) {
            error!(records, "{text}; trying again");
        }
        state.last_error = Some(text);
    }

    /// Before a write: so many of the oldest segments go that the new bytes fit.
    fn make_room(&mut self) {
        let max_bytes = self.shared.options.max_bytes;
        while self.shared.lock().bytes().saturating_add(self.buffer.len() as u64) > max_bytes {
            if !self.drop_oldest(CAP) {
                // Only the one being written is left: let it end, so that it can go.
                self.shared.lock().fill = None;
                break;
            }
        }
    }

    /// The oldest segment goes, its records counted. False: there is none but the active one.
    fn drop_oldest(&mut self, reason: &'static str) -> bool {
        let mut state = self.shared.lock();
        let Some(number) = state.oldest_sealed() else { return false };
        let Some(segment) = state.segments.remove(&number) else { return false };
        let records = state.pending(&segment);
        state.lose(reason, records);
        state.position.dropped = state.position.dropped.max(number);
        forget(&mut state, number, segment.life, self.shared.life);
        drop(state);
        if records > 0 {
            warn!(reason, records, file = segment_name(number), "the spool dropped its oldest records");
        }
        self.save();
        self.remove(number);
        true
    }

    /// Removes what is acknowledged or too old, and saves the position when it is time.
    fn tidy(&mut self) {
        let now_ms = self.shared.clock.elapsed_ms();
        let max_age_ms = i64::try_from(self.shared.options.max_age.as_millis()).unwrap_or(i64::MAX);
        loop {
            let state = self.shared.lock();
            let old = state.oldest_sealed().and_then(|number| state.segments.get(&number));
            let old = old.is_some_and(|segment| now_ms.saturating_sub(segment.last_elapsed_ms) > max_age_ms);
            drop(state);
            if !(old && self.drop_oldest(AGE)) {
                break;
            }
        }
        let mut state = self.shared.lock();
        let done: Vec<u64> = state
            .segments
            .iter()
            .filter(|&(number, segment)| Some(*number) != state.active && state.pending(segment) == 0)
            .map(|(number, _)| *number)
            .collect();
        for number in &done {
            if let Some(segment) = state.segments.remove(number) {
                forget(&mut state, *number, segment.life, self.shared.life);
            }
        }
        if !done.is_empty() {
            // Said before they are removed: a crash can bring a removed file back, and with it bytes beyond the limit.
            let active = self.active.as_ref().map(|active| active.number);
            let kept = state.segments.keys().next().copied().into_iter().chain(active).chain(state.unread);
            let all_before = kept.min().unwrap_or(state.next_number).saturating_sub(1);
            state.position.dropped = state.position.dropped.max(all_before);
        }
        let due = !done.is_empty() || now_ms.saturating_sub(self.saved_ms) >= SAVE_AFTER_MS;
        drop(state);
        if due {
            self.save();
        }
        for number in done {
            debug!(file = segment_name(number), "all of a segment is acknowledged");
            self.remove(number);
        }
    }

    fn remove(&self, number: u64) {
        if let Err(error) = self.shared.disk.remove(&segment_name(number)) {
            warn!(file = segment_name(number), %error, "a segment of the spool can't be removed; the next start tries again");
        }
    }

    /// Saves the position. A failure is tried again with the next occasion.
    fn save(&mut self) {
        let mut state = self.shared.lock();
        if !state.unsaved {
            return;
        }
        state.unsaved = false;
        let position = state.position.clone();
        drop(state);
        self.saved_ms = self.shared.clock.elapsed_ms();
        if let Err(error) = position.save(&*self.shared.disk) {
            debug!(%error, "the spool's position can't be saved");
            self.shared.lock().unsaved = true;
        }
    }
}

/// What is only remembered for a segment, or for an earlier life, goes with it.
fn forget(state: &mut State, number: u64, life: u64, own: u64) {
    state.position.corrupt.remove(&number);
    state.unsaved = true;
    if life != own && state.segments.values().all(|segment| segment.life != life) {
        state.position.acked.remove(&life);
    }
}
