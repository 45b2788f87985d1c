//! How much may be done to this node, whoever asks: so many at a time, so many an hour, and the same thing to the same
//! subject only so often. It is told from the journal, so that a restart forgets none of it.

use std::time::Duration;

use picket_agent_host::Step;

use super::execution::{Execution, Executions};

const HOUR_MS: i64 = 3_600_000;

/// The node's bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub max_running: usize,
    pub per_hour: usize,
}

/// Why an action is not let in now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Limited {
    #[error(
        "{0} actions run on this node already, actions.max_running allows no more; try again when one has ended"
    )]
    Running(usize),
    #[error(
        "{0} actions were done within an hour, actions.per_hour allows no more; the next is let in in {1} s"
    )]
    PerHour(usize, i64),
    #[error("the execution {execution} works on {kind} {id} at the moment")]
    Subject { execution: String, kind: String, id: String },
    #[error(
        "{action} was done to {kind} {id} {ago} s ago (execution {execution}): its cooldown lasts {left} s more"
    )]
    Cooldown { action: String, kind: String, id: String, execution: String, ago: i64, left: i64 },
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub plugin: &'a str,
    pub action: &'a str,
    pub steps: &'a [Step],
    pub cooldown: Duration,
}

/// The first reason against it, if there is one.
///
/// # Errors
/// [`Limited`]
pub fn check(known: &Executions, bounds: Bounds, wanted: Wanted<'_>, now_ms: i64) -> Result<(), Limited> {
    let running = known.open().count();
    if running >= bounds.max_running {
        return Err(Limited::Running(running));
    }
    let touches = |e: &Execution| {
        wanted
            .steps
            .iter()
            .find(|w| {
                e.accepted
                    .steps
                    .iter()
                    .any(|s| s.subject_kind == w.subject_kind && s.subject_id == w.subject_id)
            })
            .map(|w| (w.subject_kind.clone(), w.subject_id.clone()))
    };
    for open in known.open() {
        if let Some((kind, id)) = touches(open) {
            return Err(Limited::Subject { execution: open.accepted.execution.clone(), kind, id });
        }
    }
    // A clock that was put back: what was done "later" than now was just done.
    let age = |e: &Execution| now_ms.saturating_sub(e.accepted.accepted_ms).max(0);
    let recent: Vec<&Execution> = known.iter().filter(|e| e.touched && age(e) < HOUR_MS).collect();
    if recent.len() >= bounds.per_hour {
        let oldest = recent.iter().map(|e| age(e)).max().unwrap_or(0);
        return Err(Limited::PerHour(recent.len(), (HOUR_MS - oldest) / 1000 + 1));
    }
    let cooldown_ms = i64::try_from(wanted.cooldown.as_millis()).unwrap_or(i64::MAX);
    for done in known.iter().rev().filter(|e| e.touched && age(e) < cooldown_ms) {
        if done.accepted.plugin == wanted.plugin
            && done.accepted.action == wanted.action
            && let Some((kind, id)) = touches(done)
        {
            let ago = age(done);
            return Err(Limited::Cooldown {
                action: wanted.action.to_owned(),
                kind,
                id,
                execution: done.accepted.execution.clone(),
                ago: ago / 1000,
                left: (cooldown_ms - ago) / 1000 + 1,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::execution::{Accepted, Entry, State};
    use super::*;

    fn step(id: &str) -> Step {
        Step {
            summary: "s".to_owned(),
            subject_kind: "container".to_owned(),
            subject_id: id.to_owned(),
            arguments: "{}".to_owned(),
        }
    }

    fn accepted(execution: &str, subject: &str, at_ms: i64) -> Entry {
        Entry::Accepted(Box::new(Accepted {
            execution: execution.to_owned(),
            plugin: "p".to_owned(),
            plugin_digest: String::new(),
            action: "restart".to_owned(),
            parameters: "{}".to_owned(),
            digest: String::new(),
            steps: vec![step(subject)],
            reversible: false,
            requested_by: String::new(),
            approved_by: String::new(),
            accepted_ms: at_ms,
            deadline_ms: at_ms + 1,
        }))
    }

    fn done(known: &mut Executions, execution: &str, subject: &str, at_ms: i64) {
        known.take(&accepted(execution, subject, at_ms));
        let execution = execution.to_owned();
        known.take(&Entry::Intent { execution: execution.clone(), step: 0, revert: false, at_ms });
        known.take(&Entry::Ended { execution, at_ms, state: State::Succeeded, message: String::new() });
    }

    const BOUNDS: Bounds = Bounds { max_running: 1, per_hour: 3 };

    fn ask(known: &Executions, action: &str, subject: &str, now_ms: i64) -> Result<(), Limited> {
        let steps = [step(subject)];
        let wanted = Wanted { plugin: "p", action, steps: &steps, cooldown: Duration::from_secs(300) };
        check(known, BOUNDS, wanted, now_ms)
    }

    #[test]
    fn a_cooldown_is_of_an_action_and_a_subject() {
        let mut known = Executions::default();
        done(&mut known, "e1", "a", 1_000_000);
        assert!(matches!(ask(&known, "restart", "a", 1_100_000), Err(Limited::Cooldown { left: 201, .. })));
        assert_eq!(ask(&known, "restart", "b", 1_100_000), Ok(()));
        assert_eq!(ask(&known, "stop", "a", 1_100_000), Ok(()));
        assert_eq!(ask(&known, "restart", "a", 1_300_000), Ok(()));
        // The wall clock was put back.
        assert!(matches!(ask(&known, "restart", "a", 0), Err(Limited::Cooldown { .. })));
    }

    #[test]
    fn so_many_at_a_time_and_an_hour() {
        let mut known = Executions::default();
        known.take(&accepted("e0", "z", 0));
        assert!(matches!(ask(&known, "restart", "a", 0), Err(Limited::Running(1))));
        known.take(&Entry::Ended {
            execution: "e0".to_owned(),
            at_ms: 0,
            state: State::Failed,
            message: String::new(),
        });
        // Nothing was begun: it counts for nothing.
        assert_eq!(ask(&known, "restart", "z", 0), Ok(()));
        for n in 1..=3 {
            done(&mut known, &format!("e{n}"), &format!("s{n}"), n * 1000);
        }
        assert_eq!(ask(&known, "restart", "a", 10_000), Err(Limited::PerHour(3, 3592)));
        assert_eq!(ask(&known, "restart", "a", 3_601_001), Ok(()));
    }

    #[test]
    fn one_at_a_time_works_on_a_subject() {
        let mut known = Executions::default();
        known.take(&accepted("e1", "a", 0));
        let steps = [step("a")];
        let wanted = Wanted { plugin: "q", action: "x", steps: &steps, cooldown: Duration::ZERO };
        let two = Bounds { max_running: 2, per_hour: 9 };
        assert!(matches!(check(&known, two, wanted, 0), Err(Limited::Subject { .. })));
    }
}
