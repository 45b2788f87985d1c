//! Reading the log back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;
use picket_proto::model::{Family, MetricType, NodeId};

use super::frame::{BATCH, BatchHead, FAMILY, Fields, INLINE, NODE, Next, SERIES, SHAPE};
use super::segment::{SegmentPath, Source};
use super::telemetry;
use crate::store::{Selector, any_selector, json_value, parse_series};

/// What to read back. The default is everything.
#[derive(Debug, Clone, Default)]
pub struct ExportFilter {
    /// Any of them; none: all series.
    pub selectors: Vec<Selector>,
    pub node: Option<NodeId>,
    /// Samples at or after this time, Unix ms by the agent's clock.
    pub from_ms: Option<i64>,
    /// Samples before this time.
    pub to_ms: Option<i64>,
}

/// One logged sample. Serialises as `{"node","name","labels","ts_ms","value"}`.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Row {
    #[serde(flatten)]
    pub series: Arc<RowSeries>,
    pub ts_ms: i64,
    #[serde(serialize_with = "json_value")]
    pub value: f64,
}

/// What the rows of one series share.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RowSeries {
    pub node: Arc<str>,
    pub name: String,
    /// `instance` included.
    pub labels: BTreeMap<String, String>,
}

/// A family as the log holds it.
pub type RecentFamily = Family;

/// The latest value of one series.
pub struct Recent<'a> {
    pub node: &'a str,
    pub family: &'a RecentFamily,
    /// The series text, as the store keeps it.
    pub text: &'a str,
    pub value: f64,
    pub timestamp_ms: i64,
    /// The sample brought its time itself.
    pub own_time: bool,
    pub fresh_ms: i64,
}

/// Rows in the order in which they were logged. Blocks on the disk.
pub struct Export {
    segments: VecDeque<SegmentPath>,
    filter: ExportFilter,
    current: Option<Open>,
    rows: VecDeque<Row>,
}

struct Open {
    source: Source,
    defined: Defined<Option<Arc<RowSeries>>>,
}

impl Export {
    pub(super) fn new(segments: Vec<SegmentPath>, filter: ExportFilter) -> Self {
        Self { segments: segments.into(), filter, current: None, rows: VecDeque::new() }
    }
}

impl Iterator for Export {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        loop {
            if let Some(row) = self.rows.pop_front() {
                return Some(row);
            }
            let Some(open) = &mut self.current else {
                let source = self.segments.pop_front()?.open();
                self.current = source.map(|source| Open { source, defined: Defined::default() });
                continue;
            };
            match open.source.next() {
                Next::Frame => {}
                Next::Corrupt => {
                    metrics::counter!(telemetry::CORRUPT).increment(1);
                    continue;
                }
                Next::End { .. } => {
                    self.current = None;
                    continue;
                }
            }
            let (filter, rows) = (&self.filter, &mut self.rows);
            let wanted = |ts_ms: i64| {
                filter.from_ms.is_none_or(|from| ts_ms >= from) && filter.to_ms.is_none_or(|to| ts_ms < to)
            };
            open.defined.take(
                &open.source.payload,
                |node, family, text| row_series(filter, node, family, text),
                |_, sample| {
                    if let (Some(series), true) = (sample.series, wanted(sample.timestamp_ms)) {
                        let series = Arc::clone(series);
                        rows.push_back(Row { series, ts_ms: sample.timestamp_ms, value: sample.value });
                    }
                },
                |_, _, _| {},
            );
        }
    }
}

/// `None`: the filter leaves it out.
fn row_series(filter: &ExportFilter, node: &Arc<str>, family: &Family, text: &str) -> Option<Arc<RowSeries>> {
    if filter.node.as_ref().is_some_and(|wanted| wanted.as_str() != &**node) {
        return None;
    }
    let parsed = parse_series(text)?;
    if !any_selector(&filter.selectors, &family.name, &parsed) {
        return None;
    }
    Some(Arc::new(RowSeries {
        node: Arc::clone(node),
        name: parsed.name.to_owned(),
        labels: parsed.labels.into_iter().map(|(n, v)| (n.to_owned(), v.into_owned())).collect(),
    }))
}

/// Tells the latest value of each series of each segment that has one since `since_ms`, older segments first.
pub(super) fn recent(segments: &[SegmentPath], since_ms: i64, mut tell: impl FnMut(Recent<'_>)) {
    struct Last {
        value: f64,
        timestamp_ms: i64,
        own_time: bool,
        fresh_ms: i64,
    }
    for segment in segments.iter().filter(|s| s.newest_ms >= since_ms) {
        let Some(mut source) = segment.open() else { continue };
        let mut defined: Defined<(Arc<str>, Arc<Family>, Box<str>)> = Defined::default();
        let mut latest: HashMap<(u32, u32), Last> = HashMap::new();
        loop {
            match source.next() {
                Next::Frame => {}
                Next::Corrupt => continue,
                Next::End { .. } => break,
            }
            let latest = std::cell::RefCell::new(&mut latest);
            defined.take(
                &source.payload,
                |node, family, text| (Arc::clone(node), Arc::clone(family), text.into()),
                |head, sample| {
                    let last = Last {
                        value: sample.value,
                        timestamp_ms: sample.timestamp_ms,
                        own_time: sample.own_time,
                        fresh_ms: head.fresh_ms,
                    };
                    latest.borrow_mut().insert((head.namespace, sample.slot), last);
                },
                |namespace, slot, _| {
                    latest.borrow_mut().remove(&(namespace, slot));
                },
            );
        }
        for ((namespace, slot), last) in latest.iter().filter(|(_, last)| last.fresh_ms >= since_ms) {
            let Some((node, family, text)) = defined.series.get(&(*namespace, *slot)) else { continue };
            tell(Recent {
                node,
                family,
                text,
                value: last.value,
                timestamp_ms: last.timestamp_ms,
                own_time: last.own_time,
                fresh_ms: last.fresh_ms,
            });
        }
    }
}

/// What a segment has defined so far. Definitions that a damaged frame has taken along leave samples without a series:
/// those are skipped.
struct Defined<S> {
    nodes: HashMap<u32, Arc<str>>,
    families: HashMap<u32, Arc<Family>>,
    series: HashMap<(u32, u32), S>,
    shapes: HashMap<u32, Vec<u32>>,
}

impl<S> Default for Defined<S> {
    fn default() -> Self {
        Self {
            nodes: HashMap::new(),
            families: HashMap::new(),
            series: HashMap::new(),
            shapes: HashMap::new(),
        }
    }
}

struct Sample<'a, S> {
    series: &'a S,
    slot: u32,
    timestamp_ms: i64,
    own_time: bool,
    value: f64,
}

impl<S> Defined<S> {
    /// Takes one payload in. `None`: it isn't of the form that its kind has.
    fn take(
        &mut self,
        payload: &[u8],
        mut define: impl FnMut(&Arc<str>, &Arc<Family>, &str) -> S,
        mut sample: impl FnMut(&BatchHead, Sample<'_, S>),
        mut retired: impl FnMut(u32, u32, &BatchHead),
    ) -> Option<()> {
        let mut fields = Fields(payload);
        match fields.u8()? {
            NODE => {
                let number = fields.u32()?;
                self.nodes.insert(number, fields.str()?.into());
            }
            FAMILY => {
                let number = fields.u32()?;
                let metric_type = MetricType::try_from(i32::from(fields.u8()?)).ok()?;
                let (name, unit, help) = (fields.str()?, fields.str()?, fields.str()?);
                self.families.insert(number, Arc::new(Family::new(name, metric_type, unit, help).ok()?));
            }
            SERIES => {
                let namespace = fields.u32()?;
                let node = self.nodes.get(&namespace)?;
                for _ in 0..fields.u32()? {
                    let (slot, family, text) = (fields.u32()?, fields.u32()?, fields.str()?);
                    let Some(family) = self.families.get(&family) else { continue };
                    self.series.insert((namespace, slot), define(node, family, text));
                }
            }
            SHAPE => {
                let number = fields.u32()?;
                fields.u32()?;
                let count = fields.u32()? as usize;
                self.shapes.insert(number, slots(fields.columns(count, 4)?));
            }
            BATCH => {
                let head = BatchHead::take(&mut fields)?;
                for _ in 0..fields.u32()? {
                    self.block(&mut fields, &head, &mut sample)?;
                }
                for _ in 0..fields.u32()? {
                    retired(head.namespace, fields.u32()?, &head);
                }
            }
            _ => {}
        }
        Some(())
    }

    fn block(
        &self,
        fields: &mut Fields<'_>,
        head: &BatchHead,
        sample: &mut impl FnMut(&BatchHead, Sample<'_, S>),
    ) -> Option<()> {
        let timestamp_ms = fields.i64()?;
        let shape = fields.u32()?;
        let count = fields.u32()? as usize;
        let inline;
        let slots = if shape == INLINE {
            inline = slots(fields.columns(count, 4)?);
            Some(&inline)
        } else {
            self.shapes.get(&shape).filter(|slots| slots.len() == count)
        };
        let timed = fields.u8()? == 1;
        let mut values = Fields(fields.columns(count, 8)?);
        let mut times = Fields(if timed { fields.columns(count, 8)? } else { &[] });
        for &slot in slots.into_iter().flatten() {
            let value = f64::from_bits(values.u64()?);
            let own = times.i64();
            if let Some(series) = self.series.get(&(head.namespace, slot)) {
                let timestamp_ms = own.unwrap_or(timestamp_ms);
                sample(head, Sample { series, slot, timestamp_ms, own_time: own.is_some(), value });
            }
        }
        Some(())
    }
}

fn slots(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
}
