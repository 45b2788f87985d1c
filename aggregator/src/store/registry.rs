//! The families of the whole fleet: one name, one type. The first type wins as long as any series of the family is live;
//! whoever brings another is refused and counted, so that no scrape ever shows a family with two types.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};

use hashbrown::HashMap;
use picket_proto::model::{Family, MetricType};

use super::node::Node;
use super::{Refusal, read, write};

/// The families that the aggregator itself makes.
pub(crate) const NODE_UP: &str = "picket_node_up";
pub(crate) const NODE_LAST_SEEN: &str = "picket_node_last_seen_timestamp_seconds";
pub(crate) const NODE_SERIES: &str = "picket_node_series";
pub(crate) const OWN: [&str; 3] = [NODE_LAST_SEEN, NODE_SERIES, NODE_UP];

#[derive(Default)]
pub(crate) struct Registry {
    families: RwLock<HashMap<Arc<str>, Arc<FamilyEntry>>>,
}

pub(crate) struct FamilyEntry {
    pub name: Arc<str>,
    pub meta: RwLock<Meta>,
    /// A state set has a series without the label that is called like the family, which OpenMetrics wants of each.
    pub loose: AtomicBool,
    /// The nodes that have series of it, and where.
    pub holders: RwLock<Vec<Holder>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Meta {
    pub metric_type: MetricType,
    pub unit: Arc<str>,
    pub help: Arc<str>,
}

pub(crate) struct Holder {
    pub node: Arc<Node>,
    pub block: u32,
}

impl FamilyEntry {
    /// Whether no series of it is live at `cutoff_s` (see [`Node::expose`]).
    fn is_vacant(&self, cutoff_s: u32) -> bool {
        read(&self.holders).iter().all(|h| h.node.block_is_vacant(h.block, cutoff_s))
    }
}

impl Registry {
    /// Finds or makes a family. Must be called without any node's lock.
    pub fn admit(&self, family: &Family, cutoff_s: u32) -> Result<Arc<FamilyEntry>, Refusal> {
        let known = read(&self.families).get(family.name.as_str()).cloned();
        if let Some(entry) = known {
            let held = read(&entry.meta).metric_type;
            if held == family.metric_type {
                return Ok(entry);
            }
            if !entry.is_vacant(cutoff_s) {
                return Err(Refusal::TypeClash {
                    name: family.name.clone(),
                    held,
                    offered: family.metric_type,
                });
            }
            *write(&entry.meta) = Meta::of(family);
            return Ok(entry);
        }
        if OWN.contains(&family.name.as_str()) {
            return Err(Refusal::Reserved { name: family.name.clone() });
        }
        let mut families = write(&self.families);
        if let Some(other) = parts_clash(&families, family) {
            return Err(Refusal::NameClash { name: family.name.clone(), other });
        }
        let entry = families.entry(Arc::from(family.name.as_str())).or_insert_with_key(|name| {
            Arc::new(FamilyEntry {
                name: Arc::clone(name),
                meta: RwLock::new(Meta::of(family)),
                loose: AtomicBool::new(false),
                holders: RwLock::default(),
            })
        });
        let held = read(&entry.meta).metric_type;
        if held != family.metric_type {
            return Err(Refusal::TypeClash { name: family.name.clone(), held, offered: family.metric_type });
        }
        Ok(Arc::clone(entry))
    }

    /// All families in order of name.
    pub fn sorted(&self) -> Vec<Arc<FamilyEntry>> {
        let mut list: Vec<_> = read(&self.families).values().cloned().collect();
        list.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        list
    }

    pub fn contains(&self, name: &str) -> bool {
        read(&self.families).contains_key(name)
    }

    /// Takes a node out of all families.
    pub fn forget(&self, node: &Arc<Node>) {
        for entry in read(&self.families).values() {
            write(&entry.holders).retain(|h| !Arc::ptr_eq(&h.node, node));
        }
    }
}

impl Meta {
    fn of(family: &Family) -> Self {
        Self {
            metric_type: family.metric_type,
            unit: family.unit.as_str().into(),
            help: family.help.as_str().into(),
        }
    }
}

fn has_parts(metric_type: MetricType) -> bool {
    matches!(metric_type, MetricType::Histogram | MetricType::Summary)
}

/// A family whose series would be named like another's `_bucket`, `_sum` or `_count`.
fn parts_clash(families: &HashMap<Arc<str>, Arc<FamilyEntry>>, family: &Family) -> Option<String> {
    const PARTS: [&str; 3] = ["_bucket", "_sum", "_count"];
    let base =
        PARTS.iter().find_map(|part| family.name.strip_suffix(part)).and_then(|base| families.get(base));
    if let Some(base) = base.filter(|base| has_parts(read(&base.meta).metric_type)) {
        return Some(base.name.to_string());
    }
    if !has_parts(family.metric_type) {
        return None;
    }
    PARTS
        .iter()
        .map(|part| format!("{}{part}", family.name))
        .find(|name| families.contains_key(name.as_str()))
}
