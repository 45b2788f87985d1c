//! The log's two threads: one writes and syncs, one compresses sealed segments and keeps the bound.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::dictionary::Dictionary;
use super::frame::{HEADER, MAGIC};
use super::segment::{self, SegmentInfo};
use super::{Entry, Shared, telemetry};
use crate::store::lock;

/// Batches taken into one group, by the bytes that they hold in memory.
const GROUP_BYTES: usize = 16 << 20;
/// How long after a failed write the next one is tried.
const RETRY: Duration = Duration::from_secs(1);
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
    id: u64,
    file: File,
    bytes: u64,
    began_ms: i64,
    dictionary: Dictionary,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {source}", .path.display())]
struct WriteError {
    what: &'static str,
    path: PathBuf,
    source: std::io::Error,
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
            bytes += entry.bytes();
            if bytes > GROUP_BYTES && !group.is_empty() {
                break;
            }
            group.extend(queue.entries.pop_front());
        }
        Some(group)
    }

    /// Makes a group durable, trying until it is. `false`: closing, and it can't be.
    fn persist(&mut self, group: &[Entry]) -> bool {
        loop {
            let began = Instant::now();
            match self.write(group) {
                Ok(()) => {
                    metrics::histogram!(telemetry::SYNC_SECONDS).record(began.elapsed().as_secs_f64());
                    if lock(&self.shared.stalled).take().is_some() {
                        metrics::gauge!(telemetry::STALLED).set(0.0);
                        tracing::info!("the log can be written again: acknowledging goes on");
                    }
                    return true;
                }
                Err(error) => self.stall(&error),
            }
            let queue = lock(&self.shared.queue);
            if queue.closing {
                return false;
            }
            let closing = |queue: &mut super::Queue| !queue.closing;
            drop(self.shared.wake.wait_timeout_while(queue, RETRY, closing));
        }
    }

    fn stall(&mut self, error: &WriteError) {
        metrics::counter!(telemetry::ERRORS).increment(1);
        metrics::gauge!(telemetry::STALLED).set(1.0);
        let text = error.to_string();
        let before = lock(&self.shared.stalled).replace(text.clone());
        if before.as_ref() != Some(&text) {
            tracing::error!(
                error = text,
                "the log can't be written: nothing is acknowledged and agents keep their data until this is mended; free or repair the disk"
            );
        }
        self.abandon();
    }

    /// Leaves the segment after a failed write or sync: what the kernel holds of it isn't known any more. What was
    /// synced before stays; the next try begins a new segment.
    fn abandon(&mut self) {
        let Some(active) = self.active.take() else { return };
        let path = segment::raw_path(&self.shared.options.dir, active.id);
        let mut segments = lock(&self.shared.segments);
        if active.bytes <= HEADER as u64 {
            let _ = std::fs::remove_file(path);
            segments.remove(&active.id);
            return;
        }
        // When this fails too, the torn tail is recognised by its checksum.
        let _ = active.file.set_len(active.bytes);
        if let Some(info) = segments.get_mut(&active.id) {
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
        let path = || segment::raw_path(&self.shared.options.dir, active.id);
        let written = (&active.file).write_all(&self.buffer);
        let written =
            written.map_err(|source| WriteError { what: "write", path: path(), source }).and_then(|()| {
                active.file.sync_data().map_err(|source| WriteError { what: "sync", path: path(), source })
            });
        if written.is_ok() {
            active.bytes += self.buffer.len() as u64;
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
        let dir = &self.shared.options.dir;
        let id = self.next;
        let path = segment::raw_path(dir, id);
        let fail = |what| {
            let path = path.clone();
            move |source| WriteError { what, path, source }
        };
        self.next += 1;
        let mut file = File::options().write(true).create_new(true).open(&path).map_err(fail("create"))?;
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&id.to_le_bytes());
        let began = file
            .write_all(&header)
            .map_err(fail("write"))
            .and_then(|()| File::open(dir).and_then(|d| d.sync_all()).map_err(fail("sync the folder of")));
        if let Err(error) = began {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        let now_ms = self.shared.options.clock.now_ms();
        let info = SegmentInfo { bytes: HEADER as u64, packed: false, newest_ms: now_ms, sealed: false };
        lock(&self.shared.segments).insert(id, info);
        Ok(Active { id, file, bytes: HEADER as u64, began_ms: now_ms, dictionary: Dictionary::default() })
    }

    /// Raises the watermarks, tells the streams, and makes room.
    fn commit(&self, group: Vec<Entry>) {
        let now_ms = self.shared.options.clock.now_ms();
        {
            let mut marks = lock(&self.shared.marks);
            for entry in &group {
                marks.raise(entry.node.id(), entry.life, entry.sequence, entry.received_ms);
            }
        }
        if let Some(active) = &self.active
            && let Some(info) = lock(&self.shared.segments).get_mut(&active.id)
        {
            info.bytes = active.bytes;
            info.newest_ms = now_ms;
        }
        for entry in &group {
            entry.done.committed(entry.life, entry.sequence);
        }
        metrics::counter!(telemetry::BATCHES).increment(group.len() as u64);
        let bytes: usize = group.iter().map(Entry::bytes).sum();
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
            active.bytes >= self.shared.options.segment_bytes
                || now_ms.saturating_sub(active.began_ms) > max_age_ms
        });
        if due {
            self.seal();
        }
    }

    /// Ends the active segment: watermarks up to it are put on disk, and the compressor may have it.
    fn seal(&mut self) {
        let Some(active) = self.active.take() else { return };
        {
            let mut marks = lock(&self.shared.marks);
            marks.prune(self.shared.options.clock.now_ms());
            match marks.save(&self.shared.options.dir, active.id) {
                Ok(()) => marks.covered = active.id,
                // The segments stay until a later checkpoint covers them.
                Err(error) => {
                    tracing::warn!(%error, "cannot write the log's checkpoint; the next rotation tries again")
                }
            }
        }
        if let Some(info) = lock(&self.shared.segments).get_mut(&active.id) {
            info.sealed = true;
        }
        self.shared.sealed.notify_all();
    }
}

/// The compressor's thread: packs sealed segments and drops what is beyond the bound.
pub(super) fn compress(shared: &Shared) {
    loop {
        keep_bound(shared);
        let next = {
            let mut segments = lock(&shared.segments);
            loop {
                if lock(&shared.queue).closing {
                    return;
                }
                let next = segments.iter().find(|(_, info)| info.sealed && !info.packed).map(|(&id, _)| id);
                if next.is_some() {
                    break next;
                }
                let (guard, timeout) = shared
                    .sealed
                    .wait_timeout(segments, Duration::from_secs(30))
                    .unwrap_or_else(PoisonError::into_inner);
                segments = guard;
                if timeout.timed_out() {
                    break None;
                }
            }
        };
        let Some(id) = next else { continue };
        if let Err(error) = pack(shared, id) {
            metrics::counter!(telemetry::ERRORS).increment(1);
            tracing::warn!(%error, segment = id, "cannot compress a segment of the log; it stays as it is for now");
            let _ = std::fs::remove_file(segment::temporary_path(&shared.options.dir, id));
            let segments = lock(&shared.segments);
            if lock(&shared.queue).closing {
                return;
            }
            drop(shared.sealed.wait_timeout(segments, Duration::from_secs(10)));
        }
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
    std::fs::rename(&new, segment::packed_path(dir, id))?;
    File::open(dir)?.sync_all()?;
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
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "cannot remove an old segment of the log");
            break;
        }
        segments.remove(&id);
        total = total.saturating_sub(info.bytes);
        metrics::counter!(telemetry::DROPPED, "reason" => reason).increment(1);
    }
    metrics::gauge!(telemetry::BYTES).set(total as f64);
    metrics::gauge!(telemetry::SEGMENTS).set(segments.len() as f64);
}
