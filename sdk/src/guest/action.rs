use std::cell::RefCell;
use std::marker::PhantomData;

use super::action::exports::picket::action::action as exported;
use super::action::picket::types::types as wit;
use crate::Failure;
use crate::action::{self, Action, Applied, Parameters, Plan, Step, Verdict};

/// Where a plugin crate keeps its one instance.
pub struct ActionSlot<A>(RefCell<Option<A>>);

impl<A: Action> ActionSlot<A> {
    pub const fn new() -> Self {
        Self(RefCell::new(None))
    }

    pub fn put(&self, instance: A) {
        *self.0.borrow_mut() = Some(instance);
    }

    pub fn with<R>(&self, f: impl FnOnce(&mut A) -> R) -> Option<R> {
        self.0.borrow_mut().as_mut().map(f)
    }
}

/// An action that has its instance.
pub trait ActionInstance: Action {
    fn put(self);
    fn with<R>(f: impl FnOnce(&mut Self) -> R) -> Option<R>;
}

/// What the exports are implemented on.
pub struct ActionComponent<A>(PhantomData<A>);

impl<A: ActionInstance> exported::Guest for ActionComponent<A> {
    fn describe() -> Vec<exported::Definition> {
        A::describe().into_iter().map(definition).collect()
    }

    fn configure(settings: String) -> Result<(), exported::ActionError> {
        action::instance::<A>(&settings).map(ActionInstance::put).map_err(error)
    }

    fn plan(name: String, parameters: String) -> Result<exported::ActionPlan, exported::ActionError> {
        let planned = A::with(|a| a.plan(&name, &Parameters(parameters))).ok_or_else(not_configured)?;
        planned.map(plan).map_err(error)
    }

    fn apply(name: String, step: exported::Step) -> Result<exported::Applied, exported::ActionError> {
        let applied = A::with(|a| a.apply(&name, &own(step))).ok_or_else(not_configured)?;
        let applied = applied.map(|Applied { before, message }| exported::Applied { before, message });
        applied.map_err(error)
    }

    fn probe(name: String, step: exported::Step) -> exported::Verdict {
        match A::with(|a| a.probe(&name, &own(step))) {
            Some(Verdict::Done(text)) => exported::Verdict::Done(text),
            Some(Verdict::NotDone(text)) => exported::Verdict::NotDone(text),
            Some(Verdict::CannotTell(text)) => exported::Verdict::CannotTell(text),
            None => exported::Verdict::CannotTell("the plugin was not configured".to_owned()),
        }
    }

    fn revert(name: String, step: exported::Step, before: String) -> Result<String, exported::ActionError> {
        let reverted = A::with(|a| a.revert(&name, &own(step), &before)).ok_or_else(not_configured)?;
        reverted.map_err(error)
    }
}

fn not_configured() -> exported::ActionError {
    exported::ActionError { reason: "other".to_owned(), message: "the plugin was not configured".to_owned() }
}

fn error(failure: Failure) -> exported::ActionError {
    exported::ActionError { reason: failure.reason.into_owned(), message: failure.message }
}

fn definition(d: action::Definition) -> exported::Definition {
    let disturbance = |word: String| match word.as_str() {
        "process" => exported::Disturbance::Process,
        "container" => exported::Disturbance::Container,
        "gpu" => exported::Disturbance::Gpu,
        "node" => exported::Disturbance::Node,
        "service" => exported::Disturbance::Service,
        "data" => exported::Disturbance::Data,
        _ => exported::Disturbance::Other(word),
    };
    exported::Definition {
        name: d.name,
        summary: d.summary,
        parameters: d.parameters.to_string(),
        disturbs: d.disturbs.into_iter().map(disturbance).collect(),
        reversible: d.reversible,
    }
}

fn plan(plan: Plan) -> exported::ActionPlan {
    let step = |s: Step| {
        let (kind, id) = s.subject;
        exported::Step { summary: s.summary, subject: wit::Subject { kind, id }, arguments: s.arguments }
    };
    exported::ActionPlan { steps: plan.steps.into_iter().map(step).collect(), notes: plan.notes }
}

fn own(step: exported::Step) -> Step {
    let exported::Step { summary, subject, arguments } = step;
    Step { summary, subject: (subject.kind, subject.id), arguments }
}
