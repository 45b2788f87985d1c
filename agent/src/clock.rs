//! The two clocks of the agent: the wall's, which an operator or NTP may step either way, gives samples their time;
//! the monotonic one measures waits and ages. Passed in, so that a test can step both.

use std::time::{Duration, Instant, SystemTime};

pub trait Clock: Send + Sync {
    /// Unix milliseconds.
    fn wall_ms(&self) -> i64;
    /// Since some fixed point before the clock was made; never goes back.
    fn monotonic(&self) -> Duration;
}

/// The machine's.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn wall_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Goes with tokio's clock, which a test pauses; the wall can be stepped.
#[cfg(test)]
pub(crate) struct TestClock {
    started: tokio::time::Instant,
    wall_ms: std::sync::atomic::AtomicI64,
}

#[cfg(test)]
impl TestClock {
    /// Within a tokio runtime.
    pub fn new(wall_ms: i64) -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self { started: tokio::time::Instant::now(), wall_ms: wall_ms.into() })
    }

    pub fn step(&self, ms: i64) {
        self.wall_ms.fetch_add(ms, std::sync::atomic::Ordering::Relaxed);
    }
}

#[cfg(test)]
impl Clock for TestClock {
    fn wall_ms(&self) -> i64 {
        let since = self.started.elapsed().as_millis() as i64;
        self.wall_ms.load(std::sync::atomic::Ordering::Relaxed) + since
    }

    /// An hour ahead, so that "zero" is long ago, as on a real machine.
    fn monotonic(&self) -> Duration {
        Duration::from_secs(3600) + self.started.elapsed()
    }
}
