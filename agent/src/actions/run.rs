//! One execution on its way: a step at a time, each with its intent on disk before it and its outcome after it.

use std::time::Duration;

use picket_agent_host::{Step, Verdict};
use tokio_util::sync::CancellationToken;

use super::Actions;
use super::actor::{Actor, ActorError};
use super::execution::{Accepted, Entry, Execution, Outcome, State, StepState};
use super::journal::{Journal, JournalError};

/// A step that is found not done is begun so many times, and not once more.
const MOST_TRIES: u32 = 2;
/// Between two looks at a step that may still take effect.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// One execution on its way.
pub(super) struct Run<'a> {
    pub actions: &'a Actions,
    pub journal: &'a Journal,
    pub execution: Execution,
    /// Somebody wants no more of it done.
    pub cancel: CancellationToken,
}

impl Run<'_> {
    /// Its end; none where it is left for the next start.
    pub async fn run(mut self) -> Result<Option<State>, JournalError> {
        let accepted = self.execution.accepted.clone();
        let loaded = self.actions.book().get(&accepted.plugin).cloned();
        let loaded = loaded.filter(|l| l.about.digest == accepted.plugin_digest);
        let Some(loaded) = loaded else { return self.orphaned().await };
        let mut actor = loaded.actor.lock().await;
        match self.execution.state {
            State::Reverting => self.undo(actor.as_mut(), &accepted).await,
            _ => self.forward(actor.as_mut(), &accepted).await,
        }
    }

    async fn forward(
        &mut self,
        actor: &mut dyn Actor,
        accepted: &Accepted,
    ) -> Result<Option<State>, JournalError> {
        for (number, step) in accepted.steps.iter().enumerate() {
            if let Some(StepState::Begun { times }) = self.execution.steps.get(number).cloned() {
                let settle = actor.about().settle;
                match settled(actor, accepted, step, settle).await {
                    Verdict::Done(message) => {
                        self.outcome(number, Outcome::Done { before: None, message }).await?;
                    }
                    Verdict::CannotTell(message) => return self.unknown(number, message).await,
                    Verdict::NotDone(message) if times >= MOST_TRIES => {
                        let message = format!("begun {times} times and not done: {message}");
                        return self.not_done(number, message).await;
                    }
                    Verdict::NotDone(_) => {}
                }
            }
            if matches!(self.execution.steps.get(number), Some(StepState::Ended(Outcome::Done { .. }))) {
                continue;
            }
            let over = if self.cancel.is_cancelled() {
                Some((State::Cancelled, format!("{} before step {}", self.cancelled(), number + 1)))
            } else if self.now_ms() > accepted.deadline_ms {
                Some((State::Expired, format!("its time was over before step {} was begun", number + 1)))
            } else {
                None
            };
            if let Some((state, message)) = over {
                if matches!(self.execution.steps.get(number), Some(StepState::Begun { .. })) {
                    self.outcome(number, Outcome::NotDone { message: message.clone() }).await?;
                }
                return self.ended(state, message).await;
            }
            if self.actions.inner.stop.is_cancelled() {
                return Ok(None);
            }
            if let Some(end) = self.step(actor, accepted, number, step).await? {
                return Ok(Some(end));
            }
        }
        self.ended(State::Succeeded, format!("{} steps done", accepted.steps.len())).await
    }

    /// Does one step; its end, where the execution ends with it.
    async fn step(
        &mut self,
        actor: &mut dyn Actor,
        accepted: &Accepted,
        number: usize,
        step: &Step,
    ) -> Result<Option<State>, JournalError> {
        self.intent(number, false).await?;
        let mut cut = false;
        let applied = tokio::select! {
            biased;
            applied = actor.apply(&accepted.action, step) => applied,
            () = self.cut_off(accepted.deadline_ms) => {
                cut = true;
                Err(ActorError::Failed { code: String::new(), message: self.cancelled() })
            }
        };
        let error = match applied {
            Ok(applied) => {
                let (before, message) = (Some(applied.before), applied.message);
                self.outcome(number, Outcome::Done { before, message }).await?;
                return Ok(None);
            }
            Err(error) => error,
        };
        // A plugin that says no has done nothing more by now; what was cut off may still take effect.
        let settle = match &error {
            ActorError::Declined(no) if no.reason != "timed-out" => Duration::ZERO,
            _ => actor.about().settle,
        };
        match settled(actor, accepted, step, settle).await {
            Verdict::Done(seen) => {
                let message = format!("{seen} (though: {error})");
                self.outcome(number, Outcome::Done { before: None, message }).await?;
                Ok(None)
            }
            Verdict::NotDone(_) if cut => {
                let message = format!("{error} while step {} was under way, which is not done", number + 1);
                self.outcome(number, Outcome::NotDone { message: message.clone() }).await?;
                self.ended(State::Cancelled, message).await
            }
            Verdict::NotDone(_) => self.not_done(number, error.to_string()).await,
            Verdict::CannotTell(why) => self.unknown(number, format!("{error}; {why}")).await,
        }
    }

    async fn undo(
        &mut self,
        actor: &mut dyn Actor,
        accepted: &Accepted,
    ) -> Result<Option<State>, JournalError> {
        for (number, step) in accepted.steps.iter().enumerate().rev() {
            let before = match self.execution.steps.get(number).cloned() {
                Some(StepState::Ended(Outcome::Done { before: Some(before), .. })) => before,
                // Whether an undoing took effect, no probe says.
                Some(StepState::Reverting { .. }) => {
                    let message = "its undoing was cut off; whether it took effect is not known".to_owned();
                    return self.unknown(number, message).await;
                }
                _ => continue,
            };
            if self.cancel.is_cancelled() {
                let message = format!("its undoing was {} before step {}", self.cancelled(), number + 1);
                return self.ended(State::Cancelled, message).await;
            }
            if self.actions.inner.stop.is_cancelled() {
                return Ok(None);
            }
            self.intent(number, true).await?;
            match actor.revert(&accepted.action, step, &before).await {
                Ok(message) => self.outcome(number, Outcome::Reverted { message }).await?,
                Err(ActorError::Declined(no)) => {
                    let message = no.to_string();
                    self.outcome(number, Outcome::RevertFailed { message: message.clone() }).await?;
                    return self.ended(State::RevertFailed, message).await;
                }
                Err(error) => return self.unknown(number, error.to_string()).await,
            }
        }
        self.ended(State::Reverted, "undone".to_owned()).await
    }

    /// Ends when it is cancelled and its time is over.
    async fn cut_off(&self, deadline_ms: i64) {
        self.cancel.cancelled().await;
        let left = u64::try_from(deadline_ms.saturating_sub(self.now_ms())).unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(left)).await;
    }

    /// For a person: by whom.
    fn cancelled(&self) -> String {
        let id = &self.execution.accepted.execution;
        let by = self.journal.read(|known| known.get(id).and_then(|now| now.cancelled.clone()));
        format!(
            "cancelled by {}",
            by.filter(|by| !by.is_empty()).unwrap_or_else(|| "nobody known".to_owned())
        )
    }

    /// The plugin is not there any more, or is another one: nothing can be asked.
    async fn orphaned(&mut self) -> Result<Option<State>, JournalError> {
        let why = "its plugin is not loaded, or is another version than the one that planned it".to_owned();
        let begun = self
            .execution
            .steps
            .iter()
            .position(|s| matches!(s, StepState::Begun { .. } | StepState::Reverting { .. }));
        match begun {
            Some(number) => self.unknown(number, why).await,
            None if self.execution.state == State::Reverting => self.ended(State::RevertFailed, why).await,
            None => self.ended(State::Failed, why).await,
        }
    }

    async fn unknown(&mut self, number: usize, message: String) -> Result<Option<State>, JournalError> {
        self.outcome(number, Outcome::Unknown { message: message.clone() }).await?;
        let message = format!("whether step {} took effect is not known: {message}; look at it", number + 1);
        self.ended(State::Unknown, message).await
    }

    async fn not_done(&mut self, number: usize, message: String) -> Result<Option<State>, JournalError> {
        self.outcome(number, Outcome::NotDone { message: message.clone() }).await?;
        self.ended(State::Failed, format!("step {}: {message}", number + 1)).await
    }

    async fn intent(&mut self, step: usize, revert: bool) -> Result<(), JournalError> {
        let execution = self.execution.accepted.execution.clone();
        let at_ms = self.now_ms();
        self.write(Entry::Intent { execution, step, revert, at_ms }).await
    }

    async fn outcome(&mut self, step: usize, outcome: Outcome) -> Result<(), JournalError> {
        let execution = self.execution.accepted.execution.clone();
        let at_ms = self.now_ms();
        self.write(Entry::Outcome { execution, step, at_ms, outcome }).await
    }

    async fn ended(&mut self, state: State, message: String) -> Result<Option<State>, JournalError> {
        let execution = self.execution.accepted.execution.clone();
        let at_ms = self.now_ms();
        self.write(Entry::Ended { execution, at_ms, state, message }).await?;
        Ok(Some(state))
    }

    async fn write(&mut self, entry: Entry) -> Result<(), JournalError> {
        self.journal.write(entry).await?;
        let id = &self.execution.accepted.execution;
        if let Some(now) = self.journal.read(|known| known.get(id).cloned()) {
            self.execution = now;
        }
        self.actions.publish();
        Ok(())
    }

    fn now_ms(&self) -> i64 {
        self.actions.inner.options.clock.wall_ms()
    }
}

/// The verdict on a step of which the end is not known. That it is not done is believed only when it can't take effect
/// any more.
async fn settled(actor: &mut dyn Actor, accepted: &Accepted, step: &Step, settle: Duration) -> Verdict {
    let until = tokio::time::Instant::now() + settle;
    loop {
        let verdict = actor.probe(&accepted.action, step).await;
        let now = tokio::time::Instant::now();
        if !matches!(verdict, Verdict::NotDone(_)) || now >= until {
            return verdict;
        }
        tokio::time::sleep_until(until.min(now + LOOK_AGAIN)).await;
    }
}
