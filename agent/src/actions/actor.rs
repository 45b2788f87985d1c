//! What the executor asks of an action plugin, so that a test can put a scripted one in the place of a sandboxed one.

use std::fmt;
use std::time::Duration;

use picket_agent_host::{
    ActionApplied as Applied, ActionDefinition as Definition, ActionPlan, Declined, Step, Verdict,
};

use crate::schedule::{BoxFuture, SourceSpec};

/// Makes actors of component files.
pub trait ActorLoader: Send + Sync + 'static {
    fn load(&self, spec: SourceSpec) -> BoxFuture<'static, Result<Box<dyn Actor>, ActorError>>;
}

/// One loaded action plugin. One command has it at a time.
pub trait Actor: Send + 'static {
    fn about(&self) -> &About;

    /// What would be done. Changes nothing.
    fn plan<'a>(
        &'a mut self,
        name: &'a str,
        parameters: &'a str,
    ) -> BoxFuture<'a, Result<ActionPlan, ActorError>>;

    /// Does one step. After any error it is not known whether it took effect.
    fn apply<'a>(&'a mut self, name: &'a str, step: &'a Step) -> BoxFuture<'a, Result<Applied, ActorError>>;

    /// Whether a step took effect. Changes nothing.
    fn probe<'a>(&'a mut self, name: &'a str, step: &'a Step) -> BoxFuture<'a, Verdict>;

    /// Undoes a step.
    fn revert<'a>(
        &'a mut self,
        name: &'a str,
        step: &'a Step,
        before: &'a str,
    ) -> BoxFuture<'a, Result<String, ActorError>>;
}

/// What a loaded action plugin says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct About {
    pub version: String,
    /// sha-256 of the component, hex.
    pub digest: String,
    pub world: String,
    pub description: String,
    pub definitions: Vec<Definition>,
    /// The longest that one call can be at work: for so long after its begin a step that was cut off may still take effect.
    pub settle: Duration,
}

/// Why a call gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActorError {
    /// The plugin's own no.
    #[error(transparent)]
    Declined(#[from] Declined),
    /// It could not be loaded, trapped, took too long.
    #[error("{message}")]
    Failed { code: String, message: String },
}

impl fmt::Debug for dyn Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Actor").field(self.about()).finish()
    }
}
