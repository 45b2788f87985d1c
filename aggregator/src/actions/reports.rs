//! What nodes report of their actions. A stream hands a report over and goes on; one task takes them in, the last one of
//! each node.

use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use picket_proto::model::NodeId;
use picket_proto::v1;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{ActionError, Actions, Asker, Catalogue, LOST_AFTER_MS, Record, blocking};
use crate::ingest::ActionSink;

/// What is kept of a report.
const MAX_EXECUTIONS: usize = 64;
const MAX_STEPS: usize = 64;
const MAX_PLUGINS: usize = 64;
const MAX_TEXT: usize = 4096;
const MAX_ACTIONS: usize = 256 << 10;
const STATES: [&str; 9] = [
    "running",
    "succeeded",
    "failed",
    "unknown",
    "expired",
    "cancelled",
    "reverting",
    "reverted",
    "revert-failed",
];

/// Reports that wait: one a node, so that no node can fill it.
#[derive(Default)]
pub struct Reports {
    waiting: Mutex<HashMap<NodeId, v1::ActionReport>>,
    some: Notify,
}

impl Reports {
    fn take(&self, node: &NodeId, report: v1::ActionReport) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(node.clone(), report);
        self.some.notify_one();
    }

    fn next(&self) -> Vec<(NodeId, v1::ActionReport)> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).drain().collect()
    }
}

impl ActionSink for Actions {
    fn take(&self, node: &NodeId, report: v1::ActionReport) {
        self.reports.take(node, report);
    }
}

impl Actions {
    /// Takes reports in until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.reports.some.notified() => {}
            }
            for (node, report) in self.reports.next() {
                if let Err(error) = self.reported(&node, report).await {
                    tracing::error!(%node, %error, "what the node reports of its actions was not kept");
                }
            }
        }
    }

    pub(super) async fn reported(
        self: &Arc<Self>,
        node: &NodeId,
        report: v1::ActionReport,
    ) -> Result<(), ActionError> {
        let v1::ActionReport { enabled, plugins, executions } = report;
        let plugins = plugins.into_iter().filter(|p| p.actions_json.len() <= MAX_ACTIONS).take(MAX_PLUGINS);
        let catalogue = Catalogue { enabled, plugins: plugins.collect() };
        self.catalogue.lock().unwrap_or_else(PoisonError::into_inner).insert(node.clone(), catalogue);
        for execution in executions.iter().rev().take(MAX_EXECUTIONS) {
            self.progress(node, execution).await?;
        }
        // What was sent a while ago and is not among them was never let in.
        let (this, name) = (Arc::clone(self), node.to_string());
        let open = blocking(move || this.store.open_on(&name)).await?;
        let now = self.options.clock.now_ms();
        for mut record in open {
            let known = executions.iter().any(|e| e.execution == record.id);
            let age = now.saturating_sub(record.applied_ms.unwrap_or(now));
            if record.state == "sent" && !known && age > LOST_AFTER_MS {
                record.state = "lost".to_owned();
                record.message = "the node never let it in".to_owned();
                record.ended_ms = Some(now);
                self.told(node, &record).await?;
                self.put(record).await?;
            }
        }
        Ok(())
    }

    async fn progress(self: &Arc<Self>, node: &NodeId, e: &v1::ActionExecution) -> Result<(), ActionError> {
        let mut record = match self.get(&e.execution).await {
            Ok(record) => record,
            // Of another aggregator's life; or a node that makes them up.
            Err(ActionError::Unknown(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let ours = record.node == node.as_str() && record.applied_ms.is_some();
        if !ours || e.revision <= record.revision || !STATES.contains(&e.state.as_str()) {
            return Ok(());
        }
        let turned = record.state != e.state;
        record.revision = e.revision;
        record.state.clone_from(&e.state);
        record.message = bounded(&e.message);
        let steps: Vec<Value> = e
            .steps
            .iter()
            .take(MAX_STEPS)
            .map(|s| json!({ "state": bounded(&s.state), "message": bounded(&s.message) }))
            .collect();
        record.steps = Value::Array(steps).to_string();
        record.ended_ms = (e.ended_ms > 0).then(|| self.options.clock.now_ms());
        if turned {
            self.told(node, &record).await?;
        }
        self.put(record).await.map(drop)
    }

    /// A new state goes into the audit log, in the node's own name.
    async fn told(self: &Arc<Self>, node: &NodeId, record: &Record) -> Result<(), ActionError> {
        let event = match record.state.as_str() {
            "running" => "action.running",
            "succeeded" => "action.succeeded",
            "reverting" => "action.reverting",
            "reverted" => "action.reverted",
            "lost" => "action.lost",
            "unknown" => "action.unknown",
            _ => "action.failed",
        };
        let name = format!("node:{node}");
        let who = Asker { name: &name, role: "node", is_admin: false };
        let details = json!({ "steps": super::parsed(&record.steps) });
        self.tell(who, event, node, &record.id, record.message.clone(), details).await
    }
}

fn bounded(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_TEXT);
    text.get(..end).unwrap_or_default().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
