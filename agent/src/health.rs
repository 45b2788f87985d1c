//! How the agent and its parts are doing: one judgement for `/readyz` and for `picket_component_health`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use picket_agent_host::{WallPart, Workers};
use picket_agent_spool::Spool;
use serde::Serialize;

use crate::lines::Lines;
use crate::schedule::{PluginStatus, State, StatusBoard};
use crate::trust::Trust;
use crate::uplink;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Healthy,
    /// Not known yet.
    Unknown,
    /// Works, with less than it should.
    Degraded,
    Unhealthy,
}

impl Level {
    pub const ALL: [Self; 4] = [Self::Healthy, Self::Degraded, Self::Unhealthy, Self::Unknown];

    pub fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Component {
    pub component: String,
    pub state: Level,
    /// Empty where healthy.
    pub reason: String,
}

/// Whether the agent does its work, and what of it it can't.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    pub ready: bool,
    pub state: Level,
    /// The parts that are not healthy.
    pub reasons: Vec<Component>,
    /// How the plugins' second wall stands, by its parts.
    pub wall: BTreeMap<&'static str, WallStanding>,
    /// What an operator has allowed and should know of.
    pub notices: Vec<String>,
}

/// One part of the second wall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WallStanding {
    pub up: bool,
    /// What it is, or why it is not there.
    pub detail: String,
}

/// Reads the parts; holds nothing of its own but what no part knows.
pub struct Health {
    pub board: StatusBoard,
    /// None: the agent stands alone.
    pub spool: Option<Spool>,
    /// Why the spool is in memory, where it is.
    pub spool_fallback: Option<String>,
    /// The queue of log lines.
    pub lines: Lines,
    pub uplink: Option<Arc<uplink::Status>>,
    /// Where the plugins run; none: in a test.
    pub workers: Option<Arc<Workers>>,
    pub trust: Arc<Trust>,
    pub(crate) stopping: AtomicBool,
    /// What is wrong with the configuration as it now stands in its files.
    pub(crate) config: Mutex<Option<String>>,
}

impl Health {
    pub fn components(&self) -> Vec<Component> {
        let mut list = Vec::new();
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner).clone();
        list.push(component("config", config.map(|why| (Level::Degraded, why))));
        list.push(component("trust", self.trust.trouble().map(|why| (Level::Degraded, why))));
        if let Some(spool) = &self.spool {
            let stats = spool.stats();
            let trouble = match (&self.spool_fallback, stats.last_error) {
                (Some(why), _) => Some((Level::Degraded, format!("in memory, lost at a restart: {why}"))),
                (None, Some(error)) => Some((Level::Degraded, error.to_string())),
                (None, None) => None,
            };
            list.push(component("spool", trouble));
        }
        let lines = self.lines.status();
        if let Some(spool) = &lines.spool {
            let trouble = match (lines.fallback, spool.stats().last_error) {
                (Some(why), _) => Some(format!("in memory, lost at a restart: {why}")),
                (None, Some(error)) => Some(error),
                (None, None) if lines.full => {
                    Some("full: logs are not read until the aggregator has taken some".to_owned())
                }
                (None, None) => None,
            };
            list.push(component("log-spool", trouble.map(|why| (Level::Degraded, why))));
        }
        if let Some(uplink) = &self.uplink {
            let trouble = match (uplink.connected(), uplink.last_error()) {
                (true, _) => None,
                (false, Some(error)) => Some((Level::Degraded, error)),
                (false, None) => Some((Level::Unknown, "connecting".to_owned())),
            };
            list.push(component("uplink", trouble));
        }
        list.extend(self.board.all().iter().map(of_plugin));
        list
    }

    /// Ready: not stopping, every plugin has been tried, and where there are plugins, one of them runs.
    pub fn readiness(&self) -> Readiness {
        let mut reasons: Vec<Component> =
            self.components().into_iter().filter(|c| c.state != Level::Healthy).collect();
        let plugins = self.board.all();
        let starting = plugins.iter().any(|line| line.state == State::Starting);
        let working = plugins.is_empty() || plugins.iter().any(|line| line.state == State::Running);
        let stopping = self.stopping.load(Ordering::Relaxed);
        if stopping {
            reasons.push(component("agent", Some((Level::Unhealthy, "is stopping".to_owned()))));
        }
        let ready = working && !starting && !stopping;
        let state = match (ready, reasons.iter().map(|c| c.state).max()) {
            (false, _) if starting && !stopping => Level::Unknown,
            (false, _) => Level::Unhealthy,
            (true, None) => Level::Healthy,
            (true, Some(_)) => Level::Degraded,
        };
        let unsigned = self.trust.allows_unsigned();
        let notices = unsigned.then(|| "plugins run unsigned: trust.allow_unsigned = true".to_owned());
        let notices = notices.into_iter().collect();
        Readiness { ready, state, reasons, wall: self.wall(), notices }
    }

    fn wall(&self) -> BTreeMap<&'static str, WallStanding> {
        let Some(workers) = &self.workers else { return BTreeMap::new() };
        let wall = workers.wall();
        let standing = |part: WallPart| {
            let found = wall.parts.iter().find(|standing| standing.part == part);
            let standing = found.map_or_else(
                || WallStanding { up: false, detail: "unknown".to_owned() },
                |standing| WallStanding { up: standing.up, detail: standing.detail.clone() },
            );
            (part.word(), standing)
        };
        WallPart::ALL.into_iter().map(standing).collect()
    }

    pub(crate) fn set_config(&self, trouble: Option<String>) {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

fn component(name: &str, trouble: Option<(Level, String)>) -> Component {
    let (state, reason) = trouble.unwrap_or((Level::Healthy, String::new()));
    Component { component: name.to_owned(), state, reason }
}

fn of_plugin(line: &PluginStatus) -> Component {
    let failed = line.last.as_ref().map(|last| last.error.as_str()).filter(|error| !error.is_empty());
    let trouble = match (line.state, failed) {
        (State::Starting, _) => Some((Level::Unknown, "starting".to_owned())),
        (State::Refused | State::Quarantined, _) => Some((Level::Unhealthy, line.reason.clone())),
        (State::BackingOff | State::Removed, _) => Some((Level::Degraded, line.reason.clone())),
        (State::Running, Some(error)) => Some((Level::Degraded, error.to_owned())),
        (State::Running, None) if !line.reason.is_empty() => Some((Level::Degraded, line.reason.clone())),
        (State::Running, None) => None,
    };
    component(&format!("plugin/{}", line.id), trouble)
}
