//! Sandboxed plugins as sources.

use std::sync::Arc;

use picket_agent_host::{
    ControlError as HostControlError, Fault, Host, Plugin, PluginError, PluginSpec, PluginState, SampleSink,
};

use super::source::{
    About, BoxFuture, Condition, Control, ControlError, Loader, Source, SourceError, SourceSpec, Took,
};
use super::status::State;

/// Loads components into the one engine of the agent.
pub struct HostLoader(pub Arc<Host>);

impl Loader for HostLoader {
    fn load(&self, spec: SourceSpec) -> BoxFuture<'static, Result<Box<dyn Source>, SourceError>> {
        let host = self.0.clone();
        Box::pin(async move {
            let plugin = host.load(spec.into()).await;
            plugin.map(|plugin| Box::new(Hosted(plugin)) as Box<dyn Source>).map_err(|error| explain(&error))
        })
    }
}

/// What can be told of a plugin without running it.
///
/// # Errors
/// Why a load would be refused.
pub fn check(spec: SourceSpec) -> Result<(), PluginError> {
    picket_agent_host::check(&spec.into()).map(|_| ())
}

impl From<SourceSpec> for PluginSpec {
    fn from(spec: SourceSpec) -> Self {
        let SourceSpec { id, file, settings, grants, limits, isolation } = spec;
        Self { id, file, settings, grants, limits, isolation }
    }
}

struct Hosted(Plugin);

impl Source for Hosted {
    fn about(&self) -> About {
        let info = self.0.info();
        About {
            version: info.version.clone(),
            digest: info.digest.clone(),
            world: info.world.clone(),
            description: info.description.clone(),
            controllable: info.controllable,
        }
    }

    fn condition(&self) -> Condition {
        match self.0.state() {
            PluginState::Running => {
                Condition { state: State::Running, reason: String::new(), enterable: true }
            }
            PluginState::BackingOff { until, reason } => Condition {
                state: State::BackingOff,
                reason,
                enterable: until <= tokio::time::Instant::now(),
            },
            PluginState::Quarantined { reason } => {
                Condition { state: State::Quarantined, reason, enterable: false }
            }
        }
    }

    fn collect<'a>(&'a mut self, sink: &'a mut dyn SampleSink) -> BoxFuture<'a, Result<Took, SourceError>> {
        Box::pin(async move {
            let stats = self.0.collect(sink).await.map_err(|error| explain(&error))?;
            Ok(Took { guest_time: stats.guest_time, memory: stats.memory, waited: stats.waited })
        })
    }

    fn control(&mut self, request: Control) -> BoxFuture<'_, Result<String, ControlError>> {
        Box::pin(async move {
            let answer = match &request {
                Control::Get => self.0.control_get().await,
                Control::Set(json) => self.0.control_set(json).await,
                Control::Schema => self.0.control_schema().await,
            };
            answer.map_err(|error| match error {
                HostControlError::Refused(lines) => ControlError::Refused(lines),
                HostControlError::NotControllable(id) => {
                    ControlError::NotControllable(id.as_str().to_owned())
                }
                HostControlError::Plugin(error) => ControlError::Failed(explain(&error).message),
            })
        })
    }
}

pub(crate) fn explain(error: &PluginError) -> SourceError {
    let mut message = format!("{} ({}): {}", error.phase, error.fault, error.why());
    if !error.advice.is_empty() {
        message.push_str(". ");
        message.push_str(error.advice);
    }
    let reason = match error.fault {
        Fault::Plugin => "plugin",
        Fault::Limit => "limit",
        Fault::Grant => "grant",
        Fault::Host => "host",
    };
    SourceError { code: error.code.to_owned(), message, reason }
}
