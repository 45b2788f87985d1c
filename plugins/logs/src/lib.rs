//! The node's logs as labelled lines: containers' log files, any files, the journal.
//!
//! The plugin keeps nothing between collects but which label sets it has seen. What it read is done with when the collect
//! ends well, together with what it emitted; a trace that may go on is held back and comes again with its rest. So a crash
//! anywhere costs no line and repeats none.

mod decode;
mod level;
mod multiline;
mod redact;
mod settings;
mod streams;
mod time;

use std::borrow::Cow;
use std::collections::BTreeMap;

use picket_sdk::logs::{self, Chunk, Selection, SourceKind};
use picket_sdk::{Collect, CounterFamily, Describe, Failure, Source, clock};
use serde_json::Value;

use decode::{Format, Line};
use level::Level;
use multiline::Block;
use redact::Redactor;
use settings::Dropper;
pub use settings::Settings;
use streams::{Origin, Streams};

/// What one collect reads.
const COLLECT: u32 = 1 << 20;
/// Beyond this nothing is held back, so that a collect always gets on.
const MAX_HELD: usize = 96 << 10;
const CUT: &str = "[…cut]";

/// The plugin.
pub struct Logs {
    settings: Settings,
    selection: Selection,
    redactor: Redactor,
    droppers: Vec<Dropper>,
    streams: Streams,
    /// Lines of this collect that say no time.
    read: u64,
    entries: CounterFamily<2>,
    redacted: CounterFamily<1>,
    dropped: CounterFamily<1>,
    oddities: CounterFamily<1>,
}

impl Source for Logs {
    type Settings = Settings;

    fn describe(d: &mut Describe) -> Self {
        let settings = Settings::default();
        Self {
            redactor: Redactor::default(),
            selection: Selection::default(),
            droppers: Vec::new(),
            streams: Streams::new(settings.max_streams),
            read: 0,
            entries: d
                .counter("picket_log_entries_total", "Entries that were sent on: a line, or a joined trace.")
                .labels(&["source", "level"]),
            redacted: d
                .counter("picket_log_redactions_total", "Entries in which a redaction rule found something.")
                .labels(&["rule"]),
            dropped: d
                .counter("picket_log_dropped_total", "Entries that a drop rule left out.")
                .labels(&["rule"]),
            oddities: d
                .counter(
                    "picket_log_oddities_total",
                    "Entries that are not as they were written or expected: cut, invalid-utf8, malformed, other-stream.",
                )
                .labels(&["kind"]),
            settings,
        }
    }

    fn configure(&mut self, settings: Settings) -> Result<(), Failure> {
        settings.check()?;
        self.redactor = Redactor::new(&settings.redact)?;
        self.droppers = settings.droppers()?;
        self.streams = Streams::new(settings.max_streams);
        self.selection = Selection {
            files: settings.files.clone(),
            units: settings.units.clone(),
            from_the_end: settings.from == settings::From::End,
        };
        self.settings = settings;
        Ok(())
    }

    fn collect(&mut self, c: &mut Collect<'_>) -> Result<(), Failure> {
        let page = logs::read(&self.selection, COLLECT)?;
        for (reason, message) in &page.failures {
            c.fail(reason, message);
        }
        if page.full {
            return Ok(());
        }
        // The chunks of one source stand in its order.
        let mut sources: BTreeMap<(bool, &str), Vec<&Chunk>> = BTreeMap::new();
        for chunk in &page.chunks {
            sources.entry((chunk.kind == SourceKind::Journal, &chunk.name)).or_default().push(chunk);
        }
        let now = u64::try_from(clock::now().as_nanos()).unwrap_or(u64::MAX);
        self.streams.begin(now);
        self.read = 0;
        for chunks in sources.values() {
            self.source(chunks, now)?;
        }
        let batches = self.streams.take();
        if batches.is_empty() { Ok(()) } else { Ok(logs::emit(batches)?) }
    }
}

impl Logs {
    /// All that one source gave in this collect.
    fn source(&mut self, chunks: &[&Chunk], now: u64) -> Result<(), Failure> {
        let (Some(first), Some(last)) = (chunks.first(), chunks.last()) else { return Ok(()) };
        let format = Format::of(first);
        let multiline = &self.settings.multiline;
        let most = if multiline.enabled { multiline.lines } else { 1 };
        let lines = decode::lines(format, chunks, self.settings.max_line);
        let mut blocks = multiline::join(lines, most);
        let end: usize = chunks.iter().map(|chunk| chunk.bytes.len()).sum();
        // The beginning has waited long enough, or nothing follows.
        let over = first.waited.as_secs_f64() >= multiline.seconds && !first.waited.is_zero();
        for block in &mut blocks {
            let ends = last.last || (over && block.first.from == 0);
            block.open &= !ends;
        }
        let mut hold = multiline::hold_from(&blocks, end);
        if end - hold > MAX_HELD {
            hold = end;
        }
        if hold < end {
            let bytes = u32::try_from(end - hold).unwrap_or(u32::MAX);
            logs::hold(last.id, bytes)?;
        }
        let origin = Origin::new(first, format, &self.settings);
        for block in blocks.into_iter().filter(|block| block.first.from < hold) {
            self.block(block, &origin, now);
        }
        Ok(())
    }

    fn block(&mut self, block: Block<'_>, origin: &Origin<'_>, now: u64) {
        let Block { first, more, .. } = block;
        let Line { text, time, stream, priority, unit, container, cut, invalid, malformed, .. } = first;
        for (kind, odd) in [("cut", cut), ("invalid-utf8", invalid), ("malformed", malformed)] {
            if odd {
                self.oddities.with(&[kind]).inc();
            }
        }
        let (mut text, was_cut) = shorten(text, self.settings.max_line);
        if was_cut && !cut {
            self.oddities.with(&["cut"]).inc();
        }
        if cut && !was_cut {
            text.to_mut().push_str(CUT);
        }
        for line in &more {
            let (line, _) = shorten(Cow::Borrowed(line.as_str()), self.settings.max_line);
            let text = text.to_mut();
            text.push('\n');
            text.push_str(&line);
        }
        let (said, said_time) = facts(&text);
        let level = said.or(priority).unwrap_or(Level::Unknown);
        let unit = if unit.is_empty() { origin.unit } else { &unit };
        let container = if container.is_empty() { origin.container } else { &container };
        if let Some(rule) = self.droppers.iter().find(|rule| rule.drops(&text, level, container, unit)) {
            return self.dropped.with(&[&rule.name]).inc();
        }
        let redacted = &mut self.redacted;
        let text = self.redactor.apply(text, |rule| redacted.with(&[rule]).inc());
        // Lines without a time of their own keep their order, and equal ones stay two.
        let time = time.or(said_time).unwrap_or_else(|| {
            self.read += 1;
            now + self.read
        });
        self.entries.with(&[origin.source, level.word()]).inc();
        let known = self.streams.add(&origin.labels(container, unit, stream, level), time, text.into_owned());
        if !known {
            self.oddities.with(&["other-stream"]).inc();
        }
    }
}

/// The text, or as much of it as a line may have.
fn shorten(text: Cow<'_, str>, most: usize) -> (Cow<'_, str>, bool) {
    if text.len() <= most {
        return (text, false);
    }
    let end = text.floor_char_boundary(most);
    (Cow::Owned(format!("{}{CUT}", text.get(..end).unwrap_or_default())), true)
}

/// Level and time, as the text says them itself.
fn facts(text: &str) -> (Option<Level>, Option<u64>) {
    if text.starts_with('{')
        && let Ok(Value::Object(fields)) = serde_json::from_str(text)
    {
        let of = |keys: &[&str]| keys.iter().find_map(|key| fields.get(*key));
        let level = of(&["level", "severity", "lvl", "levelname", "log.level", "loglevel"]);
        let time = of(&["time", "ts", "timestamp", "@timestamp"]);
        return (level.and_then(Level::of_value), time.and_then(time::of_value));
    }
    (Level::of_text(text), time::of_text(text))
}

picket_sdk::export!(Logs);
