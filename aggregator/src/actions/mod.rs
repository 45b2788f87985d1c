//! What the fleet is told to do: plans that were shown, who agreed to them, and what came of them.
//!
//! The nodes decide by their own grants and limits; here stands what only the fleet can know: how much is done at a time
//! and an hour, on how many nodes, whether all of it is stopped, and who may. Every word of it goes into the audit log
//! before it is passed on. What a node reports of an execution is taken in the order of its revisions, so a report that
//! comes again or late changes nothing.

mod fleet;
mod reports;
mod store;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use picket_proto::model::NodeId;
use picket_proto::v1;
use serde_json::{Value, json};

pub use fleet::{Bounds, Limited};
pub use reports::Reports;
pub use store::{Query, Record, StoreError};

use crate::audit::{Audit, AuditError, Entry};
use crate::clock::{Clock, millis};
use crate::identity::secret::generate_id;
use crate::ingest::{CommandError, UplinkService};
use store::Store;

/// An apply that no report has spoken of after this long was never let in.
const LOST_AFTER_MS: i64 = 60_000;

/// How the fleet's side is set up.
#[derive(Debug, Clone)]
pub struct Options {
    pub bounds: Bounds,
    /// How long a plan may be applied after it was shown.
    pub plan_ttl: Duration,
    pub clock: Clock,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    pub name: &'a str,
    pub role: &'a str,
    pub is_admin: bool,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    #[error("there is no action {0}")]
    Unknown(String),
    /// The caller's to mend: the text says how.
    #[error("{message}")]
    Refused { reason: String, message: String },
    #[error(transparent)]
    Limited(#[from] Limited),
    #[error("{0} of the node's own: {1}")]
    Node(String, String),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("nothing was done, for it could not be written down: {0}")]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a task was lost: {0}")]
    Lost(String),
}

/// What is wanted of a node.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    pub plugin: String,
    pub action: String,
    #[serde(default)]
    pub parameters: serde_json::Map<String, Value>,
}

/// Cheap to share; one for the process.
pub struct Actions {
    options: Options,
    store: Store,
    audit: Arc<Audit>,
    ingest: OnceLock<UplinkService>,
    /// What each node said last of its action plugins.
    catalogue: Mutex<HashMap<NodeId, Catalogue>>,
    reports: Reports,
    /// One is let in at a time, so that two don't pass the same limit.
    door: tokio::sync::Mutex<()>,
}

/// A node's actions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalogue {
    pub enabled: bool,
    pub plugins: Vec<v1::ActionPlugin>,
}

impl Actions {
    /// Opens `actions.db` in the folder. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn open(folder: &Path, audit: Arc<Audit>, options: Options) -> Result<Arc<Self>, StoreError> {
        let store = Store::open(&folder.join("actions.db"))?;
        Ok(Arc::new(Self {
            options,
            store,
            audit,
            ingest: OnceLock::new(),
            catalogue: Mutex::default(),
            reports: Reports::default(),
            door: tokio::sync::Mutex::default(),
        }))
    }

    /// Where commands go. Said once.
    pub fn connect(&self, ingest: UplinkService) {
        let _ = self.ingest.set(ingest);
    }

    /// Where what nodes report comes in.
    pub fn reports(&self) -> &Reports {
        &self.reports
    }

    pub fn audit(&self) -> &Arc<Audit> {
        &self.audit
    }

    /// What a node offers; none where it never said.
    pub fn catalogue(&self, node: &NodeId) -> Option<Catalogue> {
        self.catalogue.lock().unwrap_or_else(PoisonError::into_inner).get(node).cloned()
    }

    /// Has a node plan, and keeps what it showed.
    ///
    /// # Errors
    /// [`ActionError`]
    pub async fn plan(
        self: &Arc<Self>,
        who: Asker<'_>,
        node: &NodeId,
        wish: Wish,
    ) -> Result<Record, ActionError> {
        let parameters = Value::Object(wish.parameters).to_string();
        let command = v1::command::Command::ActionPlan(v1::ActionPlan {
            plugin: wish.plugin.clone(),
            action: wish.action.clone(),
            parameters_json: parameters.clone(),
        });
        let answer = match self.ask(node, command).await {
            Ok(answer) => answer,
            Err(error) => {
                let message = format!("{} of {}: {error}", wish.action, wish.plugin);
                let details = json!({ "parameters": parsed(&parameters) });
                self.tell(who, "action.plan-refused", node, "", message, details).await?;
                return Err(error);
            }
        };
        let now = self.options.clock.now_ms();
        let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
        let record = Record {
            id: id()?,
            node: node.to_string(),
            plugin: wish.plugin,
            action: wish.action,
            parameters,
            digest: text("digest"),
            dangerous: answer["dangerous"].as_bool().unwrap_or(true),
            reversible: answer["reversible"].as_bool().unwrap_or(false),
            state: "planned".to_owned(),
            message: String::new(),
            plan: answer.to_string(),
            steps: "[]".to_owned(),
            revision: 0,
            planned_ms: now,
            planned_by: who.name.to_owned(),
            expires_ms: now.saturating_add(millis(self.options.plan_ttl)),
            ..Record::default()
        };
        if record.digest.len() != 64 {
            let message = "the node's plan has no digest: its agent is of another version".to_owned();
            return Err(ActionError::Refused { reason: "node".to_owned(), message });
        }
        let message = format!("{} of {} was planned", record.action, record.plugin);
        let details = json!({ "digest": record.digest, "parameters": parsed(&record.parameters) });
        self.tell(who, "action.planned", node, &record.id, message, details).await?;
        self.put(record).await
    }

    /// An admin agrees to what is dangerous.
    ///
    /// # Errors
    /// [`ActionError`]
    pub async fn approve(
        self: &Arc<Self>,
        who: Asker<'_>,
        id: &str,
        digest: &str,
    ) -> Result<Record, ActionError> {
        let _door = self.door.lock().await;
        let mut record = self.get(id).await?;
        self.check_plan(&record, digest)?;
        let node = node_of(&record)?;
        let details = json!({ "digest": record.digest });
        self.tell(who, "action.approved", &node, id, "approved".to_owned(), details).await?;
        record.approved_by = Some(who.name.to_owned());
        record.approved_ms = Some(self.options.clock.now_ms());
        self.put(record).await
    }

    /// Has a node do what was planned.
    ///
    /// # Errors
    /// [`ActionError`]
    pub async fn apply(
        self: &Arc<Self>,
        who: Asker<'_>,
        node: &NodeId,
        id: &str,
        digest: &str,
        timeout: Option<Duration>,
    ) -> Result<Record, ActionError> {
        let _door = self.door.lock().await;
        let mut record = self.get(id).await?;
        let let_in = self.let_in(who, node, &record, digest).await;
        if let Err(error) = let_in {
            let details = json!({ "digest": digest.chars().take(64).collect::<String>() });
            self.tell(who, "action.apply-refused", node, id, error.to_string(), details).await?;
            return Err(error);
        }
        let approved_by = record.approved_by.clone().or_else(|| who.is_admin.then(|| who.name.to_owned()));
        let details = json!({ "digest": record.digest, "approved_by": approved_by, "plan": parsed(&record.plan)["steps"] });
        let message = format!("{} of {} is told to the node", record.action, record.plugin);
        self.tell(who, "action.applied", node, id, message, details).await?;
        record.state = "sent".to_owned();
        record.applied_by = Some(who.name.to_owned());
        record.applied_ms = Some(self.options.clock.now_ms());
        record.approved_by.clone_from(&approved_by);
        let record = self.put(record).await?;
        let command = v1::command::Command::ActionApply(v1::ActionApply {
            execution: record.id.clone(),
            plugin: record.plugin.clone(),
            action: record.action.clone(),
            parameters_json: record.parameters.clone(),
            digest: record.digest.clone(),
            requested_by: who.name.to_owned(),
            approved_by: approved_by.unwrap_or_default(),
            timeout_seconds: timeout.map_or(0, |t| u32::try_from(t.as_secs()).unwrap_or(u32::MAX)),
        });
        match self.ask(node, command).await {
            Ok(_) => self.get(id).await,
            // Whether it was let in, the node's report tells.
            Err(
                error @ ActionError::Command(CommandError::Timeout { .. } | CommandError::Disconnected(_)),
            ) => Err(error),
            Err(error) => {
                self.refused(who, node, id, &error).await?;
                Err(error)
            }
        }
    }

    /// Has a node undo what it did.
    ///
    /// # Errors
    /// [`ActionError`]
    pub async fn revert(self: &Arc<Self>, who: Asker<'_>, id: &str) -> Result<Record, ActionError> {
        let record = self.get(id).await?;
        let node = node_of(&record)?;
        if self.store.breaker()?.is_some() && !who.is_admin {
            return Err(Limited::Breaker.into());
        }
        let command = v1::command::Command::ActionRevert(v1::ActionRevert {
            execution: id.to_owned(),
            requested_by: who.name.to_owned(),
            timeout_seconds: 0,
        });
        self.order(who, &node, id, ["action.revert", "action.revert-refused", "is to be undone"], command)
            .await
    }

    /// Has a node begin no further step of what it does. Also while all is stopped.
    ///
    /// # Errors
    /// [`ActionError`]
    pub async fn cancel(
        self: &Arc<Self>,
        who: Asker<'_>,
        node: &NodeId,
        id: &str,
    ) -> Result<Record, ActionError> {
        let record = self.get(id).await?;
        if record.node != node.as_str() {
            return Err(refused("node", format!("{id} is of {}, not of {node}", record.node)));
        }
        if record.applied_ms.is_none() {
            return Err(refused("state", format!("{id} was never applied: there is nothing to cancel")));
        }
        let command = v1::command::Command::ActionCancel(v1::ActionCancel {
            execution: id.to_owned(),
            requested_by: who.name.to_owned(),
        });
        self.order(who, node, id, ["action.cancel", "action.cancel-refused", "is to be cancelled"], command)
            .await
    }

    /// Tells a node something of what it was told to do before. `words`: the events of it and of a no, and what is wanted.
    async fn order(
        self: &Arc<Self>,
        who: Asker<'_>,
        node: &NodeId,
        id: &str,
        [event, no, wanted]: [&'static str; 3],
        command: v1::command::Command,
    ) -> Result<Record, ActionError> {
        self.tell(who, event, node, id, wanted.to_owned(), Value::Null).await?;
        match self.ask(node, command).await {
            Ok(_) => self.get(id).await,
            Err(error) => {
                self.tell(who, no, node, id, error.to_string(), Value::Null).await?;
                Err(error)
            }
        }
    }

    /// Stops all that is not begun yet, on the whole fleet, until it is closed again; it survives a restart.
    ///
    /// # Errors
    /// [`ActionError`]
    pub async fn set_breaker(
        self: &Arc<Self>,
        who: Asker<'_>,
        open: Option<String>,
    ) -> Result<(), ActionError> {
        let event = if open.is_some() { "actions.paused" } else { "actions.resumed" };
        let message = open.clone().unwrap_or_default();
        self.append(who, event, "", "", message, Value::Null).await?;
        let this = Arc::clone(self);
        let by = who.name.to_owned();
        blocking(move || this.store.set_breaker(open.as_deref().map(|why| (why, by.as_str())))).await
    }

    /// Why all is stopped, where it is.
    ///
    /// # Errors
    /// [`ActionError`]
    pub fn breaker(&self) -> Result<Option<Value>, ActionError> {
        Ok(self.store.breaker()?)
    }

    /// # Errors
    /// [`ActionError`]
    pub async fn get(self: &Arc<Self>, id: &str) -> Result<Record, ActionError> {
        let (this, wanted) = (Arc::clone(self), id.to_owned());
        let found = blocking(move || this.store.get(&wanted)).await?;
        found.ok_or_else(|| ActionError::Unknown(id.chars().take(64).collect()))
    }

    /// Newest first.
    ///
    /// # Errors
    /// [`ActionError`]
    pub async fn list(self: &Arc<Self>, query: Query) -> Result<Vec<Record>, ActionError> {
        let this = Arc::clone(self);
        blocking(move || this.store.list(&query)).await
    }

    /// All that speaks against it here; the node has its own word.
    async fn let_in(
        self: &Arc<Self>,
        who: Asker<'_>,
        node: &NodeId,
        record: &Record,
        digest: &str,
    ) -> Result<(), ActionError> {
        if record.node != node.as_str() {
            let message = format!("{} was planned on {}, not on {node}", record.id, record.node);
            return Err(refused("node", message));
        }
        self.check_plan(record, digest)?;
        if record.dangerous && record.approved_by.is_none() && !who.is_admin {
            let message = format!(
                "{} of {} is dangerous: an admin has to approve it first (picket action approve {} --digest …)",
                record.action, record.plugin, record.id
            );
            return Err(refused("approval", message));
        }
        let this = Arc::clone(self);
        let node = node.clone();
        let connected =
            self.ingest.get().map_or(0, |ingest| ingest.nodes().iter().filter(|n| n.connected).count());
        let (bounds, now) = (self.options.bounds, self.options.clock.now_ms());
        let seen = blocking(move || this.store.seen(now)).await?;
        fleet::check(bounds, &seen, connected, node.as_str())?;
        Ok(())
    }

    fn check_plan(&self, record: &Record, digest: &str) -> Result<(), ActionError> {
        if record.state != "planned" {
            return Err(refused("state", format!("{} is {}: plan anew", record.id, record.state)));
        }
        if record.digest != digest {
            let message = format!(
                "the digest is not that of the plan {}: look at the plan, and give the digest that stands there",
                record.id
            );
            return Err(refused("digest", message));
        }
        if self.options.clock.now_ms() > record.expires_ms {
            return Err(refused("expired", format!("the plan {} is too old: plan anew", record.id)));
        }
        Ok(())
    }

    /// The node did not let it in.
    async fn refused(
        self: &Arc<Self>,
        who: Asker<'_>,
        node: &NodeId,
        id: &str,
        error: &ActionError,
    ) -> Result<(), ActionError> {
        let message = error.to_string();
        let mut record = self.get(id).await?;
        if record.state == "sent" {
            record.state = "refused".to_owned();
            record.message.clone_from(&message);
            record.ended_ms = Some(self.options.clock.now_ms());
            self.put(record).await?;
        }
        self.tell(who, "action.refused", node, id, message, Value::Null).await
    }

    /// A command's answer; what the node refused is an error.
    async fn ask(&self, node: &NodeId, command: v1::command::Command) -> Result<Value, ActionError> {
        use v1::command_result::Result as Answer;
        let Some(ingest) = self.ingest.get() else {
            return Err(CommandError::NotConnected(node.clone()).into());
        };
        match ingest.command(node, command).await? {
            Answer::Json(text) => {
                let answer: Value = serde_json::from_str(&text)
                    .map_err(|e| ActionError::Node("an answer that is no JSON".to_owned(), e.to_string()))?;
                match answer.get("refused") {
                    Some(no) => {
                        let text =
                            |key: &str| no[key].as_str().unwrap_or_default().chars().take(4096).collect();
                        Err(ActionError::Refused { reason: text("reason"), message: text("message") })
                    }
                    None => Ok(answer),
                }
            }
            Answer::Refused(lines) => Err(refused("node", lines.lines.join("; "))),
            Answer::Error(message) => Err(ActionError::Node("an error".to_owned(), message)),
        }
    }

    async fn put(self: &Arc<Self>, record: Record) -> Result<Record, ActionError> {
        let this = Arc::clone(self);
        blocking(move || this.store.put(&record).map(|()| record)).await
    }

    async fn tell(
        self: &Arc<Self>,
        who: Asker<'_>,
        event: &'static str,
        node: &NodeId,
        subject: &str,
        message: String,
        details: Value,
    ) -> Result<(), ActionError> {
        self.append(who, event, node.as_str(), subject, message, details).await
    }

    async fn append(
        self: &Arc<Self>,
        who: Asker<'_>,
        event: &'static str,
        node: &str,
        subject: &str,
        message: String,
        details: Value,
    ) -> Result<(), ActionError> {
        let audit = Arc::clone(&self.audit);
        let (actor, role) = (who.name.to_owned(), who.role.to_owned());
        let (node, subject) = (node.to_owned(), subject.to_owned());
        blocking(move || {
            audit.append(&Entry {
                actor: &actor,
                role: &role,
                event,
                node: &node,
                subject: &subject,
                message: &message,
                details,
            })
        })
        .await
    }
}

fn refused(reason: &str, message: String) -> ActionError {
    ActionError::Refused { reason: reason.to_owned(), message }
}

fn parsed(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_default()
}

fn node_of(record: &Record) -> Result<NodeId, ActionError> {
    NodeId::new(&record.node).map_err(|e| refused("node", e.to_string()))
}

fn id() -> Result<String, ActionError> {
    generate_id().map_err(|e| ActionError::Lost(e.to_string()))
}

async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, ActionError>
where
    T: Send + 'static,
    E: Into<ActionError> + Send + 'static,
{
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| ActionError::Lost(e.to_string()))?.map_err(Into::into)
}
