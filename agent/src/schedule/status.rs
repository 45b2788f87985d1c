//! What is known of each plugin: for `/api/v1/plugins`, for the agent's own metrics, and for the aggregator.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use picket_agent_services::grants::Scope;
use picket_artifact::Need;
use picket_proto::model::PluginId;
use picket_proto::v1;
use serde::Serialize;
use tokio::sync::watch;

use super::source::SourceSpec;
use crate::shelf::{NotStaged, Record, Staged, Version};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Being read, checked, compiled.
    #[default]
    Starting,
    Running,
    /// Failed and waits to be tried again.
    BackingOff,
    /// Failed too often: left alone until it is released, or another version or other settings come.
    Quarantined,
    /// Could not be loaded: tried again at a reload, and when its file changes.
    Refused,
    /// Its file was taken away: it stopped.
    Removed,
}

impl State {
    pub const ALL: [Self; 6] =
        [Self::Starting, Self::Running, Self::BackingOff, Self::Quarantined, Self::Refused, Self::Removed];

    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::BackingOff => "backing-off",
            Self::Quarantined => "quarantined",
            Self::Refused => "refused",
            Self::Removed => "removed",
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
    /// Who vouches for it; `unsigned`: nobody, and the policy allows that.
    pub signed_by: String,
    /// What ran before it and can be rolled back to.
    pub previous: Option<Version>,
    /// It was rolled back to: what lies in the plugin folder is another version.
    pub rolled_back: bool,
    /// It came by way of the aggregator, and what lies in the plugin folder is another version, or nothing.
    pub rolled_out: bool,
    /// What lies in the plugin folder and was not taken; a former version may run on.
    pub refused: Option<RefusedVersion>,
    pub swaps: Swaps,
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

impl PluginStatus {
    /// Nothing is there to be run.
    pub(crate) fn remove(&mut self, why: &str) {
        let file = self.file.display();
        self.state = State::Removed;
        self.reason = format!("{file}: {why}; put it there, or take the plugin out of the configuration");
        self.code.clear();
        self.refused = None;
        self.rolled_out = false;
        self.series = 0;
    }
}

/// A version that was not taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RefusedVersion {
    /// Empty: it could not be read so far.
    pub digest: String,
    pub version: String,
    pub code: String,
    pub reason: String,
}

impl From<&NotStaged> for RefusedVersion {
    fn from(refused: &NotStaged) -> Self {
        Self {
            digest: refused.digest.clone(),
            version: refused.version.clone(),
            code: refused.error.code.clone(),
            reason: refused.error.message.clone(),
        }
    }
}

impl RefusedVersion {
    /// For the line of a plugin of which a former version runs on.
    pub(crate) fn former(&self) -> String {
        format!("the file or config as it is now was refused, the former runs on: {}", self.reason)
    }
}

/// Totals since the agent began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Swaps {
    /// Versions that took the place of another one.
    pub done: u64,
    /// Versions that were not taken.
    pub refused: u64,
}

/// What a running plugin asks for, in its manifest's words, and what the operator grants it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Permit {
    pub needs: Vec<Need>,
    pub grants: Vec<Scope>,
}

/// A file in the plugin folder that no plugin of the configuration names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stray {
    pub file: PathBuf,
    /// It would be refused; else nobody has asked for it.
    pub refused: bool,
    pub code: String,
    pub reason: String,
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
    pub late: Lateness,
}

/// How much later than planned ticks came to run: what the node and its other plugins made them wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Lateness {
    pub ticks: u64,
    /// Those that were late by at most each of [`Self::BOUNDS`].
    pub within: [u64; 5],
    /// Of all of them together.
    pub seconds: f64,
    pub worst_seconds: f64,
}

impl Lateness {
    /// In seconds.
    pub const BOUNDS: [f64; 5] = [0.01, 0.05, 0.25, 1.0, 5.0];

    pub(crate) fn add(&mut self, late: Duration) {
        let seconds = late.as_secs_f64();
        self.ticks += 1;
        for (within, bound) in self.within.iter_mut().zip(Self::BOUNDS) {
            *within += u64::from(seconds <= bound);
        }
        self.seconds += seconds;
        self.worst_seconds = self.worst_seconds.max(seconds);
    }
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
    strays: Arc<Mutex<Vec<Stray>>>,
    permits: Arc<Mutex<BTreeMap<PluginId, Permit>>>,
    published: watch::Sender<Vec<v1::PluginState>>,
    granted: watch::Sender<v1::GrantReport>,
}

impl Default for StatusBoard {
    fn default() -> Self {
        Self {
            lines: Arc::default(),
            strays: Arc::default(),
            permits: Arc::default(),
            published: watch::Sender::new(Vec::new()),
            granted: watch::Sender::default(),
        }
    }
}

impl StatusBoard {
    pub fn all(&self) -> Vec<PluginStatus> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub fn line(&self, id: &PluginId) -> Option<PluginStatus> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// What each plugin asks for and is granted.
    pub fn permits(&self) -> BTreeMap<PluginId, Permit> {
        self.permits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn permit(&self, id: &PluginId, needs: Vec<Need>, grants: Vec<Scope>) {
        let mut permits = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
        permits.insert(id.clone(), Permit { needs, grants });
        drop(permits);
        self.publish_grants();
    }

    /// A version was let in and runs from now on.
    pub(crate) fn adopted(&self, spec: &SourceSpec, staged: &Staged, record: Record) {
        self.permit(&spec.id, staged.needs.clone(), spec.grants.clone());
        self.update(&spec.id, |line| {
            line.signed_by.clone_from(&staged.version.signed_by);
            line.previous = record.previous;
            line.rolled_back = record.pin.as_ref().is_some_and(|pin| !pin.central);
            line.rolled_out = record.pin.is_some_and(|pin| pin.central);
        });
    }

    /// Files that no plugin of the configuration names.
    pub fn strays(&self) -> Vec<Stray> {
        self.strays.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_strays(&self, strays: Vec<Stray>) {
        *self.strays.lock().unwrap_or_else(PoisonError::into_inner) = strays;
    }

    /// Changes as the aggregator is to hear of them.
    pub fn subscribe(&self) -> watch::Receiver<Vec<v1::PluginState>> {
        self.published.subscribe()
    }

    /// Who may do what, as the aggregator is to hear of it.
    pub fn grants(&self) -> watch::Receiver<v1::GrantReport> {
        self.granted.subscribe()
    }

    /// Changes a plugin's line; a new plugin begins with an empty one.
    pub(crate) fn update(&self, id: &PluginId, change: impl FnOnce(&mut PluginStatus)) {
        let (states, regrant) = {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            let line = lines
                .entry(id.clone())
                .or_insert_with(|| PluginStatus { id: id.as_str().to_owned(), ..PluginStatus::default() });
            let before = who(line);
            change(line);
            let regrant = who(line) != before;
            (wire(&lines), regrant)
        };
        self.publish(states);
        // Most changes are a collect's, which permits nothing.
        if regrant {
            self.publish_grants();
        }
    }

    pub(crate) fn remove(&self, id: &PluginId) {
        let states = {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.remove(id);
            self.permits.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
            wire(&lines)
        };
        self.publish(states);
        self.publish_grants();
    }

    fn publish_grants(&self) {
        let permits = self.permits();
        let plugins = self.all().into_iter().map(|line| {
            let permit = permits.iter().find(|(id, _)| id.as_str() == line.id).map(|(_, permit)| permit);
            let list = |json: Option<String>| json.unwrap_or_else(|| "[]".to_owned());
            v1::PluginGrants {
                needs_json: list(permit.and_then(|permit| serde_json::to_string(&permit.needs).ok())),
                grants_json: list(permit.and_then(|permit| serde_json::to_string(&permit.grants).ok())),
                id: line.id,
                version: line.version,
                digest: line.digest,
                signed_by: line.signed_by,
                state: line.state.word().to_owned(),
            }
        });
        let report = v1::GrantReport { plugins: plugins.collect() };
        self.granted.send_if_modified(|granted| {
            let changed = *granted != report;
            if changed {
                *granted = report;
            }
            changed
        });
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

/// The document of `/api/v1/grants`: each plugin with what it is, what it asks for and why, and what it is granted.
pub fn permits(board: &StatusBoard) -> serde_json::Value {
    let permits = board.permits();
    let plugins: Vec<serde_json::Value> = board
        .all()
        .into_iter()
        .map(|line| {
            let permit =
                permits.iter().find(|(id, _)| id.as_str() == line.id).map(|(_, permit)| permit.clone());
            let permit = permit.unwrap_or_default();
            serde_json::json!({
                "plugin": line.id,
                "version": line.version,
                "digest": line.digest,
                "signed_by": line.signed_by,
                "state": line.state,
                "capabilities": line.grants,
                "needs": permit.needs,
                "grants": permit.grants,
            })
        })
        .collect();
    serde_json::json!({ "plugins": plugins })
}

/// What of a line tells who it is that may do something.
fn who(line: &PluginStatus) -> (String, String, String, State) {
    (line.digest.clone(), line.version.clone(), line.signed_by.clone(), line.state)
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
