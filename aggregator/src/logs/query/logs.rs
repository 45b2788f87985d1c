//! The first lines, or the last, of a time: the best so many are kept while the store is walked, nearest part first, and parts that
//! can't better them are not read.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use hashbrown::HashSet;
use picket_proto::model::Labels;
use regex::Regex;

use super::{Budget, Direction, MAX_ANSWER_BYTES, QueryError};
use crate::logs::logql::ast::LogExpr;
use crate::logs::logql::pipeline::{Extracted, Pipeline};
use crate::logs::run::Run;
use crate::logs::scan::{Place, Scan, Sink, scan};
use crate::logs::segments::Snapshot;
use crate::logs::{LogStore, Position};
use crate::store::lock;

/// Lines with `from_ns <= time < to_ns`.
#[derive(Debug)]
pub struct LogQuery {
    pub log: LogExpr,
    pub from_ns: i64,
    pub to_ns: i64,
    pub direction: Direction,
    pub limit: usize,
}

/// Lines of one label set, in the query's direction.
#[derive(Debug, PartialEq, Eq)]
pub struct StreamLines {
    pub labels: Arc<Vec<(String, String)>>,
    pub lines: Vec<(i64, Box<str>)>,
}

#[derive(Debug)]
pub struct LogAnswer {
    pub streams: Vec<StreamLines>,
    /// What comes after the lines that were looked at.
    pub end: Position,
}

impl LogStore {
    /// Finds lines. Blocking.
    pub fn lines(&self, query: &LogQuery, budget: &Budget) -> Result<LogAnswer, QueryError> {
        let from_ns = query.from_ns.max(self.horizon_ns());
        let snapshot = lock(&self.shared.segments).snapshot(from_ns, query.to_ns);
        let end = snapshot.end;
        let streams = self.lines_of(&snapshot, query, from_ns, budget)?;
        Ok(LogAnswer { streams, end })
    }

    fn lines_of(
        &self,
        snapshot: &Snapshot,
        query: &LogQuery,
        from_ns: i64,
        budget: &Budget,
    ) -> Result<Vec<StreamLines>, QueryError> {
        if query.limit == 0 || from_ns >= query.to_ns {
            return Ok(Vec::new());
        }
        let pipeline = Pipeline::new(&query.log.stages);
        let mut best = Best {
            finder: Finder::new(&pipeline),
            pipeline,
            from_ns,
            to_ns: query.to_ns,
            direction: query.direction,
            limit: query.limit,
            heap: BinaryHeap::new(),
            bytes: 0,
            known: HashSet::new(),
            extracted: Extracted::default(),
            budget,
        };
        let request =
            Scan { selector: &query.log.selector, from_ns, to_ns: query.to_ns, direction: query.direction };
        scan(&self.shared, snapshot, &request, budget, &mut best)?;
        Ok(best.finish())
    }
}

/// Finds the lines that have a needle without looking at each.
pub(super) struct Finder(Option<Regex>);

impl Finder {
    pub fn new(pipeline: &Pipeline<'_>) -> Self {
        Self(pipeline.needle().and_then(|needle| Regex::new(&regex::escape(needle)).ok()))
    }

    pub fn none() -> Self {
        Self(None)
    }

    /// Tells the lines of a run that may pass: their number, time and text.
    pub fn lines<'a>(
        &self,
        run: &Run<'a>,
        mut tell: impl FnMut(usize, i64, &'a str) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let Some(regex) = &self.0 else {
            return run.lines().enumerate().try_for_each(|(at, (time, line))| tell(at, time, line));
        };
        let mut hit = regex.find(run.text).map(|found| found.start());
        let mut begin = 0;
        for (at, (&time, &end)) in run.times.iter().zip(&run.ends).enumerate() {
            let end = end as usize;
            // A hit that begins in this line may end in the next one: the filter itself decides.
            if let Some(start) = hit
                && start < end
            {
                if let Some(line) = run.text.get(begin..end) {
                    tell(at, time, line)?;
                }
                hit = regex.find_at(run.text, end).map(|found| found.start());
            }
            if hit.is_none() {
                break;
            }
            begin = end;
        }
        Ok(())
    }
}

/// Smaller is told earlier.
type Key = (i64, u64, u64);

struct Item {
    key: Key,
    labels: Arc<Vec<(String, String)>>,
    line: Box<str>,
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Item {}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

struct Best<'a> {
    finder: Finder,
    pipeline: Pipeline<'a>,
    from_ns: i64,
    to_ns: i64,
    direction: Direction,
    limit: usize,
    /// The one that is told last is on top.
    heap: BinaryHeap<Item>,
    /// Of the heap's lines.
    bytes: usize,
    /// Label sets, so that equal ones are held once.
    known: HashSet<Arc<Vec<(String, String)>>>,
    extracted: Extracted,
    budget: &'a Budget,
}

impl Best<'_> {
    fn key(&self, time: i64, place: Place) -> Key {
        match self.direction {
            Direction::Forward => (time, place.0, place.1),
            Direction::Backward => (!time, !place.0, !place.1),
        }
    }

    /// Whether a line with this key would be among the best.
    fn betters(&self, key: Key) -> bool {
        self.heap.len() < self.limit || self.heap.peek().is_some_and(|worst| key < worst.key)
    }

    fn intern(&mut self, labels: Vec<(String, String)>) -> Arc<Vec<(String, String)>> {
        if let Some(known) = self.known.get(&labels) {
            return Arc::clone(known);
        }
        if self.known.len() > 2 * self.limit + 64 {
            self.known.retain(|labels| Arc::strong_count(labels) > 1);
        }
        let labels = Arc::new(labels);
        self.known.insert(Arc::clone(&labels));
        labels
    }

    fn put(&mut self, item: Item) -> Result<(), QueryError> {
        self.bytes += item.line.len();
        self.heap.push(item);
        if self.heap.len() > self.limit
            && let Some(worst) = self.heap.pop()
        {
            self.bytes -= worst.line.len();
        }
        if self.bytes > MAX_ANSWER_BYTES { Err(QueryError::TooLarge) } else { Ok(()) }
    }

    fn finish(self) -> Vec<StreamLines> {
        let mut streams: Vec<StreamLines> = Vec::new();
        let mut numbers = hashbrown::HashMap::new();
        for item in self.heap.into_sorted_vec() {
            let time = match self.direction {
                Direction::Forward => item.key.0,
                Direction::Backward => !item.key.0,
            };
            let at = *numbers.entry(Arc::clone(&item.labels)).or_insert_with(|| {
                streams.push(StreamLines { labels: item.labels, lines: Vec::new() });
                streams.len() - 1
            });
            if let Some(stream) = streams.get_mut(at) {
                stream.lines.push((time, item.line));
            }
        }
        streams.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        streams
    }
}

impl Sink for Best<'_> {
    fn wants(&self, min_ns: i64, max_ns: i64) -> bool {
        if max_ns < self.from_ns || min_ns >= self.to_ns {
            return false;
        }
        // The best that could come of it; of equal times any may.
        let best = match self.direction {
            Direction::Forward => (min_ns.max(self.from_ns), 0, 0),
            Direction::Backward => (!max_ns.min(self.to_ns), 0, 0),
        };
        self.betters(best)
    }

    fn take(&mut self, labels: &Arc<Labels>, place: Place, run: &Run<'_>) -> Result<(), QueryError> {
        self.budget.count_lines(run.times.len());
        let finder = std::mem::replace(&mut self.finder, Finder::none());
        // The stream's own labels, made when the first line passes.
        let mut own = None;
        let result = finder.lines(run, |at, time, line| {
            if time < self.from_ns || time >= self.to_ns {
                return Ok(());
            }
            let key = self.key(time, (place.0, place.1 + at as u64));
            if !self.betters(key) {
                return Ok(());
            }
            let mut extracted = std::mem::take(&mut self.extracted);
            let passes = self.pipeline.run(labels, line, &mut extracted);
            let mut outcome = Ok(());
            if passes {
                let labels = if self.pipeline.changes_labels() {
                    self.intern(extracted.labels(labels))
                } else {
                    match &own {
                        Some(own) => Arc::clone(own),
                        None => {
                            let made = self.intern(extracted.labels(labels));
                            own = Some(Arc::clone(&made));
                            made
                        }
                    }
                };
                outcome = self.put(Item { key, labels, line: line.into() });
            }
            self.extracted = extracted;
            outcome
        });
        self.finder = finder;
        result
    }
}
