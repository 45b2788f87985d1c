//! Operators' commands that came down the stream: handed to the agent, bounded in number and time. Each one is answered,
//! if only by an error.

use std::time::Duration;

use picket_proto::v1;
use picket_proto::v1::command_result::Result as Outcome;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::CommandCall;

/// Commands at work at the same time on one stream.
const MAX_RUNNING: usize = 8;

pub(super) struct Commands {
    calls: mpsc::Sender<CommandCall>,
    running: JoinSet<v1::CommandResult>,
    timeout: Duration,
}

impl Commands {
    pub fn new(calls: mpsc::Sender<CommandCall>, timeout: Duration) -> Self {
        Self { calls, running: JoinSet::new(), timeout }
    }

    /// Starts a command; the answer at once if it cannot be started.
    pub fn start(&mut self, command: v1::Command) -> Option<v1::CommandResult> {
        let id = command.id;
        if command.command.is_none() {
            return Some(failed(id, "this agent does not know the command: it is older than the aggregator"));
        }
        if self.running.len() >= MAX_RUNNING {
            return Some(failed(id, "the agent is at work on too many commands, try again later"));
        }
        let (answer, answered) = oneshot::channel();
        match self.calls.try_send((command, answer)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                return Some(failed(id, "the agent is busy with other commands, try again later"));
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                return Some(failed(id, "the agent is shutting down"));
            }
        }
        let timeout = self.timeout;
        self.running.spawn(async move {
            match tokio::time::timeout(timeout, answered).await {
                Ok(Ok(mut result)) => {
                    result.id = id;
                    result
                }
                Ok(Err(_)) => {
                    failed(id, "the agent dropped the command (the plugin stopped, or the agent shuts down)")
                }
                Err(_) => failed(id, "the plugin did not answer in time"),
            }
        });
        None
    }

    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// The next answer; waits for ever when nothing runs.
    pub async fn next(&mut self) -> v1::CommandResult {
        loop {
            match self.running.join_next().await {
                Some(Ok(result)) => return result,
                // Only a stopped runtime ends such a task otherwise.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

fn failed(id: u64, why: &str) -> v1::CommandResult {
    v1::CommandResult { id, result: Some(Outcome::Error(why.to_owned())) }
}
