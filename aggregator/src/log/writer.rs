//! The log's two threads: one writes and syncs, one compresses sealed segments and keeps the bound.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use super::dictionary::Dictionary;
use super::frame::MAGIC;
use super::segment::{self, SegmentInfo};
use super::{Entry, Shared, telemetry};
use crate::durable::{self, Packer, Segment, WriteError};
use crate::store::lock;

/// Batches taken into one group, by the bytes that they hold in memory.
const GROUP_BYTES: usize = 16 << 20;
/// A segment is sealed at this age even when small, so that the age bound can drop it.
const MAX_SEGMENT_AGE_MS: i64 = 3600 * 1000;
const COMPRESSION_LEVEL: i32 = 1;

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
    dictionary: Dictionary,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, next: u64) -> Self {
        Self { shared, next, active: None, buffer: Vec::new() }
    }

    pub fn run(mut self) {
        while let Some(group) = self.take() {
            if !self.persist(&group) {
                // Closing, and the disk refuses: the agents still hold these batches.
                break;
            }
            self.commit(group);
            self.rotate_if_due();
        }
        self.seal();
    }

    /// Waits for batches; `None` when closing and none are left.
    fn take(&self) -> Option<Vec<Entry>> {
        let mut queue = lock(&self.shared.queue);
        while queue.entries.is_empty() {
            if queue.closing {
                return None;
            }
            queue = self.shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        if !queue.closing && queue.bytes < GROUP_BYTES {
            drop(queue);
            std::thread::sleep(self.shared.options.linger);
            queue = lock(&self.shared.queue);
        }
        let mut bytes = 0;
        let mut group = Vec::new();
        while let Some(entry) = queue.entries.front() {
            bytes += entry.batch.bytes();
            if bytes > GROUP_BYTES && !group.is_empty() {
                break;
            }
            group.extend(queue.entries.pop_front());
        }
        Some(group)
    }

    /// Makes a group durable, trying until it is. `false`: closing, and it can't be.
    fn persist(&mut self, group: &[Entry]) -> bool {
        let shared = Arc::clone(&self.shared);
        let write = || {
            let began = Instant::now();
            let written = self.write(group);
            match &written {
                Ok(()) => metrics::histogram!(telemetry::SYNC_SECONDS).record(began.elapsed().as_secs_f64()),
                Err(_) => self.abandon(),
            }
            written
        };
        let pause = || durable::pause(&shared.queue, &shared.wake, |queue| queue.closing);
        shared.stall.until_written(write, pause).is_some()
    }

    /// Leaves the segment after a failed write or sync; the next try begins a new one.
    fn abandon(&mut self) {
        let Some(Active { segment, .. }) = self.active.take() else { return };
        let id = segment.id;
        let mut segments = lock(&self.shared.segments);
        if !segment.abandon() {
            segments.remove(&id);
        } else if let Some(info) = segments.get_mut(&id) {
            info.sealed = true;
        }
    }

    fn write(&mut self, group: &[Entry]) -> Result<(), WriteError> {
        let mut active = match self.active.take() {
            Some(active) => active,
            None => self.begin()?,
        };
        self.buffer.clear();
        for entry in group {
            active.dictionary.encode(entry, &mut self.buffer);
        }
        let written = active.segment.append(&self.buffer);
        if written.is_ok() {
            metrics::counter!(telemetry::SYNCS).increment(1);
            metrics::counter!(telemetry::WRITTEN).increment(self.buffer.len() as u64);
        }
        self.active = Some(active);
        if self.buffer.capacity() > 2 * GROUP_BYTES {
            self.buffer = Vec::new();
        }
        written
    }

    fn begin(&mut self) -> Result<Active, WriteError> {
        let options = &self.shared.options;
        let segment = Segment::create(&mut self.next, MAGIC, |id| segment::raw_path(&options.dir, id))?;
        let now_ms = options.clock.now_ms();
        let info = SegmentInfo { bytes: segment.bytes, packed: false, newest_ms: now_ms, sealed: false };
        lock(&self.shared.segments).insert(segment.id, info);
        Ok(Active { segment, began_ms: now_ms, dictionary: Dictionary::default() })
    }

    /// Raises the watermarks, tells the streams, and makes room.
    fn commit(&self, group: Vec<Entry>) {
        let now_ms = self.shared.options.clock.now_ms();
        {
            let mut marks = lock(&self.shared.marks);
            for Entry { node, batch, .. } in &group {
                marks.raise(node.id(), batch.life, batch.sequence, batch.received_ms);
            }
        }
        if let Some(active) = &self.active
            && let Some(info) = lock(&self.shared.segments).get_mut(&active.segment.id)
        {
            info.bytes = active.segment.bytes;
            info.newest_ms = now_ms;
        }
        for entry in &group {
            entry.done.committed(entry.batch.life, entry.batch.sequence);
        }
        metrics::counter!(telemetry::BATCHES).increment(group.len() as u64);
        let bytes: usize = group.iter().map(|entry| entry.batch.bytes()).sum();
        drop(group);
        let waiting = {
            let mut queue = lock(&self.shared.queue);
            queue.bytes = queue.bytes.saturating_sub(bytes);
            if queue.bytes < self.shared.options.queue_bytes {
                std::mem::take(&mut queue.waiting)
            } else {
                Vec::new()
            }
        };
        waiting.into_iter().for_each(std::task::Waker::wake);
    }

    fn rotate_if_due(&mut self) {
        let now_ms = self.shared.options.clock.now_ms();
        let max_age_ms = MAX_SEGMENT_AGE_MS.min(crate::clock::millis(self.shared.options.max_age) / 4);
        let due = self.active.as_ref().is_some_and(|active| {
            active.segment.bytes >= self.shared.options.segment_bytes
                || now_ms.saturating_sub(active.began_ms) > max_age_ms
        });
        if due {
            self.seal();
        }
    }

    /// Ends the active segment: watermarks up to it are put on disk, and the compressor may have it.
    fn seal(&mut self) {
        let Some(Active { segment, .. }) = self.active.take() else { return };
        let options = &self.shared.options;
        lock(&self.shared.marks).checkpoint(&options.dir, segment.id, options.clock.now_ms());
        if let Some(info) = lock(&self.shared.segments).get_mut(&segment.id) {
            info.sealed = true;
        }
        self.shared.sealed.notify_all();
    }
}

/// The compressor: packs sealed segments and drops what is beyond the bound.
impl Packer for Shared {
    type Segments = BTreeMap<u64, SegmentInfo>;

    fn segments(&self) -> &Mutex<Self::Segments> {
        &self.segments
    }

    fn sealed(&self) -> &Condvar {
        &self.sealed
    }

    fn closing(&self) -> bool {
        lock(&self.queue).closing
    }

    fn keep_bounds(&self) {
        keep_bound(self);
    }

    fn next(&self, segments: &Self::Segments) -> Option<u64> {
        segments.iter().find(|(_, info)| info.sealed && !info.packed).map(|(&id, _)| id)
    }

    fn pack(&self, id: u64) -> std::io::Result<()> {
        pack(self, id)
    }

    fn failed(&self, id: u64) {
        metrics::counter!(telemetry::ERRORS).increment(1);
        let _ = std::fs::remove_file(segment::temporary_path(&self.options.dir, id));
    }
}

fn pack(shared: &Shared, id: u64) -> std::io::Result<()> {
    let dir = &shared.options.dir;
    let (raw, new) = (segment::raw_path(dir, id), segment::temporary_path(dir, id));
    let mut encoder = zstd::Encoder::new(File::create(&new)?, COMPRESSION_LEVEL)?;
    encoder.include_checksum(true)?;
    std::io::copy(&mut File::open(&raw)?, &mut encoder)?;
    let file = encoder.finish()?;
    file.sync_all()?;
    let bytes = file.metadata()?.len();
    durable::replace(&new, &segment::packed_path(dir, id))?;
    if let Some(info) = lock(&shared.segments).get_mut(&id) {
        info.packed = true;
        info.bytes = bytes;
    }
    std::fs::remove_file(&raw)
}

/// Drops the oldest segments while all together are too large, and those that are too old. A segment whose watermarks no
/// checkpoint covers stays.
fn keep_bound(shared: &Shared) {
    let now_ms = shared.options.clock.now_ms();
    let covered = lock(&shared.marks).covered;
    let max_age_ms = crate::clock::millis(shared.options.max_age);
    let mut segments = lock(&shared.segments);
    let mut total: u64 = segments.values().map(|s| s.bytes).sum();
    while let Some((&id, &info)) = segments.first_key_value() {
        let reason = match () {
            () if !info.sealed || id > covered => break,
            () if total > shared.options.max_bytes => "size",
            () if now_ms.saturating_sub(info.newest_ms) > max_age_ms => "age",
            () => break,
        };
        let path = segment::path(&shared.options.dir, id, info.packed);
        if !durable::remove(&path) {
            break;
        }
        segments.remove(&id);
        total = total.saturating_sub(info.bytes);
        metrics::counter!(telemetry::DROPPED, "reason" => reason).increment(1);
    }
    metrics::gauge!(telemetry::BYTES).set(total as f64);
    metrics::gauge!(telemetry::SEGMENTS).set(segments.len() as f64);
}
