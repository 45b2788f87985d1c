//! Sandboxed plugins as actors.

use std::sync::Arc;

use picket_agent_host::{
    ActionApplied, ActionError, ActionPlan, ActionPlugin, Host, PluginError, Step, Verdict,
};

use super::actor::{About, Actor, ActorError, ActorLoader};
use crate::schedule::{BoxFuture, SourceSpec, explain};

/// Loads components into the one host of the agent.
pub struct HostActors(pub Arc<Host>);

impl ActorLoader for HostActors {
    fn load(&self, spec: SourceSpec) -> BoxFuture<'static, Result<Box<dyn Actor>, ActorError>> {
        let host = self.0.clone();
        Box::pin(async move {
            let plugin = host.load_action(spec.into()).await.map_err(|e| failed(&e))?;
            let info = plugin.info();
            let about = About {
                version: info.version.clone(),
                digest: info.digest.clone(),
                world: info.world.clone(),
                description: info.description.clone(),
                definitions: info.definitions.clone(),
                settle: info.limits.call_time,
            };
            Ok(Box::new(Hosted { plugin, about }) as Box<dyn Actor>)
        })
    }
}

/// What can be told of an action plugin without running it.
///
/// # Errors
/// Why a load would be refused.
pub fn check(spec: SourceSpec) -> Result<(), PluginError> {
    picket_agent_host::check_action(&spec.into()).map(|_| ())
}

struct Hosted {
    plugin: ActionPlugin,
    about: About,
}

impl Actor for Hosted {
    fn about(&self) -> &About {
        &self.about
    }

    fn plan<'a>(
        &'a mut self,
        name: &'a str,
        parameters: &'a str,
    ) -> BoxFuture<'a, Result<ActionPlan, ActorError>> {
        Box::pin(async move { self.plugin.plan(name, parameters).await.map_err(error) })
    }

    fn apply<'a>(
        &'a mut self,
        name: &'a str,
        step: &'a Step,
    ) -> BoxFuture<'a, Result<ActionApplied, ActorError>> {
        Box::pin(async move { self.plugin.apply(name, step).await.map_err(error) })
    }

    fn probe<'a>(&'a mut self, name: &'a str, step: &'a Step) -> BoxFuture<'a, Verdict> {
        Box::pin(async move {
            match self.plugin.probe(name, step).await {
                Ok(verdict) => verdict,
                Err(e) => Verdict::CannotTell(error(e).to_string()),
            }
        })
    }

    fn revert<'a>(
        &'a mut self,
        name: &'a str,
        step: &'a Step,
        before: &'a str,
    ) -> BoxFuture<'a, Result<String, ActorError>> {
        Box::pin(async move { self.plugin.revert(name, step, before).await.map_err(error) })
    }
}

fn error(e: ActionError) -> ActorError {
    match e {
        ActionError::Declined(no) => ActorError::Declined(no),
        ActionError::Plugin(e) => failed(&e),
    }
}

fn failed(e: &PluginError) -> ActorError {
    let explained = explain(e);
    ActorError::Failed { code: explained.code, message: explained.message }
}
