//! From what plugins push to what stands in the spool and on the local page.
//!
//! The contract: nothing is added that the plugin did not say; a value is stored as it was pushed, a counter that fell
//! back and a NaN too; what was pushed before a collect failed is kept. One collect makes one record, and a record
//! carries the definitions that no record of this life carried before. The order of the records is the order in which
//! they are appended, so everything about numbers happens under one lock, which is held for computing alone: never
//! over an await, never over a disk write (the spool's `append` only queues).

mod dictionary;
mod errors;
mod exposition;
mod labels;
mod latest;
mod sink;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use picket_agent_spool::Spool;
use picket_proto::definitions::Builder;
use picket_proto::model::{Family, Labels, Part, PluginId};
use picket_proto::spool::v1::{Block, Record};
use picket_proto::v1;
use prost::Message;

pub use errors::SourceErrors;
pub use exposition::{Exposition, Format};
pub use sink::PluginSink;

use crate::clock::Clock;
use crate::lines::Lines;
use dictionary::{Dictionary, Refusal};

/// Cheap to clone; all clones are the same collector.
#[derive(Clone)]
pub struct Collector {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    /// None: the agent stands alone, and nobody would ever read the records.
    spool: Option<Spool>,
    lines: Lines,
    errors: SourceErrors,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    dictionary: Dictionary,
    pending: HashMap<PluginId, Pending>,
}

/// What the next record of a plugin must say beside its samples.
#[derive(Default)]
struct Pending {
    series: Vec<u32>,
    retired: Vec<u32>,
}

/// What one collect gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Committed {
    pub samples: usize,
    pub events: usize,
    /// Live series of the plugin afterwards.
    pub series: usize,
    /// The record's number in the spool; none: there was nothing to say, no spool, or it refused.
    pub sequence: Option<u64>,
}

/// The samples, events and ends of one collect, by the agent's numbers.
#[derive(Debug, Default)]
struct Batch {
    timestamp_ms: i64,
    points: Vec<(u32, f64)>,
    timed: Vec<(u32, f64, i64)>,
    events: Vec<v1::Event>,
    retired: Vec<u32>,
}

impl Collector {
    pub fn new(clock: Arc<dyn Clock>, spool: Option<Spool>) -> Self {
        Self::with_lines(clock, spool, Lines::default())
    }

    /// With a queue for the log lines that plugins emit.
    pub fn with_lines(clock: Arc<dyn Clock>, spool: Option<Spool>, lines: Lines) -> Self {
        Self {
            shared: Arc::new(Shared {
                errors: SourceErrors::new(clock.clone()),
                clock,
                spool,
                lines,
                state: Mutex::default(),
            }),
        }
    }

    /// The sink of one plugin. `stale_after`: how long a value is shown locally that is not pushed again.
    pub fn sink(&self, plugin: PluginId, stale_after: Duration) -> PluginSink {
        PluginSink::new(self.clone(), plugin, stale_after)
    }

    fn lines(&self) -> &Lines {
        &self.shared.lines
    }

    pub fn errors(&self) -> &SourceErrors {
        &self.shared.errors
    }

    /// Ends all series of a plugin that is no longer configured, and frees its names.
    pub fn remove(&self, plugin: &PluginId) {
        let mut state = self.state();
        let (families, series) = state.dictionary.of_plugin(plugin);
        let batch = Batch { timestamp_ms: self.shared.clock.wall_ms(), retired: series, ..Batch::default() };
        self.append(&mut state, plugin, batch);
        state.pending.remove(plugin);
        for number in families {
            state.dictionary.remove_family(number);
        }
    }

    /// All definitions that appended records of this life gave and that still hold: the header of a spool segment.
    #[cfg(test)]
    fn snapshot(&self) -> Record {
        snapshot(&self.state().dictionary)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in this module leaves the state half-written where it can panic; going on beats losing the node.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn declare(&self, plugin: &PluginId, family: &Family) -> Result<u32, Refusal> {
        let State { dictionary, pending } = &mut *self.state();
        let declared = dictionary.family(plugin, family)?;
        if let Some(old) = declared.replaced {
            let series = dictionary.family_entry(old).map(|entry| entry.order.clone()).unwrap_or_default();
            if series.is_empty() {
                dictionary.remove_family(old);
            }
            dictionary.hide(&series);
            pending.entry_ref(plugin).or_default().retired.extend(series);
        }
        Ok(declared.number)
    }

    fn register(
        &self,
        plugin: &PluginId,
        family: u32,
        part: Part,
        labels: &Labels,
        generation: u64,
    ) -> Result<u32, Refusal> {
        let State { dictionary, pending } = &mut *self.state();
        let (number, new) = dictionary.register(family, part, labels, generation)?;
        if new {
            pending.entry_ref(plugin).or_default().series.push(number);
        }
        Ok(number)
    }

    fn hide(&self, numbers: &[u32]) {
        self.state().dictionary.hide(numbers);
    }

    /// The plugin's series that its instance `generation` has not declared.
    fn undeclared(&self, plugin: &PluginId, generation: u64) -> Vec<u32> {
        let state = self.state();
        let (_, series) = state.dictionary.of_plugin(plugin);
        let declared = |number: &u32| {
            state.dictionary.entry(*number).is_some_and(|entry| entry.generation == generation)
        };
        series.into_iter().filter(|number| !declared(number)).collect()
    }

    /// Keeps the values for the local page, writes the record.
    fn commit(&self, plugin: &PluginId, mut batch: Batch, fresh_for: Duration) -> Committed {
        let fresh_until = self.shared.clock.monotonic() + fresh_for;
        let twice = put_in_order(&mut batch.points);
        if twice > 0 {
            self.errors().count(plugin, "duplicate", || {
                format!("{twice} series were pushed more than once in one collect; the first value was kept")
            });
        }
        let mut state = self.state();
        // A number whose series has been ended meanwhile means nothing any more.
        batch.points.retain(|&(number, value)| match state.dictionary.entry_mut(number) {
            Some(entry) => {
                entry.value = value;
                entry.timestamp_ms = None;
                entry.fresh_until = fresh_until;
                true
            }
            None => false,
        });
        batch.timed.retain(|&(number, value, time)| match state.dictionary.entry_mut(number) {
            Some(entry) => {
                if entry.timestamp_ms.is_none_or(|last| last <= time) {
                    entry.value = value;
                    entry.timestamp_ms = Some(time);
                    entry.fresh_until = fresh_until;
                }
                true
            }
            None => false,
        });
        let mut committed = Committed {
            samples: batch.points.len() + batch.timed.len(),
            events: batch.events.len(),
            ..Committed::default()
        };
        committed.sequence = self.append(&mut state, plugin, batch);
        committed.series = state.dictionary.series_of(plugin);
        committed
    }

    /// Appends one record. Where the spool refuses it, its samples are lost and counted, and what it would have
    /// defined or ended stays for the next.
    fn append(&self, state: &mut State, plugin: &PluginId, batch: Batch) -> Option<u64> {
        let State { dictionary, pending } = state;
        let pending = pending.entry_ref(plugin).or_default();
        dictionary.hide(&batch.retired);
        pending.retired.extend_from_slice(&batch.retired);
        pending.retired.sort_unstable();
        pending.retired.dedup();
        pending.retired.retain(|number| dictionary.entry(*number).is_some());
        let Some(spool) = &self.shared.spool else {
            dictionary.remove(&pending.retired);
            *pending = Pending::default();
            return None;
        };
        let Batch { timestamp_ms, points, timed, events, .. } = batch;
        let samples = points.len() + timed.len();
        // A series that came and went unsaid needs no word.
        let (unsaid, said): (Vec<u32>, Vec<u32>) = pending.retired.iter().copied().partition(|number| {
            !dictionary.entry(*number).is_some_and(|entry| entry.defined)
                && points.binary_search_by_key(number, |(n, _)| *n).is_err()
                && !timed.iter().any(|(n, ..)| n == number)
        });
        pending.retired = said;
        dictionary.remove(&unsaid);
        pending.series.retain(|number| dictionary.entry(*number).is_some());
        if samples == 0 && events.is_empty() && pending.series.is_empty() && pending.retired.is_empty() {
            return None;
        }
        let record = Record {
            plugin: plugin.as_str().to_owned(),
            timestamp_ms,
            definitions: define(dictionary, &pending.series),
            blocks: blocks(timestamp_ms, &points, &timed),
            events,
            retired: pending.retired.clone(),
            ..Record::default()
        };
        match spool.append(&record.encode_to_vec(), || snapshot(dictionary).encode_to_vec()) {
            Ok(ticket) => {
                for number in std::mem::take(&mut pending.series) {
                    let Some(entry) = dictionary.entry_mut(number) else { continue };
                    entry.defined = true;
                    let family = entry.family;
                    if let Some(family) = dictionary.family_entry_mut(family) {
                        family.defined = true;
                    }
                }
                dictionary.remove(&std::mem::take(&mut pending.retired));
                Some(ticket.sequence)
            }
            Err(error) => {
                self.errors()
                    .count(plugin, "spool", || format!("a record of {samples} samples was lost: {error}"));
                None
            }
        }
    }
}

/// Orders by number, the first of each kept. Returns how many were there too often.
fn put_in_order(points: &mut Vec<(u32, f64)>) -> usize {
    if points.windows(2).all(|pair| matches!(pair, [a, b] if a.0 < b.0)) {
        return 0;
    }
    let before = points.len();
    points.sort_by_key(|(number, _)| *number);
    points.dedup_by_key(|(number, _)| *number);
    before - points.len()
}

/// Definitions of series, and of those of their families that no record has defined.
fn define(dictionary: &Dictionary, series: &[u32]) -> Option<v1::Definitions> {
    let mut builder = Builder::new();
    let mut families: Vec<u32> =
        series.iter().filter_map(|number| dictionary.entry(*number)).map(|entry| entry.family).collect();
    families.sort_unstable();
    families.dedup();
    for number in families {
        if let Some(entry) = dictionary.family_entry(number).filter(|entry| !entry.defined) {
            builder.family(number, entry.plugin.as_str(), &entry.family);
        }
    }
    for &number in series {
        if let Some(entry) = dictionary.entry(number) {
            builder.series(number, entry.family, entry.part, entry.labels.iter());
        }
    }
    (!builder.is_empty()).then(|| builder.finish())
}

fn snapshot(dictionary: &Dictionary) -> Record {
    let mut builder = Builder::new();
    for (number, entry) in dictionary.families_sorted() {
        if entry.defined {
            builder.family(number, entry.plugin.as_str(), &entry.family);
        }
    }
    for (number, entry) in dictionary.series_sorted() {
        if entry.defined {
            builder.series(number, entry.family, entry.part, entry.labels.iter());
        }
    }
    Record { definitions: (!builder.is_empty()).then(|| builder.finish()), ..Record::default() }
}

fn blocks(timestamp_ms: i64, points: &[(u32, f64)], timed: &[(u32, f64, i64)]) -> Vec<Block> {
    let mut blocks = Vec::with_capacity(2);
    if !points.is_empty() {
        blocks.push(Block {
            series_deltas: deltas(points.iter().map(|(number, _)| *number)),
            values: points.iter().map(|(_, value)| *value).collect(),
            time_deltas_ms: Vec::new(),
        });
    }
    if !timed.is_empty() {
        blocks.push(Block {
            series_deltas: deltas(timed.iter().map(|(number, ..)| *number)),
            values: timed.iter().map(|(_, value, _)| *value).collect(),
            time_deltas_ms: timed.iter().map(|(.., time)| time.saturating_sub(timestamp_ms)).collect(),
        });
    }
    blocks
}

fn deltas(numbers: impl Iterator<Item = u32>) -> Vec<i32> {
    let mut last = 0i32;
    numbers
        .map(|number| {
            // Below 2^22, see `MAX_SERIES`.
            let number = i32::try_from(number).unwrap_or(i32::MAX);
            number - std::mem::replace(&mut last, number)
        })
        .collect()
}

#[cfg(test)]
mod tests;
