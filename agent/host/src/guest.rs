//! What belongs to one instance where it runs: its bounds, and its way out. The data of the wasmtime store.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::ResourceLimiter;

use crate::ask::Door;
use crate::wasi::Wasi;

pub(crate) struct Guest {
    pub memory: MemoryLimit,
    pub door: Door,
    pub wasi: Wasi,
}

/// The CPU time of the call that runs, shared between what polls the call and the guest's epoch callback. Waiting costs
/// nothing; work that a host function does on the caller's thread counts.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Nanoseconds of the polls before this one.
    used: AtomicU64,
    /// The thread's CPU time when this poll began.
    since: AtomicU64,
    limit: AtomicU64,
}

impl Meter {
    pub(crate) fn arm(&self, limit: Duration) {
        self.used.store(0, Ordering::Relaxed);
        self.limit.store(nanos(limit), Ordering::Relaxed);
    }

    pub(crate) fn begin(&self) {
        self.since.store(thread_time(), Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.used.store(self.now(), Ordering::Relaxed);
    }

    /// The guest asks on its own thread, within a poll.
    pub(crate) fn check(&self) -> Result<(), OverTime> {
        let limit = self.limit.load(Ordering::Relaxed);
        if self.now() > limit { Err(OverTime(Duration::from_nanos(limit))) } else { Ok(()) }
    }

    pub(crate) fn used(&self) -> Duration {
        Duration::from_nanos(self.used.load(Ordering::Relaxed))
    }

    fn now(&self) -> u64 {
        let passed = thread_time().saturating_sub(self.since.load(Ordering::Relaxed));
        self.used.load(Ordering::Relaxed).saturating_add(passed)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn thread_time() -> u64 {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(t.tv_nsec).unwrap_or(0))
}

/// The guest's time is up.
#[derive(Debug)]
pub(crate) struct OverTime(pub Duration);

impl fmt::Display for OverTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "more than the {} ms of CPU time that guest_time allows", self.0.as_millis())
    }
}

impl std::error::Error for OverTime {}

/// The guest wanted more memory than it may have.
#[derive(Debug)]
pub(crate) struct OverMemory {
    pub wanted: usize,
    pub limit: usize,
}

impl fmt::Display for OverMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it wanted {} bytes of memory, {} are allowed", self.wanted, self.limit)
    }
}

impl std::error::Error for OverMemory {}

/// The guest wanted more of something that has a fixed bound.
#[derive(Debug)]
pub(crate) struct OverTable;

impl fmt::Display for OverTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its tables would hold more than {MAX_TABLE_ELEMENTS} elements")
    }
}

impl std::error::Error for OverTable {}

const MAX_TABLE_ELEMENTS: usize = 100_000;
/// A component is a few core modules: its own, and small ones that the encoder adds.
const MAX_INSTANCES: usize = 64;
const MAX_TABLES: usize = 64;
const MAX_MEMORIES: usize = 8;

/// Linear memory and tables of an instance, all of them together. Growth past the limit traps: a guest that is told `no`
/// would go on in an odd state.
#[derive(Debug)]
pub(crate) struct MemoryLimit {
    limit: usize,
    used: usize,
    elements: usize,
}

impl MemoryLimit {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit: usize::try_from(limit).unwrap_or(usize::MAX), used: 0, elements: 0 }
    }

    pub(crate) const fn used(&self) -> usize {
        self.used
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.used.saturating_add(desired.saturating_sub(current));
        if wanted > self.limit {
            return Err(OverMemory { wanted, limit: self.limit }.into());
        }
        self.used = wanted;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.elements.saturating_add(desired.saturating_sub(current));
        if wanted > MAX_TABLE_ELEMENTS {
            return Err(OverTable.into());
        }
        self.elements = wanted;
        Ok(true)
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}
