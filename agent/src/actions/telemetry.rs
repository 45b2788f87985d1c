//! What was done, as an operator watches it: numbers since the agent began, and an event at each begin and end.
//!
//! Here it is only kept, in little room; [`crate::own`] tells it, the way all of the agent's own metrics go.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use picket_proto::v1;
use tokio::sync::watch;

use super::execution::{Execution, State};

/// The kinds of events. The subject is the first step's.
const BEGUN: &str = "action.begun";
const ENDED: &str = "action.ended";
const FAILED: &str = "action.failed";
/// Events that wait to be told; the oldest go first.
const MAX_EVENTS: usize = 256;

/// A plugin and one of its actions.
type Of = (String, String);

#[derive(Debug, Default)]
pub struct Telemetry {
    kept: Mutex<Kept>,
    /// Counts what happened.
    turns: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    figures: Figures,
    running: BTreeMap<String, Of>,
    events: VecDeque<v1::Event>,
}

/// Since the agent began.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Executions that ended, by how.
    pub ended: BTreeMap<(Of, &'static str), u64>,
    /// Executions that are on their way; of each action that was at some time.
    pub running: BTreeMap<Of, u64>,
    /// Seconds from the word to the end, of the last one.
    pub seconds: BTreeMap<Of, f64>,
}

impl Telemetry {
    pub fn figures(&self) -> Figures {
        self.kept().figures.clone()
    }

    /// The events since the last call.
    pub fn take_events(&self) -> Vec<v1::Event> {
        self.kept().events.drain(..).collect()
    }

    /// Events wait to be told.
    pub fn has_events(&self) -> bool {
        !self.kept().events.is_empty()
    }

    /// Tells when something has happened.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.turns.subscribe()
    }

    /// It, or its undoing, was let in.
    pub(super) fn begun(&self, execution: &Execution) {
        self.tell(event(execution, BEGUN, v1::Severity::Info));
    }

    /// It is on its way, perhaps since an earlier run of the agent.
    pub(super) fn running(&self, execution: &Execution) {
        let mut kept = self.kept();
        let of = of(execution);
        *kept.figures.running.entry(of.clone()).or_default() += 1;
        kept.running.insert(execution.accepted.execution.clone(), of);
        drop(kept);
        self.turn();
    }

    /// It is on its way no more; none: not because it ended.
    pub(super) fn left(&self, id: &str, ended: Option<&Execution>) {
        let mut kept = self.kept();
        if let Some(of) = kept.running.remove(id)
            && let Some(running) = kept.figures.running.get_mut(&of)
        {
            *running = running.saturating_sub(1);
        }
        let Some(execution) = ended else { return };
        let of = of(execution);
        *kept.figures.ended.entry((of.clone(), execution.state.word())).or_default() += 1;
        if let Some(ended_ms) = execution.ended_ms {
            // A clock that was put back meanwhile.
            let milliseconds = ended_ms.saturating_sub(execution.began_ms).max(0);
            kept.figures.seconds.insert(of, milliseconds as f64 / 1000.0);
        }
        drop(kept);
        let (kind, severity) = match execution.state {
            State::Unknown => (FAILED, v1::Severity::Critical),
            State::Failed | State::Expired | State::RevertFailed => (FAILED, v1::Severity::Warning),
            _ => (ENDED, v1::Severity::Info),
        };
        self.tell(event(execution, kind, severity));
    }

    /// Something that an operator should know.
    pub(super) fn tell(&self, event: v1::Event) {
        let mut kept = self.kept();
        if kept.events.len() >= MAX_EVENTS {
            kept.events.pop_front();
        }
        kept.events.push_back(event);
        drop(kept);
        self.turn();
    }

    fn turn(&self) {
        self.turns.send_modify(|turns| *turns += 1);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn of(execution: &Execution) -> Of {
    (execution.accepted.plugin.clone(), execution.accepted.action.clone())
}

fn event(execution: &Execution, kind: &str, severity: v1::Severity) -> v1::Event {
    let accepted = &execution.accepted;
    let (subject_kind, subject_id) =
        accepted.steps.first().map(|s| (s.subject_kind.clone(), s.subject_id.clone())).unwrap_or_default();
    let what = format!("{} of {}", accepted.action, accepted.plugin);
    let message = match kind {
        BEGUN if execution.state == State::Reverting => format!("{what} is being undone"),
        BEGUN => format!("{what} has begun, by {}", accepted.requested_by),
        _ => format!("{what} is {}: {}", execution.state.word(), execution.message),
    };
    let steps = accepted.steps.len().to_string();
    let attributes = [
        ("execution", accepted.execution.as_str()),
        ("plugin", &accepted.plugin),
        ("action", &accepted.action),
        ("state", execution.state.word()),
        ("steps", &steps),
        ("requested_by", &accepted.requested_by),
        ("approved_by", &accepted.approved_by),
        ("cancelled_by", execution.cancelled.as_deref().unwrap_or_default()),
    ];
    v1::Event {
        kind: kind.to_owned(),
        severity: severity.into(),
        subject_kind,
        subject_id,
        message,
        attributes: attributes
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| v1::Label { name: name.to_owned(), value: value.to_owned() })
            .collect(),
        ..v1::Event::default()
    }
}
