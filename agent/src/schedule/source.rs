//! What the schedule asks of a plugin, so that a test can put a scripted one in the place of a sandboxed one.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use picket_agent_host::{Isolation, Limits, SampleSink};
use picket_agent_services::grants::Scope;
use picket_proto::model::PluginId;

use super::status::State;

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What is to be loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceSpec {
    pub id: PluginId,
    pub file: PathBuf,
    pub settings: serde_json::Value,
    pub grants: Vec<Scope>,
    pub limits: Limits,
    pub isolation: Isolation,
}

/// Makes sources of component files.
pub trait Loader: Send + Sync + 'static {
    fn load(&self, spec: SourceSpec) -> BoxFuture<'static, Result<Box<dyn Source>, SourceError>>;
}

/// One loaded plugin. One task owns it; it is called one call at a time.
pub trait Source: Send + 'static {
    fn about(&self) -> About;

    fn condition(&self) -> Condition;

    fn collect<'a>(&'a mut self, sink: &'a mut dyn SampleSink) -> BoxFuture<'a, Result<Took, SourceError>>;

    fn control(&mut self, request: Control) -> BoxFuture<'_, Result<String, ControlError>>;
}

/// What a loaded plugin says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    pub version: String,
    pub digest: String,
    pub world: String,
    pub description: String,
    pub controllable: bool,
}

/// How a loaded plugin is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub state: State,
    /// Why it is not running; else empty.
    pub reason: String,
    /// A collect would enter it now.
    pub enterable: bool,
}

/// What a collect took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Took {
    pub guest_time: Duration,
    /// Of the instance's linear memory, in bytes.
    pub memory: u64,
    /// Time in which it neither ran nor was answered: it waited for its turn.
    pub waited: Duration,
}

/// A plugin's failure, as the operator is to read it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// `PKT-…`; empty: none.
    pub code: String,
    /// What happened, why, what to do.
    pub message: String,
    /// The `reason` of `picket_source_errors_total`.
    pub reason: &'static str,
}

/// A call of the plugin's control interface; the text is JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    Get,
    Set(String),
    Schema,
}

/// Why a control call gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Nothing was changed; each line says what is allowed.
    #[error("refused: {}", .0.join("; "))]
    Refused(Vec<String>),
    #[error("no plugin of this node has controls")]
    NothingToControl,
    #[error("there is no plugin {0} on this node")]
    NoSuchPlugin(String),
    #[error("the plugin {0} has no controls")]
    NotControllable(String),
    #[error("the plugin {plugin} is {state}: {reason}")]
    NotRunning { plugin: String, state: &'static str, reason: String },
    #[error("the plugin {0} is busy with other requests; try again")]
    Busy(String),
    #[error("the plugin {plugin} did not answer within {within:?}; try again, or see its state")]
    Timeout { plugin: String, within: Duration },
    #[error("the plugin failed: {0}")]
    Failed(String),
}

impl fmt::Debug for dyn Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.about()).finish()
    }
}
