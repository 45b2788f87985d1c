//! When which plugin collects: one task a plugin, nothing shared between them but the collector.

mod bring;
mod hosted;
mod source;
mod status;
mod task;
mod ticker;
mod trial;
mod waiting;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use picket_agent_services::Wakes;
use picket_proto::model::PluginId;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub(crate) use bring::stage;
pub(crate) use hosted::explain;
pub use hosted::{HostLoader, check};
pub use source::{
    About, BoxFuture, Condition, Control, ControlError, Loader, Source, SourceError, SourceSpec, Took,
};
pub use status::{
    Collects, LastCollect, Lateness, Permit, PluginStatus, RefusedVersion, State, StatusBoard, Stray, Swaps,
    permits,
};
pub(crate) use task::{TAKEN_BACK, swap_event};
pub(crate) use ticker::Ticker;

use crate::clock::Clock;
use crate::collector::Collector;
use crate::shelf::Shelf;
use crate::watch::{Seen, Stamp};
use task::{Request, Task};

/// Requests that wait for one plugin.
const MAILBOX: usize = 8;
/// How long an asker waits for a plugin's answer: a collect that is under way comes first.
const CONTROL_WITHIN: Duration = Duration::from_secs(15);

/// What the tasks share.
#[derive(Clone)]
pub struct ScheduleOptions {
    pub loader: Arc<dyn Loader>,
    /// Lets in what is loaded.
    pub shelf: Arc<Shelf>,
    pub clock: Arc<dyn Clock>,
    pub collector: Collector,
    /// The node's name: moves its plugins' ticks away from other nodes'.
    pub node: String,
    /// Who is to be collected from before its time.
    pub wakes: Wakes,
}

/// A plugin as the schedule is to run it.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    pub spec: SourceSpec,
    pub interval: Duration,
}

/// What an operator may ask for a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// Run the version before this one.
    RollBack,
    /// Try again what was quarantined.
    Release,
}

/// Cheap to clone; all clones are the same schedule.
#[derive(Clone)]
pub struct Schedule {
    options: ScheduleOptions,
    board: StatusBoard,
    tasks: Arc<Mutex<BTreeMap<PluginId, Handle>>>,
}

struct Handle {
    mailbox: mpsc::Sender<Request>,
    /// The plugin's file as the operator wants it.
    file: PathBuf,
    seen: watch::Sender<Seen>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Schedule {
    pub fn new(options: ScheduleOptions) -> Self {
        Self { options, board: StatusBoard::default(), tasks: Arc::default() }
    }

    pub fn board(&self) -> &StatusBoard {
        &self.board
    }

    /// Runs exactly these plugins from now on: starts what is new, hands the others what may have changed, ends the
    /// rest. Does not wait for a plugin to be loaded.
    pub async fn apply(&self, plugins: Vec<Planned>) {
        let mut tasks = self.tasks.lock().await;
        let wanted: Vec<PluginId> = plugins.iter().map(|planned| planned.spec.id.clone()).collect();
        let gone: Vec<PluginId> = tasks.keys().filter(|id| !wanted.contains(id)).cloned().collect();
        for id in gone {
            if let Some(handle) = tasks.remove(&id) {
                handle.stop.cancel();
                // It ends after the collect that is under way, which its limits bound.
                let _ = handle.task.await;
            }
            self.options.collector.remove(&id);
            self.options.wakes.forget(&id);
            self.board.remove(&id);
            tracing::info!(plugin = %id, "plugin stopped: it is no longer configured");
        }
        for planned in plugins {
            let id = planned.spec.id.clone();
            match tasks.get_mut(&id).filter(|handle| !handle.task.is_finished()) {
                Some(handle) => {
                    handle.file.clone_from(&planned.spec.file);
                    let request = Request::Configure { spec: planned.spec, interval: planned.interval };
                    // Fails where the task has just ended: the next reload starts it anew.
                    let _ = handle.mailbox.send(request).await;
                }
                None => {
                    tasks.insert(id, self.start(planned));
                }
            }
        }
    }

    fn start(&self, planned: Planned) -> Handle {
        let Planned { spec, interval } = planned;
        let id = spec.id.clone();
        // Known from here on: until it has been tried, the agent is not ready.
        self.board.update(&id, |line| {
            *line = PluginStatus {
                id: id.as_str().to_owned(),
                file: spec.file.clone(),
                interval_seconds: interval.as_secs_f64(),
                collects: line.collects,
                ..PluginStatus::default()
            };
        });
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        let stop = CancellationToken::new();
        let (seen, receiver) = watch::channel(Seen::default());
        let file = spec.file.clone();
        let task = Task {
            loader: self.options.loader.clone(),
            shelf: self.options.shelf.clone(),
            seen: receiver,
            stamp: Stamp::default(),
            revision: 0,
            waiting: None,
            clock: self.options.clock.clone(),
            board: self.board.clone(),
            sink: self.options.collector.sink(id.clone(), task::stale_after(interval)),
            mailbox,
            stop: stop.clone(),
            wake: self.options.wakes.of(&id),
            seed: self.options.node.clone(),
            spec,
            interval,
            refused: false,
        };
        let board = self.board.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = AbortOnDropHandle::new(tokio::spawn(task.run())).await {
                tracing::error!(plugin = %id, "the task of the plugin ended: {error}");
                board.update(&id, |line| {
                    line.state = State::Quarantined;
                    line.reason = format!("the agent failed while it ran the plugin: {error}; reload to try again, and please report it");
                });
            }
        });
        Handle { mailbox: sender, file, seen, stop, task }
    }

    /// Calls a plugin's control interface. `plugin`: none for the one that has one (the first by name).
    pub async fn control(&self, plugin: Option<&str>, what: Control) -> Result<String, ControlError> {
        let id = match plugin {
            Some(id) => id.to_owned(),
            None => self
                .board
                .all()
                .into_iter()
                .find(|line| line.controllable)
                .map(|line| line.id)
                .ok_or(ControlError::NothingToControl)?,
        };
        let mailbox = {
            let tasks = self.tasks.lock().await;
            let found = tasks.iter().find(|(known, _)| known.as_str() == id);
            found.map(|(_, handle)| handle.mailbox.clone())
        };
        let mailbox = mailbox.ok_or_else(|| ControlError::NoSuchPlugin(id.clone()))?;
        let (reply, answer) = oneshot::channel();
        mailbox.try_send(Request::Control { what, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ControlError::Busy(id.clone()),
            mpsc::error::TrySendError::Closed(_) => stopped(&id),
        })?;
        match tokio::time::timeout(CONTROL_WITHIN, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(stopped(&id)),
            Err(_) => Err(ControlError::Timeout { plugin: id, within: CONTROL_WITHIN }),
        }
    }

    /// The files that the plugins are to be loaded from.
    pub async fn files(&self) -> Vec<(PluginId, PathBuf)> {
        self.tasks.lock().await.iter().map(|(id, handle)| (id.clone(), handle.file.clone())).collect()
    }

    /// A plugin's file looks like this now.
    pub async fn see(&self, id: &PluginId, seen: Seen) {
        if let Some(handle) = self.tasks.lock().await.get(id) {
            handle.seen.send_if_modified(|before| {
                let changed = *before != seen;
                *before = seen;
                changed
            });
        }
    }

    /// Does what an operator of this node asks for a plugin; gives what came of it.
    ///
    /// # Errors
    /// Why nothing was done.
    pub async fn wish(&self, id: &str, wish: Wish) -> Result<String, String> {
        let mailbox = {
            let tasks = self.tasks.lock().await;
            tasks.iter().find(|(known, _)| known.as_str() == id).map(|(_, handle)| handle.mailbox.clone())
        };
        let mailbox = mailbox.ok_or_else(|| ControlError::NoSuchPlugin(id.to_owned()).to_string())?;
        let (reply, answer) = oneshot::channel();
        let ended = |_| format!("the plugin {id} is stopped");
        mailbox.send(Request::Wish { wish, reply }).await.map_err(|e| ended(e.to_string()))?;
        answer.await.map_err(|e| ended(e.to_string()))?
    }

    /// Runs this version of a plugin, which the shelf has; none: what lies in the plugin folder, if anything does.
    ///
    /// # Errors
    /// Why not; what ran before runs on.
    pub async fn take(&self, id: &PluginId, digest: Option<String>) -> Result<(), RefusedVersion> {
        let gone = || RefusedVersion {
            code: "PKT-0102".to_owned(),
            reason: format!("no plugin {id} is configured on this node, or it is disabled"),
            ..RefusedVersion::default()
        };
        loop {
            let mailbox = self.tasks.lock().await.get(id).map(|handle| handle.mailbox.clone());
            let (reply, answer) = oneshot::channel();
            let request = Request::Take { digest: digest.clone(), reply };
            mailbox.ok_or_else(gone)?.send(request).await.map_err(|_| gone())?;
            // Unanswered: a reload or an operator's wish came between, and this is still wanted.
            if let Ok(answer) = answer.await {
                return answer;
            }
        }
    }

    /// Ends all tasks, each after the collect that is under way; those that take longer than `within` are cut off.
    pub async fn stop(&self, within: Duration) {
        let tasks = std::mem::take(&mut *self.tasks.lock().await);
        let deadline = tokio::time::Instant::now() + within;
        for handle in tasks.values() {
            handle.stop.cancel();
        }
        for (id, mut handle) in tasks {
            if tokio::time::timeout_at(deadline, &mut handle.task).await.is_err() {
                tracing::warn!(plugin = %id, "a collect did not end in time and was cut off");
                handle.task.abort();
            }
        }
    }
}

fn stopped(id: &str) -> ControlError {
    ControlError::NotRunning {
        plugin: id.to_owned(),
        state: "stopped",
        reason: "it ended while the request waited".to_owned(),
    }
}

#[cfg(test)]
mod tests;
