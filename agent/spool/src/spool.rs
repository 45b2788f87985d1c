use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use crate::disk::{Disk, Folder};
use crate::memory::Memory;
use crate::reader::Reader;
use crate::recovery::recover;
use crate::state::{Entry, STALL, State, Stats, WRITE_ERROR};
use crate::writer::Writer;
use crate::{MAX_RECORD, SpoolError};

/// Where the spool is and how large it may get.
#[derive(Debug, Clone)]
pub struct Options {
    pub dir: PathBuf,
    /// Of all segments together. The header of the newest may exceed it.
    pub max_bytes: u64,
    /// Segments whose last record is older are dropped.
    pub max_age: Duration,
    /// About how large one segment gets; at most a quarter of `max_bytes`.
    pub segment_bytes: u64,
    /// What may wait to be written.
    pub queue_bytes: usize,
}

/// The spool. Cheap to clone; the last clone that is dropped closes it without waiting.
#[derive(Clone)]
pub struct Spool {
    handle: Arc<Handle>,
}

/// A record that was taken, not yet durable.
#[derive(Debug, Clone)]
pub struct Ticket {
    pub sequence: u64,
    progress: watch::Receiver<Progress>,
}

const MIN_BYTES: u64 = 16 << 10;
const MIN_SEGMENT: u64 = 4 << 10;
/// How long [`Spool::close`] waits for the disk.
const CLOSES_WITHIN: Duration = Duration::from_secs(10);

impl Spool {
    /// Opens or makes the folder for this process alone, and reads what earlier lives left there. Blocks: call it before
    /// the agent serves, or on a thread that may wait.
    pub fn open(options: Options, life: u64) -> Result<Self, SpoolError> {
        let folder = Folder::take(&options.dir)?;
        Self::start(Arc::new(folder), Arc::new(System::new()), options, life, true)
    }

    /// The same where no folder can be written to: bounded, and forgotten with the process.
    pub fn in_memory(max_bytes: u64, life: u64) -> Self {
        let max_bytes = max_bytes.max(MIN_BYTES);
        let options = Options {
            dir: PathBuf::new(),
            max_bytes,
            max_age: Duration::MAX,
            segment_bytes: max_bytes / 8,
            queue_bytes: usize::try_from(max_bytes / 4).unwrap_or(usize::MAX),
        };
        let (disk, clock) = (Arc::<Memory>::default(), Arc::new(System::new()));
        match Self::start(disk, clock.clone(), options.clone(), life, false) {
            Ok(spool) => spool,
            // No thread could be started: a spool that takes nothing and says so.
            Err(error) => {
                let state = State {
                    closing: true,
                    closed: true,
                    last_error: Some(error.to_string()),
                    ..State::default()
                };
                let disk = Arc::<Memory>::default();
                Self {
                    handle: Arc::new(Handle(Arc::new(Shared::new(disk, clock, options, life, false, state)))),
                }
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.handle.0
    }

    pub(crate) fn start(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        mut options: Options,
        life: u64,
        durable: bool,
    ) -> Result<Self, SpoolError> {
        if options.max_bytes < MIN_BYTES {
            return Err(SpoolError::Options { option: "max_bytes", problem: "at least 16 KiB are needed" });
        }
        options.segment_bytes = options.segment_bytes.clamp(MIN_SEGMENT, options.max_bytes / 4);
        let state = recover(&*disk, life, clock.wall_ms()).map_err(|source| SpoolError::Io {
            action: "list",
            path: options.dir.clone(),
            source,
        })?;
        let shared = Arc::new(Shared::new(disk, clock, options, life, durable, state));
        let mut writer = Writer::new(Arc::clone(&shared));
        writer.tidy_found();
        std::thread::Builder::new()
            .name("picket-spool".into())
            .spawn(move || writer.run())
            .map_err(|source| SpoolError::Thread { source })?;
        Ok(Self { handle: Arc::new(Handle(shared)) })
    }

    /// Takes a record, or refuses it at once. `header` is asked for when a new segment begins with this record: all that a
    /// reader must know before it. It is called under the spool's lock and must not call the spool.
    pub fn append(&self, record: &[u8], header: impl FnOnce() -> Vec<u8>) -> Result<Ticket, SpoolError> {
        let shared = &*self.handle.0;
        let Options { segment_bytes, queue_bytes, max_bytes, .. } = shared.options;
        let max = MAX_RECORD.min(usize::try_from(max_bytes / 4).unwrap_or(MAX_RECORD));
        let mut state = shared.lock();
        if state.closing {
            return Err(SpoolError::Closed);
        }
        if record.len() > max {
            state.lose(WRITE_ERROR, 1);
            return Err(SpoolError::TooLarge { bytes: record.len(), max });
        }
        let queued = state.unwritten_bytes;
        if queued > 0 && queued.saturating_add(record.len()) > queue_bytes {
            let why = state.last_error.clone();
            state.lose(if why.is_some() { WRITE_ERROR } else { STALL }, 1);
            return Err(SpoolError::Full { queued, limit: queue_bytes, why });
        }
        let size = record.len() as u64;
        let fill = state.fill.filter(|fill| fill + size <= segment_bytes);
        let header = if fill.is_none() { Some(header()) } else { None };
        if let Some(header) = header.as_ref().filter(|header| header.len() > MAX_RECORD) {
            state.lose(WRITE_ERROR, 1);
            return Err(SpoolError::TooLarge { bytes: header.len(), max: MAX_RECORD });
        }
        state.fill = Some(fill.unwrap_or(0) + size);
        let sequence = state.next_sequence;
        state.next_sequence += 1;
        let (time_ms, elapsed_ms) = (shared.clock.wall_ms(), shared.clock.elapsed_ms());
        if state.unwritten == 0 {
            state.unwritten_since_ms = time_ms;
        }
        let entry = Entry { sequence, time_ms, elapsed_ms, record: record.into(), header };
        state.unwritten += 1;
        state.unwritten_bytes += entry.bytes();
        state.appended += 1;
        state.queue.push_back(entry);
        shared.wake.notify_all();
        Ok(Ticket { sequence, progress: shared.progress.subscribe() })
    }

    /// A reader that begins with the segment of the oldest record that is not acknowledged. Those of that segment that
    /// are acknowledged come again: what they said may be needed.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.handle.0))
    }

    /// The receiver holds all of this life up to `sequence`. Only a higher one than before means anything.
    pub fn ack(&self, life: u64, sequence: u64) {
        let shared = &*self.handle.0;
        let mut state = shared.lock();
        let known = state.segments.values().any(|segment| segment.life == life) || life == shared.life;
        // Of this life, nothing can be acknowledged that was never given out.
        let sequence = if life == shared.life { sequence.min(state.next_sequence - 1) } else { sequence };
        let before = state.acked_of(life);
        if !known || sequence <= before {
            return;
        }
        let pending = |state: &State| -> u64 {
            state.segments.values().filter(|s| s.life == life).map(|s| state.pending(s)).sum()
        };
        let pending_before = pending(&state);
        state.position.acked.insert(life, sequence);
        state.acked += pending_before - pending(&state);
        state.unsaved = true;
        shared.wake.notify_all();
    }

    pub fn stats(&self) -> Stats {
        let shared = &*self.handle.0;
        shared.lock().stats(shared.durable)
    }

    /// Takes no more, makes durable what was taken, and waits for that, up to ten seconds. Blocks.
    pub fn close(&self) -> Result<(), SpoolError> {
        let shared = &*self.handle.0;
        let mut state = shared.lock();
        state.closing = true;
        shared.wake.notify_all();
        let deadline = Instant::now() + CLOSES_WITHIN;
        while !state.closed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = shared.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        match state.unwritten {
            0 => Ok(()),
            records => {
                let why = state.last_error.clone().unwrap_or_else(|| "the disk does not answer".into());
                Err(SpoolError::NotFlushed { records, why })
            }
        }
    }
}

impl Ticket {
    /// Returns when the record is durable (with a spool in memory: when it can be read).
    pub async fn durable(mut self) -> Result<(), SpoolError> {
        let sequence = self.sequence;
        let done = |progress: &Progress| progress.durable >= sequence || progress.closed.is_some();
        match self.progress.wait_for(done).await.as_deref() {
            Ok(progress) if progress.durable >= sequence => Ok(()),
            Ok(Progress { closed: Some(why), .. }) => {
                Err(SpoolError::NotDurable { sequence, why: why.to_string() })
            }
            _ => Err(SpoolError::Closed),
        }
    }
}

/// What handles, writer and readers share.
pub(crate) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub options: Options,
    pub life: u64,
    durable: bool,
    state: Mutex<State>,
    /// Anything changed that the writer, or one who waits for it, may want to know.
    pub wake: Condvar,
    pub progress: watch::Sender<Progress>,
}

/// What tickets and readers wait for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// All up to this sequence of this life.
    pub durable: u64,
    pub closed: Option<Arc<str>>,
}

impl Shared {
    fn new(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: Options,
        life: u64,
        durable: bool,
        state: State,
    ) -> Self {
        let closed = state.closed.then(|| state.last_error.clone().unwrap_or_default().into());
        let progress =
            watch::Sender::new(Progress { durable: state.next_sequence.saturating_sub(1), closed });
        let (state, wake) = (Mutex::new(state), Condvar::new());
        Self { disk, clock, options, life, durable, state, wake, progress }
    }

    /// No caller leaves the state half changed by a panic but for `header`, called before any change.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.lock().closing = true;
        self.0.wake.notify_all();
    }
}

/// The two times that matter: the one that people read, and the one that only goes forward.
pub(crate) trait Clock: Send + Sync {
    /// Unix ms.
    fn wall_ms(&self) -> i64;
    /// Since the spool was opened.
    fn elapsed_ms(&self) -> i64;
}

struct System(Instant);

impl System {
    fn new() -> Self {
        Self(Instant::now())
    }
}

impl Clock for System {
    fn wall_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    fn elapsed_ms(&self) -> i64 {
        i64::try_from(self.0.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}
