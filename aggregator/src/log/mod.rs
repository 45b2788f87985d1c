//! What was acknowledged, durably: a bounded log of batches on disk.
//!
//! One writer thread takes all batches that wait, writes them, syncs the file once, and only then tells their streams
//! (*group commit*). Segments are self-contained: each begins with an empty dictionary and defines every node,
//! family, series and list of series before it is first named, so the oldest segment can go without breaking the next.
//! Sealed segments are compressed in the background. Size and age are bounded; the oldest goes first.
//!
//! The log also keeps the *watermarks*: per node and agent life the last sequence that is durable. They outlive the
//! segments (30 days), by a checkpoint at each rotation; at start the segments after it are read.
//!
//! When the disk is full or broken nothing is acknowledged: batches wait in a bounded queue, streams stop reading
//! ([`Log::poll_room`]), the writer tries again every second and says so, and goes on by itself.
//!
//! A full history store can take this module's place: it needs `append`, `watermarks`, `export` and `recent`.

mod dictionary;
mod export;
pub(crate) mod frame;
mod segment;
mod telemetry;
#[cfg(test)]
mod tests;
mod watermarks;
mod writer;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use picket_proto::model::NodeId;

pub use export::{Export, ExportFilter, Recent, RecentFamily, Row};
pub use segment::Recovered;
pub use telemetry::describe as describe_metrics;
pub use watermarks::Watermark;
pub(crate) use watermarks::Watermarks;

pub use crate::durable::OpenError;
use crate::durable::{Folder, Packer as _, Stall};
use crate::store::{Node, Resolved, lock};
use segment::SegmentInfo;

/// A task that asks for room again and again is listed about once.
const WAITING_LOOKED_AT: usize = 64;

#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Made when missing.
    pub dir: PathBuf,
    /// Of all segments together; the active one is never dropped.
    pub max_bytes: u64,
    pub max_age: Duration,
    /// A segment is sealed when it has grown to this many bytes.
    pub segment_bytes: u64,
    /// Bytes of batches that may wait for the disk; beyond, streams stop reading.
    pub queue_bytes: usize,
    /// How long the writer waits for more batches before it syncs.
    pub linger: Duration,
    pub clock: crate::clock::Clock,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            max_bytes: 1 << 30,
            max_age: Duration::from_secs(24 * 3600),
            segment_bytes: 64 << 20,
            queue_bytes: 64 << 20,
            linger: Duration::from_millis(3),
            clock: crate::clock::Clock::system(),
        }
    }
}

/// Is told when a batch is durable.
pub trait Committed: Send + Sync {
    fn committed(&self, life: u64, sequence: u64);
}

/// One batch on its way to the disk. Those of one node and life must be appended in order of sequence.
pub struct Entry {
    pub node: Arc<Node>,
    pub batch: Batch,
    pub done: Arc<dyn Committed>,
}

/// What is kept of a batch.
pub struct Batch {
    pub life: u64,
    pub sequence: u64,
    /// When it came, Unix ms.
    pub received_ms: i64,
    /// When its samples were taken, by this machine's clock, Unix ms.
    pub fresh_ms: i64,
    pub blocks: Vec<Resolved>,
    /// Slots of series that ended with this batch.
    pub retired: Vec<u32>,
    /// Keeps `retired` meaning what it means; the blocks have their own.
    pub pin: crate::store::Pin,
}

impl Batch {
    fn bytes(&self) -> usize {
        128 + self.retired.len() * 4 + self.blocks.iter().map(Resolved::bytes).sum::<usize>()
    }
}

/// How the log is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LogStatus {
    pub bytes: u64,
    pub segments: usize,
    /// Bytes of batches that wait for the disk.
    pub queued_bytes: usize,
    /// Why nothing can be made durable at the moment.
    pub stalled: Option<String>,
}

pub struct Log {
    shared: Arc<Shared>,
    folder: Folder,
}

struct Shared {
    options: LogOptions,
    queue: Mutex<Queue>,
    wake: Condvar,
    marks: Mutex<Watermarks>,
    segments: Mutex<BTreeMap<u64, SegmentInfo>>,
    stall: Stall,
    /// A sealed segment waits for the compressor.
    sealed: Condvar,
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<Entry>,
    /// Of `entries` and of the group being written.
    bytes: usize,
    closing: bool,
    waiting: Vec<Waker>,
}

impl Log {
    /// Opens the log: reads what the last run left, cuts a torn tail, and starts the writer. Blocking.
    pub fn open(options: LogOptions) -> Result<(Arc<Self>, Recovered), OpenError> {
        let folder = Folder::hold(&options.dir)?;
        let (recovered, segments, marks) = segment::recover(&options)?;
        let first = segments.keys().next_back().map_or(1, |last| last + 1);
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            marks: Mutex::new(marks),
            segments: Mutex::new(segments),
            stall: Stall {
                what: "the log",
                errors: telemetry::ERRORS,
                gauge: telemetry::STALLED,
                why: Mutex::default(),
            },
            sealed: Condvar::new(),
            options,
        });
        let writer = writer::Writer::new(Arc::clone(&shared), first);
        folder.spawn("log-writer", move || writer.run())?;
        let compressor = Arc::clone(&shared);
        folder.spawn("log-compress", move || compressor.run())?;
        Ok((Arc::new(Self { shared, folder }), recovered))
    }

    /// Puts a batch in the queue; never blocks. Ask [`Log::poll_room`] before: the queue's bound is kept by its callers,
    /// each of which may go over it by one batch.
    pub fn append(&self, entry: Entry) {
        let mut queue = lock(&self.shared.queue);
        if queue.closing {
            return;
        }
        queue.bytes += entry.batch.bytes();
        queue.entries.push_back(entry);
        let first = queue.entries.len() == 1;
        drop(queue);
        if first {
            self.shared.wake.notify_one();
        }
    }

    /// Ready when there is room in the queue; else the task is woken when there is.
    pub fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut queue = lock(&self.shared.queue);
        if queue.bytes < self.shared.options.queue_bytes && !queue.closing {
            return Poll::Ready(());
        }
        if !queue.waiting.iter().rev().take(WAITING_LOOKED_AT).any(|w| w.will_wake(cx.waker())) {
            queue.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// What is durable of a node, a life each.
    pub fn watermarks(&self, node: &NodeId) -> Vec<Watermark> {
        lock(&self.shared.marks).of(node)
    }

    /// Reads logged samples back, oldest first. Blocking, one segment's definitions in memory at a time.
    pub fn export(&self, filter: ExportFilter) -> Export {
        Export::new(segment::paths(&self.shared), filter)
    }

    /// Tells the latest logged value of each series with one since `since_ms`. Blocking.
    pub fn recent(&self, since_ms: i64, tell: impl FnMut(Recent<'_>)) {
        export::recent(&segment::paths(&self.shared), since_ms, tell);
    }

    pub fn status(&self) -> LogStatus {
        let (bytes, segments) = {
            let segments = lock(&self.shared.segments);
            (segments.values().map(|s| s.bytes).sum(), segments.len())
        };
        let queued_bytes = lock(&self.shared.queue).bytes;
        LogStatus { bytes, segments, queued_bytes, stalled: self.shared.stall.why() }
    }

    /// Writes what waits, ends the threads and lets go of the folder. What the disk refuses stays unacknowledged. Blocking;
    /// idempotent.
    pub fn close(&self) {
        lock(&self.shared.queue).closing = true;
        self.shared.wake.notify_all();
        // Taken under the compressor's lock, so that it can't miss the call between its check and its wait.
        drop(lock(&self.shared.segments));
        self.shared.sealed.notify_all();
        self.folder.leave();
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.close();
    }
}
