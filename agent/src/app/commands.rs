//! What an operator asks of this node by way of the aggregator.

use std::sync::Arc;
use std::time::Duration;

use picket_proto::v1::{self, command, command_result};
use tokio::sync::{Semaphore, mpsc};

use crate::actions::{Actions, Apply, Refused};
use crate::schedule::{Control, ControlError, Schedule};
use crate::uplink::CommandCall;

/// Commands that are worked on at a time.
const AT_ONCE: usize = 4;

/// Answers each command; ends with the uplink.
pub async fn serve(schedule: Schedule, actions: Actions, mut commands: mpsc::Receiver<CommandCall>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    while let Some((command, reply)) = commands.recv().await {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (schedule, actions) = (schedule.clone(), actions.clone());
        tokio::spawn(async move {
            let _place = place;
            let result = answer(&schedule, &actions, command.command).await;
            // The stream that asked may be gone.
            let _ = reply.send(v1::CommandResult { id: command.id, result: Some(result) });
        });
    }
}

async fn answer(
    schedule: &Schedule,
    actions: &Actions,
    command: Option<command::Command>,
) -> command_result::Result {
    use command_result::Result as Answer;
    let (plugin, what) = match command {
        Some(command::Command::ControlGet(get)) => (get.plugin, Control::Get),
        Some(command::Command::ControlSet(set)) => (set.plugin, Control::Set(set.settings_json)),
        Some(command::Command::ActionPlan(plan)) => {
            return told(actions.plan(&plan.plugin, &plan.action, &plan.parameters_json).await);
        }
        Some(command::Command::ActionApply(apply)) => {
            let timeout = Duration::from_secs(apply.timeout_seconds.into());
            return told(
                actions
                    .apply(Apply {
                        execution: apply.execution,
                        plugin: apply.plugin,
                        action: apply.action,
                        parameters: apply.parameters_json,
                        digest: apply.digest,
                        requested_by: apply.requested_by,
                        approved_by: apply.approved_by,
                        timeout,
                    })
                    .await,
            );
        }
        Some(command::Command::ActionRevert(revert)) => {
            return told(actions.revert(&revert.execution, &revert.requested_by).await);
        }
        Some(command::Command::ActionCancel(cancel)) => {
            return told(actions.cancel(&cancel.execution, &cancel.requested_by).await);
        }
        None => {
            return Answer::Error(
                "this agent does not know the command; it may be older than the aggregator".to_owned(),
            );
        }
    };
    let plugin = Some(plugin).filter(|plugin| !plugin.is_empty());
    match schedule.control(plugin.as_deref(), what).await {
        Ok(json) => Answer::Json(json),
        Err(ControlError::Refused(lines)) => Answer::Refused(v1::Refused { lines }),
        Err(error) => Answer::Error(error.to_string()),
    }
}

/// What was done, or `{"refused": {"reason", "message"}}`: both are answers.
fn told(done: Result<serde_json::Value, Refused>) -> command_result::Result {
    let json = match done {
        Ok(told) => told,
        Err(no) => serde_json::json!({ "refused": { "reason": no.reason, "message": no.message } }),
    };
    command_result::Result::Json(json.to_string())
}
