//! What the uplink knows of each node: how far its lives are accepted and durable, its open stream, and what its agent
//! said of itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use picket_proto::model::{LOG_LIFE, NodeId};
use picket_proto::v1;

use super::shared::Shared;
use crate::log::{Committed, Watermark};
use crate::store::{Node, NodeView, lock};

/// Lives remembered a node, as many as the log keeps.
const MAX_LIVES: usize = 256;
/// Bounds of what an agent may say of itself.
const MAX_REASONS: usize = 16;
const MAX_PLUGINS: usize = 256;
const MAX_TEXT: usize = 1024;
const MAX_LABELS: usize = 64;
const MAX_LABEL: usize = 253;
/// Bytes of what a node's plugins need and are granted, all of them together.
const MAX_GRANTS: usize = 1 << 20;

pub(super) struct NodeState {
    pub store: Arc<Node>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    lives: Vec<Life>,
    /// The life of samples that was first heard of last: its batches follow all others.
    newest: Option<u64>,
    session: Option<Arc<Shared>>,
    connected_since_ms: i64,
    hello: v1::Hello,
    clock_skew_ms: i64,
    losses: BTreeMap<String, u64>,
    plugins: Vec<PluginStatus>,
    labels: Arc<BTreeMap<String, String>>,
    grants: Arc<Vec<PluginGrants>>,
}

#[derive(Clone, Copy)]
struct Life {
    life: u64,
    /// In the log's queue, or durable.
    accepted: u64,
    durable: u64,
    seen_ms: i64,
}

/// A node, for the API: the store's view and the agent's own words.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct NodeStatus {
    pub node: NodeId,
    pub up: bool,
    pub connected: bool,
    pub connected_since_ms: Option<i64>,
    /// When the last batch came, Unix ms.
    pub last_batch_ms: Option<i64>,
    pub agent_version: String,
    pub kernel: String,
    pub arch: String,
    /// When the agent process began, by its clock.
    pub started_ms: Option<i64>,
    /// This machine's clock less the agent's, when it said Hello.
    pub clock_skew_ms: i64,
    pub series: usize,
    /// Since the aggregator started.
    pub samples_total: u64,
    /// Records that the agent lost, by reason.
    pub losses: BTreeMap<String, u64>,
    pub plugins: Vec<PluginStatus>,
    /// What the node's operator calls it.
    pub labels: Arc<BTreeMap<String, String>>,
}

/// A node and one plugin of it, in short.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Glimpse {
    pub connected: bool,
    pub labels: Arc<BTreeMap<String, String>>,
    /// Of the plugin; empty: the node has none of this name.
    pub digest: String,
    pub state: String,
}

/// A plugin, with what it asks for and what its node's operator grants it, as its agent said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginGrants {
    pub plugin: String,
    pub version: String,
    pub digest: String,
    pub signed_by: String,
    pub state: String,
    /// JSON arrays.
    pub needs: String,
    pub grants: String,
}

/// A plugin, as its agent reported it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PluginStatus {
    pub id: String,
    pub version: String,
    pub digest: String,
    pub state: String,
    pub reason: String,
    pub series: u64,
    pub controllable: bool,
}

impl NodeStatus {
    pub(super) fn new(view: NodeView, state: Option<&NodeState>) -> Self {
        let inner = state.map(|s| lock(&s.inner));
        let inner = inner.as_deref();
        let hello = inner.map(|i| &i.hello);
        let text = |pick: fn(&v1::Hello) -> &String| hello.map(pick).cloned().unwrap_or_default();
        Self {
            node: view.node,
            up: view.up,
            connected: view.connected,
            connected_since_ms: inner.filter(|i| i.session.is_some()).map(|i| i.connected_since_ms),
            last_batch_ms: view.last_seen_ms,
            agent_version: text(|h| &h.agent_version),
            kernel: text(|h| &h.kernel),
            arch: text(|h| &h.arch),
            started_ms: hello.map(|h| h.started_ms).filter(|&ms| ms != 0),
            clock_skew_ms: inner.map_or(0, |i| i.clock_skew_ms),
            series: view.series,
            samples_total: view.samples,
            losses: inner.map(|i| i.losses.clone()).unwrap_or_default(),
            plugins: inner.map(|i| i.plugins.clone()).unwrap_or_default(),
            labels: inner.map(|i| Arc::clone(&i.labels)).unwrap_or_default(),
        }
    }
}

impl NodeState {
    pub fn new(store: Arc<Node>, marks: &[Watermark]) -> Self {
        let lives: Vec<Life> = marks
            .iter()
            .map(|m| Life { life: m.life, accepted: m.sequence, durable: m.sequence, seen_ms: m.seen_ms })
            .collect();
        let samples = lives.iter().filter(|l| l.life & LOG_LIFE == 0);
        let newest = samples.max_by_key(|l| l.seen_ms).map(|l| l.life);
        Self { store, inner: Mutex::new(Inner { lives, newest, ..Inner::default() }) }
    }

    /// The same lives for a new node of the same name: it was removed and enrolled again.
    pub fn succeed(&self, store: Arc<Node>) -> Self {
        let inner = lock(&self.inner);
        let (lives, newest) = (inner.lives.clone(), inner.newest);
        Self { store, inner: Mutex::new(Inner { lives, newest, ..Inner::default() }) }
    }

    /// Makes a stream the node's one; gives the one it replaces.
    pub fn connect(&self, session: &Arc<Shared>, hello: v1::Hello, now_ms: i64) -> Option<Arc<Shared>> {
        let mut inner = lock(&self.inner);
        inner.clock_skew_ms = if hello.now_ms == 0 { 0 } else { now_ms.saturating_sub(hello.now_ms) };
        inner.labels = Arc::new(labels(&hello.labels));
        inner.hello = v1::Hello {
            agent_version: bounded(&hello.agent_version),
            kernel: bounded(&hello.kernel),
            arch: bounded(&hello.arch),
            codecs: Vec::new(),
            labels: Vec::new(),
            ..hello
        };
        inner.connected_since_ms = now_ms;
        inner.session.replace(Arc::clone(session))
    }

    pub fn disconnect(&self, session: &Arc<Shared>) {
        let mut inner = lock(&self.inner);
        if inner.session.as_ref().is_some_and(|s| Arc::ptr_eq(s, session)) {
            inner.session = None;
        }
    }

    pub fn session(&self) -> Option<Arc<Shared>> {
        lock(&self.inner).session.clone()
    }

    pub fn watermarks(&self) -> Vec<v1::Watermark> {
        let durable = |l: &Life| v1::Watermark { life: l.life, sequence: l.durable };
        lock(&self.inner).lives.iter().filter(|l| l.durable > 0).map(durable).collect()
    }

    pub fn durable(&self, life: u64) -> u64 {
        lock(&self.inner).lives.iter().find(|l| l.life == life).map_or(0, |l| l.durable)
    }

    pub fn is_accepted(&self, life: u64, sequence: u64) -> bool {
        lock(&self.inner).lives.iter().any(|l| l.life == life && l.accepted >= sequence)
    }

    /// Accepts a batch once: calls `take` under the node's lock, so that what it appends and applies is in order of
    /// sequence even when two streams of the node race. Its argument says whether the life is the node's newest.
    /// `false`: it was accepted before.
    pub fn accept(&self, life: u64, sequence: u64, now_ms: i64, take: impl FnOnce(bool)) -> bool {
        let mut inner = lock(&self.inner);
        let at = match inner.lives.iter().position(|l| l.life == life) {
            Some(at) => at,
            None => {
                inner.begin(life, now_ms);
                inner.lives.len() - 1
            }
        };
        let in_order = inner.newest == Some(life);
        let Some(mark) = inner.lives.get_mut(at) else { return false };
        if mark.accepted >= sequence {
            return false;
        }
        mark.accepted = sequence;
        mark.seen_ms = now_ms;
        take(in_order);
        true
    }

    pub fn lost(&self, loss: v1::Loss) {
        let mut inner = lock(&self.inner);
        let reason = bounded(&loss.reason);
        if inner.losses.contains_key(&reason) || inner.losses.len() < MAX_REASONS {
            inner.losses.insert(reason, loss.records);
        }
    }

    pub fn glimpse(&self, plugin: &str) -> Glimpse {
        let inner = lock(&self.inner);
        let found = inner.plugins.iter().find(|p| p.id == plugin);
        Glimpse {
            connected: inner.session.is_some(),
            labels: Arc::clone(&inner.labels),
            digest: found.map(|p| p.digest.clone()).unwrap_or_default(),
            state: found.map(|p| p.state.clone()).unwrap_or_default(),
        }
    }

    pub fn grants(&self) -> Arc<Vec<PluginGrants>> {
        Arc::clone(&lock(&self.inner).grants)
    }

    /// What its plugins may do. What is too long to be kept is left out, and so is what is no JSON.
    pub fn granted(&self, report: v1::GrantReport) {
        let mut room = MAX_GRANTS;
        let mut kept = Vec::new();
        for p in report.plugins.into_iter().take(MAX_PLUGINS) {
            let size = p.needs_json.len() + p.grants_json.len();
            let is_list = |text: &str| serde_json::from_str::<Vec<serde_json::Value>>(text).is_ok();
            if size > room || !is_list(&p.needs_json) || !is_list(&p.grants_json) {
                tracing::warn!(node = %self.store.id(), plugin = bounded(&p.id), size, "what a plugin may do is not kept");
                continue;
            }
            room -= size;
            kept.push(PluginGrants {
                plugin: bounded(&p.id),
                version: bounded(&p.version),
                digest: bounded(&p.digest),
                signed_by: bounded(&p.signed_by),
                state: bounded(&p.state),
                needs: p.needs_json,
                grants: p.grants_json,
            });
        }
        lock(&self.inner).grants = Arc::new(kept);
    }

    pub fn report(&self, report: v1::PluginReport) {
        let plugin = |p: v1::PluginState| PluginStatus {
            id: bounded(&p.id),
            version: bounded(&p.version),
            digest: bounded(&p.digest),
            state: bounded(&p.state),
            reason: bounded(&p.reason),
            series: p.series,
            controllable: p.controllable,
        };
        lock(&self.inner).plugins = report.plugins.into_iter().take(MAX_PLUGINS).map(plugin).collect();
    }
}

impl Committed for NodeState {
    fn committed(&self, life: u64, sequence: u64) {
        let session = {
            let mut inner = lock(&self.inner);
            if let Some(mark) = inner.lives.iter_mut().find(|l| l.life == life) {
                mark.durable = mark.durable.max(sequence);
            }
            inner.session.clone()
        };
        if let Some(session) = session {
            session.committed();
        }
    }
}

impl Inner {
    fn begin(&mut self, life: u64, now_ms: i64) {
        if self.lives.len() >= MAX_LIVES {
            // Never one with batches on their way to the log.
            let settled = self.lives.iter().enumerate().filter(|(_, l)| l.accepted == l.durable);
            if let Some(oldest) = settled.min_by_key(|(_, l)| l.seen_ms).map(|(at, _)| at) {
                self.lives.swap_remove(oldest);
            }
        }
        self.lives.push(Life { life, accepted: 0, durable: 0, seen_ms: now_ms });
        if life & LOG_LIFE == 0 {
            self.newest = Some(life);
        }
    }
}

/// Those that are well-formed; `node` is the certificate's to say.
fn labels(said: &[v1::Label]) -> BTreeMap<String, String> {
    let good = said.iter().filter(|label| {
        picket_proto::model::check_label_name(&label.name).is_ok()
            && label.name != "node"
            && label.name.len().max(label.value.len()) <= MAX_LABEL
            && !label.value.chars().any(char::is_control)
    });
    good.take(MAX_LABELS).map(|label| (label.name.clone(), label.value.clone())).collect()
}

fn bounded(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}
