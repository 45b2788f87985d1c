//! Lets commands in, and goes on after a crash where the run before it was cut off.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use picket_agent_host::{ActionDefinition, ActionPlan, Step, schema_problems};
use picket_proto::v1;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::actor::{ActorError, ActorLoader};
use super::book::{ActionPlanned, Book, Entry as Loaded};
use super::digest::{Of, canonical, digest};
use super::execution::{Accepted, Entry, Execution, Outcome, StepState};
use super::journal::{Journal, JournalError};
use super::let_in::{LetIn, let_in};
use super::limits::{self, Bounds, Wanted};
use super::run::Run;
use super::telemetry::Telemetry;
use crate::clock::Clock;
use crate::config;
use crate::schedule::{StatusBoard, swap_event};
use crate::shelf::{Shelf, Which};

/// Executions that the aggregator is told of.
const REPORTED: usize = 32;
/// A plan's steps in all, in bytes: it travels in one message, and is kept.
const MAX_PLAN: usize = 256 << 10;
const MAX_EXECUTION: usize = 64;
const MAX_BY: usize = 128;

/// What the executor stands on.
pub struct ActionsOptions {
    pub settings: config::Actions,
    pub loader: Arc<dyn ActorLoader>,
    /// Lets in what is loaded.
    pub shelf: Arc<Shelf>,
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
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub options: ActionsOptions,
    book: Mutex<Book>,
    /// One command is let in at a time, so that two don't pass the same limit, and none while a plugin is replaced.
    pub door: tokio::sync::Mutex<()>,
    /// One plugin is loaded at a time, so that the later word holds.
    pub loading: tokio::sync::Mutex<()>,
    report: watch::Sender<v1::ActionReport>,
    running: Mutex<HashMap<String, CancellationToken>>,
    pub telemetry: Telemetry,
    tasks: TaskTracker,
    pub stop: CancellationToken,
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
                loading: tokio::sync::Mutex::default(),
                report: watch::Sender::new(v1::ActionReport::default()),
                running: Mutex::default(),
                telemetry: Telemetry::default(),
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
        let _one = self.inner.loading.lock().await;
        let ActionsOptions { loader, shelf, board, .. } = &self.inner.options;
        let wanted = self.book().keep(planned, board);
        for one in wanted {
            match let_in(&**loader, shelf, &one.spec, Which::Wanted).await {
                Ok(let_in) => self.install(one, let_in).await,
                Err(told) => self.book().refused(&one.spec.id, &told, board),
            }
        }
        self.publish();
    }

    /// What was let in runs from now on, and is kept as that.
    pub(super) async fn install(&self, one: ActionPlanned, let_in: LetIn) {
        let LetIn { actor, staged } = let_in;
        let ActionsOptions { shelf, board, .. } = &self.inner.options;
        let (shelf, id, version) = (shelf.clone(), one.spec.id.clone(), staged.version.clone());
        let written = tokio::task::spawn_blocking(move || {
            let before = shelf.record(&id).current;
            shelf.adopted(&id, &version);
            (before, shelf.record(&id))
        });
        let (before, record) = written.await.unwrap_or_default();
        board.adopted(&one.spec, &staged, record);
        let swapped = before.filter(|before| before.digest != staged.version.digest);
        if let Some(before) = &swapped {
            self.inner.telemetry.tell(swap_event(&one.spec.id, before, &staged.version));
        }
        self.book().loaded(one, actor, swapped.is_some(), board);
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
        let known = known(journal, execution)?;
        if known.state.is_open() {
            return Err(Refused::new("execution", format!("{execution} is {} still", known.state.word())));
        }
        let is_done = |s: &StepState| matches!(s, StepState::Ended(Outcome::Done { before: Some(_), .. }));
        let done = known.steps.iter().any(is_done);
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

    /// Lets in the end of an execution before all of it is done: no further step begins, and the one under way is cut off
    /// when the execution's time is over; then the plugin is asked what became of it.
    ///
    /// # Errors
    /// [`Refused`]
    pub async fn cancel(&self, execution: &str, requested_by: &str) -> Result<Value, Refused> {
        let journal = self.journal()?;
        let _door = self.inner.door.lock().await;
        let before = known(journal, execution)?;
        if !before.state.is_open() {
            let message = format!("{execution} has ended, it is {}", before.state.word());
            return Err(Refused::new("execution", message));
        }
        if before.cancelled.is_none() {
            let (execution, at_ms) = (execution.to_owned(), self.inner.options.clock.wall_ms());
            let requested_by = bounded(requested_by);
            tracing::info!(execution, by = requested_by, "action is to be cancelled");
            journal.write(Entry::CancelAccepted { execution, at_ms, requested_by }).await?;
        }
        if let Some(token) = self.running().get(execution) {
            token.cancel();
        }
        self.publish();
        Ok(execution_json(&known(journal, execution)?))
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
        let begun = known(journal, execution)?;
        self.inner.telemetry.begun(&begun);
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
        let cancel = CancellationToken::new();
        let id = execution.accepted.execution.clone();
        self.running().insert(id.clone(), cancel.clone());
        // Looked at behind that: who cancels writes first, and looks then who runs.
        if journal.read(|known| known.get(&id).is_some_and(|now| now.cancelled.is_some())) {
            cancel.cancel();
        }
        self.inner.telemetry.running(&execution);
        self.inner.tasks.spawn(async move {
            let run = Run { actions: &actions, journal: &journal, execution, cancel };
            let ended = tokio::select! {
                biased;
                () = abort.cancelled() => return,
                ended = run.run() => ended,
            };
            actions.running().remove(&id);
            match &ended {
                Ok(Some(state)) => tracing::info!(execution = id, state = state.word(), "action ended"),
                Ok(None) => tracing::info!(execution = id, "action left for the agent's next start"),
                Err(error) => tracing::error!(execution = id, "action left as it is: {error}"),
            }
            let now = journal.read(|known| known.get(&id).cloned());
            actions.inner.telemetry.left(&id, now.filter(|_| matches!(ended, Ok(Some(_)))).as_ref());
            actions.publish();
        });
    }

    /// The executions that are on their way.
    fn running(&self) -> MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was done, in numbers and events.
    pub fn telemetry(&self) -> &Telemetry {
        &self.inner.telemetry
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

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.inner.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn publish(&self) {
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

/// As the journal has it.
fn known(journal: &Journal, execution: &str) -> Result<Execution, Refused> {
    journal.read(|known| known.get(execution).cloned()).ok_or_else(|| {
        let execution: String = execution.chars().take(MAX_EXECUTION).collect();
        Refused::new("execution", format!("this node knows no execution {execution:?}"))
    })
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
