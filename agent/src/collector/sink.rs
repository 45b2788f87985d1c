//! What one plugin pushes into, from its instance's numbers to the agent's.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use picket_agent_host::{LogRecord, SampleSink};
use picket_proto::model::{Family, Labels, Part, PluginId};
use picket_proto::v1;

use super::dictionary::MAX_SERIES;
use super::{Batch, Collector, Committed};

/// In the table of series: this number was never registered.
const UNKNOWN: u32 = u32::MAX;

/// Fills a batch during a collect; [`Self::commit`] makes it a record. Points of numbers that are not registered are
/// left out: the host has told the plugin already.
pub struct PluginSink {
    collector: Collector,
    plugin: PluginId,
    stale_after: Duration,
    /// Counts the instances that began.
    generation: u64,
    /// A new instance has not ended a whole collect yet: what it does not declare in it is no more.
    unsettled: bool,
    families: HashMap<u32, Result<u32, Arc<str>>>,
    /// The agent's number of each of the instance's.
    series: Vec<u32>,
    batch: Batch,
}

impl PluginSink {
    pub(super) fn new(collector: Collector, plugin: PluginId, stale_after: Duration) -> Self {
        Self {
            collector,
            plugin,
            stale_after,
            generation: 0,
            unsettled: false,
            families: HashMap::new(),
            series: Vec::new(),
            batch: Batch::default(),
        }
    }

    pub fn plugin(&self) -> &PluginId {
        &self.plugin
    }

    pub fn set_stale_after(&mut self, stale_after: Duration) {
        self.stale_after = stale_after;
    }

    /// A collect begins: its samples are of this time, Unix ms.
    pub fn start(&mut self, timestamp_ms: i64) {
        self.batch.timestamp_ms = timestamp_ms;
    }

    /// Ends a collect and writes its record. `complete`: the plugin came to the end of it; else what was pushed
    /// before is kept, and nothing is concluded from what was not.
    pub fn commit(&mut self, complete: bool) -> Committed {
        if complete && std::mem::take(&mut self.unsettled) {
            let former = self.collector.undeclared(&self.plugin, self.generation);
            self.batch.retired.extend(former);
        }
        let capacity = (self.batch.points.len(), self.batch.timed.len());
        let next = Batch {
            points: Vec::with_capacity(capacity.0),
            timed: Vec::with_capacity(capacity.1),
            ..Batch::default()
        };
        let batch = std::mem::replace(&mut self.batch, next);
        self.collector.commit(&self.plugin, batch, self.stale_after)
    }

    /// Ends all series of the plugin, which runs no more.
    pub fn end(&mut self) {
        self.batch = Batch::default();
        self.families.clear();
        self.series.clear();
        self.collector.remove(&self.plugin);
    }

    /// Counts a failure of the plugin as a whole.
    pub fn count_error(&self, reason: &str, message: impl FnOnce() -> String) {
        self.collector.errors().count(&self.plugin, reason, message);
    }

    fn number(&self, id: u32) -> Option<u32> {
        self.series.get(id as usize).copied().filter(|number| *number != UNKNOWN)
    }

    fn refuse(&self, reason: &str, message: &str) -> String {
        self.collector.errors().count(&self.plugin, reason, || message.to_owned());
        message.to_owned()
    }
}

impl SampleSink for PluginSink {
    fn begin(&mut self, _generation: u64) {
        self.generation += 1;
        self.unsettled = true;
        self.families.clear();
        self.series.clear();
    }

    fn family(&mut self, id: u32, family: &Family) {
        let declared = match self.collector.declare(&self.plugin, family) {
            Ok(number) => Ok(number),
            Err(refusal) => Err(self.refuse(refusal.reason(), &refusal.to_string()).into()),
        };
        self.families.insert(id, declared);
    }

    fn series(&mut self, id: u32, family: u32, part: Part, labels: &Labels) -> Result<(), String> {
        let family = match self.families.get(&family) {
            Some(Ok(number)) => *number,
            Some(Err(refusal)) => return Err(refusal.to_string()),
            None => return Err(self.refuse("unknown-family", "the family of this series is not declared")),
        };
        if id >= MAX_SERIES {
            return Err(self.refuse("series-numbers", "this instance has used all its series numbers"));
        }
        match self.collector.register(&self.plugin, family, part, labels, self.generation) {
            Ok(number) => {
                let place = id as usize;
                if self.series.len() <= place {
                    self.series.resize(place + 1, UNKNOWN);
                }
                if let Some(slot) = self.series.get_mut(place) {
                    *slot = number;
                }
                Ok(())
            }
            Err(refusal) => Err(self.refuse(refusal.reason(), &refusal.to_string())),
        }
    }

    fn points(&mut self, points: &[(u32, f64)]) {
        self.batch.points.reserve(points.len());
        for &(id, value) in points {
            if let Some(number) = self.number(id) {
                self.batch.points.push((number, value));
            }
        }
    }

    fn timed_points(&mut self, points: &[(u32, f64, i64)]) {
        for &(id, value, time) in points {
            if let Some(number) = self.number(id) {
                self.batch.timed.push((number, value, time));
            }
        }
    }

    fn retire(&mut self, ids: &[u32]) {
        let mut numbers = Vec::with_capacity(ids.len());
        for &id in ids {
            if let Some(number) = self.number(id) {
                numbers.push(number);
                if let Some(slot) = self.series.get_mut(id as usize) {
                    *slot = UNKNOWN;
                }
            }
        }
        self.collector.hide(&numbers);
        self.batch.retired.extend(numbers);
    }

    fn event(&mut self, mut event: v1::Event) {
        event.plugin = self.plugin.as_str().to_owned();
        if event.timestamp_ms == 0 {
            event.timestamp_ms = self.batch.timestamp_ms;
        }
        self.batch.events.push(event);
    }

    fn log_room(&mut self) -> u64 {
        self.collector.lines().room()
    }

    fn logs(&mut self, record: LogRecord) -> Result<(), String> {
        self.collector.lines().append(&self.plugin, self.batch.timestamp_ms, record)
    }

    fn fail(&mut self, reason: &str, message: &str) {
        self.collector.errors().count(&self.plugin, reason, || message.to_owned());
    }
}
