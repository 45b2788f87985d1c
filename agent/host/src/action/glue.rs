//! The guest's half: the contract's types to plain data and back, and the calls.

use wasmtime::Store;

use super::model::{Applied, Declined, Described, Plan, Step, Verdict};
use crate::bindings::exports::picket::action::action as wit;
use crate::bindings::picket::types::types::Subject;
use crate::call::{ActionCall, ActionReturned};
use crate::guest::Guest;

pub(crate) async fn enter(
    action: &wit::Guest,
    store: &mut Store<Guest>,
    call: ActionCall,
) -> wasmtime::Result<ActionReturned> {
    Ok(match call {
        ActionCall::Describe => {
            let described = action.call_describe(store).await?;
            ActionReturned::Described(described.into_iter().map(Into::into).collect())
        }
        ActionCall::Plan { name, parameters } => {
            let planned = action.call_plan(store, &name, &parameters).await?;
            ActionReturned::Planned(planned.map(Into::into).map_err(Into::into))
        }
        ActionCall::Apply { name, step } => {
            let applied = action.call_apply(store, &name, &step.into()).await?;
            let applied = applied.map(|a| Applied { before: a.before, message: a.message });
            ActionReturned::Applied(applied.map_err(Into::into))
        }
        ActionCall::Probe { name, step } => {
            ActionReturned::Probed(match action.call_probe(store, &name, &step.into()).await? {
                wit::Verdict::Done(text) => Verdict::Done(text),
                wit::Verdict::NotDone(text) => Verdict::NotDone(text),
                wit::Verdict::CannotTell(text) | wit::Verdict::Other(text) => Verdict::CannotTell(text),
            })
        }
        ActionCall::Revert { name, step, before } => {
            let reverted = action.call_revert(store, &name, &step.into(), &before).await?;
            ActionReturned::Reverted(reverted.map_err(Into::into))
        }
    })
}

impl From<wit::Definition> for Described {
    fn from(d: wit::Definition) -> Self {
        let word = |d: wit::Disturbance| match d {
            wit::Disturbance::Process => "process".to_owned(),
            wit::Disturbance::Container => "container".to_owned(),
            wit::Disturbance::Gpu => "gpu".to_owned(),
            wit::Disturbance::Node => "node".to_owned(),
            wit::Disturbance::Service => "service".to_owned(),
            wit::Disturbance::Data => "data".to_owned(),
            wit::Disturbance::Other(word) => word,
        };
        Self {
            name: d.name,
            summary: d.summary,
            parameters: d.parameters,
            disturbs: d.disturbs.into_iter().map(word).collect(),
            reversible: d.reversible,
        }
    }
}

impl From<wit::ActionPlan> for Plan {
    fn from(plan: wit::ActionPlan) -> Self {
        let step = |s: wit::Step| Step {
            summary: s.summary,
            subject_kind: s.subject.kind,
            subject_id: s.subject.id,
            arguments: s.arguments,
        };
        Self { steps: plan.steps.into_iter().map(step).collect(), notes: plan.notes }
    }
}

impl From<Step> for wit::Step {
    fn from(step: Step) -> Self {
        let subject = Subject { kind: step.subject_kind, id: step.subject_id };
        Self { summary: step.summary, subject, arguments: step.arguments }
    }
}

impl From<wit::ActionError> for Declined {
    fn from(e: wit::ActionError) -> Self {
        Self { reason: e.reason, message: e.message }
    }
}
