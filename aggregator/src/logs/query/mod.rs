//! Answers to queries: lines ([`logs`]), numbers ([`metric`]), labels ([`meta`]). Blocking; each within a [`Budget`] of time and
//! bytes, and with answers of bounded size.

mod logs;
mod meta;
mod metric;
#[cfg(test)]
mod tests;

pub use logs::{LogAnswer, LogQuery, StreamLines};
pub use meta::{Stats, StreamsQuery};
pub use metric::{Grid, MetricAnswer, Series, Value};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::telemetry;

/// Lines of one answer, at most.
pub const MAX_LINES: usize = 5000;
/// Series of one answer, at most.
pub const MAX_SERIES: usize = 2000;
/// Steps of one answer, at most; Prometheus's own bound.
pub const MAX_STEPS: usize = 11_000;
/// Bytes of lines that an answer holds, at most.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// What is told first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Forward,
    Backward,
}

/// Why a query has no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum QueryError {
    #[error(
        "context deadline exceeded: the query took longer than {0:?} (logs.query_timeout); ask for a shorter time or with more specific stream selectors"
    )]
    TooLong(Duration),
    #[error(
        "the query would read too many bytes (limit: {limit}, logs.query_max_bytes); consider adding more specific stream selectors or reduce the time range of the query"
    )]
    TooManyBytes { limit: u64 },
    #[error(
        "the answer holds more than {MAX_ANSWER_BYTES} bytes of lines; lower the limit or narrow the query"
    )]
    TooLarge,
    #[error(
        "maximum of series ({MAX_SERIES}) reached for a single query; consider reducing query cardinality by adding more specific stream selectors, reducing the time range, or aggregating results with functions like sum(), count() or topk()"
    )]
    TooManySeries,
    #[error(
        "exceeded maximum resolution of 11,000 points per time series. Try increasing the value of the step parameter"
    )]
    TooManySteps,
    #[error(
        "pipeline error: '{error}' for series: '{series}'.\nUse a label filter to intentionally skip this error. (e.g | __error__!=\"{error}\").\nTo skip all potential errors you can match empty errors.(e.g __error__=\"\")\nThe label filter can also be specified after unwrap. (e.g | unwrap latency | __error__=\"\" )\n"
    )]
    Pipeline { error: &'static str, series: String },
    #[error("{0}")]
    Unsupported(&'static str),
    #[error("context canceled")]
    Cancelled,
}

/// What one query may cost. Looked at after every page.
#[derive(Debug)]
pub struct Budget {
    began: Instant,
    timeout: Duration,
    max_bytes: u64,
    bytes: AtomicU64,
    lines: AtomicU64,
    cancelled: Arc<AtomicBool>,
}

impl Budget {
    pub fn new(timeout: Duration, max_bytes: u64) -> Self {
        Self {
            began: Instant::now(),
            timeout,
            max_bytes,
            bytes: AtomicU64::new(0),
            lines: AtomicU64::new(0),
            cancelled: Arc::default(),
        }
    }

    /// Set by whoever no longer wants the answer.
    pub fn cancelled(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancelled)
    }

    pub fn check(&self) -> Result<(), QueryError> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(QueryError::Cancelled);
        }
        if self.began.elapsed() > self.timeout {
            return Err(QueryError::TooLong(self.timeout));
        }
        Ok(())
    }

    pub(super) fn charge(&self, bytes: usize) -> Result<(), QueryError> {
        let before = self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        metrics::counter!(telemetry::SCANNED).increment(bytes as u64);
        if before.saturating_add(bytes as u64) > self.max_bytes {
            return Err(QueryError::TooManyBytes { limit: self.max_bytes });
        }
        self.check()
    }

    fn count_lines(&self, lines: usize) {
        self.lines.fetch_add(lines as u64, Ordering::Relaxed);
    }

    /// Bytes and lines that were looked at, and the seconds since it began.
    pub fn spent(&self) -> (u64, u64, f64) {
        let seconds = self.began.elapsed().as_secs_f64();
        (self.bytes.load(Ordering::Relaxed), self.lines.load(Ordering::Relaxed), seconds)
    }
}
