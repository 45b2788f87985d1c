//! The aggregator's end of the uplink: the gRPC service `picket.v1.Uplink`.
//!
//! A batch is acknowledged when the log holds it durably, and counted once however often it comes: per node and agent life
//! there is one watermark of what was accepted, moved under the node's lock together with the log's queue and the latest
//! values. What is behind the watermark is decoded (the codec needs it), dropped and acknowledged again.
//!
//! One stream costs a state machine of a few hundred bytes, polled as the response's body: no task, no timer and no channel
//! of its own. A sweep once a second ends streams that never said Hello, and streams whose certificate has ended.
//! When the log can't take more, streams stop reading, and HTTP/2 flow control makes the agents wait.
//!
//! Who may speak ([`Admission`]) and where events and log lines go ([`EventSink`], [`LogSink`]) is decided elsewhere.

mod admission;
mod agent_clock;
mod grpc;
mod nodes;
mod session;
mod shared;
mod telemetry;
#[cfg(test)]
mod tests;
mod violation;
mod waiting;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock, Weak};
use std::time::Duration;

use hashbrown::HashMap;
use picket_proto::model::NodeId;
use picket_proto::v1;

pub use admission::{ActionSink, Admission, EventSink, LogSink, Peer, Recording, Renewed, RolloutSink};
pub use grpc::UplinkGrpc;
pub use nodes::{Glimpse, NodeStatus, PluginGrants, PluginStatus};
pub use session::Session;
pub use telemetry::describe as describe_metrics;

use crate::clock::Clock;
use crate::log::{Log, Recent};
use crate::store::{Store, lock, read, write};
use nodes::NodeState;
use shared::Shared;

#[derive(Debug, Clone)]
pub struct Options {
    /// Unacknowledged batches an agent may have in flight, told in Welcome.
    pub window: u32,
    /// A stream that hasn't said Hello by then is ended.
    pub hello_timeout: Duration,
    /// How long an operator's command waits for the agent's answer.
    pub command_timeout: Duration,
    /// The largest message taken from an agent, in bytes.
    pub max_message_bytes: usize,
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            window: 64,
            hello_timeout: Duration::from_secs(10),
            command_timeout: Duration::from_secs(10),
            max_message_bytes: 20 << 20,
            clock: Clock::system(),
        }
    }
}

/// Why a command got no answer from the node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error("the node {0} is not connected; try again when it is")]
    NotConnected(NodeId),
    #[error("the node {node} did not answer within {after:?}; whether it acted is not known")]
    Timeout { node: NodeId, after: Duration },
    #[error("the connection to the node {0} ended before it answered; whether it acted is not known")]
    Disconnected(NodeId),
    #[error("the node {0} has too many commands waiting; try again later")]
    Busy(NodeId),
    #[error("the node {0} sent an answer without content; is its agent newer than this aggregator?")]
    Empty(NodeId),
}

/// The service: cheap to clone, one for the process.
#[derive(Clone)]
pub struct UplinkService {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    store: Arc<Store>,
    log: Arc<Log>,
    admission: Arc<dyn Admission>,
    events: Arc<dyn EventSink>,
    logs: Arc<dyn LogSink>,
    /// None until it is set: reports before are dropped, and come again with the next stream.
    actions: OnceLock<Arc<dyn ActionSink>>,
    rollouts: OnceLock<Arc<dyn RolloutSink>>,
    options: Options,
    nodes: RwLock<HashMap<NodeId, Arc<NodeState>>>,
    /// All open streams, those before Hello included.
    streams: Mutex<HashMap<u64, Weak<Shared>>>,
    next_id: AtomicU64,
    closing: AtomicBool,
}

impl UplinkService {
    /// Must be called within a tokio runtime: it starts the sweep, which ends with the last clone.
    pub fn new(
        store: Arc<Store>,
        log: Arc<Log>,
        admission: Arc<dyn Admission>,
        events: Arc<dyn EventSink>,
        logs: Arc<dyn LogSink>,
        options: Options,
    ) -> Self {
        let inner = Arc::new(Inner {
            store,
            log,
            admission,
            events,
            logs,
            actions: OnceLock::new(),
            rollouts: OnceLock::new(),
            options,
            nodes: RwLock::default(),
            streams: Mutex::default(),
            next_id: AtomicU64::new(1),
            closing: AtomicBool::new(false),
        });
        tokio::spawn(sweep(Arc::downgrade(&inner)));
        Self { inner }
    }

    /// The tower service to route `/picket.v1.Uplink/` to. It is the generated server with small buffers: the generated
    /// one allocates 16 KiB a stream before the first message.
    pub fn server(&self) -> UplinkGrpc {
        UplinkGrpc::new(self.clone())
    }

    /// Where reports of actions go. Said once.
    pub fn set_actions(&self, sink: Arc<dyn ActionSink>) {
        let _ = self.inner.actions.set(sink);
    }

    /// Who offers plugins. Said once.
    pub fn set_rollouts(&self, sink: Arc<dyn RolloutSink>) {
        let _ = self.inner.rollouts.set(sink);
    }

    /// Tells a node what it is offered from now on; one that is not connected is told when its stream begins.
    pub fn offer(&self, node: &NodeId, offers: v1::PluginOffers) {
        let session = read(&self.inner.nodes).get(node).and_then(|state| state.session());
        if let Some(session) = session {
            session.offer(offers);
        }
    }

    /// All nodes that were connected since the start and are known still, with how this plugin does there.
    pub fn glimpses(&self, plugin: &str) -> Vec<(NodeId, Glimpse)> {
        let known = |id: &NodeId, state: &NodeState| self.inner.store.is_known(id, &state.store);
        let nodes = read(&self.inner.nodes);
        nodes
            .iter()
            .filter(|(id, state)| known(id, state))
            .map(|(id, state)| (id.clone(), state.glimpse(plugin)))
            .collect()
    }

    /// What the plugins of a node may do, as its agent said last, and whether it is connected.
    pub fn grants(&self, node: Option<&NodeId>) -> Vec<(NodeId, bool, Arc<Vec<PluginGrants>>)> {
        let nodes = read(&self.inner.nodes);
        let mut all: Vec<_> = nodes
            .iter()
            .filter(|(id, state)| {
                node.is_none_or(|wanted| wanted == *id) && self.inner.store.is_known(id, &state.store)
            })
            .map(|(id, state)| (id.clone(), state.session().is_some(), state.grants()))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Every node that is known or was ever connected, in order of name.
    pub fn nodes(&self) -> Vec<NodeStatus> {
        let now_ms = self.inner.options.clock.now_ms();
        let views = self.inner.store.nodes(now_ms);
        views.into_iter().map(|view| self.inner.status(view)).collect()
    }

    pub fn node(&self, name: &str) -> Option<NodeStatus> {
        let id = NodeId::new(name).ok()?;
        let view = self.inner.store.node(&id, self.inner.options.clock.now_ms())?;
        Some(self.inner.status(view))
    }

    /// Sends a command to a node's agent and waits for its answer.
    pub async fn command(
        &self,
        node: &NodeId,
        command: v1::command::Command,
    ) -> Result<v1::command_result::Result, CommandError> {
        let not_connected = || CommandError::NotConnected(node.clone());
        let state = read(&self.inner.nodes).get(node).cloned().ok_or_else(not_connected)?;
        let session = state.session().ok_or_else(not_connected)?;
        let id = self.inner.next_id.fetch_add(1, Ordering::Relaxed);
        let answer = session.command(id, command).ok_or_else(|| CommandError::Busy(node.clone()))?;
        drop(state);
        let after = self.inner.options.command_timeout;
        match tokio::time::timeout(after, answer).await {
            Ok(Ok(result)) => result.result.ok_or_else(|| CommandError::Empty(node.clone())),
            Ok(Err(_)) => Err(CommandError::Disconnected(node.clone())),
            Err(_) => {
                session.give_up(id);
                Err(CommandError::Timeout { node: node.clone(), after })
            }
        }
    }

    /// Says Goodbye to every stream and takes no new ones. The log is the caller's to close, after this.
    pub fn shutdown(&self) {
        self.inner.closing.store(true, Ordering::SeqCst);
        for shared in self.inner.open_streams() {
            shared.end("shutdown", "the aggregator is stopping; connect again");
        }
    }

    /// Fills the store with the latest values that the log holds, so that a restart shows no hole. Blocking.
    pub fn restore(store: &Store, log: &Log, now_ms: i64) -> usize {
        let stale_ms = crate::clock::millis(store.options().stale_after);
        let mut restored = 0;
        log.recent(now_ms.saturating_sub(stale_ms), |recent: Recent<'_>| {
            let Ok(node) = NodeId::new(recent.node) else { return };
            restored += usize::from(store.restore(
                &node,
                recent.family,
                recent.text,
                recent.value,
                recent.timestamp_ms,
                recent.own_time,
                recent.fresh_ms,
            ));
        });
        restored
    }
}

impl Inner {
    fn state(&self, id: &NodeId) -> Arc<NodeState> {
        // A node that was removed and enrolled again is a new one to the store.
        let node = self.store.know(id);
        if let Some(state) = read(&self.nodes).get(id).filter(|state| Arc::ptr_eq(&state.store, &node)) {
            return Arc::clone(state);
        }
        let marks = self.log.watermarks(id);
        let mut nodes = write(&self.nodes);
        let state = match nodes.get(id) {
            Some(state) if Arc::ptr_eq(&state.store, &node) => return Arc::clone(state),
            Some(state) => Arc::new(state.succeed(node)),
            None => Arc::new(NodeState::new(node, &marks)),
        };
        nodes.insert(id.clone(), Arc::clone(&state));
        state
    }

    fn status(&self, view: crate::store::NodeView) -> NodeStatus {
        let state = read(&self.nodes).get(&view.node).cloned();
        NodeStatus::new(view, state.as_deref())
    }

    fn open_streams(&self) -> Vec<Arc<Shared>> {
        lock(&self.streams).values().filter_map(Weak::upgrade).collect()
    }
}

async fn sweep(inner: Weak<Inner>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut count = 0u32;
    loop {
        tick.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        let now_ms = inner.options.clock.now_ms();
        let streams = inner.open_streams();
        for shared in &streams {
            shared.check(now_ms, &inner.options);
        }
        metrics::gauge!(telemetry::STREAMS).set(streams.len() as f64);
        drop(streams);
        if count.is_multiple_of(30) {
            let store = Arc::clone(&inner.store);
            // Milliseconds of work with a large fleet.
            let _ = tokio::task::spawn_blocking(move || store.sweep(now_ms)).await;
        }
        count = count.wrapping_add(1);
    }
}
