//! All families and series that live, with the numbers under which they travel, and who may have which name.
//!
//! A page of metrics may hold a family name once, with one type, and a series once. The plugins know nothing of each
//! other, so the second to come is refused here, by name. Numbers rise and are never given twice in a life: a retired
//! number that came back would have to be told apart from the old one everywhere behind.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use picket_proto::model::{Family, Labels, MetricType, Part, PluginId, suffix};

use super::labels::PackedLabels;
use crate::config::OWN_ID;

/// One more than the largest series number that the columns codec carries.
pub(crate) const MAX_SERIES: u32 = 1 << 22;

/// What the agent says of itself and of plugins: names that no plugin may write, or one could forge its own record.
const RESERVED: &[&str] = &[
    "picket_action_",
    "picket_agent_",
    "picket_certificate_",
    "picket_logs_",
    "picket_plugin_",
    "picket_source_errors",
    "picket_spool_",
];

/// Why a family or a series is refused. The text goes to the plugin's log and to the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the family {name} is a {mine:?} here, but the plugin {owner} has it as a {theirs:?}")]
    Type { name: String, mine: MetricType, owner: PluginId, theirs: MetricType },
    #[error(
        "the family {name} would write the sample name {sample}, which the family {other} of the plugin {owner} writes"
    )]
    SampleName { name: String, sample: String, other: Arc<str>, owner: PluginId },
    #[error("the family {name} is the agent's own")]
    Reserved { name: String },
    #[error("the series {name} with these labels is the plugin {owner}'s already")]
    Series { name: String, owner: PluginId },
    #[error(
        "the agent has given all its {MAX_SERIES} series numbers; restart it, and look for a label whose values never repeat"
    )]
    Numbers,
    #[error("the family of this series is not known")]
    Family,
}

impl Refusal {
    /// The `reason` of `picket_source_errors_total`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Type { .. } | Self::SampleName { .. } | Self::Reserved { .. } => "family-clash",
            Self::Series { .. } => "series-clash",
            Self::Numbers => "series-numbers",
            Self::Family => "unknown-family",
        }
    }
}

pub(crate) struct FamilyEntry {
    pub plugin: PluginId,
    pub family: Family,
    /// A record that defines it has been appended.
    pub defined: bool,
    /// Its series, in the order in which they are exposed.
    pub order: Vec<u32>,
}

pub(crate) struct SeriesEntry {
    pub family: u32,
    pub part: Part,
    pub labels: PackedLabels,
    pub defined: bool,
    /// Retired; the record that says so is not appended yet.
    pub hidden: bool,
    /// The instance of the plugin that declared it last.
    pub generation: u64,
    pub value: f64,
    /// Of a sample with a time of its own, Unix ms.
    pub timestamp_ms: Option<i64>,
    /// On the monotonic clock; past it the value is no longer shown. Zero: no value yet.
    pub fresh_until: Duration,
}

/// The families of one name, a plugin each.
pub(crate) struct Name {
    pub metric_type: MetricType,
    pub families: Vec<u32>,
}

#[derive(Default)]
pub(crate) struct Dictionary {
    families: HashMap<u32, FamilyEntry>,
    names: BTreeMap<Arc<str>, Name>,
    /// Which family writes a sample name: `x_sum` may be a histogram's or a gauge's.
    claims: HashMap<String, Arc<str>>,
    series: HashMap<u32, SeriesEntry>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    next_family: u32,
    next_series: u32,
}

/// What [`Dictionary::family`] found.
pub(crate) struct Declared {
    pub number: u32,
    /// The plugin's former family of this name, of another type, unit or help: its series are to be retired.
    pub replaced: Option<u32>,
}

impl Dictionary {
    /// The number of this family of this plugin; the same again for the same family.
    pub fn family(&mut self, plugin: &PluginId, family: &Family) -> Result<Declared, Refusal> {
        let mine = self.names.get(family.name.as_str()).and_then(|name| {
            name.families
                .iter()
                .copied()
                .find(|number| self.families.get(number).is_some_and(|entry| entry.plugin == *plugin))
        });
        if let Some(number) = mine
            && self.families.get(&number).is_some_and(|entry| entry.family == *family)
        {
            return Ok(Declared { number, replaced: None });
        }
        self.check_names(plugin, family, mine)?;
        if let Some(old) = mine {
            self.forget_name(old);
        }
        let number = self.next_family;
        self.next_family += 1;
        let name: Arc<str> = match self.names.get_key_value(family.name.as_str()) {
            Some((name, _)) => name.clone(),
            None => family.name.as_str().into(),
        };
        for sample in sample_names(family) {
            self.claims.insert(sample, name.clone());
        }
        self.names
            .entry(name)
            .or_insert_with(|| Name { metric_type: family.metric_type, families: Vec::new() })
            .families
            .push(number);
        self.families.insert(
            number,
            FamilyEntry { plugin: plugin.clone(), family: family.clone(), defined: false, order: Vec::new() },
        );
        Ok(Declared { number, replaced: mine })
    }

    fn check_names(&self, plugin: &PluginId, family: &Family, mine: Option<u32>) -> Result<(), Refusal> {
        if plugin.as_str() != OWN_ID && RESERVED.iter().any(|prefix| family.name.starts_with(prefix)) {
            return Err(Refusal::Reserved { name: family.name.clone() });
        }
        let owner = |name: &Name| {
            name.families
                .iter()
                .filter(|number| Some(**number) != mine)
                .find_map(|number| self.families.get(number))
                .map(|entry| entry.plugin.clone())
        };
        if let Some(name) = self.names.get(family.name.as_str())
            && name.metric_type != family.metric_type
            && let Some(owner) = owner(name)
        {
            return Err(Refusal::Type {
                name: family.name.clone(),
                mine: family.metric_type,
                owner,
                theirs: name.metric_type,
            });
        }
        for sample in sample_names(family) {
            if let Some(other) = self.claims.get(&sample)
                && **other != *family.name
                && let Some(owner) = self.names.get(other).and_then(owner)
            {
                return Err(Refusal::SampleName {
                    name: family.name.clone(),
                    sample,
                    other: other.clone(),
                    owner,
                });
            }
        }
        Ok(())
    }

    /// The number of this series of this family, and whether it is new.
    pub fn register(
        &mut self,
        family: u32,
        part: Part,
        labels: &Labels,
        generation: u64,
    ) -> Result<(u32, bool), Refusal> {
        let entry = self.families.get(&family).ok_or(Refusal::Family)?;
        if let Some(number) = self.find(family, part, labels) {
            if let Some(series) = self.series.get_mut(&number) {
                series.generation = generation;
            }
            return Ok((number, false));
        }
        let name = self.names.get(entry.family.name.as_str());
        for &other in name.iter().flat_map(|name| &name.families) {
            if other != family
                && self.find(other, part, labels).is_some()
                && let Some(owner) = self.families.get(&other)
            {
                return Err(Refusal::Series {
                    name: format!("{}{}", entry.family.name, suffix(part)),
                    owner: owner.plugin.clone(),
                });
            }
        }
        let number = self.next_series;
        if number >= MAX_SERIES {
            return Err(Refusal::Numbers);
        }
        self.next_series += 1;
        let series = SeriesEntry {
            family,
            part,
            labels: PackedLabels::new(labels),
            defined: false,
            hidden: false,
            generation,
            value: 0.0,
            timestamp_ms: None,
            fresh_until: Duration::ZERO,
        };
        let Self { families, series: all, index, hasher, .. } = self;
        let hash = hash(hasher, family, part, series.labels.iter());
        all.insert(number, series);
        index.insert_unique(hash, number, |number| all.get(number).map_or(0, |s| hash_entry(hasher, s)));
        if let Some(entry) = families.get_mut(&family) {
            let place = match entry.family.metric_type {
                MetricType::Histogram | MetricType::Summary => {
                    let key = |number: &u32| all.get(number).map(exposed_order);
                    let new = key(&number);
                    entry.order.partition_point(|other| key(other) <= new)
                }
                _ => entry.order.len(),
            };
            entry.order.insert(place, number);
        }
        Ok((number, true))
    }

    fn find(&self, family: u32, part: Part, labels: &Labels) -> Option<u32> {
        let hash = hash(&self.hasher, family, part, labels.iter());
        self.index
            .find(hash, |number| {
                self.series
                    .get(number)
                    .is_some_and(|s| s.family == family && s.part == part && s.labels == *labels)
            })
            .copied()
    }

    /// Takes series out of what is exposed and found; their definitions stay until [`Self::remove`].
    pub fn hide(&mut self, numbers: &[u32]) {
        let Self { families, series, index, hasher, .. } = self;
        let mut touched = Vec::new();
        for number in numbers {
            let Some(entry) = series.get_mut(number) else { continue };
            if std::mem::replace(&mut entry.hidden, true) {
                continue;
            }
            if let Ok(found) = index.find_entry(hash_entry(hasher, entry), |other| other == number) {
                found.remove();
            }
            touched.push(entry.family);
        }
        touched.sort_unstable();
        touched.dedup();
        for number in touched {
            if let Some(family) = families.get_mut(&number) {
                family.order.retain(|number| series.get(number).is_some_and(|entry| !entry.hidden));
            }
        }
    }

    /// Forgets hidden series, and the former families that only they held.
    pub fn remove(&mut self, numbers: &[u32]) {
        let mut families: Vec<u32> =
            numbers.iter().filter_map(|number| self.series.remove(number)).map(|s| s.family).collect();
        families.sort_unstable();
        families.dedup();
        families.retain(|number| !self.is_current(*number));
        if !families.is_empty() {
            for series in self.series.values() {
                families.retain(|number| *number != series.family);
            }
            for number in families {
                self.families.remove(&number);
            }
        }
    }

    /// Forgets a family that no longer has a name or a series.
    pub fn remove_family(&mut self, number: u32) {
        self.forget_name(number);
        self.families.remove(&number);
    }

    /// Whether the family still stands under its name.
    fn is_current(&self, number: u32) -> bool {
        self.families
            .get(&number)
            .and_then(|entry| self.names.get(entry.family.name.as_str()))
            .is_some_and(|name| name.families.contains(&number))
    }

    /// Frees the names of a family, so that another may have them.
    pub fn forget_name(&mut self, number: u32) {
        let Some(entry) = self.families.get(&number) else { return };
        let Some(name) = self.names.get_mut(entry.family.name.as_str()) else { return };
        name.families.retain(|other| *other != number);
        if name.families.is_empty() {
            for sample in sample_names(&entry.family) {
                if self.claims.get(&sample).is_some_and(|owner| **owner == *entry.family.name) {
                    self.claims.remove(&sample);
                }
            }
            self.names.remove(entry.family.name.as_str());
        }
    }

    pub fn entry(&self, number: u32) -> Option<&SeriesEntry> {
        self.series.get(&number)
    }

    pub fn entry_mut(&mut self, number: u32) -> Option<&mut SeriesEntry> {
        self.series.get_mut(&number)
    }

    pub fn family_entry(&self, number: u32) -> Option<&FamilyEntry> {
        self.families.get(&number)
    }

    pub fn family_entry_mut(&mut self, number: u32) -> Option<&mut FamilyEntry> {
        self.families.get_mut(&number)
    }

    /// By number, for the header of a spool segment.
    pub fn families_sorted(&self) -> Vec<(u32, &FamilyEntry)> {
        let mut list: Vec<_> = self.families.iter().map(|(number, entry)| (*number, entry)).collect();
        list.sort_unstable_by_key(|(number, _)| *number);
        list
    }

    /// By number, for the header of a spool segment.
    pub fn series_sorted(&self) -> Vec<(u32, &SeriesEntry)> {
        let mut list: Vec<_> = self.series.iter().map(|(number, entry)| (*number, entry)).collect();
        list.sort_unstable_by_key(|(number, _)| *number);
        list
    }

    /// The numbers of a plugin's families and of all their series, hidden ones left out.
    pub fn of_plugin(&self, plugin: &PluginId) -> (Vec<u32>, Vec<u32>) {
        let mut families = Vec::new();
        let mut series = Vec::new();
        for (number, entry) in self.families.iter().filter(|(_, entry)| entry.plugin == *plugin) {
            families.push(*number);
            series.extend_from_slice(&entry.order);
        }
        (families, series)
    }

    /// How many series of a plugin live.
    pub fn series_of(&self, plugin: &PluginId) -> usize {
        self.families.values().filter(|entry| entry.plugin == *plugin).map(|entry| entry.order.len()).sum()
    }

    /// The names after `after`, in order.
    pub fn names_after(&self, after: Option<&str>) -> impl Iterator<Item = (&Arc<str>, &Name)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let start = match after {
            Some(name) => Excluded(name),
            None => Unbounded,
        };
        self.names.range::<str, _>((start, Unbounded))
    }

    /// The families of this name.
    pub fn families_of(&self, name: &str) -> &[u32] {
        self.names.get(name).map_or(&[], |name| name.families.as_slice())
    }

    pub fn has_name(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }
}

/// The sample names that a family writes, its own first.
fn sample_names(family: &Family) -> impl Iterator<Item = String> {
    let parts: &[Part] = match family.metric_type {
        MetricType::Histogram => &[Part::Value, Part::Bucket, Part::Sum, Part::Count],
        MetricType::Summary => &[Part::Value, Part::Sum, Part::Count],
        _ => &[Part::Value],
    };
    parts.iter().map(|part| format!("{}{}", family.name, suffix(*part)))
}

/// Series of one label set side by side; in it buckets and quantiles by bound, then sum, then count.
fn exposed_order(series: &SeriesEntry) -> impl PartialOrd + use<> {
    let bound = ["le", "quantile"]
        .iter()
        .find_map(|name| series.labels.get(name))
        .and_then(|text| text.parse::<f64>().ok())
        .unwrap_or(f64::INFINITY);
    let set: Vec<(String, String)> = series
        .labels
        .iter()
        .filter(|(name, _)| !matches!(*name, "le" | "quantile"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let part = match series.part {
        Part::Bucket | Part::Quantile | Part::Value => 0u8,
        Part::Sum => 1,
        Part::Count => 2,
    };
    (set, part, bound)
}

fn hash_entry(hasher: &DefaultHashBuilder, series: &SeriesEntry) -> u64 {
    hash(hasher, series.family, series.part, series.labels.iter())
}

fn hash<'a>(
    hasher: &DefaultHashBuilder,
    family: u32,
    part: Part,
    labels: impl Iterator<Item = (&'a str, &'a str)>,
) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut state = hasher.build_hasher();
    (family, part as i32).hash(&mut state);
    for pair in labels {
        pair.hash(&mut state);
    }
    state.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of parts of a node plugins speak too.
    const SHARED: &[&str] = &["picket_component_health"];

    /// Whatever `own` declares: a name that is not reserved is one that a plugin could forge.
    #[test]
    fn the_agents_own_names_are_reserved() {
        let word = |text: &&str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let sources = [include_str!("../own.rs"), include_str!("../own/plugins.rs")];
        let literals = sources.iter().flat_map(|source| source.split('"'));
        let names: Vec<&str> = literals.filter(|text| text.starts_with("picket_")).filter(word).collect();
        assert!(names.len() > 50, "{names:?}");
        assert!(
            ["picket_agent_info", "picket_plugin_info"].iter().all(|name| names.contains(name)),
            "{names:?}"
        );
        for name in names {
            let reserved = RESERVED.iter().any(|prefix| name.starts_with(prefix));
            assert!(reserved != SHARED.contains(&name), "{name}");
        }
    }
}
