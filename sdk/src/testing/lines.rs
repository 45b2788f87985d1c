//! The twin of `logs`: sources that a test writes to, with the host's commit at the end of a good collect.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::logs::{Batch, Chunk, LogsError, Page, Selection, SourceKind};

/// As much as a node hands out at once of one source.
const PIECE: usize = 128 << 10;

#[derive(Default)]
pub(crate) struct Lines {
    sources: Vec<Source>,
    /// The source of each chunk of this collect.
    handed: Vec<usize>,
    held: BTreeMap<usize, u32>,
    emitted: Vec<Batch>,
    pub full: bool,
    /// What the plugin last asked for.
    pub asked: Option<Selection>,
    /// What good collects emitted.
    pub taken: Vec<Batch>,
}

struct Source {
    kind: SourceKind,
    name: String,
    labels: Vec<(String, String)>,
    bytes: Vec<u8>,
    /// Committed, and read in this collect.
    at: usize,
    next: usize,
    ended: bool,
    waiting: Option<Duration>,
}

impl Lines {
    pub fn write(&mut self, kind: SourceKind, name: &str, labels: &[(&str, &str)], bytes: &[u8]) {
        if let Some(source) = self.sources.iter_mut().find(|s| s.kind == kind && s.name == name) {
            source.bytes.extend_from_slice(bytes);
            return;
        }
        self.sources.push(Source {
            kind,
            name: name.to_owned(),
            labels: labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            bytes: bytes.to_vec(),
            at: 0,
            next: 0,
            ended: false,
            waiting: None,
        });
    }

    pub fn end(&mut self, name: &str) {
        for source in self.sources.iter_mut().filter(|s| s.name == name) {
            source.ended = true;
        }
    }

    pub fn read(&mut self, wanted: &Selection, most: u32, now: Duration) -> Result<Page, LogsError> {
        self.asked = Some(wanted.clone());
        let mut page = Page { full: self.full, more: self.full, ..Page::default() };
        let mut room = if self.full { 0 } else { most as usize };
        for (index, source) in self.sources.iter_mut().enumerate() {
            if self.held.contains_key(&index) {
                continue;
            }
            let rest = source.bytes.get(source.next..).unwrap_or_default();
            let piece = rest.get(..rest.len().min(PIECE)).unwrap_or_default();
            let whole = piece.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            let ends = source.ended && piece.len() == rest.len();
            let length = if ends { piece.len() } else { whole };
            if length == 0 || room < length {
                page.more |= length > 0;
                continue;
            }
            room -= length;
            let fresh = source.next == source.at;
            let waited = source.waiting.filter(|_| fresh).map_or(Duration::ZERO, |since| now - since);
            source.next += length;
            page.chunks.push(Chunk {
                id: u32::try_from(self.handed.len()).unwrap_or(u32::MAX),
                kind: source.kind,
                name: source.name.clone(),
                labels: source.labels.clone(),
                bytes: piece.get(..length).unwrap_or_default().to_vec(),
                waited,
                last: ends,
                cut: false,
            });
            self.handed.push(index);
        }
        Ok(page)
    }

    pub fn hold(&mut self, chunk: u32, bytes: u32) -> Result<(), LogsError> {
        let source = self.handed.get(chunk as usize);
        let source = source.ok_or_else(|| LogsError::Invalid(format!("there is no chunk {chunk}")))?;
        self.held.insert(*source, bytes);
        Ok(())
    }

    pub fn emit(&mut self, batches: Vec<Batch>) -> Result<(), LogsError> {
        if let Some(batch) = batches.iter().find(|b| b.timestamps.len() != b.lines.len()) {
            let (times, lines) = (batch.timestamps.len(), batch.lines.len());
            return Err(LogsError::Invalid(format!("{times} times for {lines} lines")));
        }
        self.emitted.extend(batches);
        Ok(())
    }

    /// `good`: what was read is done with, less what was held back.
    pub fn collect_ended(&mut self, good: bool, now: Duration) {
        let emitted = std::mem::take(&mut self.emitted);
        if good {
            self.taken.extend(emitted);
        }
        let held = std::mem::take(&mut self.held);
        self.handed.clear();
        for (index, source) in self.sources.iter_mut().enumerate() {
            if good {
                let back = held.get(&index).copied().unwrap_or(0);
                let at = source.next.saturating_sub(back as usize).max(source.at);
                source.waiting = match (back, source.waiting) {
                    (0, _) => None,
                    (_, Some(since)) if at == source.at => Some(since),
                    _ => Some(now),
                };
                source.at = at;
            }
            source.next = source.at;
        }
    }
}
