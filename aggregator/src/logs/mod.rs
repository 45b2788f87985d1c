//! Log lines, kept on disk and asked for in LogQL.
//!
//! A line takes this way: `intake` (labels, age, length, how many streams) → the *write-ahead* file of the active segment
//! (one writer thread, one sync for all that wait, and only then an answer) → when the segment is full or old, one
//! *chunk* file: lines ordered by stream and time in compressed pages, with an index. A segment has one number in both forms;
//! a chunk file comes into being whole, by rename, and its write-ahead file goes after it. Size and age are bounded: the
//! oldest segment goes first, and its lines are counted.
//!
//! Own files and not SQLite, because a page of lines compresses eight times and more as a whole and not at all row by row, dropping a
//! week means removing files and not rewriting pages, and reading is sequential.
//!
//! A batch counts once: per node and agent life the last sequence is kept as in `crate::log`, in the same checkpoint form; a
//! push has no sequence, so the digests of the last pushes are remembered instead. What is damaged is skipped and counted. While the disk
//! refuses, nothing is acknowledged.
//!
//! Reading holds one page (or one batch) at a time in memory, never a segment.

mod chunk;
mod follow;
pub mod forward;
mod intake;
pub mod labels;
pub mod logql;
mod pack;
pub mod push;
pub mod query;
mod recover;
mod run;
mod scan;
mod segments;
mod telemetry;
#[cfg(test)]
mod tests;
mod wal;
mod writer;

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use picket_proto::model::{Labels, NodeId};
use picket_proto::v1;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

pub use follow::{Follower, Next as TailNext, Piece, Position};
pub use intake::Refusal;
pub use recover::Recovered;
pub use telemetry::describe as describe_metrics;

use crate::clock::Clock;
pub use crate::durable::OpenError;
use crate::durable::{Folder, Packer as _, Stall};
use crate::log::Watermarks;
use crate::store::lock;
use intake::Streams;
use segments::Segments;

/// The longest line; what is longer is cut and counted.
pub const MAX_LINE: usize = 256 << 10;
/// How far a line's time may be ahead of this machine's.
pub const MAX_AHEAD: Duration = Duration::from_secs(600);
/// Digests of pushes that are remembered.
const DIGESTS: usize = 8192;
/// The unit of the queue's bound.
const UNIT: usize = 1024;

#[derive(Debug, Clone)]
pub struct Options {
    /// Made when missing.
    pub dir: PathBuf,
    /// Of all files together.
    pub max_bytes: u64,
    /// Lines older than this aren't taken, told or kept.
    pub max_age: Duration,
    /// Label sets that one node, or one token, may have at a time.
    pub max_streams: usize,
    /// A segment is sealed when its write-ahead file has grown to this many bytes …
    pub segment_bytes: u64,
    /// … or is this old.
    pub segment_age: Duration,
    /// Bytes that may wait for the disk; beyond, whoever brings more waits.
    pub queue_bytes: usize,
    /// How long the writer waits for more before it syncs.
    pub linger: Duration,
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            max_bytes: 2 << 30,
            max_age: Duration::from_secs(7 * 24 * 3600),
            max_streams: 5000,
            segment_bytes: 16 << 20,
            segment_age: Duration::from_secs(3600),
            queue_bytes: 64 << 20,
            linger: Duration::from_millis(3),
            clock: Clock::system(),
        }
    }
}

/// Why lines were not made durable; whoever brought them has to bring them again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("the log store is closing; send it again to the next aggregator process")]
    Closing,
}

/// How the store is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Status {
    pub bytes: u64,
    pub segments: usize,
    /// When the oldest line that is kept was said, Unix ms.
    pub oldest_ms: Option<i64>,
    pub streams: usize,
    /// Why nothing can be made durable at the moment.
    pub stalled: Option<String>,
}

/// Lines of one label set on their way to the disk.
#[derive(Debug, Clone)]
pub struct Stream {
    pub labels: Arc<Labels>,
    pub times: Vec<i64>,
    pub lengths: Vec<u32>,
    pub text: String,
}

/// What is known of a batch beside its lines, so that it counts once.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    Agent {
        node: NodeId,
        life: u64,
        sequence: u64,
    },
    Push {
        digest: Digest,
    },
    /// It was taken before: only its durability is waited for.
    Again,
}

pub type Digest = [u8; 16];

/// One batch on its way to the disk.
struct Entry {
    origin: Origin,
    received_ms: i64,
    streams: Vec<Stream>,
    done: oneshot::Sender<()>,
    /// Its place in the queue's bound.
    _room: OwnedSemaphorePermit,
}

pub struct LogStore {
    shared: Arc<Shared>,
    folder: Folder,
}

struct Shared {
    options: Options,
    queue: Mutex<Queue>,
    wake: Condvar,
    room: Arc<Semaphore>,
    /// What was accepted, durable or on its way.
    accepted: Mutex<Accepted>,
    /// What is durable.
    marks: Mutex<Watermarks>,
    streams: Mutex<Streams>,
    segments: Mutex<Segments>,
    /// A sealed segment waits for the packer.
    sealed: Condvar,
    indexes: chunk::IndexCache,
    stall: Stall,
    /// Moves with each group that became durable.
    grown: watch::Sender<u64>,
    /// The segment that the forwarder reads; its write-ahead file is kept for a while.
    forwarding: AtomicU64,
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<Entry>,
    closing: bool,
}

#[derive(Default)]
struct Accepted {
    marks: Watermarks,
    digests: HashSet<Digest>,
    order: VecDeque<Digest>,
}

impl Accepted {
    /// `false`: it was accepted before.
    fn push(&mut self, digest: Digest) -> bool {
        if !self.digests.insert(digest) {
            return false;
        }
        self.order.push_back(digest);
        while self.order.len() > DIGESTS {
            if let Some(old) = self.order.pop_front() {
                self.digests.remove(&old);
            }
        }
        true
    }

    fn agent(&mut self, node: &NodeId, life: u64, sequence: u64, now_ms: i64) -> bool {
        if self.marks.reached(node, life) >= sequence {
            return false;
        }
        self.marks.raise(node, life, sequence, now_ms);
        true
    }
}

impl LogStore {
    /// Opens the store: reads what the last run left, cuts a torn tail, and starts the threads. Blocking.
    pub fn open(options: Options) -> Result<(Arc<Self>, Recovered), OpenError> {
        let folder = Folder::hold(&options.dir)?;
        let found = recover::recover(&options)?;
        let recovered = found.recovered.clone();
        let mut accepted = Accepted { marks: found.marks.clone(), ..Accepted::default() };
        for digest in found.digests {
            accepted.push(digest);
        }
        let first = found.segments.last().map_or(1, |last| last.saturating_add(1));
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            room: Arc::new(Semaphore::new((options.queue_bytes / UNIT).max(1))),
            accepted: Mutex::new(accepted),
            marks: Mutex::new(found.marks),
            streams: Mutex::new(Streams::new(options.max_streams)),
            segments: Mutex::new(found.segments),
            sealed: Condvar::new(),
            indexes: chunk::IndexCache::default(),
            stall: Stall {
                what: "the store of log lines",
                errors: telemetry::ERRORS,
                gauge: telemetry::STALLED,
                why: Mutex::default(),
            },
            grown: watch::Sender::new(0),
            forwarding: AtomicU64::new(u64::MAX),
            options,
        });
        let writer = writer::Writer::new(Arc::clone(&shared), first);
        folder.spawn("logs-writer", move || writer.run())?;
        let packer = Arc::clone(&shared);
        folder.spawn("logs-pack", move || packer.run())?;
        Ok((Arc::new(Self { shared, folder }), recovered))
    }

    /// Keeps the lines of an agent's batch: durable when this is ready, and without effect when the same batch comes again.
    /// What can't be kept (too old, too many streams) is counted and dropped.
    pub async fn record(
        &self,
        node: &NodeId,
        life: u64,
        sequence: u64,
        batch: Vec<v1::LogStream>,
    ) -> Result<(), RecordError> {
        let now_ms = self.shared.options.clock.now_ms();
        let taken = self.shared.take_agent(node.as_str(), batch, now_ms);
        let origin = Origin::Agent { node: node.clone(), life, sequence };
        self.keep(origin, taken, now_ms, "agent").await
    }

    /// Keeps pushed lines: durable when this is ready. `digest` names the push: one of the last that comes again changes
    /// nothing. Gives what was refused of it.
    pub async fn push(
        &self,
        token: &str,
        digest: Digest,
        streams: Vec<push::PushedStream>,
    ) -> Result<Vec<Refusal>, RecordError> {
        let now_ms = self.shared.options.clock.now_ms();
        let mut taken = self.shared.take_push(token, streams, now_ms);
        let refused = std::mem::take(&mut taken.refused);
        self.keep(Origin::Push { digest }, taken, now_ms, "push").await?;
        Ok(refused)
    }

    async fn keep(
        &self,
        mut origin: Origin,
        mut taken: intake::Taken,
        now_ms: i64,
        via: &'static str,
    ) -> Result<(), RecordError> {
        let shared = &self.shared;
        let units = (taken.bytes() / UNIT + 1).min((shared.options.queue_bytes / UNIT).max(1));
        let permits = u32::try_from(units).unwrap_or(u32::MAX);
        let room = Arc::clone(&shared.room).acquire_many_owned(permits).await;
        let room = room.map_err(|_| RecordError::Closing)?;
        let (done, durable) = oneshot::channel();
        {
            // What is accepted and the queue's order move together.
            let mut accepted = lock(&shared.accepted);
            let mut queue = lock(&shared.queue);
            if queue.closing {
                return Err(RecordError::Closing);
            }
            let new = match &origin {
                Origin::Agent { node, life, sequence } => accepted.agent(node, *life, *sequence, now_ms),
                Origin::Push { digest } => taken.lines() > 0 && accepted.push(*digest),
                Origin::Again => false,
            };
            if new {
                taken.count(via);
            } else {
                origin = Origin::Again;
                taken.streams.clear();
            }
            queue.entries.push_back(Entry {
                origin,
                received_ms: now_ms,
                streams: taken.streams,
                done,
                _room: room,
            });
        }
        shared.wake.notify_one();
        durable.await.map_err(|_| RecordError::Closing)
    }

    /// Where the store ends now: a follower from here gets what comes after.
    pub fn end(&self) -> Position {
        lock(&self.shared.segments).end()
    }

    /// Reads what was made durable, from a position on.
    pub fn follow(&self, from: Position) -> Follower {
        Follower::new(Arc::clone(&self.shared), from)
    }

    /// Changes when something more is durable.
    pub fn grown(&self) -> watch::Receiver<u64> {
        self.shared.grown.subscribe()
    }

    /// The oldest time that is told, Unix ns.
    pub fn horizon_ns(&self) -> i64 {
        let now_ms = self.shared.options.clock.now_ms();
        now_ms.saturating_sub(crate::clock::millis(self.shared.options.max_age)).saturating_mul(1_000_000)
    }

    /// Says which segment a forwarder reads.
    fn forwarding(&self, segment: u64) {
        self.shared.forwarding.store(segment, Ordering::Relaxed);
    }

    pub fn status(&self) -> Status {
        let (bytes, segments, oldest_ms) = {
            let segments = lock(&self.shared.segments);
            (segments.bytes(), segments.count(), segments.oldest_ns().map(|ns| ns / 1_000_000))
        };
        let streams = lock(&self.shared.streams).len();
        let stalled = self.shared.stall.why();
        Status { bytes, segments, oldest_ms, streams, stalled }
    }

    /// Writes what waits, ends the threads and lets go of the folder. Blocking; idempotent.
    pub fn close(&self) {
        lock(&self.shared.queue).closing = true;
        self.shared.room.close();
        self.shared.wake.notify_all();
        // Taken under the packer's lock, so that it can't miss the call between its check and its wait.
        drop(lock(&self.shared.segments));
        self.shared.sealed.notify_all();
        self.folder.leave();
    }
}

impl crate::ingest::LogSink for Arc<LogStore> {
    fn record(
        &self,
        node: &NodeId,
        life: u64,
        sequence: u64,
        streams: Vec<v1::LogStream>,
    ) -> crate::ingest::Recording {
        let (store, node) = (Arc::clone(self), node.clone());
        Box::pin(async move {
            LogStore::record(&store, &node, life, sequence, streams).await.map_err(|error| error.to_string())
        })
    }
}

impl Drop for LogStore {
    fn drop(&mut self) {
        self.close();
    }
}
