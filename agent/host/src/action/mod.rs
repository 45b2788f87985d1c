//! Action plugins: a fresh instance for each command, and effects only where the contract lets them be had.
//!
//! What holds effects back is the admission of the plugin ([`picket_agent_services::grants::Admission::hold_effects`]), on the
//! side that has the effects; the word is given here, around `apply` and `revert` alone. One command is at work at a time,
//! so no other of the plugin's calls can be in flight while effects are let through.

mod check;
pub(crate) mod glue;
pub(crate) mod model;

use std::fmt;

use crate::body::Seat;
use crate::call::{ActionCall, ActionReturned, Call, Returned};
use crate::desk::{Desk, Setting};
use crate::error::codes;
use crate::fault::stopped;
use crate::limits::Limits;
use crate::{Phase, PluginError};

pub use model::{
    Applied as ActionApplied, Declined, Definition as ActionDefinition, Plan as ActionPlan, Step, Verdict,
};
use picket_proto::model::PluginId;

/// What is known of a loaded action plugin.
#[derive(Debug, Clone)]
pub struct ActionInfo {
    pub id: PluginId,
    /// Empty where there is no manifest.
    pub version: String,
    /// SHA-256 of the component file, hex.
    pub digest: String,
    pub world: String,
    pub description: String,
    pub definitions: Vec<ActionDefinition>,
    /// The limits in force.
    pub limits: Limits,
}

/// Why a call of an action gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// The plugin's own no.
    #[error(transparent)]
    Declined(#[from] Declined),
    #[error(transparent)]
    Plugin(#[from] PluginError),
}

/// A loaded action plugin. One task has it at a time.
pub struct ActionPlugin {
    info: ActionInfo,
    seat: Box<dyn Seat>,
    setting: Setting,
    settings: String,
}

impl fmt::Debug for ActionPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActionPlugin").field("info", &self.info).finish_non_exhaustive()
    }
}

impl ActionPlugin {
    /// Describes it, and tries its settings.
    pub(crate) async fn start(
        info: ActionInfo,
        seat: Box<dyn Seat>,
        setting: Setting,
        settings: String,
    ) -> Result<Self, PluginError> {
        setting.admission.hold_effects(true);
        let mut plugin = Self { info, seat, setting, settings };
        let described = plugin.command(Phase::Describe, ActionCall::Describe).await.map_err(|e| match e {
            ActionError::Plugin(e) => e,
            ActionError::Declined(no) => plugin.error(Phase::Configure, &codes::SETTINGS, no.to_string()),
        })?;
        let ActionReturned::Described(described) = described else {
            return Err(plugin.mismatch(Phase::Describe));
        };
        let definitions = check::definitions(described);
        plugin.info.definitions =
            definitions.map_err(|why| plugin.error(Phase::Describe, &codes::ANSWER, why))?;
        Ok(plugin)
    }

    pub const fn info(&self) -> &ActionInfo {
        &self.info
    }

    /// The exact steps. Nothing can be changed by it.
    ///
    /// # Errors
    /// [`ActionError`]
    pub async fn plan(&mut self, name: &str, parameters: &str) -> Result<ActionPlan, ActionError> {
        let call = ActionCall::Plan { name: name.to_owned(), parameters: parameters.to_owned() };
        match self.command(Phase::Plan, call).await? {
            ActionReturned::Planned(Ok(plan)) => {
                check::plan(plan).map_err(|why| self.error(Phase::Plan, &codes::ANSWER, why).into())
            }
            ActionReturned::Planned(Err(no)) => Err(check::declined(no).into()),
            _ => Err(self.mismatch(Phase::Plan).into()),
        }
    }

    /// Does one step. After any error it is not known whether it took effect.
    ///
    /// # Errors
    /// [`ActionError`]
    pub async fn apply(&mut self, name: &str, step: &Step) -> Result<ActionApplied, ActionError> {
        let call = ActionCall::Apply { name: name.to_owned(), step: step.clone() };
        match self.command(Phase::Apply, call).await? {
            ActionReturned::Applied(Ok(applied)) => Ok(check::applied(applied)),
            ActionReturned::Applied(Err(no)) => Err(check::declined(no).into()),
            _ => Err(self.mismatch(Phase::Apply).into()),
        }
    }

    /// Whether a step took effect. Nothing can be changed by it.
    ///
    /// # Errors
    /// [`ActionError`]
    pub async fn probe(&mut self, name: &str, step: &Step) -> Result<Verdict, ActionError> {
        let call = ActionCall::Probe { name: name.to_owned(), step: step.clone() };
        match self.command(Phase::Probe, call).await? {
            ActionReturned::Probed(verdict) => Ok(check::verdict(verdict)),
            _ => Err(self.mismatch(Phase::Probe).into()),
        }
    }

    /// Undoes one step; `before`: what its apply found.
    ///
    /// # Errors
    /// [`ActionError`]
    pub async fn revert(&mut self, name: &str, step: &Step, before: &str) -> Result<String, ActionError> {
        let call =
            ActionCall::Revert { name: name.to_owned(), step: step.clone(), before: before.to_owned() };
        match self.command(Phase::Revert, call).await? {
            ActionReturned::Reverted(Ok(message)) => Ok(check::message(&message)),
            ActionReturned::Reverted(Err(no)) => Err(check::declined(no).into()),
            _ => Err(self.mismatch(Phase::Revert).into()),
        }
    }

    /// One command, by an instance of its own.
    async fn command(&mut self, phase: Phase, call: ActionCall) -> Result<ActionReturned, ActionError> {
        let mut desk = Desk::new(&self.setting, 0);
        let _ended = desk.call();
        let id = self.info.id.clone();
        let (version, digest) = (self.info.version.clone(), self.info.digest.clone());
        let place = |phase, end| stopped(&id, phase, end).of(&version, &digest);
        let mut body = self.seat.make(&mut desk, false).await.map_err(|e| place(Phase::Instantiate, e))?;
        let configured = body.enter(Call::Configure(self.settings.clone()), &mut desk).await;
        match configured.map_err(|end| place(Phase::Configure, end))? {
            Returned::Done(Ok(())) => {}
            Returned::Done(Err((reason, message))) => {
                let no = check::declined(Declined { reason, message });
                return Err(self.error(Phase::Configure, &codes::SETTINGS, no.to_string()).into());
            }
            _ => return Err(self.mismatch(Phase::Configure).into()),
        }
        let _let_through = matches!(call, ActionCall::Apply { .. } | ActionCall::Revert { .. })
            .then(|| LetThrough::new(&self.setting));
        match body.enter(Call::Action(call), &mut desk).await.map_err(|end| place(phase, end))? {
            Returned::Action(returned) => Ok(returned),
            _ => Err(self.mismatch(phase).into()),
        }
    }

    fn mismatch(&self, phase: Phase) -> PluginError {
        self.error(phase, &codes::HOST, "another call's answer")
    }

    fn error(&self, phase: Phase, code: &'static codes::Code, message: impl Into<String>) -> PluginError {
        PluginError::new(&self.info.id, phase, code, message).of(&self.info.version, &self.info.digest)
    }
}

/// While it lives, effects are let through: also a call that is given up midway ends it.
struct LetThrough<'a>(&'a Setting);

impl<'a> LetThrough<'a> {
    fn new(setting: &'a Setting) -> Self {
        setting.admission.hold_effects(false);
        Self(setting)
    }
}

impl Drop for LetThrough<'_> {
    fn drop(&mut self) {
        self.0.admission.hold_effects(true);
    }
}
