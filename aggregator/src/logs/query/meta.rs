//! Which labels, values and streams there are.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt as _;

use hashbrown::HashSet;
use picket_proto::model::Labels;
use serde::Serialize;

use super::{Budget, QueryError};
use crate::logs::logql::ast::Selector;
use crate::logs::{LogStore, wal};
use crate::store::lock;

/// Names, values or streams of one answer, at most.
const MAX_ITEMS: usize = 100_000;

/// Streams with lines in `from_ns <= time < to_ns` that any of the selectors matches; none of them: all streams.
#[derive(Debug)]
pub struct StreamsQuery {
    pub selectors: Vec<Selector>,
    pub from_ns: i64,
    pub to_ns: i64,
}

/// How much there is of a selection.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Stats {
    pub streams: u64,
    pub chunks: u64,
    pub bytes: u64,
    pub entries: u64,
}

/// A part of a stream.
struct Part<'a> {
    labels: &'a Labels,
    lines: u64,
    bytes: u64,
}

impl LogStore {
    /// Label names, in order. Blocking.
    pub fn label_names(&self, query: &StreamsQuery, budget: &Budget) -> Result<Vec<String>, QueryError> {
        let mut names = BTreeSet::new();
        self.parts(query, budget, |part| {
            for (name, _) in part.labels.iter() {
                if !names.contains(name) && names.len() < MAX_ITEMS {
                    names.insert(name.to_owned());
                }
            }
        })?;
        Ok(names.into_iter().collect())
    }

    /// Values of one label, in order. Blocking.
    pub fn label_values(
        &self,
        name: &str,
        query: &StreamsQuery,
        budget: &Budget,
    ) -> Result<Vec<String>, QueryError> {
        let mut values = BTreeSet::new();
        self.parts(query, budget, |part| {
            if let Some(value) = part.labels.get(name)
                && !values.contains(value)
                && values.len() < MAX_ITEMS
            {
                values.insert(value.to_owned());
            }
        })?;
        Ok(values.into_iter().collect())
    }

    /// The label sets, in order. Blocking.
    pub fn series(&self, query: &StreamsQuery, budget: &Budget) -> Result<Vec<Labels>, QueryError> {
        let mut found: HashSet<Labels> = HashSet::new();
        self.parts(query, budget, |part| {
            if !found.contains(part.labels) && found.len() < MAX_ITEMS {
                found.insert(part.labels.clone());
            }
        })?;
        let mut found: Vec<Labels> = found.into_iter().collect();
        found.sort_by(|a, b| a.iter().cmp(b.iter()));
        Ok(found)
    }

    /// How much there is. Of a page that is partly in the time all is counted. Blocking.
    pub fn stats(&self, query: &StreamsQuery, budget: &Budget) -> Result<Stats, QueryError> {
        let mut stats = Stats::default();
        let mut streams: HashSet<Labels> = HashSet::new();
        self.parts(query, budget, |part| {
            if !streams.contains(part.labels) && streams.len() < MAX_ITEMS {
                streams.insert(part.labels.clone());
            }
            stats.chunks += 1;
            stats.bytes += part.bytes;
            stats.entries += part.lines;
        })?;
        stats.streams = streams.len() as u64;
        Ok(stats)
    }

    fn parts(
        &self,
        query: &StreamsQuery,
        budget: &Budget,
        mut tell: impl FnMut(&Part<'_>),
    ) -> Result<(), QueryError> {
        let from_ns = query.from_ns.max(self.horizon_ns());
        let snapshot = lock(&self.shared.segments).snapshot(from_ns, query.to_ns);
        let wanted = |labels: &Labels| {
            query.selectors.is_empty() || query.selectors.iter().any(|selector| selector.matches(labels))
        };
        for chunk in &snapshot.chunks {
            budget.check()?;
            let Some((_, index)) = chunk.index(&self.shared.indexes) else { continue };
            for stream in &index.streams {
                let mut runs = stream
                    .runs
                    .iter()
                    .filter(|run| run.max_ns >= from_ns && run.min_ns < query.to_ns)
                    .peekable();
                if runs.peek().is_none() || !wanted(&stream.labels) {
                    continue;
                }
                for run in runs {
                    tell(&Part {
                        labels: &stream.labels,
                        lines: u64::from(run.lines),
                        bytes: u64::from(run.text_bytes),
                    });
                }
            }
        }
        let mut buffer = Vec::new();
        for part in &snapshot.wals {
            for frame in &part.frames {
                budget.check()?;
                buffer.resize(frame.length as usize, 0);
                if part.file.read_exact_at(&mut buffer, frame.offset).is_err() {
                    continue;
                }
                let Some((_, mut streams)) = wal::open(&buffer) else { continue };
                while let Some((labels, run)) = streams.next(wanted) {
                    if let Some(run) = run {
                        tell(&Part {
                            labels: &labels,
                            lines: run.times.len() as u64,
                            bytes: run.text.len() as u64,
                        });
                    }
                }
            }
        }
        Ok(())
    }
}
