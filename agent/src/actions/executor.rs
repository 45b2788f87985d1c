//! Lets commands in, does their steps, and goes on after a crash where the run before it was cut off.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use picket_agent_host::{ActionDefinition, ActionPlan, Step, Verdict, schema_problems};
use picket_proto::v1;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::actor::{Actor, ActorError, ActorLoader};
use super::book::{ActionPlanned, Book, Entry as Loaded, load};
use super::digest::{Of, canonical, digest};
use super::execution::{Accepted, Entry, Execution, Outcome, State, StepState};
use super::journal::{Journal, JournalError};
use super::limits::{self, Bounds, Wanted};
use crate::clock::Clock;
use crate::config;
use crate::schedule::StatusBoard;

/// Executions that the aggregator is told of.
const REPORTED: usize = 32;
/// A plan's steps in all, in bytes: it travels in one message, and is kept.
const MAX_PLAN: usize = 256 << 10;
const MAX_EXECUTION: usize = 64;
const MAX_BY: usize = 128;
/// A step that is found not done is begun so many times, and not once more.
const MOST_TRIES: u32 = 2;
/// Between two looks at a step that may still take effect.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What the executor stands on.
pub struct ActionsOptions {
    pub settings: config::Actions,
    pub loader: Arc<dyn ActorLoader>,
    pub clock: Arc<dyn Clock>,
    pub board: StatusBoard,
    /// None: the node only observes. Else the journal, or why there is none.
    pub journal: Option<Result<Journal, String>>,
}

/// A command to do what was planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apply {
    pub execution: String,
    pub plugin: String,
    pub action: String,
    pub parameters: String,
    pub digest: String,
    pub requested_by: String,
    pub approved_by: String,
    pub timeout: Duration,
}

/// Why a command was not let in. Nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// A word for programs: `disabled`, `plugin`, `action`, `parameters`, `digest`, `approval`, `limit`, `journal`,
    /// `execution`, `nothing`, or the plugin's own.
    pub reason: String,
    pub message: String,
}

impl Refused {
    fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into() }
    }
}

impl From<ActorError> for Refused {
    fn from(error: ActorError) -> Self {
        match error {
            ActorError::Declined(no) => Self { reason: no.reason, message: no.message },
            ActorError::Failed { code, message } => Self::new("plugin", format!("{code} {message}").trim()),
        }
    }
}

impl From<JournalError> for Refused {
    fn from(error: JournalError) -> Self {
        Self::new("journal", format!("nothing was done: {error}"))
    }
}

/// Cheap to clone; all clones are the same executor.
#[derive(Clone)]
pub struct Actions {
    inner: Arc<Inner>,
}

struct Inner {
    options: ActionsOptions,
    book: Mutex<Book>,
    /// One command is let in at a time, so that two don't pass the same limit.
    door: tokio::sync::Mutex<()>,
    report: watch::Sender<v1::ActionReport>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Cuts off what does not end in time.
    abort: CancellationToken,
}

impl fmt::Debug for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Actions").field("settings", &self.inner.options.settings).finish_non_exhaustive()
    }
}

impl Actions {
    pub fn new(options: ActionsOptions) -> Self {
        let actions = Self {
            inner: Arc::new(Inner {
                options,
                book: Mutex::default(),
                door: tokio::sync::Mutex::default(),
                report: watch::Sender::new(v1::ActionReport::default()),
                tasks: TaskTracker::new(),
                stop: CancellationToken::new(),
                abort: CancellationToken::new(),
            }),
        };
        actions.publish();
        actions
    }

    /// Changes as the aggregator is to hear of them.
    pub fn subscribe(&self) -> watch::Receiver<v1::ActionReport> {
        self.inner.report.subscribe()
    }

    /// Has exactly these plugins from now on; returns when all were tried.
    pub async fn configure(&self, planned: Vec<ActionPlanned>) {
        if self.inner.options.journal.is_none() {
            return;
        }
        let wanted = self.book().keep(planned, &self.inner.options.board);
        for one in wanted {
            let (one, loaded) = load(&self.inner.options.loader, one).await;
            self.book().loaded(one, loaded, &self.inner.options.board);
        }
        self.publish();
    }

    /// Goes on with what an earlier run of the agent was cut off in. To be called once the plugins were tried.
    pub fn resume(&self) {
        let Some(Ok(journal)) = &self.inner.options.journal else { return };
        for open in journal.read(|known| known.open().cloned().collect::<Vec<_>>()) {
            tracing::warn!(
                execution = open.accepted.execution,
                state = open.state.word(),
                "an action was cut off; going on with it"
            );
            self.spawn(journal.clone(), open);
        }
    }

    /// What would be done now, with its digest and with what speaks against it. Changes nothing.
    ///
    /// # Errors
    /// [`Refused`]
    pub async fn plan(&self, plugin: &str, action: &str, parameters: &str) -> Result<Value, Refused> {
        let journal = self.journal()?;
        let (loaded, definition) = self.find(plugin, action)?;
        let parameters = checked(&definition, parameters)?;
        let plan = planned(&loaded, action, &parameters).await?;
        let digest = digest_of(plugin, &loaded, action, &parameters, &plan);
        let mut blocked = Vec::new();
        if let Err(limited) = self.limits(journal, plugin, action, &plan, &loaded) {
            blocked.push(limited.to_string());
        }
        Ok(json!({
            "plugin": plugin, "version": loaded.about.version, "plugin_digest": loaded.about.digest, "action": action,
            "parameters": serde_json::from_str::<Value>(&parameters).unwrap_or_default(),
            "steps": plan.steps.iter().map(step_json).collect::<Vec<_>>(),
            "notes": plan.notes, "disturbs": definition.disturbs, "reversible": definition.reversible,
            "dangerous": loaded.rules.wants_approval(&definition), "blocked": blocked, "digest": digest,
        }))
    }

    /// Lets a command in: from then on it is done, whoever goes away. The same execution again is told how it is.
    ///
    /// # Errors
    /// [`Refused`]
    pub async fn apply(&self, command: Apply) -> Result<Value, Refused> {
        let journal = self.journal()?;
        let _door = self.inner.door.lock().await;
        if !is_execution(&command.execution) {
            return Err(Refused::new("execution", "an execution is named by 1 to 64 letters, digits and -"));
        }
        if let Some(known) = journal.read(|known| known.get(&command.execution).map(execution_json)) {
            return Ok(known);
        }
        if self.inner.stop.is_cancelled() {
            return Err(Refused::new("disabled", "the agent stops; try again when it runs"));
        }
        let (loaded, definition) = self.find(&command.plugin, &command.action)?;
        let parameters = checked(&definition, &command.parameters)?;
        let plan = planned(&loaded, &command.action, &parameters).await?;
        let now = digest_of(&command.plugin, &loaded, &command.action, &parameters, &plan);
        if now != command.digest {
            return Err(Refused::new(
                "digest",
                format!(
                    "the plan is another one now than the one that was agreed to ({}…): plan again and look at it",
                    command.digest.chars().take(12).collect::<String>()
                ),
            ));
        }
        if plan.steps.is_empty() {
            return Err(Refused::new("nothing", "nothing is to be done: the plan has no steps"));
        }
        if loaded.rules.wants_approval(&definition) && command.approved_by.is_empty() {
            return Err(Refused::new(
                "approval",
                format!("{} of {} needs an admin's approval", command.action, command.plugin),
            ));
        }
        self.limits(journal, &command.plugin, &command.action, &plan, &loaded)
            .map_err(|limited| Refused::new("limit", limited.to_string()))?;
        let now_ms = self.inner.options.clock.wall_ms();
        let accepted = Accepted {
            execution: command.execution.clone(),
            plugin: command.plugin,
            plugin_digest: loaded.about.digest.clone(),
            action: command.action,
            parameters,
            digest: command.digest,
            steps: plan.steps,
            reversible: definition.reversible,
            requested_by: bounded(&command.requested_by),
            approved_by: bounded(&command.approved_by),
            accepted_ms: now_ms,
            deadline_ms: now_ms.saturating_add(self.deadline(command.timeout)),
        };
        journal.write(Entry::Accepted(Box::new(accepted))).await?;
        self.begin(journal, &command.execution)
    }

    /// Lets in the undoing of an execution that ended.
    ///
    /// # Errors
    /// [`Refused`]
    pub async fn revert(&self, execution: &str, requested_by: &str) -> Result<Value, Refused> {
        let journal = self.journal()?;
        let _door = self.inner.door.lock().await;
        let known = journal.read(|known| known.get(execution).cloned());
        let Some(known) = known else {
            let message = format!("this node knows no execution {execution:?}");
            return Err(Refused::new("execution", message.chars().take(200).collect::<String>()));
        };
        if known.state.is_open() {
            return Err(Refused::new("execution", format!("{execution} is {} still", known.state.word())));
        }
        let done = known.steps.iter().any(|s| matches!(s, StepState::Done { before: Some(_), .. }));
        if !done {
            return Err(Refused::new(
                "nothing",
                format!("{execution} has no step that was done and is known from before to after"),
            ));
        }
        if !known.accepted.reversible {
            let action = &known.accepted.action;
            return Err(Refused::new("irreversible", format!("{action} can't be undone, its plugin says")));
        }
        let (execution, at_ms) = (execution.to_owned(), self.inner.options.clock.wall_ms());
        let requested_by = bounded(requested_by);
        journal.write(Entry::RevertAccepted { execution: execution.clone(), at_ms, requested_by }).await?;
        self.begin(journal, &execution)
    }

    /// Begins no further step, and gives the ones under way so long to end. What is cut off is looked at again at the
    /// next start.
    pub async fn stop(&self, within: Duration) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        if tokio::time::timeout(within, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!(
                "an action's step did not end in time and is cut off; the next start looks what became of it"
            );
            self.inner.abort.cancel();
        }
    }

    fn begin(&self, journal: &Journal, execution: &str) -> Result<Value, Refused> {
        let begun = journal.read(|known| known.get(execution).cloned());
        let begun = begun.ok_or_else(|| Refused::new("journal", "the journal lost what was just written"))?;
        let told = execution_json(&begun);
        tracing::info!(
            execution,
            plugin = begun.accepted.plugin,
            action = begun.accepted.action,
            state = begun.state.word(),
            by = begun.accepted.requested_by,
            "action let in"
        );
        self.publish();
        self.spawn(journal.clone(), begun);
        Ok(told)
    }

    fn spawn(&self, journal: Journal, execution: Execution) {
        let actions = self.clone();
        let abort = self.inner.abort.clone();
        self.inner.tasks.spawn(async move {
            let id = execution.accepted.execution.clone();
            let run = Run { actions: &actions, journal: &journal, execution };
            let ended = tokio::select! {
                biased;
                () = abort.cancelled() => return,
                ended = run.run() => ended,
            };
            match ended {
                Ok(Some(state)) => tracing::info!(execution = id, state = state.word(), "action ended"),
                Ok(None) => tracing::info!(execution = id, "action left for the agent's next start"),
                Err(error) => tracing::error!(execution = id, "action left as it is: {error}"),
            }
            actions.publish();
        });
    }

    fn journal(&self) -> Result<&Journal, Refused> {
        match &self.inner.options.journal {
            Some(Ok(journal)) => Ok(journal),
            Some(Err(why)) => Err(Refused::new("journal", why.clone())),
            None => Err(Refused::new(
                "disabled",
                "this node only observes: its operator has not set actions.enabled = true",
            )),
        }
    }

    fn find(&self, plugin: &str, action: &str) -> Result<(Loaded, ActionDefinition), Refused> {
        let book = self.book();
        let Some(loaded) = book.get(plugin).cloned() else {
            let names = book.names().join(", ");
            let has = if names.is_empty() { "none".to_owned() } else { names };
            let plugin: String = plugin.chars().take(64).collect();
            let message = format!("this node has no action plugin {plugin:?} that runs; it has {has}");
            return Err(Refused::new("plugin", message));
        };
        let Some(definition) = loaded.definition(action).cloned() else {
            let all = loaded.about.definitions.iter().map(|d| d.name.as_str());
            let allowed: Vec<&str> = all.filter(|name| loaded.rules.allows(name)).collect();
            let action: String = action.chars().take(64).collect();
            let message = format!(
                "{plugin} has no action {action:?} that is allowed here; allowed are {}",
                allowed.join(", ")
            );
            return Err(Refused::new("action", message));
        };
        Ok((loaded, definition))
    }

    fn limits(
        &self,
        journal: &Journal,
        plugin: &str,
        action: &str,
        plan: &ActionPlan,
        loaded: &Loaded,
    ) -> Result<(), limits::Limited> {
        let settings = &self.inner.options.settings;
        let bounds = Bounds { max_running: settings.max_running, per_hour: settings.per_hour };
        let cooldown = loaded.rules.cooldown.unwrap_or(settings.cooldown);
        let wanted = Wanted { plugin, action, steps: &plan.steps, cooldown };
        let now_ms = self.inner.options.clock.wall_ms();
        journal.read(|known| limits::check(known, bounds, wanted, now_ms))
    }

    fn deadline(&self, wanted: Duration) -> i64 {
        let most = self.inner.options.settings.max_time;
        let time = if wanted.is_zero() { most } else { wanted.min(most) };
        i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.inner.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self) {
        let executions = match &self.inner.options.journal {
            Some(Ok(journal)) => journal.read(|known| {
                let mut last: Vec<_> = known.iter().rev().take(REPORTED).map(Execution::report).collect();
                last.reverse();
                last
            }),
            _ => Vec::new(),
        };
        let report = v1::ActionReport {
            enabled: self.inner.options.journal.is_some(),
            plugins: self.book().report(),
            executions,
        };
        self.inner.report.send_if_modified(|told| {
            let changed = *told != report;
            *told = report;
            changed
        });
    }
}

/// One execution on its way.
struct Run<'a> {
    actions: &'a Actions,
    journal: &'a Journal,
    execution: Execution,
}

impl Run<'_> {
    /// Its end; none where it is left for the next start.
    async fn run(mut self) -> Result<Option<State>, JournalError> {
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
            if matches!(self.execution.steps.get(number), Some(StepState::Done { .. })) {
                continue;
            }
            if self.now_ms() > accepted.deadline_ms {
                let message = format!("its time was over before step {} was begun", number + 1);
                if matches!(self.execution.steps.get(number), Some(StepState::Begun { .. })) {
                    self.outcome(number, Outcome::NotDone { message: message.clone() }).await?;
                }
                return self.ended(State::Expired, message).await;
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
        let error = match actor.apply(&accepted.action, step).await {
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
                Some(StepState::Done { before: Some(before), .. }) => before,
                // Whether an undoing took effect, no probe says.
                Some(StepState::Reverting { .. }) => {
                    let message = "its undoing was cut off; whether it took effect is not known".to_owned();
                    return self.unknown(number, message).await;
                }
                _ => continue,
            };
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

fn checked(definition: &ActionDefinition, parameters: &str) -> Result<String, Refused> {
    let parameters = canonical(parameters).map_err(|why| Refused::new("parameters", why))?;
    let value: Value = serde_json::from_str(&parameters).unwrap_or_default();
    let problems = schema_problems(&definition.parameters, &value, "parameters");
    if problems.is_empty() { Ok(parameters) } else { Err(Refused::new("parameters", problems.join("; "))) }
}

async fn planned(loaded: &Loaded, action: &str, parameters: &str) -> Result<ActionPlan, Refused> {
    let Ok(mut actor) = loaded.actor.try_lock() else {
        return Err(Refused::new(
            "limit",
            "the plugin is at work on another action; try again when it has ended",
        ));
    };
    let plan = actor.plan(action, parameters).await?;
    let bytes: usize =
        plan.steps.iter().map(|s| s.summary.len() + s.subject_id.len() + s.arguments.len()).sum();
    if bytes > MAX_PLAN {
        return Err(Refused::new(
            "plugin",
            format!("the plan is {bytes} bytes long, {MAX_PLAN} are allowed"),
        ));
    }
    Ok(plan)
}

fn digest_of(plugin: &str, loaded: &Loaded, action: &str, parameters: &str, plan: &ActionPlan) -> String {
    digest(Of { plugin, plugin_digest: &loaded.about.digest, action, parameters }, plan)
}

fn step_json(step: &Step) -> Value {
    json!({
        "summary": step.summary,
        "subject": { "kind": step.subject_kind, "id": step.subject_id },
        "arguments": step.arguments,
    })
}

fn execution_json(execution: &Execution) -> Value {
    json!({
        "execution": execution.accepted.execution, "state": execution.state.word(), "message": execution.message,
    })
}

fn is_execution(id: &str) -> bool {
    (1..=MAX_EXECUTION).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn bounded(by: &str) -> String {
    by.chars().take(MAX_BY).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
