//! What the journal holds, and what follows from it: the state of each execution is the sum of its entries and nothing
//! else, so that a restart knows what the run before it knew.

use std::collections::BTreeMap;

use picket_agent_host::Step;
use picket_proto::v1;
use serde::{Deserialize, Serialize};

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "kebab-case")]
pub enum Entry {
    /// A command was let in. On disk before the aggregator hears so.
    Accepted(Box<Accepted>),
    /// A step is about to be done, or undone. On disk before it is.
    Intent {
        execution: String,
        step: usize,
        revert: bool,
        at_ms: i64,
    },
    Outcome {
        execution: String,
        step: usize,
        at_ms: i64,
        outcome: Outcome,
    },
    /// All that is going to be done for now.
    Ended {
        execution: String,
        at_ms: i64,
        state: State,
        message: String,
    },
    /// The undoing of what was done was let in.
    RevertAccepted {
        execution: String,
        at_ms: i64,
        requested_by: String,
    },
    /// Its end before all is done was let in.
    CancelAccepted {
        execution: String,
        at_ms: i64,
        requested_by: String,
    },
}

impl Entry {
    pub fn execution(&self) -> &str {
        match self {
            Self::Accepted(accepted) => &accepted.execution,
            Self::Intent { execution, .. }
            | Self::Outcome { execution, .. }
            | Self::Ended { execution, .. }
            | Self::RevertAccepted { execution, .. }
            | Self::CancelAccepted { execution, .. } => execution,
        }
    }
}

/// What was agreed to, whole: a restart needs nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    pub execution: String,
    pub plugin: String,
    /// Of the component file: another version's steps are not this one's.
    pub plugin_digest: String,
    pub action: String,
    pub parameters: String,
    /// Of the plan.
    pub digest: String,
    pub steps: Vec<Step>,
    pub reversible: bool,
    pub requested_by: String,
    pub approved_by: String,
    pub accepted_ms: i64,
    /// No step begins after this.
    pub deadline_ms: i64,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    Done {
        /// None: only a probe saw that it was done.
        before: Option<String>,
        message: String,
    },
    /// Nothing was changed.
    NotDone {
        message: String,
    },
    /// Nobody can say.
    Unknown {
        message: String,
    },
    Reverted {
        message: String,
    },
    /// The undoing failed; what was done is still there.
    RevertFailed {
        message: String,
    },
}

/// How an execution is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Running,
    Succeeded,
    Failed,
    /// A step may or may not have taken effect: a person has to look.
    Unknown,
    /// Its time was over before all steps were begun.
    Expired,
    /// Somebody ended it before all steps were done.
    Cancelled,
    Reverting,
    Reverted,
    RevertFailed,
}

impl State {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Reverting => "reverting",
            Self::Reverted => "reverted",
            Self::RevertFailed => "revert-failed",
        }
    }

    pub const fn is_open(self) -> bool {
        matches!(self, Self::Running | Self::Reverting)
    }
}

/// How a step is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepState {
    Waiting,
    /// It was begun so many times, and no end of it is known.
    Begun {
        times: u32,
    },
    /// Its undoing was begun, and no end of it is known. What was found before it was done is kept.
    Reverting {
        before: Option<String>,
    },
    Ended(Outcome),
}

impl StepState {
    const fn word(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Begun { .. } | Self::Reverting { .. } => "begun",
            Self::Ended(Outcome::Done { .. }) => "done",
            Self::Ended(Outcome::NotDone { .. } | Outcome::RevertFailed { .. }) => "failed",
            Self::Ended(Outcome::Unknown { .. }) => "unknown",
            Self::Ended(Outcome::Reverted { .. }) => "reverted",
        }
    }

    fn message(&self) -> &str {
        match self {
            Self::Waiting | Self::Begun { .. } | Self::Reverting { .. } => "",
            Self::Ended(
                Outcome::Done { message, .. }
                | Outcome::NotDone { message }
                | Outcome::Unknown { message }
                | Outcome::Reverted { message }
                | Outcome::RevertFailed { message },
            ) => message,
        }
    }
}

/// One execution, as far as its entries tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Execution {
    pub accepted: Accepted,
    pub steps: Vec<StepState>,
    pub state: State,
    pub message: String,
    /// When it, or its undoing, was let in.
    pub began_ms: i64,
    pub ended_ms: Option<i64>,
    /// Who wants no more of it done.
    pub cancelled: Option<String>,
    /// Entries so far.
    pub revision: u64,
    /// Some step was begun.
    pub touched: bool,
}

impl Execution {
    fn new(accepted: Accepted) -> Self {
        let steps = vec![StepState::Waiting; accepted.steps.len()];
        Self {
            began_ms: accepted.accepted_ms,
            accepted,
            steps,
            state: State::Running,
            message: String::new(),
            ended_ms: None,
            cancelled: None,
            revision: 1,
            touched: false,
        }
    }

    fn take(&mut self, entry: &Entry) {
        self.revision += 1;
        match entry {
            Entry::Accepted(_) => {}
            Entry::Intent { step, revert, .. } => {
                self.touched = true;
                if let Some(state) = self.steps.get_mut(*step) {
                    *state = match (&*state, revert) {
                        (StepState::Ended(Outcome::Done { before, .. }), true) => {
                            StepState::Reverting { before: before.clone() }
                        }
                        (other, true) => other.clone(),
                        (StepState::Begun { times }, false) => {
                            StepState::Begun { times: times.saturating_add(1) }
                        }
                        (_, false) => StepState::Begun { times: 1 },
                    };
                }
            }
            Entry::Outcome { step, outcome, .. } => {
                if let Some(state) = self.steps.get_mut(*step) {
                    *state = StepState::Ended(outcome.clone());
                }
            }
            Entry::Ended { at_ms, state, message, .. } => {
                self.state = *state;
                self.message.clone_from(message);
                self.ended_ms = Some(*at_ms);
            }
            Entry::RevertAccepted { at_ms, .. } => {
                self.state = State::Reverting;
                self.began_ms = *at_ms;
                self.ended_ms = None;
                self.cancelled = None;
            }
            Entry::CancelAccepted { requested_by, .. } => self.cancelled = Some(requested_by.clone()),
        }
    }

    /// For the aggregator.
    pub fn report(&self) -> v1::ActionExecution {
        v1::ActionExecution {
            execution: self.accepted.execution.clone(),
            state: self.state.word().to_owned(),
            message: self.message.clone(),
            steps: self
                .steps
                .iter()
                .map(|s| v1::ActionStep { state: s.word().to_owned(), message: s.message().to_owned() })
                .collect(),
            accepted_ms: self.accepted.accepted_ms,
            ended_ms: self.ended_ms.unwrap_or(0),
            revision: self.revision,
        }
    }
}

/// All executions that are remembered, the oldest first.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Executions {
    order: Vec<String>,
    by_id: BTreeMap<String, Execution>,
}

impl Executions {
    pub fn take(&mut self, entry: &Entry) {
        match entry {
            Entry::Accepted(accepted) => {
                let id = accepted.execution.clone();
                if self.by_id.insert(id.clone(), Execution::new((**accepted).clone())).is_none() {
                    self.order.push(id);
                }
            }
            _ => {
                if let Some(known) = self.by_id.get_mut(entry.execution()) {
                    known.take(entry);
                }
            }
        }
    }

    pub fn get(&self, id: &str) -> Option<&Execution> {
        self.by_id.get(id)
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Execution> {
        self.order.iter().filter_map(|id| self.by_id.get(id))
    }

    pub fn open(&self) -> impl Iterator<Item = &Execution> {
        self.iter().filter(|e| e.state.is_open())
    }

    /// Forgets the oldest that ended until so many are left.
    pub fn forget(&mut self, kept: usize) {
        let surplus = self.order.len().saturating_sub(kept);
        let gone: Vec<String> = self
            .iter()
            .filter(|e| !e.state.is_open())
            .take(surplus)
            .map(|e| e.accepted.execution.clone())
            .collect();
        self.order.retain(|id| !gone.contains(id));
        for id in gone {
            self.by_id.remove(&id);
        }
    }
}
