//! The writer thread: takes all that waits, writes and syncs it once, and only then says so.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::segments::Wal;
use super::wal::{self, FrameAt};
use super::{Entry, Origin, Shared};
use crate::clock::millis;
use crate::durable::{self, Segment, WriteError};
use crate::store::lock;

/// Batches taken into one group, in bytes of their lines.
const GROUP_BYTES: usize = 8 << 20;
/// An old segment is sealed though nothing more comes.
const IDLE_LOOK: Duration = Duration::from_secs(10);

pub(super) struct Writer {
    shared: Arc<Shared>,
    next: u64,
    active: Option<Active>,
    buffer: Vec<u8>,
}

/// The segment being written.
struct Active {
    segment: Segment,
    began_ms: i64,
}

enum Work {
    Group(Vec<Entry>),
    /// Nothing came for a while.
    Idle,
    Closing,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, next: u64) -> Self {
        Self { shared, next, active: None, buffer: Vec::new() }
    }

    pub fn run(mut self) {
        loop {
            match self.take() {
                Work::Group(group) => {
                    let Some(frames) = self.persist(&group) else { break };
                    self.commit(group, frames);
                    self.seal_if_due();
                }
                Work::Idle => self.seal_if_due(),
                Work::Closing => break,
            }
        }
        self.seal();
    }

    fn take(&self) -> Work {
        let mut queue = lock(&self.shared.queue);
        while queue.entries.is_empty() {
            if queue.closing {
                return Work::Closing;
            }
            let (guard, timeout) =
                self.shared.wake.wait_timeout(queue, IDLE_LOOK).unwrap_or_else(PoisonError::into_inner);
            queue = guard;
            if timeout.timed_out() && queue.entries.is_empty() {
                return if queue.closing { Work::Closing } else { Work::Idle };
            }
        }
        if !queue.closing {
            drop(queue);
            std::thread::sleep(self.shared.options.linger);
            queue = lock(&self.shared.queue);
        }
        let mut bytes = 0;
        let mut group = Vec::new();
        while let Some(entry) = queue.entries.front() {
            bytes += entry.streams.iter().map(|stream| stream.text.len()).sum::<usize>();
            if bytes > GROUP_BYTES && !group.is_empty() {
                break;
            }
            group.extend(queue.entries.pop_front());
        }
        Work::Group(group)
    }

    /// Makes a group durable, trying until it is; says where its frames are. `None`: closing, and it can't be.
    fn persist(&mut self, group: &[Entry]) -> Option<Vec<FrameAt>> {
        if group.iter().all(|entry| entry.origin == Origin::Again) {
            return Some(Vec::new());
        }
        let shared = Arc::clone(&self.shared);
        let write = || {
            let written = self.write(group);
            if written.is_err() {
                self.abandon();
            }
            written
        };
        let pause = || durable::pause(&shared.queue, &shared.wake, |queue| queue.closing);
        shared.stall.until_written(write, pause)
    }

    /// Leaves the segment after a failed write or sync; the next try begins a new one.
    fn abandon(&mut self) {
        let Some(Active { segment, .. }) = self.active.take() else { return };
        let id = segment.id;
        let mut segments = lock(&self.shared.segments);
        if !segment.abandon() {
            segments.wals.remove(&id);
            return;
        }
        if let Some(wal) = segments.wals.get_mut(&id) {
            wal.sealed = true;
        }
        drop(segments);
        self.checkpoint(id);
        self.shared.sealed.notify_all();
    }

    fn write(&mut self, group: &[Entry]) -> Result<Vec<FrameAt>, WriteError> {
        let mut active = match self.active.take() {
            Some(active) => active,
            None => self.begin()?,
        };
        self.buffer.clear();
        let mut frames = Vec::with_capacity(group.len());
        for entry in group {
            frames.extend(wal::put(entry, &mut self.buffer));
        }
        frames.iter_mut().for_each(|frame| frame.offset += active.segment.bytes);
        let written = active.segment.append(&self.buffer);
        self.active = Some(active);
        if self.buffer.capacity() > 2 * GROUP_BYTES {
            self.buffer = Vec::new();
        }
        written.map(|()| frames)
    }

    fn begin(&mut self) -> Result<Active, WriteError> {
        let options = &self.shared.options;
        let segment = Segment::create(&mut self.next, wal::MAGIC, |id| wal::path(&options.dir, id))?;
        let now_ms = options.clock.now_ms();
        let wal = Wal {
            file: Arc::clone(&segment.file),
            bytes: segment.bytes,
            frames: Vec::new(),
            newest_ms: now_ms,
            sealed: false,
        };
        lock(&self.shared.segments).wals.insert(segment.id, wal);
        Ok(Active { segment, began_ms: now_ms })
    }

    /// Shows the lines to readers and tells those that brought them.
    fn commit(&self, group: Vec<Entry>, frames: Vec<FrameAt>) {
        {
            let mut marks = lock(&self.shared.marks);
            for entry in &group {
                if let Origin::Agent { node, life, sequence } = &entry.origin {
                    marks.raise(node, *life, *sequence, entry.received_ms);
                }
            }
        }
        if let Some(active) = &self.active
            && let Some(wal) = lock(&self.shared.segments).wals.get_mut(&active.segment.id)
        {
            wal.bytes = active.segment.bytes;
            wal.newest_ms = self.shared.options.clock.now_ms();
            wal.frames.extend(frames);
        }
        for entry in group {
            // Whoever brought it may have gone.
            let _ = entry.done.send(());
        }
        self.shared.grown.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn seal_if_due(&mut self) {
        let now_ms = self.shared.options.clock.now_ms();
        let options = &self.shared.options;
        let max_age_ms = millis(options.segment_age).min(millis(options.max_age) / 4);
        let due = self.active.as_ref().is_some_and(|active| {
            active.segment.bytes >= options.segment_bytes
                || now_ms.saturating_sub(active.began_ms) > max_age_ms
        });
        if due {
            self.seal();
        }
    }

    /// Ends the active segment: the packer may have it.
    fn seal(&mut self) {
        let Some(Active { segment, .. }) = self.active.take() else { return };
        if let Some(wal) = lock(&self.shared.segments).wals.get_mut(&segment.id) {
            wal.sealed = true;
        }
        self.checkpoint(segment.id);
        self.shared.sealed.notify_all();
        // Followers may be at its end.
        self.shared.grown.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Puts the watermarks up to a segment on disk; until that is done the packer leaves it.
    fn checkpoint(&self, id: u64) {
        let options = &self.shared.options;
        lock(&self.shared.marks).checkpoint(&options.dir, id, options.clock.now_ms());
    }
}
