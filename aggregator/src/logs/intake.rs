//! What may come in: labels, age and length of lines, and how many label sets one source may have.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use picket_proto::model::Labels;
use picket_proto::v1;

use super::push::PushedStream;
use super::{MAX_AHEAD, MAX_LINE, Shared, Stream, labels, telemetry};
use crate::clock::millis;
use crate::store::lock;

/// A label set without a line for this long makes room for another.
const IDLE_MS: i64 = 2 * 3600 * 1000;
/// Looking for idle ones isn't done more often than this.
const SWEEP_MS: i64 = 30 * 1000;
/// Of all sources together.
const MAX_STREAMS: usize = 200_000;
const MAX_STREAM_BYTES: usize = 128 << 20;
/// Refusals of one push that are told.
const MAX_TOLD: usize = 10;

/// Why a pushed line is not kept. The text is what Loki says, because its clients know that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "entry for stream '{stream}' has timestamp too old: {at}, oldest acceptable timestamp is: {oldest}"
    )]
    TooOld { stream: String, at: String, oldest: String },
    #[error("entry for stream '{stream}' has timestamp too new: {at}")]
    TooNew { stream: String, at: String },
    #[error(
        "Max entry size '{MAX_LINE}' bytes exceeded for stream '{stream}' while adding an entry with length '{length}' bytes"
    )]
    TooLong { stream: String, length: usize },
    #[error("stream '{stream}' has invalid labels: {error}")]
    Labels { stream: String, error: String },
    #[error("error at least one label pair is required per stream")]
    NoLabels,
    #[error(
        "Maximum active stream limit exceeded when trying to create stream {stream}, reduce the number of active streams (reduce labels or reduce label values), or raise logs.max_streams_per_node"
    )]
    Streams { stream: String },
}

impl Refusal {
    fn reason(&self) -> &'static str {
        match self {
            Self::TooOld { .. } => "too_old",
            Self::TooNew { .. } => "too_new",
            Self::TooLong { .. } => "too_long",
            Self::Labels { .. } | Self::NoLabels => "labels",
            Self::Streams { .. } => "streams",
        }
    }
}

/// What is left of a batch, and what was dropped of it.
#[derive(Default)]
pub(super) struct Taken {
    pub streams: Vec<Stream>,
    pub refused: Vec<Refusal>,
    dropped: BTreeMap<&'static str, u64>,
    truncated: u64,
}

impl Taken {
    pub fn bytes(&self) -> usize {
        self.streams.iter().map(|s| s.text.len() + s.times.len() * 12 + 64).sum()
    }

    pub fn lines(&self) -> usize {
        self.streams.iter().map(|s| s.times.len()).sum()
    }

    /// Counts it; done once for a batch however often it comes.
    pub fn count(&self, via: &'static str) {
        let text: usize = self.streams.iter().map(|s| s.text.len()).sum();
        metrics::counter!(telemetry::LINES, "via" => via).increment(self.lines() as u64);
        metrics::counter!(telemetry::BYTES, "via" => via).increment(text as u64);
        for (reason, lines) in &self.dropped {
            metrics::counter!(telemetry::DROPPED, "reason" => *reason).increment(*lines);
        }
        if self.truncated > 0 {
            metrics::counter!(telemetry::TRUNCATED).increment(self.truncated);
        }
    }

    fn drop_lines(&mut self, reason: &'static str, lines: usize) {
        if lines > 0 {
            *self.dropped.entry(reason).or_default() += lines as u64;
        }
    }

    fn refuse(&mut self, refusal: Refusal, lines: usize) {
        self.drop_lines(refusal.reason(), lines);
        if self.refused.len() < MAX_TOLD {
            self.refused.push(refusal);
        }
    }
}

/// The times that are taken, Unix ns.
struct Window {
    oldest: i64,
    newest: i64,
}

impl Shared {
    fn window(&self, now_ms: i64) -> Window {
        let ns = |ms: i64| ms.saturating_mul(1_000_000);
        Window {
            oldest: ns(now_ms.saturating_sub(millis(self.options.max_age))),
            newest: ns(now_ms.saturating_add(millis(MAX_AHEAD))),
        }
    }

    /// An agent's streams. Its lines can't be sent back to it, so a line that is too long is cut.
    pub(super) fn take_agent(&self, node: &str, batch: Vec<v1::LogStream>, now_ms: i64) -> Taken {
        let window = self.window(now_ms);
        let mut taken = Taken::default();
        for stream in batch {
            let count = stream.lines.len();
            let pairs = stream.labels.into_iter().map(|label| (label.name, label.value));
            let Ok(found) = labels::of_agent(node, pairs) else {
                taken.drop_lines("labels", count);
                continue;
            };
            let Some(labels) = lock(&self.streams).admit(found, node, now_ms) else {
                taken.drop_lines("streams", count);
                continue;
            };
            taken.drop_lines("malformed", count.saturating_sub(stream.timestamps_ns.len()));
            let mut kept = Stream::new(labels, count);
            for (time, line) in stream.timestamps_ns.into_iter().zip(stream.lines) {
                match () {
                    () if time < window.oldest => taken.drop_lines("too_old", 1),
                    () if time > window.newest => taken.drop_lines("too_new", 1),
                    () => {
                        let cut = cut(&line);
                        taken.truncated += u64::from(cut.len() < line.len());
                        kept.add(time, cut);
                    }
                }
            }
            taken.streams.extend(kept.some());
        }
        taken
    }

    /// Pushed streams; what is not kept is told.
    pub(super) fn take_push(&self, token: &str, streams: Vec<PushedStream>, now_ms: i64) -> Taken {
        let window = self.window(now_ms);
        let mut taken = Taken::default();
        for stream in streams {
            let count = stream.entries.len();
            if stream.labels.is_empty() {
                taken.refuse(Refusal::NoLabels, count);
                continue;
            }
            let text =
                || labels::text(stream.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            let found = match labels::of_push(token, stream.labels.iter().cloned()) {
                Ok(found) => found,
                Err(error) => {
                    taken.refuse(Refusal::Labels { stream: text(), error: error.to_string() }, count);
                    continue;
                }
            };
            let Some(labels) = lock(&self.streams).admit(found, token, now_ms) else {
                taken.refuse(Refusal::Streams { stream: text() }, count);
                continue;
            };
            let mut kept = Stream::new(labels, count);
            for (time, line) in &stream.entries {
                let (time, at) = (*time, || crate::clock::rfc3339(time.div_euclid(1_000_000)));
                match () {
                    () if time < window.oldest => {
                        let oldest = crate::clock::rfc3339(window.oldest.div_euclid(1_000_000));
                        taken.refuse(Refusal::TooOld { stream: text(), at: at(), oldest }, 1);
                    }
                    () if time > window.newest => {
                        taken.refuse(Refusal::TooNew { stream: text(), at: at() }, 1);
                    }
                    () if line.len() > MAX_LINE => {
                        taken.refuse(Refusal::TooLong { stream: text(), length: line.len() }, 1);
                    }
                    () => kept.add(time, line),
                }
            }
            taken.streams.extend(kept.some());
        }
        taken
    }
}

impl Stream {
    pub fn new(labels: Arc<Labels>, lines: usize) -> Self {
        let capacity = lines.min(64 << 10);
        Self {
            labels,
            times: Vec::with_capacity(capacity),
            lengths: Vec::with_capacity(capacity),
            text: String::new(),
        }
    }

    pub fn add(&mut self, time: i64, line: &str) {
        self.times.push(time);
        self.lengths.push(line.len() as u32);
        self.text.push_str(line);
    }

    fn some(self) -> Option<Self> {
        (!self.times.is_empty()).then_some(self)
    }
}

fn cut(line: &str) -> &str {
    if line.len() <= MAX_LINE {
        return line;
    }
    let end = (0..=MAX_LINE).rev().find(|&at| line.is_char_boundary(at)).unwrap_or(0);
    line.get(..end).unwrap_or_default()
}

/// The label sets that have lines of late, and whose they are.
pub(super) struct Streams {
    known: HashMap<Arc<Labels>, Seen>,
    sources: HashMap<Arc<str>, usize>,
    bytes: usize,
    max_per_source: usize,
    swept_ms: i64,
}

struct Seen {
    source: Arc<str>,
    last_ms: i64,
}

impl Streams {
    pub fn new(max_per_source: usize) -> Self {
        Self { known: HashMap::new(), sources: HashMap::new(), bytes: 0, max_per_source, swept_ms: i64::MIN }
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// The label set as all share it; `None` where there is no room for one more.
    pub fn admit(&mut self, labels: Labels, source: &str, now_ms: i64) -> Option<Arc<Labels>> {
        if let Some((known, _)) = self.known.get_key_value(&labels) {
            let known = Arc::clone(known);
            if let Some(seen) = self.known.get_mut(&labels) {
                seen.last_ms = now_ms;
            }
            return Some(known);
        }
        if self.is_full(source) {
            self.sweep(now_ms);
            if self.is_full(source) {
                return None;
            }
        }
        let source: Arc<str> = match self.sources.get_key_value(source) {
            Some((known, _)) => Arc::clone(known),
            None => source.into(),
        };
        *self.sources.entry(Arc::clone(&source)).or_default() += 1;
        self.bytes += bytes(&labels);
        let labels = Arc::new(labels);
        self.known.insert(Arc::clone(&labels), Seen { source, last_ms: now_ms });
        Some(labels)
    }

    fn is_full(&self, source: &str) -> bool {
        self.known.len() >= MAX_STREAMS
            || self.bytes >= MAX_STREAM_BYTES
            || self.sources.get(source).is_some_and(|&count| count >= self.max_per_source)
    }

    /// Forgets what had no line for a while.
    pub fn sweep(&mut self, now_ms: i64) {
        if now_ms.saturating_sub(self.swept_ms) < SWEEP_MS {
            return;
        }
        self.swept_ms = now_ms;
        let (sources, total) = (&mut self.sources, &mut self.bytes);
        self.known.retain(|labels, seen| {
            let stays = now_ms.saturating_sub(seen.last_ms) < IDLE_MS;
            if !stays {
                *total = total.saturating_sub(bytes(labels));
                if let Some(count) = sources.get_mut(&seen.source) {
                    *count = count.saturating_sub(1);
                }
            }
            stays
        });
        sources.retain(|_, count| *count > 0);
    }
}

/// What a label set costs in memory, roughly.
fn bytes(labels: &Labels) -> usize {
    96 + labels.iter().map(|(name, value)| 64 + name.len() + value.len()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(n: usize) -> Labels {
        Labels::new([("n".to_owned(), n.to_string())]).unwrap()
    }

    #[test]
    fn one_source_cannot_take_anothers_room() {
        let mut streams = Streams::new(3);
        for n in 0..3 {
            assert!(streams.admit(labels(n), "a", 0).is_some());
        }
        assert!(streams.admit(labels(3), "a", 0).is_none(), "full");
        assert!(streams.admit(labels(1), "a", 0).is_some(), "known");
        assert!(streams.admit(labels(4), "b", 0).is_some(), "another source");
        assert_eq!(streams.len(), 4);
    }

    #[test]
    fn idle_label_sets_make_room() {
        let mut streams = Streams::new(2);
        assert!(streams.admit(labels(0), "a", 0).is_some());
        assert!(streams.admit(labels(1), "a", IDLE_MS / 2).is_some());
        assert!(streams.admit(labels(2), "a", IDLE_MS - 1).is_none());
        // The first is idle now, the second isn't.
        assert!(streams.admit(labels(2), "a", IDLE_MS + SWEEP_MS).is_some());
        assert!(streams.admit(labels(3), "a", IDLE_MS + SWEEP_MS).is_none());
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let line = "ü".repeat(MAX_LINE);
        let got = cut(&line);
        assert!(got.len() <= MAX_LINE && got.len() > MAX_LINE - 2);
        assert_eq!(cut("short"), "short");
    }
}
