//! What an instance declared and pushed: the tables behind the imported `sink`, and every check on it.
//!
//! A plugin's samples are kept here until its call has ended, well or not, and are then handed to the collector's
//! [`SampleSink`]. So what was pushed before a time-out is not lost, the guest never runs inside the collector, and the
//! memory is bounded by the limits: series, families, samples and events each have one.
//!
//! Registering the same series again (family, part and labels) returns the number that it has, so a plugin may register
//! what it sees without keeping a book. A retired number is never given out again; the same series registered after that
//! is a new one. What is refused is counted under a reason and, once a collect, reported.

mod checks;
mod failures;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use picket_proto::model::{Family, Labels, MetricType, Part, PluginId};
use picket_proto::v1;
use serde::{Deserialize, Serialize};

pub(crate) use checks::{Declared, Happened, check_event};
use checks::{check_labels, check_line_names};
use failures::Failures;

use crate::limits::Limits;
use crate::sink::SampleSink;

/// Numbers that one instance may give out. An instance that comes near is replaced.
const MAX_IDS: usize = 1 << 20;
/// Retired series of which an instance may leave the numbers behind, whatever it has: 200 KB of them.
const MAX_RETIRED: usize = 4096;
/// How far a sample's own time may lie ahead of the clock, in milliseconds.
const MAX_AHEAD_MS: i64 = 3_600_000;

/// Why the sink refused something: `sink-error` of the contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refused {
    /// A limit, of which `message` tells; the first `fits` of what the call brought would fit.
    Quota {
        message: String,
        fits: u32,
    },
    Invalid(String),
    UnknownId(u32),
    Other(String),
}

impl Refused {
    /// A limit is reached with the first of what the call brought.
    pub(crate) const fn over(message: String) -> Self {
        Self::Quota { message, fits: 0 }
    }

    /// The same after so many that fit.
    fn after(self, count: usize) -> Self {
        match self {
            Self::Quota { message, .. } => {
                Self::Quota { message, fits: u32::try_from(count).unwrap_or(u32::MAX) }
            }
            other => other,
        }
    }
}

/// A series as the guest asks for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub family: u32,
    #[serde(with = "crate::words")]
    pub part: Part,
    pub labels: Vec<(String, String)>,
}

#[derive(Debug)]
struct FamilyEntry {
    family: Family,
    label_names: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Live,
    /// The collector would not have it: its points are dropped.
    Refused,
    Retired,
}

#[derive(Debug)]
struct SeriesEntry {
    /// To take it out of `known` when it is retired.
    key: u128,
    /// The collect in which it was last pushed.
    pushed: u64,
    /// The time of the last timed point of that collect; none: it was pushed without one.
    last_ms: Option<i64>,
    life: Life,
}

#[derive(Debug)]
struct NewSeries {
    id: u32,
    family: u32,
    part: Part,
    labels: Labels,
}

#[derive(Debug)]
pub(crate) struct Readings {
    generation: u64,
    limits: Limits,
    /// Counts collects; 0: none yet.
    collect: u64,
    collecting: bool,
    begun: bool,
    families: Vec<FamilyEntry>,
    by_name: HashMap<String, u32>,
    /// Families that the sink knows.
    told: usize,
    series: Vec<SeriesEntry>,
    known: HashMap<u128, u32>,
    hashers: (RandomState, RandomState),
    live: usize,
    /// Any series with [`Life::Refused`].
    any_refused: bool,
    new: Vec<NewSeries>,
    points: Vec<(u32, f64)>,
    timed: Vec<(u32, f64, i64)>,
    retired: Vec<u32>,
    events: Vec<v1::Event>,
    failures: Failures,
}

impl Readings {
    pub(crate) fn new(generation: u64, limits: Limits) -> Self {
        Self {
            generation,
            limits,
            collect: 0,
            collecting: false,
            begun: false,
            families: Vec::new(),
            by_name: HashMap::new(),
            told: 0,
            series: Vec::new(),
            known: HashMap::new(),
            hashers: (RandomState::new(), RandomState::new()),
            live: 0,
            any_refused: false,
            new: Vec::new(),
            points: Vec::new(),
            timed: Vec::new(),
            retired: Vec::new(),
            events: Vec::new(),
            failures: Failures::default(),
        }
    }

    pub(crate) fn begin_collect(&mut self) {
        self.collect += 1;
        self.collecting = true;
    }

    pub(crate) fn series(&self) -> usize {
        self.live
    }

    pub(crate) const fn label_bytes(&self) -> u32 {
        self.limits.label_bytes
    }

    pub(crate) const fn family_count(&self) -> usize {
        self.families.len()
    }

    pub(crate) fn families(&self) -> Vec<Family> {
        self.families.iter().map(|f| f.family.clone()).collect()
    }

    /// So many of the numbers given out are retired that the instance should be replaced: each costs its entry still. They may be
    /// as many as the live ones, or half of the numbers that these leave.
    pub(crate) fn worn(&self) -> bool {
        let retired = self.series.len() - self.live;
        retired > MAX_RETIRED.max(self.live.min((MAX_IDS - self.live) / 2))
    }

    /// As [`Self::declare`], of an instance that has none yet: the families' numbers are their places in the list, so
    /// none may stand in it twice.
    pub(crate) fn describe(&mut self, list: Vec<Declared>) -> Result<(), Refused> {
        let names: Vec<String> = list.iter().map(|d| d.name.chars().take(64).collect()).collect();
        let ids = self.declare(list)?;
        match ids.iter().zip(0u32..).zip(names).find(|((id, place), _)| **id != *place) {
            Some((_, name)) => Err(Refused::Invalid(format!("the family {name} is described twice"))),
            None => Ok(()),
        }
    }

    /// All or nothing. A family that is there already keeps its number.
    pub(crate) fn declare(&mut self, list: Vec<Declared>) -> Result<Vec<u32>, Refused> {
        let before = self.families.len();
        let mut ids = Vec::new();
        for declared in list {
            match self.declare_one(declared) {
                Ok(id) => ids.push(id),
                Err(e) => {
                    for entry in self.families.drain(before..) {
                        self.by_name.remove(&entry.family.name);
                    }
                    return Err(self.refuse(e.after(ids.len())));
                }
            }
        }
        Ok(ids)
    }

    fn declare_one(&mut self, declared: Declared) -> Result<u32, Refused> {
        let (family, label_names) = declared.check()?;
        if let Some(&id) = self.by_name.get(&family.name) {
            let there = self.families.get(id as usize).map(|f| f.family.metric_type);
            if there == Some(family.metric_type) {
                return Ok(id);
            }
            return Err(Refused::Invalid(format!(
                "the family {} is there with the type {:?}, and now declared with {:?}",
                family.name,
                there.unwrap_or(MetricType::Unknown),
                family.metric_type
            )));
        }
        if self.families.len() >= self.limits.families as usize {
            return Err(Refused::over(format!("{} families: limits.families", self.limits.families)));
        }
        check_line_names(&family, |name| {
            let id = *self.by_name.get(name)?;
            self.families.get(id as usize).map(|f| f.family.metric_type)
        })?;
        // Bounded by limits.families, a u32.
        let id = self.families.len() as u32;
        self.by_name.insert(family.name.clone(), id);
        self.families.push(FamilyEntry { family, label_names });
        Ok(id)
    }

    /// All or nothing.
    pub(crate) fn register(&mut self, list: Vec<Asked>) -> Result<Vec<u32>, Refused> {
        let (before, new_before) = (self.series.len(), self.new.len());
        let mut ids = Vec::with_capacity(list.len().min(self.limits.series as usize));
        for Asked { family, part, labels } in list {
            match self.register_one(family, part, labels) {
                Ok(id) => ids.push(id),
                Err(e) => {
                    for entry in self.series.drain(before..) {
                        self.known.remove(&entry.key);
                        self.live -= 1;
                    }
                    self.new.truncate(new_before);
                    return Err(self.refuse(e.after(ids.len())));
                }
            }
        }
        Ok(ids)
    }

    fn register_one(
        &mut self,
        family: u32,
        part: Part,
        labels: Vec<(String, String)>,
    ) -> Result<u32, Refused> {
        let entry = self.families.get(family as usize).ok_or(Refused::UnknownId(family))?;
        let labels = check_labels(&entry.family, &entry.label_names, part, labels, self.limits.label_bytes)?;
        let subject = (family, part as i32, &labels);
        let key = (u128::from(self.hashers.0.hash_one(subject)) << 64)
            | u128::from(self.hashers.1.hash_one(subject));
        if let Some(&id) = self.known.get(&key) {
            return Ok(id);
        }
        let most = self.limits.series as usize;
        if self.live >= most {
            return Err(Refused::over(format!("{most} series are registered: limits.series")));
        }
        if self.new.len() >= most {
            let new = self.new.len();
            return Err(Refused::over(format!("{new} new series since the last collect: limits.series")));
        }
        if self.series.len() >= MAX_IDS {
            return Err(Refused::over(format!(
                "{MAX_IDS} series since the instance began, those that are retired included, and there is no number left"
            )));
        }
        // Bounded by MAX_IDS.
        let id = self.series.len() as u32;
        self.known.insert(key, id);
        self.series.push(SeriesEntry { key, pushed: 0, last_ms: None, life: Life::Live });
        self.live += 1;
        self.new.push(NewSeries { id, family, part, labels });
        Ok(id)
    }

    /// Takes the good points; the first bad one is the answer. A NaN is dropped and counted, and no error: a source may
    /// well read one.
    pub(crate) fn push(&mut self, list: impl ExactSizeIterator<Item = (u32, f64)>) -> Result<(), Refused> {
        self.room_for(list.len())?;
        let mut first = Ok(());
        for (id, value) in list {
            if let Err(e) = self.check_point(id, value, None) {
                keep_first(&mut first, e);
            } else if !value.is_nan() {
                self.points.push((id, value));
            }
        }
        first
    }

    /// As [`Self::push`], with times in milliseconds; several of one series are allowed if their times ascend.
    pub(crate) fn push_timed(
        &mut self,
        list: impl ExactSizeIterator<Item = (u32, f64, u64)>,
        now_ms: i64,
    ) -> Result<(), Refused> {
        self.room_for(list.len())?;
        let mut first = Ok(());
        for (id, value, time) in list {
            match i64::try_from(time) {
                Ok(time) if time > 0 && time <= now_ms.saturating_add(MAX_AHEAD_MS) => {
                    if let Err(e) = self.check_point(id, value, Some(time)) {
                        keep_first(&mut first, e);
                    } else if !value.is_nan() {
                        self.timed.push((id, value, time));
                    }
                }
                _ => {
                    let message =
                        format!("series {id}: the time {time} ms is 0 or over an hour ahead of the clock");
                    self.failures.add("timestamp", &message);
                    keep_first(&mut first, Refused::Invalid(message));
                }
            }
        }
        first
    }

    fn room_for(&mut self, count: usize) -> Result<(), Refused> {
        if !self.collecting {
            return Err(Refused::Other("points are taken during collect alone".to_owned()));
        }
        let held = self.points.len() + self.timed.len();
        let most = self.limits.samples as usize;
        if held.saturating_add(count) > most {
            let over = Refused::over(format!("{most} samples in one collect: limits.samples"));
            return Err(self.refuse(over.after(most.saturating_sub(held))));
        }
        Ok(())
    }

    fn check_point(&mut self, id: u32, value: f64, time: Option<i64>) -> Result<(), Refused> {
        let Some(entry) = self.series.get_mut(id as usize).filter(|e| e.life != Life::Retired) else {
            self.failures.add("unknown-id", &format!("series {id} was never registered, or is retired"));
            return Err(Refused::UnknownId(id));
        };
        if value.is_nan() {
            self.failures.add("nan", &format!("series {id} is NaN"));
            return Ok(());
        }
        let again = entry.pushed == self.collect
            && match (entry.last_ms, time) {
                (Some(last), Some(time)) => time <= last,
                _ => true,
            };
        if again {
            let message = format!("series {id} stands twice in one collect");
            self.failures.add("duplicate", &message);
            return Err(Refused::Invalid(message));
        }
        entry.pushed = self.collect;
        entry.last_ms = time;
        Ok(())
    }

    /// All that are known are retired; the first unknown one is the answer.
    pub(crate) fn retire(&mut self, ids: &[u32]) -> Result<(), Refused> {
        let mut first = Ok(());
        for &id in ids {
            match self.series.get_mut(id as usize).filter(|e| e.life != Life::Retired) {
                Some(entry) => {
                    let refused = entry.life == Life::Refused;
                    entry.life = Life::Retired;
                    self.known.remove(&entry.key);
                    self.live -= 1;
                    if !refused {
                        self.retired.push(id);
                    }
                }
                None => keep_first(&mut first, Refused::UnknownId(id)),
            }
        }
        first
    }

    pub(crate) fn emit(&mut self, list: Vec<v1::Event>) -> Result<(), Refused> {
        let most = self.limits.events as usize;
        if self.events.len().saturating_add(list.len()) > most {
            let over = Refused::over(format!("{most} events in one collect: limits.events"));
            return Err(self.refuse(over.after(most.saturating_sub(self.events.len()))));
        }
        self.events.extend(list);
        Ok(())
    }

    pub(crate) fn fail(&mut self, reason: &str, message: &str) {
        self.failures.add_from_guest(reason, message);
    }

    /// Counts a refusal under its kind and passes it on.
    pub(crate) fn refuse(&mut self, refused: Refused) -> Refused {
        match &refused {
            Refused::Quota { message, .. } => self.failures.add("quota", message),
            Refused::Invalid(m) | Refused::Other(m) => self.failures.add("invalid", m),
            Refused::UnknownId(id) => self.failures.add("unknown-id", &format!("{id} was never given out")),
        }
        refused
    }

    /// Ends a collect: everything goes to the sink. Returns the number of points handed over.
    pub(crate) fn hand_over(&mut self, plugin: &PluginId, sink: &mut dyn SampleSink) -> u64 {
        self.collecting = false;
        if !self.begun {
            self.begun = true;
            sink.begin(self.generation);
        }
        for (id, entry) in self.families.iter().enumerate().skip(self.told) {
            sink.family(id as u32, &entry.family);
        }
        self.told = self.families.len();
        for new in self.new.drain(..) {
            if let Err(why) = sink.series(new.id, new.family, new.part, &new.labels) {
                self.failures.add("refused", &why);
                self.any_refused = true;
                if let Some(entry) = self.series.get_mut(new.id as usize)
                    && entry.life == Life::Live
                {
                    entry.life = Life::Refused;
                }
                // It may have been retired since: what the sink does not have needs no end.
                self.retired.retain(|id| *id != new.id);
            }
        }
        if self.any_refused {
            let series = &self.series;
            let taken = |id: u32| series.get(id as usize).is_some_and(|e| e.life != Life::Refused);
            self.points.retain(|(id, _)| taken(*id));
            self.timed.retain(|(id, ..)| taken(*id));
        }
        let count = self.points.len() + self.timed.len();
        if !self.points.is_empty() {
            sink.points(&self.points);
            self.points.clear();
        }
        if !self.timed.is_empty() {
            sink.timed_points(&self.timed);
            self.timed.clear();
        }
        if !self.retired.is_empty() {
            sink.retire(&self.retired);
            self.retired.clear();
        }
        for mut event in self.events.drain(..) {
            plugin.as_str().clone_into(&mut event.plugin);
            sink.event(event);
        }
        self.failures.hand_over(|reason, message| sink.fail(reason, message));
        count as u64
    }
}

fn keep_first(first: &mut Result<(), Refused>, e: Refused) {
    if first.is_ok() {
        *first = Err(e);
    }
}

#[cfg(test)]
mod tests;
