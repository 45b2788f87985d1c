//! What every plugin has without a grant: a bounded log, the clock, random bytes.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use picket_proto::model::PluginId;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

/// The longest log line, in bytes; what is longer is cut.
pub const MAX_LOG_LINE: usize = 4096;
/// The most random bytes at once.
pub const MAX_RANDOM: usize = 4096;

/// How serious a plugin holds a line to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// A plugin's way into the agent's log: so many lines a second, with a burst of five seconds' worth.
#[derive(Debug)]
pub struct Log {
    plugin: PluginId,
    bucket: Bucket,
    /// Lines dropped since the last one that was written.
    unsaid: u64,
    dropped: u64,
}

impl Log {
    pub fn new(plugin: PluginId, lines_per_second: u32) -> Self {
        Self { plugin, bucket: Bucket::new(lines_per_second, Instant::now()), unsaid: 0, dropped: 0 }
    }

    pub fn write(&mut self, level: Level, message: &str) {
        if !self.bucket.take(Instant::now()) {
            self.unsaid += 1;
            self.dropped += 1;
            return;
        }
        let line = one_line(message);
        let plugin = self.plugin.as_str();
        let dropped = std::mem::take(&mut self.unsaid);
        if dropped > 0 {
            tracing::warn!(target: "plugin", plugin, dropped, "log lines dropped: over the limit log_rate");
        }
        match level {
            Level::Debug => tracing::debug!(target: "plugin", plugin, "{line}"),
            Level::Info => tracing::info!(target: "plugin", plugin, "{line}"),
            Level::Warn => tracing::warn!(target: "plugin", plugin, "{line}"),
            Level::Error => tracing::error!(target: "plugin", plugin, "{line}"),
        }
    }

    /// Lines dropped in all.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// Control characters become spaces, so that a plugin can't write lines that look like the agent's.
fn one_line(message: &str) -> String {
    let end = message.floor_char_boundary(MAX_LOG_LINE);
    message.get(..end).unwrap_or_default().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[derive(Debug)]
struct Bucket {
    rate: f64,
    tokens: f64,
    last: Instant,
}

impl Bucket {
    const BURST_SECONDS: f64 = 5.0;

    fn new(rate: u32, now: Instant) -> Self {
        let rate = f64::from(rate);
        Self { rate, tokens: rate * Self::BURST_SECONDS, last: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.last).as_secs_f64();
        self.last = now;
        self.tokens = (self.tokens + passed * self.rate).min(self.rate * Self::BURST_SECONDS);
        let granted = self.tokens >= 1.0;
        if granted {
            self.tokens -= 1.0;
        }
        granted
    }
}

/// Nanoseconds since the Unix epoch; 0 before it.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds since boot, of a clock that never goes back.
pub fn monotonic_ns() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(t.tv_nsec).unwrap_or(0))
}

/// Cryptographically random bytes, [`MAX_RANDOM`] at most; none where the system has none.
pub fn random(len: u32) -> Vec<u8> {
    let mut bytes = vec![0; (len as usize).min(MAX_RANDOM)];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => bytes,
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_are_bounded() {
        let start = Instant::now();
        let mut bucket = Bucket::new(2, start);
        assert_eq!((0..100).filter(|_| bucket.take(start)).count(), 10);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| bucket.take(later)).count(), 2);
        let much_later = start + Duration::from_secs(1000);
        assert_eq!((0..100).filter(|_| bucket.take(much_later)).count(), 10);
    }

    #[test]
    fn a_line_is_one_line() {
        assert_eq!(one_line("a\nb\x1b[0m"), "a b [0m");
        assert!(one_line(&"ä".repeat(10_000)).len() <= MAX_LOG_LINE);
    }

    #[test]
    fn random_is_bounded() {
        assert_eq!(random(u32::MAX).len(), MAX_RANDOM);
        assert_ne!(random(32), random(32));
    }
}
