//! When which plugin collects: one task a plugin, nothing shared between them but the collector.

mod hosted;
mod source;
mod status;
mod task;
mod ticker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use picket_agent_services::Wakes;
use picket_proto::model::PluginId;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub use hosted::{HostLoader, check};
pub use source::{
    About, BoxFuture, Condition, Control, ControlError, Loader, Source, SourceError, SourceSpec, Took,
};
pub use status::{Collects, LastCollect, PluginStatus, State, StatusBoard};
pub(crate) use ticker::Ticker;

use crate::clock::Clock;
use crate::collector::Collector;
use task::{Request, Task};

/// Requests that wait for one plugin.
const MAILBOX: usize = 8;
/// How long an asker waits for a plugin's answer: a collect that is under way comes first.
const CONTROL_WITHIN: Duration = Duration::from_secs(15);

/// What the tasks share.
#[derive(Clone)]
pub struct ScheduleOptions {
    pub loader: Arc<dyn Loader>,
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

/// Cheap to clone; all clones are the same schedule.
#[derive(Clone)]
pub struct Schedule {
    options: ScheduleOptions,
    board: StatusBoard,
    tasks: Arc<Mutex<BTreeMap<PluginId, Handle>>>,
}

struct Handle {
    mailbox: mpsc::Sender<Request>,
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
            match tasks.get(&id).filter(|handle| !handle.task.is_finished()) {
                Some(handle) => {
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
        let task = Task {
            loader: self.options.loader.clone(),
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
        Handle { mailbox: sender, stop, task }
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
