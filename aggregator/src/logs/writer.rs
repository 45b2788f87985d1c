//! The writer thread: takes all that waits, writes and syncs it once, and only then says so.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::segments::Wal;
use super::wal::{self, FrameAt};
use super::{Entry, Origin, Shared, telemetry};
use crate::clock::millis;
use crate::store::lock;

/// Batches taken into one group, in bytes of their lines.
const GROUP_BYTES: usize = 8 << 20;
/// How long after a failed write the next one is tried.
const RETRY: Duration = Duration::from_secs(1);
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
    id: u64,
    file: Arc<File>,
    bytes: u64,
    began_ms: i64,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {source}", .path.display())]
struct WriteError {
    what: &'static str,
    path: PathBuf,
    source: std::io::Error,
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
        loop {
            match self.write(group) {
                Ok(frames) => {
                    if lock(&self.shared.stalled).take().is_some() {
                        metrics::gauge!(telemetry::STALLED).set(0.0);
                        tracing::info!("log lines can be written again: acknowledging goes on");
                    }
                    return Some(frames);
                }
                Err(error) => self.stall(&error),
            }
            let queue = lock(&self.shared.queue);
            if queue.closing {
                return None;
            }
            let waiting = |queue: &mut super::Queue| !queue.closing;
            drop(self.shared.wake.wait_timeout_while(queue, RETRY, waiting));
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
                "log lines can't be written: none are acknowledged and agents keep them until this is mended; free or repair the disk"
            );
        }
        self.abandon();
    }

    /// Leaves the segment after a failed write or sync: what the kernel holds of it isn't known any more. What was synced
    /// before stays; the next try begins a new segment.
    fn abandon(&mut self) {
        let Some(active) = self.active.take() else { return };
        let mut segments = lock(&self.shared.segments);
        if active.bytes <= wal::HEADER {
            let _ = std::fs::remove_file(wal::path(&self.shared.options.dir, active.id));
            segments.wals.remove(&active.id);
            return;
        }
        // When this fails too, the torn tail is recognised by its checksum.
        let _ = active.file.set_len(active.bytes);
        if let Some(wal) = segments.wals.get_mut(&active.id) {
            wal.sealed = true;
        }
        drop(segments);
        self.checkpoint(active.id);
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
        frames.iter_mut().for_each(|frame| frame.offset += active.bytes);
        let path = || wal::path(&self.shared.options.dir, active.id);
        let written = (&*active.file).write_all(&self.buffer);
        let written =
            written.map_err(|source| WriteError { what: "write", path: path(), source }).and_then(|()| {
                active.file.sync_data().map_err(|source| WriteError { what: "sync", path: path(), source })
            });
        if written.is_ok() {
            active.bytes += self.buffer.len() as u64;
        }
        self.active = Some(active);
        if self.buffer.capacity() > 2 * GROUP_BYTES {
            self.buffer = Vec::new();
        }
        written.map(|()| frames)
    }

    fn begin(&mut self) -> Result<Active, WriteError> {
        let dir = &self.shared.options.dir;
        let id = self.next;
        let path = wal::path(dir, id);
        let fail = |what| {
            let path = path.clone();
            move |source| WriteError { what, path, source }
        };
        let mut options = File::options();
        let mut file = options.read(true).write(true).create_new(true).open(&path).map_err(fail("create"))?;
        let began = file
            .write_all(&wal::header(id))
            .map_err(fail("write"))
            .and_then(|()| File::open(dir).and_then(|d| d.sync_all()).map_err(fail("sync the folder of")));
        if let Err(error) = began {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        self.next += 1;
        let now_ms = self.shared.options.clock.now_ms();
        let file = Arc::new(file);
        let wal = Wal {
            file: Arc::clone(&file),
            bytes: wal::HEADER,
            frames: Vec::new(),
            newest_ms: now_ms,
            sealed: false,
        };
        lock(&self.shared.segments).wals.insert(id, wal);
        Ok(Active { id, file, bytes: wal::HEADER, began_ms: now_ms })
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
            && let Some(wal) = lock(&self.shared.segments).wals.get_mut(&active.id)
        {
            wal.bytes = active.bytes;
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
            active.bytes >= options.segment_bytes || now_ms.saturating_sub(active.began_ms) > max_age_ms
        });
        if due {
            self.seal();
        }
    }

    /// Ends the active segment: the packer may have it.
    fn seal(&mut self) {
        let Some(active) = self.active.take() else { return };
        if let Some(wal) = lock(&self.shared.segments).wals.get_mut(&active.id) {
            wal.sealed = true;
        }
        self.checkpoint(active.id);
        self.shared.sealed.notify_all();
        // Followers may be at its end.
        self.shared.grown.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Puts the watermarks up to a segment on disk; until that is done the packer leaves it.
    fn checkpoint(&self, id: u64) {
        let mut marks = lock(&self.shared.marks);
        marks.prune(self.shared.options.clock.now_ms());
        match marks.save(&self.shared.options.dir, id) {
            Ok(()) => marks.covered = id,
            Err(error) => {
                tracing::warn!(%error, "cannot write the log store's checkpoint; the next segment tries again");
            }
        }
    }
}
