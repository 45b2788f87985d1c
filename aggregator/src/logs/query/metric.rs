//! Numbers out of lines: counts and bytes in a sliding window, at steps, and what is computed of them.
//!
//! A line adds to all steps whose window holds it; the differences between neighbouring steps are added up at the end, so that a line
//! costs the same however many steps its window covers.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use picket_proto::model::Labels;

use super::logs::Finder;
use super::{Budget, Direction, MAX_SERIES, QueryError};
use crate::logs::logql::ast::{Aggregation, Compare, Grouping, LogExpr, MetricExpr, Operator, RangeFunction};
use crate::logs::logql::pipeline::{Extracted, Pipeline};
use crate::logs::run::Run;
use crate::logs::scan::{Place, Scan, Sink, scan};
use crate::logs::{LogStore, labels};
use crate::store::lock;

/// Steps of all series of one range function together.
const MAX_CELLS: usize = 4 << 20;

type Pairs = Vec<(String, String)>;

/// The times at which a query is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    pub start_ns: i64,
    pub step_ns: i64,
    pub count: usize,
}

impl Grid {
    pub fn instant(at_ns: i64) -> Self {
        Self { start_ns: at_ns, step_ns: 1, count: 1 }
    }

    /// From start to end, both included.
    pub fn new(start_ns: i64, end_ns: i64, step_ns: i64) -> Result<Self, QueryError> {
        let steps = end_ns.saturating_sub(start_ns) / step_ns.max(1);
        let count = usize::try_from(steps).unwrap_or(usize::MAX).saturating_add(1);
        if count > super::MAX_STEPS {
            return Err(QueryError::TooManySteps);
        }
        Ok(Self { start_ns, step_ns: step_ns.max(1), count })
    }

    pub fn at(&self, step: usize) -> i64 {
        self.start_ns.saturating_add(self.step_ns.saturating_mul(step as i64))
    }

    /// The first step at or after a time, which may be beyond the last.
    fn first_from(&self, time_ns: i64) -> usize {
        let ahead = time_ns.saturating_sub(self.start_ns);
        if ahead <= 0 {
            return 0;
        }
        let whole = ahead / self.step_ns + i64::from(ahead % self.step_ns != 0);
        usize::try_from(whole).unwrap_or(usize::MAX).min(self.count)
    }
}

/// A value at each step; `None`: there is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub labels: Pairs,
    pub values: Vec<Option<f64>>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Scalar(f64),
    Matrix(Vec<Series>),
}

#[derive(Debug)]
pub struct MetricAnswer {
    pub grid: Grid,
    pub value: Value,
}

impl LogStore {
    /// Evaluates at each step. Blocking.
    pub fn evaluate(
        &self,
        expr: &MetricExpr,
        grid: Grid,
        budget: &Budget,
    ) -> Result<MetricAnswer, QueryError> {
        let mut value = self.value(expr, &grid, budget)?;
        if let Value::Matrix(series) = &mut value {
            series.retain(|one| one.values.iter().any(Option::is_some));
            if series.len() > MAX_SERIES {
                return Err(QueryError::TooManySeries);
            }
        }
        Ok(MetricAnswer { grid, value })
    }

    fn value(&self, expr: &MetricExpr, grid: &Grid, budget: &Budget) -> Result<Value, QueryError> {
        match expr {
            MetricExpr::Number(number) => Ok(Value::Scalar(*number)),
            MetricExpr::Vector(number) => Ok(Value::Matrix(vec![Series {
                labels: Vec::new(),
                values: vec![Some(*number); grid.count],
            }])),
            MetricExpr::Range { function, log, range_ns, offset_ns } => {
                let range = Range { function: *function, range_ns: *range_ns, offset_ns: *offset_ns };
                Ok(Value::Matrix(self.range(&range, log, None, grid, budget)?))
            }
            MetricExpr::Aggregate { function, grouping, inner } => {
                // A sum is the same when it is made line by line, and needs less room.
                if let (Aggregation::Sum, MetricExpr::Range { function, log, range_ns, offset_ns }) =
                    (function, &**inner)
                {
                    let range = Range { function: *function, range_ns: *range_ns, offset_ns: *offset_ns };
                    return Ok(Value::Matrix(self.range(&range, log, Some(grouping), grid, budget)?));
                }
                match self.value(inner, grid, budget)? {
                    Value::Scalar(_) => {
                        Err(QueryError::Unsupported("an aggregation needs a vector, not a number"))
                    }
                    Value::Matrix(series) => {
                        Ok(Value::Matrix(aggregate(*function, grouping, series, grid.count)))
                    }
                }
            }
            MetricExpr::Binary { operator, left, right } => {
                let left = self.value(left, grid, budget)?;
                let right = self.value(right, grid, budget)?;
                Ok(binary(*operator, left, right))
            }
        }
    }

    fn range(
        &self,
        range: &Range,
        log: &LogExpr,
        grouping: Option<&Grouping>,
        grid: &Grid,
        budget: &Budget,
    ) -> Result<Vec<Series>, QueryError> {
        let first = grid.at(0).saturating_sub(range.offset_ns).saturating_sub(range.range_ns);
        let last = grid.at(grid.count.saturating_sub(1)).saturating_sub(range.offset_ns);
        let from_ns = first.saturating_add(1).max(self.horizon_ns());
        let to_ns = last.saturating_add(1);
        let snapshot = lock(&self.shared.segments).snapshot(from_ns, to_ns);
        let pipeline = Pipeline::new(&log.stages);
        let mut counter = Counter {
            finder: Finder::new(&pipeline),
            pipeline,
            range: *range,
            grouping,
            grid: *grid,
            from_ns,
            to_ns,
            series: HashMap::new(),
            cells: Vec::new(),
            extracted: Extracted::default(),
            budget,
        };
        let request = Scan { selector: &log.selector, from_ns, to_ns, direction: Direction::Forward };
        scan(&self.shared, &snapshot, &request, budget, &mut counter)?;
        Ok(counter.finish())
    }
}

#[derive(Debug, Clone, Copy)]
struct Range {
    function: RangeFunction,
    range_ns: i64,
    offset_ns: i64,
}

impl Range {
    fn in_bytes(&self) -> bool {
        matches!(self.function, RangeFunction::BytesRate | RangeFunction::BytesOverTime)
    }
}

/// By how much a step is more than the one before.
struct Cells {
    lines: Vec<i64>,
    /// Empty where nobody asks for bytes.
    bytes: Vec<i64>,
}

struct Counter<'a> {
    finder: Finder,
    pipeline: Pipeline<'a>,
    range: Range,
    grouping: Option<&'a Grouping>,
    grid: Grid,
    from_ns: i64,
    to_ns: i64,
    series: HashMap<Pairs, usize>,
    cells: Vec<Cells>,
    extracted: Extracted,
    budget: &'a Budget,
}

impl Counter<'_> {
    /// The number of the series with these labels.
    fn series(&mut self, labels: Pairs) -> Result<usize, QueryError> {
        let labels = match self.grouping {
            Some(grouping) => group(labels, grouping),
            None => labels,
        };
        if let Some(&number) = self.series.get(&labels) {
            return Ok(number);
        }
        let steps = self.grid.count + 1;
        if self.cells.len().saturating_mul(steps) > MAX_CELLS {
            return Err(QueryError::TooManySeries);
        }
        let bytes = if self.range.in_bytes() { vec![0; steps] } else { Vec::new() };
        self.cells.push(Cells { lines: vec![0; steps], bytes });
        self.series.insert(labels, self.cells.len() - 1);
        Ok(self.cells.len() - 1)
    }

    fn add(&mut self, series: usize, time: i64, bytes: usize) {
        let begin = time.saturating_add(self.range.offset_ns);
        let (from, to) =
            (self.grid.first_from(begin), self.grid.first_from(begin.saturating_add(self.range.range_ns)));
        let Some(cells) = self.cells.get_mut(series).filter(|_| from < to) else { return };
        for (list, value) in [(&mut cells.lines, 1), (&mut cells.bytes, bytes as i64)] {
            if let Some(cell) = list.get_mut(from) {
                *cell += value;
            }
            if let Some(cell) = list.get_mut(to) {
                *cell -= value;
            }
        }
    }

    fn finish(self) -> Vec<Series> {
        let seconds = self.range.range_ns as f64 / 1e9;
        let mut all: Vec<Series> = Vec::with_capacity(self.series.len());
        for (labels, number) in self.series {
            let Some(cells) = self.cells.get(number) else { continue };
            let (mut lines, mut bytes) = (0i64, 0i64);
            let mut differences = cells.bytes.iter();
            let values = cells.lines.iter().take(self.grid.count).map(|difference| {
                lines += difference;
                bytes += differences.next().copied().unwrap_or_default();
                let value = match self.range.function {
                    RangeFunction::CountOverTime => lines as f64,
                    RangeFunction::Rate => lines as f64 / seconds,
                    RangeFunction::BytesOverTime => bytes as f64,
                    RangeFunction::BytesRate => bytes as f64 / seconds,
                };
                (lines > 0).then_some(value)
            });
            let values = values.collect();
            all.push(Series { labels, values });
        }
        all.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        all
    }
}

impl Sink for Counter<'_> {
    fn wants(&self, min_ns: i64, max_ns: i64) -> bool {
        max_ns >= self.from_ns && min_ns < self.to_ns
    }

    fn take(&mut self, labels: &Arc<Labels>, _: Place, run: &Run<'_>) -> Result<(), QueryError> {
        self.budget.count_lines(run.times.len());
        let finder = std::mem::replace(&mut self.finder, Finder::none());
        let mut extracted = std::mem::take(&mut self.extracted);
        let mut own = None;
        let result = finder.lines(run, |_, time, line| {
            if time < self.from_ns || time >= self.to_ns || !self.pipeline.run(labels, line, &mut extracted) {
                return Ok(());
            }
            let series = match own {
                Some(own) => own,
                None => {
                    if let Some(error) = extracted.error() {
                        let pairs = extracted.labels(labels);
                        let series = labels::text(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())));
                        return Err(QueryError::Pipeline { error, series });
                    }
                    let number = self.series(extracted.labels(labels))?;
                    if !self.pipeline.changes_labels() {
                        own = Some(number);
                    }
                    number
                }
            };
            self.add(series, time, line.len());
            Ok(())
        });
        self.finder = finder;
        self.extracted = extracted;
        result
    }
}

fn group(mut labels: Pairs, grouping: &Grouping) -> Pairs {
    labels.retain(|(name, _)| grouping.labels.contains(name) != grouping.without);
    labels
}

fn aggregate(function: Aggregation, grouping: &Grouping, series: Vec<Series>, steps: usize) -> Vec<Series> {
    let mut groups: BTreeMap<Pairs, Vec<Series>> = BTreeMap::new();
    for one in series {
        groups.entry(group(one.labels.clone(), grouping)).or_default().push(one);
    }
    let mut all = Vec::new();
    for (labels, members) in groups {
        match function {
            Aggregation::TopK(k) => all.extend(best(members, k, steps, true)),
            Aggregation::BottomK(k) => all.extend(best(members, k, steps, false)),
            function => {
                let values = (0..steps).map(|step| fold(function, &members, step)).collect();
                all.push(Series { labels, values });
            }
        }
    }
    all
}

fn fold(function: Aggregation, members: &[Series], step: usize) -> Option<f64> {
    let values = || members.iter().filter_map(|one| one.values.get(step).copied().flatten());
    let count = values().count();
    if count == 0 {
        return None;
    }
    Some(match function {
        Aggregation::Sum => values().sum(),
        Aggregation::Avg => values().sum::<f64>() / count as f64,
        Aggregation::Min => values().fold(f64::NAN, f64::min),
        Aggregation::Max => values().fold(f64::NAN, f64::max),
        _ => count as f64,
    })
}

/// Leaves at each step the k largest or smallest.
fn best(mut members: Vec<Series>, k: usize, steps: usize, largest: bool) -> Vec<Series> {
    for step in 0..steps {
        let value = |one: &Series| one.values.get(step).copied().flatten();
        let mut order: Vec<(f64, usize)> =
            members.iter().enumerate().filter_map(|(at, one)| Some((value(one)?, at))).collect();
        order.sort_by(|a, b| if largest { b.0.total_cmp(&a.0) } else { a.0.total_cmp(&b.0) });
        for (_, at) in order.into_iter().skip(k) {
            if let Some(value) = members.get_mut(at).and_then(|one| one.values.get_mut(step)) {
                *value = None;
            }
        }
    }
    members.retain(|one| one.values.iter().any(Option::is_some));
    members
}

fn binary(operator: Operator, left: Value, right: Value) -> Value {
    match (left, right) {
        (Value::Scalar(a), Value::Scalar(b)) => Value::Scalar(compute(operator, a, b, a).unwrap_or(0.0)),
        (Value::Matrix(series), Value::Scalar(b)) => {
            Value::Matrix(each(series, |a| compute(operator, a, b, a)))
        }
        (Value::Scalar(a), Value::Matrix(series)) => {
            Value::Matrix(each(series, |b| compute(operator, a, b, b)))
        }
        (Value::Matrix(left), Value::Matrix(right)) => {
            let right: HashMap<&Pairs, &Series> = right.iter().map(|one| (&one.labels, one)).collect();
            let matched = left.into_iter().filter_map(|mut one| {
                let other = right.get(&one.labels)?;
                for (a, b) in one.values.iter_mut().zip(&other.values) {
                    *a = a.zip(*b).and_then(|(a, b)| compute(operator, a, b, a));
                }
                Some(one)
            });
            Value::Matrix(matched.collect())
        }
    }
}

fn each(mut series: Vec<Series>, compute: impl Fn(f64) -> Option<f64>) -> Vec<Series> {
    for one in &mut series {
        one.values.iter_mut().for_each(|value| *value = value.and_then(&compute));
    }
    series
}

/// `vector`: what a comparison that holds leaves.
fn compute(operator: Operator, a: f64, b: f64, vector: f64) -> Option<f64> {
    Some(match operator {
        Operator::Add => a + b,
        Operator::Subtract => a - b,
        Operator::Multiply => a * b,
        Operator::Divide => a / b,
        Operator::Modulo => a % b,
        Operator::Power => a.powf(b),
        Operator::Compare { compare, keep } => {
            let holds = Compare::holds(compare, a, b);
            return match (keep, holds) {
                (true, true) => Some(vector),
                (true, false) => None,
                (false, holds) => Some(f64::from(u8::from(holds))),
            };
        }
    })
}
