//! The log lines of one collect: what the guest read, held back and emitted, until it ends.
//!
//! Lines and cursors leave in one piece ([`LogRecord`]) after a collect that ended well, and in none after any other: the
//! next collect reads the same again.

use std::sync::atomic::{AtomicU64, Ordering};

use picket_agent_services::grants::Grant;
use picket_agent_services::{Request, Response, Services, logs};
use picket_proto::model::Labels;
use picket_proto::v1;

use crate::points::Times;
use crate::readings::Refused;
use crate::sink::SampleSink;

/// Bytes of lines and labels that one collect may emit.
const MAX_BYTES: usize = 4 << 20;
/// Batches that one collect may emit.
const MAX_BATCHES: usize = 4096;
/// The most labels of a batch.
const MAX_LABELS: usize = 32;

/// Labels, times and lines, as a guest emits them.
pub(crate) type Emitted = (Vec<(String, String)>, Times, Vec<String>);

/// What one collect has done with logs: lines, and where reading goes on after them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogRecord {
    pub streams: Vec<v1::LogStream>,
    /// By source; an empty cursor: the source is no more.
    pub cursors: Vec<(String, String)>,
}

/// The part of an instance that its logs are.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// Numbers collects over all plugins and instances; 0: none is under way.
    collect: u64,
    /// What may be read, in bytes; 0: what was emitted could not be kept.
    room: u64,
    held: Vec<(u32, u32)>,
    read: bool,
    streams: Vec<v1::LogStream>,
    bytes: usize,
}

static COLLECT: AtomicU64 = AtomicU64::new(1);

impl Lines {
    pub(crate) fn begin(&mut self, room: u64) {
        *self = Self { collect: COLLECT.fetch_add(1, Ordering::Relaxed), room, ..Self::default() };
    }

    /// What the host asks of the services for one `read`; none: the queue is full.
    pub(crate) fn ask(&mut self, wanted: logs::Wanted, most: u32) -> Option<logs::Request> {
        if self.room == 0 {
            return None;
        }
        self.read = true;
        let most = usize::try_from(self.room).unwrap_or(usize::MAX).min(most as usize);
        let held = self.held.iter().map(|(chunk, _)| *chunk).collect();
        Some(logs::Request::Read { collect: self.collect, wanted, most, held })
    }

    pub(crate) fn hold(&mut self, chunk: u32, bytes: u32) -> Result<(), Refused> {
        if self.held.len() >= MAX_BATCHES {
            return Err(Refused::over(format!("{MAX_BATCHES} chunks are held back in one collect")));
        }
        self.held.push((chunk, bytes));
        Ok(())
    }

    /// All or nothing.
    pub(crate) fn emit(&mut self, batches: Vec<Emitted>) -> Result<(), Refused> {
        if self.collect == 0 {
            return Err(Refused::Other("lines are taken during collect alone".to_owned()));
        }
        let mut streams = Vec::with_capacity(batches.len());
        let mut bytes = self.bytes;
        for (labels, Times(timestamps), lines) in batches {
            if timestamps.len() != lines.len() {
                let message = format!("{} times for {} lines", timestamps.len(), lines.len());
                return Err(Refused::Invalid(message));
            }
            let labels = Labels::new(labels).map_err(|e| Refused::Invalid(e.to_string()))?;
            if labels.iter().count() > MAX_LABELS {
                return Err(Refused::Invalid(format!("more than {MAX_LABELS} labels")));
            }
            bytes += lines.iter().map(|line| line.len() + 8).sum::<usize>();
            bytes += labels.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
            if bytes > MAX_BYTES || self.streams.len() + streams.len() >= MAX_BATCHES {
                let what =
                    format!("{MAX_BYTES} bytes in {MAX_BATCHES} batches are what one collect may emit");
                return Err(Refused::over(what));
            }
            let label =
                |(name, value): (&str, &str)| v1::Label { name: name.to_owned(), value: value.to_owned() };
            let time = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
            streams.push(v1::LogStream {
                labels: labels.iter().map(label).collect(),
                timestamps_ns: timestamps.into_iter().map(time).collect(),
                lines,
            });
        }
        self.bytes = bytes;
        self.streams.extend(streams);
        Ok(())
    }

    /// See [`crate::desk::Desk::hand_over_lines`].
    pub(crate) async fn hand_over(
        self,
        services: &Services,
        grant: &Grant,
        sink: &mut dyn SampleSink,
    ) -> Result<(), String> {
        let Self { collect, held, read, streams, .. } = self;
        if !read && streams.is_empty() {
            return Ok(());
        }
        let mut cursors = Vec::new();
        if read {
            let prepare = Request::Logs(logs::Request::Prepare { collect, held });
            cursors = match services.call(grant, prepare).await {
                Response::Logs(Ok(logs::Answer::Cursors(cursors))) => cursors,
                Response::Logs(Err(e)) => return Err(e.to_string()),
                _ => return Err("the reading of logs gave another question's answer".to_owned()),
            };
        }
        if !streams.is_empty() || !cursors.is_empty() {
            sink.logs(LogRecord { streams, cursors })?;
        }
        if read {
            let commit = Request::Logs(logs::Request::Commit { collect });
            if let Response::Logs(Err(e)) = services.call(grant, commit).await {
                // The record is there already: what reads on must know, or the lines would come twice.
                tracing::error!(plugin = %grant.plugin(), "the place in the logs was not taken over: {e}");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(labels: &[(&str, &str)], lines: &[&str]) -> Emitted {
        let labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        (labels, Times(vec![1; lines.len()]), lines.iter().map(|l| (*l).to_owned()).collect())
    }

    #[test]
    fn emitting_is_all_or_nothing_and_bounded() {
        let mut lines = Lines::default();
        assert!(matches!(lines.emit(vec![batch(&[], &["x"])]), Err(Refused::Other(_))));
        lines.begin(u64::MAX);
        lines.emit(vec![batch(&[("b", "1"), ("a", "2")], &["x", "y"])]).unwrap();
        assert_eq!(lines.streams[0].labels[0].name, "a");
        let bad = vec![batch(&[("a", "1")], &["x"]), batch(&[("0a", "1")], &["x"])];
        assert!(matches!(lines.emit(bad), Err(Refused::Invalid(_))));
        let uneven = vec![(Vec::new(), Times(vec![1, 2]), vec!["x".to_owned()])];
        assert!(matches!(lines.emit(uneven), Err(Refused::Invalid(_))));
        assert_eq!(lines.streams.len(), 1);
        let large = "x".repeat(1 << 20);
        for _ in 0..3 {
            lines.emit(vec![batch(&[], &[&large])]).unwrap();
        }
        assert!(matches!(lines.emit(vec![batch(&[], &[&large])]), Err(Refused::Quota { .. })));
    }

    #[test]
    fn a_full_queue_stops_the_reading() {
        let mut lines = Lines::default();
        lines.begin(0);
        assert_eq!(lines.ask(logs::Wanted::default(), 100), None);
        lines.begin(50);
        let Some(logs::Request::Read { most, .. }) = lines.ask(logs::Wanted::default(), 100) else {
            panic!()
        };
        assert_eq!(most, 50);
    }
}
