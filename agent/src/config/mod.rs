//! The agent's configuration: `agent.toml`, then `conf.d/*.toml` beside it in order of name, then `PICKET_*`
//! variables with `__` between the levels. A later source wins key by key; a list replaces the one before it, so a
//! grant is never the sum of two files.
//!
//! Every setting that is read is enforced; a key that nobody knows is refused with the nearest one that is known.
//! All that is wrong is told at once, each with the file and the key, because a person who mends one mistake an
//! attempt gives up. This is the only module of the agent that reads the environment.

mod environment;
mod load;
mod reader;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::actions::Rules;
use picket_agent_host::{Isolation, Limits, WallPart};
use picket_agent_services::grants::Scope;
use picket_proto::model::PluginId;
use serde::Serialize;

pub use environment::{journal_stream, variables};
pub use load::{Sources, defaults, files_of, load};
pub use values::{ByteSize, format_duration};

/// Where the agent looks when no `--config` is given.
pub const DEFAULT_FILE: &str = "/etc/picket/agent.toml";
/// The id under which the agent's own metrics travel; no plugin may take it.
pub const OWN_ID: &str = "picket-agent";
/// The shortest interval between two collects of a plugin.
pub const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// The longest interval between two collects of a plugin.
pub const MAX_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// What the agent runs by: checked, defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config {
    /// What must outlive a restart: spool, identity, the plugins' stores.
    pub state_dir: PathBuf,
    /// What may be thrown away: compiled plugins.
    pub cache_dir: PathBuf,
    /// Where a plugin's relative `file` is looked for.
    pub plugin_dir: PathBuf,
    /// The `picket-compile` binary; none: the one beside the agent's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compiler: Option<PathBuf>,
    pub node: Node,
    pub http: Http,
    pub uplink: Uplink,
    pub spool: Spool,
    pub logs: Logs,
    pub log: Log,
    pub nvml: Nvml,
    pub kmsg: Kmsg,
    pub worker: Worker,
    pub compile: Compile,
    pub actions: Actions,
    pub trust: Trust,
    pub plugins: BTreeMap<PluginId, Plugin>,
}

/// What this node is called by its operator.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Node {
    /// Told to the aggregator, where nodes are chosen by them.
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Http {
    pub listen: SocketAddr,
}

/// The stream to the aggregator. Without `aggregator` and without an enrolled identity the agent stands alone.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Uplink {
    /// `host:port`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregator: Option<String>,
    /// Client certificate chain, PEM, of an authority of the site's own; with `key` and `authorities`, or not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorities: Option<PathBuf>,
    /// The wait after the first failed connection; it doubles up to `backoff_max`.
    #[serde(serialize_with = "values::serialize_duration")]
    pub backoff_min: Duration,
    #[serde(serialize_with = "values::serialize_duration")]
    pub backoff_max: Duration,
}

/// The bounds of the queue on disk: the oldest records are dropped, and counted, past either.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spool {
    pub max_size: ByteSize,
    #[serde(serialize_with = "values::serialize_duration")]
    pub max_age: Duration,
}

/// The log lines that plugins read of the node's logs; [`Log`] is what the agent says itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Logs {
    pub spool: Spool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Log {
    /// A level (`info`) or tracing directives (`info,picket_agent::uplink=debug`).
    pub level: String,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// How the NVIDIA driver is asked, for the plugins with a grant of `nvml`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Nvml {
    /// The `picket-nvml` binary; none: the one beside the agent's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helper: Option<PathBuf>,
    /// The driver's library; none: where the system has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub library: Option<PathBuf>,
    /// A call into the driver that takes longer is a driver that hangs.
    #[serde(serialize_with = "values::serialize_duration")]
    pub timeout: Duration,
}

/// Where kernel messages are read, for the plugins with a grant of `kmsg`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kmsg {
    pub path: PathBuf,
}

/// What may be done to this node by way of the aggregator.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Actions {
    /// False: the node only observes, and no action plugin is loaded.
    pub enabled: bool,
    /// At a time.
    pub max_running: usize,
    pub per_hour: usize,
    /// How long the same action is not done again to the same subject.
    #[serde(serialize_with = "values::serialize_duration")]
    pub cooldown: Duration,
    /// No step begins later than this after the command.
    #[serde(serialize_with = "values::serialize_duration")]
    pub max_time: Duration,
}

/// Whose plugins run here.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trust {
    /// The policy; where there is no such file nobody is trusted.
    pub policy: PathBuf,
    /// What is not signed runs too.
    pub allow_unsigned: bool,
}

/// The bounds of the child that compiles a plugin. Whole runtimes, as Python's, may need more.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compile {
    /// Its address space.
    pub memory: ByteSize,
    #[serde(serialize_with = "values::serialize_duration")]
    pub timeout: Duration,
}

impl Default for Compile {
    fn default() -> Self {
        Self { memory: ByteSize(2 << 30), timeout: Duration::from_secs(120) }
    }
}

/// The processes that plugins run in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Worker {
    /// The `picket-worker` binary; none: the one beside the agent's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<PathBuf>,
    /// Their user, by name or number, where the agent is root; none: `picket-worker`, or a number that is nobody's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Memory of one of them, all its plugins together.
    pub memory: ByteSize,
    /// The parts of the second wall without which the agent does not start.
    pub require: Vec<WallPart>,
}

/// One plugin, as the operator wants it to run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plugin {
    /// The component, relative to `plugin_dir` or absolute.
    pub file: PathBuf,
    #[serde(serialize_with = "values::serialize_duration")]
    pub interval: Duration,
    pub enabled: bool,
    pub settings: serde_json::Value,
    /// What the operator permits; nothing by default.
    pub grants: Vec<Scope>,
    pub limits: Limits,
    /// `own`: the plugin has a worker process for itself.
    pub isolation: Isolation,
    /// It is an action, with these rules; none: a source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Rules>,
}

impl Config {
    /// Where the component of `plugin` lies.
    pub fn plugin_file(&self, plugin: &Plugin) -> PathBuf {
        self.plugin_dir.join(&plugin.file)
    }
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file or the environment variable that says it; empty: none does.
    pub source: String,
    /// The whole key, dotted; empty: the file as such.
    pub key: String,
    /// What is wrong and what is allowed.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.source, &self.key] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.what)
    }
}

/// All that is wrong with the configuration, a line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [one] => write!(f, "the configuration is not valid: {one}"),
            many => {
                write!(f, "the configuration is not valid, {} mistakes:", many.len())?;
                many.iter().try_for_each(|p| write!(f, "\n  {p}"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
