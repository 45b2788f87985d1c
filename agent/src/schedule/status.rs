//! What is known of each plugin: for `/api/v1/plugins`, for the agent's own metrics, and for the aggregator.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use picket_proto::model::PluginId;
use picket_proto::v1;
use serde::Serialize;
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Being read, checked, compiled.
    #[default]
    Starting,
    Running,
    /// Failed and waits to be tried again.
    BackingOff,
    /// Failed too often: left alone until a reload.
    Quarantined,
    /// Could not be loaded: tried again at a reload.
    Refused,
}

impl State {
    pub const ALL: [Self; 5] =
        [Self::Starting, Self::Running, Self::BackingOff, Self::Quarantined, Self::Refused];

    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::BackingOff => "backing-off",
            Self::Quarantined => "quarantined",
            Self::Refused => "refused",
        }
    }
}

/// One plugin, now.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PluginStatus {
    pub id: String,
    pub state: State,
    /// Why it is not running, or why a newer version was not taken; empty: nothing to say.
    pub reason: String,
    /// The code of the error, with a page in the documentation; empty: none.
    pub code: String,
    pub version: String,
    /// sha-256 of the component, hex.
    pub digest: String,
    pub world: String,
    pub description: String,
    pub controllable: bool,
    pub file: PathBuf,
    pub interval_seconds: f64,
    /// The capabilities that the operator granted it.
    pub grants: Vec<&'static str>,
    pub series: u64,
    pub collects: Collects,
    /// None: it has not collected yet.
    pub last: Option<LastCollect>,
}

/// Totals since the agent began.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Collects {
    pub ok: u64,
    pub failed: u64,
    /// Ticks that found the last collect still running.
    pub skipped: u64,
    pub samples: u64,
    pub events: u64,
    /// Wall time in all collects.
    pub seconds: f64,
    /// CPU time inside the plugin.
    pub guest_seconds: f64,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct LastCollect {
    pub timestamp_ms: i64,
    pub seconds: f64,
    pub guest_seconds: f64,
    /// The instance's linear memory.
    pub memory_bytes: u64,
    pub samples: u64,
    /// Why it failed; empty: it did not.
    pub error: String,
}

/// The board on which each plugin's task writes its own line. Cheap to clone.
#[derive(Clone)]
pub struct StatusBoard {
    lines: Arc<Mutex<BTreeMap<PluginId, PluginStatus>>>,
    published: watch::Sender<Vec<v1::PluginState>>,
}

impl Default for StatusBoard {
    fn default() -> Self {
        Self { lines: Arc::default(), published: watch::Sender::new(Vec::new()) }
    }
}

impl StatusBoard {
    pub fn all(&self) -> Vec<PluginStatus> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub fn line(&self, id: &PluginId) -> Option<PluginStatus> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Changes as the aggregator is to hear of them.
    pub fn subscribe(&self) -> watch::Receiver<Vec<v1::PluginState>> {
        self.published.subscribe()
    }

    /// Changes a plugin's line; a new plugin begins with an empty one.
    pub(crate) fn update(&self, id: &PluginId, change: impl FnOnce(&mut PluginStatus)) {
        let states = {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            let line = lines
                .entry(id.clone())
                .or_insert_with(|| PluginStatus { id: id.as_str().to_owned(), ..PluginStatus::default() });
            change(line);
            wire(&lines)
        };
        self.publish(states);
    }

    pub(crate) fn remove(&self, id: &PluginId) {
        let states = {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.remove(id);
            wire(&lines)
        };
        self.publish(states);
    }

    fn publish(&self, states: Vec<v1::PluginState>) {
        self.published.send_if_modified(|published| {
            let changed = *published != states;
            if changed {
                *published = states;
            }
            changed
        });
    }
}

fn wire(lines: &BTreeMap<PluginId, PluginStatus>) -> Vec<v1::PluginState> {
    lines
        .values()
        .map(|line| v1::PluginState {
            id: line.id.clone(),
            version: line.version.clone(),
            digest: line.digest.clone(),
            state: line.state.word().to_owned(),
            reason: line.reason.clone(),
            series: line.series,
            controllable: line.controllable,
        })
        .collect()
}
