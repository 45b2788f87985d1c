//! The latest value of every series of the fleet, in memory, kept in the form in which it is exposed.
//!
//! [`Store`] knows the nodes. An uplink stream gets a [`Writer`] per agent life: it registers series once and then applies
//! batches by number. [`Store::exposition`] streams what is live in Prometheus text or OpenMetrics; [`Store::nodes`] and
//! [`Store::series`] are the views of the HTTP API.
//!
//! A series is live while its value was known to hold less than `stale_after` ago. That moment is told by whoever
//! applies the batch, by this machine's clock: a node whose clock is wrong is neither stale nor eternal. All times come in
//! as arguments; nothing here reads a clock.

mod exposition;
mod node;
mod registry;
mod selector;
mod telemetry;
#[cfg(test)]
mod tests;
mod text;
mod writer;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use picket_proto::model::{MetricType, NodeId};

pub use exposition::{Exposition, Format};
pub use node::{Node, Pin, Stamp};
pub(crate) use selector::any as any_selector;
pub use selector::{Selector, SelectorError};
pub use telemetry::describe as describe_metrics;
pub use text::{Parsed, parse as parse_series};
pub use writer::{DefineError, Definer, Outcome, Resolved, UndefinedSeries, Writer};

pub(crate) use registry::FamilyEntry;

/// The bounds of a [`Store`].
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// How long a series is exposed after its last sample.
    pub stale_after: Duration,
    /// How long a stale series that no stream names keeps its slot.
    pub reclaim_after: Duration,
    /// Series a node may have; more are refused and counted.
    pub max_series_per_node: usize,
    /// Families a node may bring in its whole time.
    pub max_families_per_node: usize,
    /// Bytes that the texts of a node's series may take, labels included.
    pub max_text_bytes_per_node: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            stale_after: Duration::from_secs(300),
            reclaim_after: Duration::from_secs(3600),
            max_series_per_node: 1_000_000,
            max_families_per_node: 20_000,
            max_text_bytes_per_node: 256 << 20,
        }
    }
}

/// Why a family or a series was not taken. The stream goes on; its samples are dropped and counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "the family {name} is {held:?} in this fleet and was offered as {offered:?}; the first type stays while any series of it lives"
    )]
    TypeClash { name: String, held: MetricType, offered: MetricType },
    #[error("the family {name} would have series named like those of {other}")]
    NameClash { name: String, other: String },
    #[error("the family {name} is made by the aggregator itself")]
    Reserved { name: String },
    #[error(transparent)]
    Invalid(#[from] picket_proto::model::InvalidName),
    #[error("a series of {family} has {bytes} bytes of labels, {max} are allowed")]
    TooLong { family: String, bytes: usize, max: usize },
    #[error(
        "the node has all it may have: {families} families, {series} series, {text_bytes} bytes of labels"
    )]
    Quota { families: usize, series: usize, text_bytes: usize },
}

impl Refusal {
    fn quota(room: node::Room) -> Self {
        Self::Quota { families: room.families, series: room.series, text_bytes: room.text_bytes }
    }

    /// A word for counters.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TypeClash { .. } => "type-clash",
            Self::NameClash { .. } => "name-clash",
            Self::Reserved { .. } => "reserved",
            Self::Invalid(_) => "invalid",
            Self::TooLong { .. } => "too-long",
            Self::Quota { .. } => "quota",
        }
    }
}

/// A node, for the API.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct NodeView {
    pub node: NodeId,
    /// A stream is connected and samples are fresh.
    pub up: bool,
    pub connected: bool,
    /// When the last batch came, Unix ms.
    pub last_seen_ms: Option<i64>,
    /// Live series.
    pub series: usize,
    /// Samples taken since this process began.
    pub samples: u64,
}

/// A series, for the API.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct SeriesView {
    pub node: NodeId,
    /// As exposed, with `_bucket`, `_sum`, `_count`.
    pub name: String,
    #[serde(rename = "type")]
    pub metric_type: &'static str,
    pub unit: Arc<str>,
    /// `instance` included.
    pub labels: BTreeMap<String, String>,
    /// JSON has no infinities and no NaN: those are strings.
    #[serde(serialize_with = "json_value")]
    pub value: f64,
    /// The sample's time by the agent's clock, Unix ms.
    pub timestamp_ms: i64,
}

/// Writes a sample value as a JSON number, or as the string that the text format has for it.
pub fn json_value<S: serde::Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() {
        return serializer.serialize_f64(*value);
    }
    serializer.serialize_str(match value.is_nan() {
        true => "NaN",
        false if *value > 0.0 => "+Inf",
        false => "-Inf",
    })
}

pub struct Store {
    options: StoreOptions,
    registry: registry::Registry,
    nodes: RwLock<BTreeMap<NodeId, Arc<Node>>>,
}

impl Store {
    pub fn new(options: StoreOptions) -> Arc<Self> {
        Arc::new(Self { options, registry: registry::Registry::default(), nodes: RwLock::default() })
    }

    pub fn options(&self) -> &StoreOptions {
        &self.options
    }

    /// Makes a node known: from now on `picket_node_up` tells of it, connected or not.
    pub fn know(&self, id: &NodeId) -> Arc<Node> {
        if let Some(node) = read(&self.nodes).get(id) {
            return Arc::clone(node);
        }
        Arc::clone(write(&self.nodes).entry(id.clone()).or_insert_with(|| Arc::new(Node::new(id.clone()))))
    }

    /// Drops a node with all its series, as when it was revoked. A writer that is still open writes into the void.
    pub fn forget(&self, id: &NodeId) {
        if let Some(node) = write(&self.nodes).remove(id) {
            self.registry.forget(&node);
            node.clear();
        }
    }

    /// Whether this is still the node of that name: one that was revoked is not.
    pub fn is_known(&self, id: &NodeId, node: &Arc<Node>) -> bool {
        read(&self.nodes).get(id).is_some_and(|known| Arc::ptr_eq(known, node))
    }

    /// A writer for one agent life on one stream.
    pub fn writer(self: &Arc<Self>, node: &Arc<Node>) -> Writer {
        Writer::new(Arc::clone(self), Arc::clone(node))
    }

    /// The whole fleet's live series that match any of `selectors` (all, when there are none), as chunks of about 64 KiB.
    /// What changes meanwhile is seen or not; no lock is held between chunks.
    pub fn exposition(self: &Arc<Self>, format: Format, selectors: Vec<Selector>, now_ms: i64) -> Exposition {
        Exposition::new(Arc::clone(self), format, selectors, now_ms)
    }

    /// All known nodes in order of name.
    pub fn nodes(&self, now_ms: i64) -> Vec<NodeView> {
        self.node_list().iter().map(|node| self.view(node, now_ms)).collect()
    }

    pub fn node(&self, id: &NodeId, now_ms: i64) -> Option<NodeView> {
        let node = read(&self.nodes).get(id).cloned()?;
        Some(self.view(&node, now_ms))
    }

    /// Live series that match any of `selectors` (all, when there are none), at most `limit` of them.
    pub fn series(&self, selectors: &[Selector], limit: usize, now_ms: i64) -> Vec<SeriesView> {
        let cutoff_s = self.cutoff_s(now_ms);
        let mut found = Vec::new();
        for node in self.node_list() {
            if !selectors.is_empty() && !selectors.iter().any(|s| s.may_match_node(node.id().as_str())) {
                continue;
            }
            node.each(cutoff_s, |family, series, value, timestamp_ms, live| {
                if found.len() >= limit {
                    return false;
                }
                let parsed =
                    text::parse(series).filter(|parsed| selector::any(selectors, &family.name, parsed));
                if let Some(parsed) = parsed.filter(|_| live) {
                    found.push(SeriesView {
                        node: node.id().clone(),
                        name: parsed.name.to_owned(),
                        metric_type: picket_proto::model::type_word(node::type_of(family), true),
                        unit: Arc::clone(&read(&family.meta).unit),
                        labels: parsed
                            .labels
                            .into_iter()
                            .map(|(n, v)| (n.to_owned(), v.into_owned()))
                            .collect(),
                        value,
                        timestamp_ms,
                    });
                }
                true
            });
            if found.len() >= limit {
                break;
            }
        }
        found
    }

    /// Gives back the slots of long-stale series, and sets the store's gauges. To be called every half minute or so.
    pub fn sweep(&self, now_ms: i64) {
        let reclaim_ms = i64::try_from(self.options.reclaim_after.as_millis()).unwrap_or(i64::MAX);
        let cutoff_s = node::seconds(now_ms.saturating_sub(reclaim_ms));
        let nodes = self.node_list();
        let mut reclaimed = 0;
        for node in &nodes {
            reclaimed += node.reclaim(cutoff_s);
        }
        let (mut up, mut series) = (0usize, 0usize);
        for node in &nodes {
            up += usize::from(self.is_up(node, now_ms));
            series += node.live(self.cutoff_s(now_ms));
        }
        metrics::counter!(telemetry::RECLAIMED).increment(reclaimed as u64);
        metrics::gauge!(telemetry::SERIES).set(series as f64);
        metrics::gauge!(telemetry::NODES).set(nodes.len() as f64);
        metrics::gauge!(telemetry::NODES_UP).set(up as f64);
    }

    /// Puts back one latest value, as the log kept it. `false`: refused, or something newer is there.
    #[allow(clippy::too_many_arguments, reason = "one logged sample, field by field")]
    pub(crate) fn restore(
        &self,
        id: &NodeId,
        family: &picket_proto::model::Family,
        series: &str,
        value: f64,
        timestamp_ms: i64,
        own_time: bool,
        fresh_ms: i64,
    ) -> bool {
        let Ok(entry) = self.registry.admit(family, self.cutoff_s(fresh_ms)) else { return false };
        let node = self.know(id);
        let Ok(block) = node.block_for(&entry, self.room()) else { return false };
        let slot = {
            let mut inner = lock(&node.inner);
            node.slot_for(&mut inner, block, series.as_bytes(), self.room())
        };
        let Ok((slot, _)) = slot else { return false };
        let own = [timestamp_ms];
        let times_ms: &[i64] = if own_time { &own } else { &[] };
        node.apply(&[slot], &[value], times_ms, Stamp { timestamp_ms, fresh_ms, in_order: true });
        node.received_ms.fetch_max(fresh_ms, Ordering::Relaxed);
        true
    }

    fn room(&self) -> node::Room {
        node::Room {
            families: self.options.max_families_per_node,
            series: self.options.max_series_per_node,
            text_bytes: self.options.max_text_bytes_per_node,
        }
    }

    fn node_list(&self) -> Vec<Arc<Node>> {
        read(&self.nodes).values().cloned().collect()
    }

    fn view(&self, node: &Node, now_ms: i64) -> NodeView {
        let received = node.received_ms.load(Ordering::Relaxed);
        NodeView {
            node: node.id().clone(),
            up: self.is_up(node, now_ms),
            connected: node.connected.load(Ordering::Relaxed) > 0,
            last_seen_ms: (received != 0).then_some(received),
            series: node.live(self.cutoff_s(now_ms)),
            samples: node.samples.load(Ordering::Relaxed),
        }
    }

    fn is_up(&self, node: &Node, now_ms: i64) -> bool {
        let stale_ms = i64::try_from(self.options.stale_after.as_millis()).unwrap_or(i64::MAX);
        let received = node.received_ms.load(Ordering::Relaxed);
        node.connected.load(Ordering::Relaxed) > 0
            && received != 0
            && now_ms.saturating_sub(received) <= stale_ms
    }

    /// Unix seconds: a series that was last fresh before them is stale.
    fn cutoff_s(&self, now_ms: i64) -> u32 {
        let stale_ms = i64::try_from(self.options.stale_after.as_millis()).unwrap_or(i64::MAX);
        node::seconds(now_ms.saturating_sub(stale_ms))
    }
}

impl Drop for Store {
    /// Nodes and families name each other.
    fn drop(&mut self) {
        for node in read(&self.nodes).values() {
            node.clear();
        }
    }
}

// A panic while a lock was held leaves columns of different lengths at worst, and every reader checks its index: going on
// is better than losing the fleet.

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
