//! The sink: what was declared, registered and pushed, held to the contract.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::Event;
use crate::model::{FamilyDef, MetricType, Part, SeriesDef, SinkError};

/// A declared family.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct DeclaredFamily {
    pub name: String,
    pub metric_type: MetricType,
    pub unit: String,
    pub help: String,
    /// Empty: any.
    pub label_names: Vec<String>,
}

/// A pushed point with what it means.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The family's name.
    pub name: String,
    /// Its type.
    pub metric_type: MetricType,
    /// Which line of the family.
    pub part: Part,
    /// Ordered by name; no empty values.
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: f64,
    /// Milliseconds since the Unix epoch, where it came with a time of its own.
    pub time_ms: Option<u64>,
}

impl Sample {
    /// The name as it is exposed, `_bucket`, `_sum` or `_count` included.
    pub fn exposed_name(&self) -> String {
        format!("{}{}", self.name, suffix(self.part))
    }

    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

pub(crate) fn suffix(part: Part) -> &'static str {
    match part {
        Part::Value | Part::Quantile => "",
        Part::Bucket => "_bucket",
        Part::Sum => "_sum",
        Part::Count => "_count",
    }
}

type SeriesKey = (usize, Part, Vec<(String, String)>);

pub(crate) struct Sink {
    pub quota: usize,
    pub families: Vec<DeclaredFamily>,
    pub series: BTreeMap<u32, SeriesKey>,
    known: BTreeSet<SeriesKey>,
    next: u32,
    points: Vec<(u32, f64, Option<u64>)>,
    /// What the points were of: a series may be retired in the same collect.
    pushed: BTreeMap<u32, SeriesKey>,
    pub events: Vec<Event>,
    pub failures: Vec<(String, String)>,
}

impl Default for Sink {
    fn default() -> Self {
        Self {
            quota: 100_000,
            families: Vec::new(),
            series: BTreeMap::new(),
            known: BTreeSet::new(),
            next: 0,
            points: Vec::new(),
            pushed: BTreeMap::new(),
            events: Vec::new(),
            failures: Vec::new(),
        }
    }
}

impl Sink {
    pub fn describe(&mut self, families: Vec<FamilyDef>) {
        for def in families {
            if let Err(error) = self.declare(&def) {
                self.failures.push(("describe".to_owned(), error.to_string()));
            }
        }
    }

    pub fn declare(&mut self, def: &FamilyDef) -> Result<u32, SinkError> {
        // As a node's host does: a family that is there is the same one, if its type is.
        if let Some(index) = self.families.iter().position(|f| f.name == def.name) {
            let same = self.families.get(index).is_some_and(|f| f.metric_type == def.metric_type);
            return match u32::try_from(index) {
                Ok(index) if same => Ok(index),
                _ => Err(SinkError::Invalid(format!("the family {} is declared twice", def.name))),
            };
        }
        if !valid(&def.name, true) {
            return Err(SinkError::Invalid(format!("{:?} is no metric name", def.name)));
        }
        if let Some(bad) = def.label_names.iter().find(|n| !valid(n, false)) {
            return Err(SinkError::Invalid(format!("{bad:?} is no label name")));
        }
        self.families.push(DeclaredFamily {
            name: def.name.clone(),
            metric_type: def.metric_type,
            unit: def.unit.clone(),
            help: def.help.clone(),
            label_names: def.label_names.clone(),
        });
        u32::try_from(self.families.len() - 1).map_err(|_| SinkError::Other("too many families".to_owned()))
    }

    pub fn register(&mut self, defs: Vec<SeriesDef>) -> Result<Vec<u32>, SinkError> {
        let mut new: Vec<SeriesKey> = Vec::new();
        for def in defs {
            let key = self.check(def)?;
            if self.known.contains(&key) || new.contains(&key) {
                return Err(SinkError::Invalid(format!("registered twice: {:?}", key.2)));
            }
            new.push(key);
        }
        if self.series.len() + new.len() > self.quota {
            let fits = u32::try_from(self.quota.saturating_sub(self.series.len())).unwrap_or(u32::MAX);
            return Err(SinkError::Quota { message: format!("more than {} series", self.quota), fits });
        }
        let mut numbers = Vec::new();
        for key in new {
            self.known.insert(key.clone());
            self.series.insert(self.next, key);
            numbers.push(self.next);
            self.next += 1;
        }
        Ok(numbers)
    }

    fn check(&self, def: SeriesDef) -> Result<SeriesKey, SinkError> {
        let index = def.family as usize;
        let Some(family) = self.families.get(index) else { return Err(SinkError::UnknownId(def.family)) };
        let fits = match family.metric_type {
            MetricType::Histogram => matches!(def.part, Part::Bucket | Part::Sum | Part::Count),
            MetricType::Summary => matches!(def.part, Part::Quantile | Part::Sum | Part::Count),
            _ => def.part == Part::Value,
        };
        if !fits {
            return Err(SinkError::Invalid(format!("{} has no part {:?}", family.name, def.part)));
        }
        let mut labels = def.labels;
        labels.sort_unstable();
        for (name, value) in &labels {
            let own = match def.part {
                Part::Bucket => name == "le",
                Part::Quantile => name == "quantile",
                _ => false,
            };
            if !valid(name, false) {
                return Err(SinkError::Invalid(format!("{name:?} is no label name")));
            }
            if !own && !family.label_names.is_empty() && !family.label_names.contains(name) {
                let message = format!("{} does not declare the label {name}", family.name);
                return Err(SinkError::Invalid(message));
            }
            if value.len() > 4096 {
                return Err(SinkError::Invalid(format!("the value of {name} is {} bytes long", value.len())));
            }
        }
        if labels.windows(2).any(|w| matches!(w, [a, b] if a.0 == b.0)) {
            return Err(SinkError::Invalid(format!("a label stands twice in {labels:?}")));
        }
        labels.retain(|(_, value)| !value.is_empty());
        Ok((index, def.part, labels))
    }

    pub fn push(&mut self, points: impl Iterator<Item = (u32, f64, Option<u64>)>) -> Result<(), SinkError> {
        for (number, value, time) in points {
            let Some(key) = self.series.get(&number) else { return Err(SinkError::UnknownId(number)) };
            if time.is_none() && self.pushed.contains_key(&number) {
                return Err(SinkError::Invalid(format!("pushed twice in one collect: {:?}", key.2)));
            }
            self.pushed.insert(number, key.clone());
            self.points.push((number, value, time));
        }
        Ok(())
    }

    pub fn retire(&mut self, numbers: &[u32]) -> Result<(), SinkError> {
        for number in numbers {
            match self.series.remove(number) {
                Some(key) => self.known.remove(&key),
                None => return Err(SinkError::UnknownId(*number)),
            };
        }
        Ok(())
    }

    pub fn begin(&mut self) {
        self.points.clear();
        self.pushed.clear();
        self.failures.clear();
    }

    pub fn samples(&self) -> Vec<Sample> {
        let mut samples: Vec<(usize, Sample)> = Vec::new();
        for (number, value, time_ms) in &self.points {
            let Some((index, part, labels)) = self.pushed.get(number) else { continue };
            let Some(family) = self.families.get(*index) else { continue };
            samples.push((
                *index,
                Sample {
                    name: family.name.clone(),
                    metric_type: family.metric_type,
                    part: *part,
                    labels: labels.clone(),
                    value: *value,
                    time_ms: *time_ms,
                },
            ));
        }
        samples.sort_by(|(i, a), (j, b)| (i, &a.labels, a.part).cmp(&(j, &b.labels, b.part)));
        samples.into_iter().map(|(_, sample)| sample).collect()
    }
}

fn valid(name: &str, metric: bool) -> bool {
    let first = |b: u8| b == b'_' || b.is_ascii_alphabetic() || (metric && b == b':');
    let mut bytes = name.bytes();
    name.len() <= 256
        && (metric || !name.starts_with("__"))
        && bytes.next().is_some_and(first)
        && bytes.all(|b| first(b) || b.is_ascii_digit())
}
