//! Central rollout: a plugin is pulled from a registry, judged, kept by its digest, and offered to nodes by their labels,
//! stage by stage.
//!
//! The nodes decide: each judges what it is offered by its own policy and grants, tries it beside what runs, and keeps what ran
//! where it fails. Here is decided who is told when ([`machine`]), and all of it is written down, in the audit log and in
//! `STATE/rollouts.db`, before anybody is told. What is offered follows from what is written down, so an aggregator that
//! ends at any point goes on where it was.

mod artifacts;
mod machine;
mod plan;
mod source;
mod steps;
mod store;
mod telemetry;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use hashbrown::HashMap;
use picket_artifact::{Evidence, PolicyError, Untrusted};
use picket_proto::model::{InvalidName, NodeId, PluginId};
use picket_proto::v1;
use picket_registry::RegistryError;
use serde_json::{Value, json};
use tokio::sync::Notify;

pub use artifacts::ArtifactError;
pub use machine::Phase;
pub use plan::{NodeSelector, Plan, PlanError, Stage};
pub use store::{Rollout, StoreError};
pub use telemetry::describe as describe_metrics;

use crate::actions::Asker;
use crate::audit::{Audit, AuditError, Entry};
use crate::clock::{Clock, millis};
use crate::config::{Registry, Rollout as Settings};
use crate::identity::secret::generate_id;
use crate::ingest::UplinkService;
use crate::store::lock;
use artifacts::Artifacts;
use machine::{Machine, State};
use store::Store;

/// Rollouts that something can still come of.
const MAX_LIVE: usize = 256;
/// A plugin is pulled within this time, so that whoever asked hears of it.
const PULL_WITHIN: Duration = Duration::from_secs(25);
const SOAK: Duration = Duration::from_secs(300);
const TIMEOUT: Duration = Duration::from_secs(600);
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    #[error("there is no rollout {0}")]
    Unknown(String),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("{key} must lie between {least:?} and {most:?}")]
    Time { key: &'static str, least: Duration, most: Duration },
    #[error("{0}")]
    Name(#[from] InvalidName),
    #[error(
        "this aggregator gets no plugins from {0}: its configuration names no such registry; add [[rollout.registries]] with \
         host = \"{0}\""
    )]
    NoRegistry(String),
    #[error("the plugin was not pulled: {0}")]
    Registry(#[from] RegistryError),
    #[error("the registry did not give the plugin within {} s", PULL_WITHIN.as_secs())]
    Slow,
    #[error("the aggregator's policy cannot be used: {0}")]
    Policy(#[from] PolicyError),
    #[error("{} {what} is not trusted: {source}{}. {}", .source.code(), no_policy(.missing.as_deref()), .source.advice())]
    Untrusted { what: String, source: Box<Untrusted>, missing: Option<PathBuf> },
    #[error("the rollout {id} of {plugin} is {phase}: {advice}")]
    Busy { id: String, plugin: String, phase: &'static str, advice: &'static str },
    #[error(
        "no node that this aggregator knows matches the selector {0:?}; see `picket nodes`, and the labels in `picket node show`"
    )]
    NoNode(String),
    #[error("{0} rollouts are there of which something can still come, more are not allowed")]
    TooMany(usize),
    #[error(
        "{0} are revoked by the aggregator's policy: these nodes ran what may run no more, give them another version instead"
    )]
    RevokedFormer(String),
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error("nothing was done, for it could not be written down: {0}")]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a task was lost: {0}")]
    Lost(String),
}

fn no_policy(missing: Option<&Path>) -> String {
    missing.map_or_else(String::new, |path| {
        format!(", and there is no policy at {} that would trust anybody", path.display())
    })
}

/// What is to be rolled out.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// HOST/REPOSITORY:TAG or HOST/REPOSITORY@sha256:DIGEST
    pub reference: String,
    /// The plugin's name in the nodes' configuration.
    pub plugin: String,
    #[serde(default)]
    pub selector: String,
    #[serde(default = "default_stages")]
    pub stages: String,
    pub soak: Option<String>,
    pub timeout: Option<String>,
    #[serde(default)]
    pub max_failures: usize,
}

fn default_stages() -> String {
    "1,10%,all".to_owned()
}

/// Cheap to share; one for the process.
pub struct Rollouts {
    settings: Settings,
    clock: Clock,
    store: Store,
    artifacts: Artifacts,
    audit: Arc<Audit>,
    ingest: OnceLock<UplinkService>,
    /// As they are written down.
    all: Mutex<BTreeMap<String, Rollout>>,
    /// What each node said last of what it was offered.
    said: Mutex<HashMap<NodeId, Vec<v1::OfferState>>>,
    /// What each node is offered; a node without an offer is not in it.
    offered: Mutex<HashMap<NodeId, v1::PluginOffers>>,
    evidence: Mutex<HashMap<String, Evidence>>,
    policy: source::PolicyFile,
    wake: Notify,
    /// One change at a time.
    door: tokio::sync::Mutex<()>,
    /// One pull at a time: each may take a plugin's size of memory.
    pulls: tokio::sync::Mutex<()>,
}

impl Rollouts {
    /// Opens `rollouts.db` and the folder `rollouts` in the state folder. Blocks on the disk.
    ///
    /// # Errors
    /// [`RolloutError`]
    pub fn open(
        folder: &Path,
        settings: Settings,
        audit: Arc<Audit>,
        clock: Clock,
    ) -> Result<Arc<Self>, RolloutError> {
        let store = Store::open(&folder.join("rollouts.db"))?;
        let artifacts = Artifacts::open(folder.join("rollouts"), settings.max_size.as_u64())?;
        let mut all = BTreeMap::new();
        for mut rollout in store.load()? {
            rollout.machine.resumed(clock.now_ms());
            all.insert(rollout.id.clone(), rollout);
        }
        let policy = source::PolicyFile::new(settings.policy.clone());
        let rollouts = Self {
            settings,
            clock,
            store,
            artifacts,
            audit,
            ingest: OnceLock::new(),
            all: Mutex::new(all),
            said: Mutex::default(),
            offered: Mutex::default(),
            evidence: Mutex::default(),
            policy,
            wake: Notify::new(),
            door: tokio::sync::Mutex::default(),
            pulls: tokio::sync::Mutex::default(),
        };
        rollouts.clear();
        rollouts.publish();
        Ok(Arc::new(rollouts))
    }

    /// Where offers go. Said once.
    pub fn connect(&self, ingest: UplinkService) {
        let _ = self.ingest.set(ingest);
    }

    /// Pulls, judges, keeps, and begins. Goes on where the caller goes away.
    ///
    /// # Errors
    /// [`RolloutError`]
    pub async fn start(self: &Arc<Self>, who: Asker<'_>, wish: Wish) -> Result<Rollout, RolloutError> {
        let (this, by) = (Arc::clone(self), Who::of(who));
        spawned(async move {
            let plugin = wish.plugin.clone();
            match this.begin(&by, wish).await {
                Ok(rollout) => Ok(rollout),
                Err(error) => {
                    let details = json!({ "plugin": plugin });
                    this.tell(by, "rollout.refused", String::new(), error.to_string(), details).await?;
                    Err(error)
                }
            }
        })
        .await
    }

    async fn begin(self: &Arc<Self>, who: &Who, wish: Wish) -> Result<Rollout, RolloutError> {
        let plugin = PluginId::new(&wish.plugin)?;
        let selector: NodeSelector = wish.selector.parse()?;
        let plan = Plan {
            stages: Stage::list(&wish.stages)?,
            soak_ms: time("soak", wish.soak.as_deref(), SOAK, Duration::ZERO)?,
            timeout_ms: time("timeout", wish.timeout.as_deref(), TIMEOUT, Duration::from_secs(10))?,
            max_failures: wish.max_failures,
        };
        let found = self.fetch(&plugin, &wish.reference).await?;
        let _door = self.door.lock().await;
        self.may_begin(&plugin, &selector)?;
        let now = self.clock.now_ms();
        let digest = found.digest.to_string();
        let rollout = Rollout {
            id: id()?,
            plugin: plugin.to_string(),
            reference: wish.reference,
            resolved: found.resolved.clone(),
            version: found.version.clone(),
            signed_by: found.signed_by.clone(),
            size: found.component.len() as u64,
            selector,
            created_ms: now,
            created_by: who.name.clone(),
            changed_ms: now,
            machine: Machine::new(plan, digest),
        };
        let this = Arc::clone(self);
        blocking(move || this.artifacts.keep(&found.digest, &found.component, &found.evidence)).await?;
        let message = format!(
            "{} {} (sha256 {}) is rolled out as {plugin}",
            rollout.reference, rollout.version, rollout.machine.digest
        );
        let details = rollout.json(false);
        self.tell(who.clone(), "rollout.started", rollout.id.clone(), message, details).await?;
        for mut former in self.list(Some(plugin.as_str())) {
            if former.machine.phase.is_live() {
                former.machine.phase = Phase::Superseded;
                former.machine.reason = format!("{} took its place", rollout.id);
                self.put(former, BTreeSet::new()).await?;
            }
        }
        self.put(rollout.clone(), BTreeSet::new()).await?;
        let this = Arc::clone(self);
        blocking(move || {
            this.clear();
            Ok::<_, RolloutError>(())
        })
        .await?;
        self.publish();
        self.wake.notify_one();
        Ok(rollout)
    }

    fn may_begin(&self, plugin: &PluginId, selector: &NodeSelector) -> Result<(), RolloutError> {
        let all = self.list(None);
        let busy = all.iter().find(|r| {
            r.plugin == plugin.as_str() && matches!(r.machine.phase, Phase::Running | Phase::Reverting)
        });
        if let Some(busy) = busy {
            return Err(RolloutError::Busy {
                id: busy.id.clone(),
                plugin: busy.plugin.clone(),
                phase: busy.machine.phase.word(),
                advice: "pause it before you begin another one, or let it end",
            });
        }
        let live = all.iter().filter(|r| r.machine.phase.is_live()).count();
        if live >= MAX_LIVE {
            return Err(RolloutError::TooMany(live));
        }
        if self.fleet(plugin.as_str(), selector, "").is_empty() {
            return Err(RolloutError::NoNode(selector.to_string()));
        }
        Ok(())
    }

    /// Nobody else is told until it goes on.
    ///
    /// # Errors
    /// [`RolloutError`]
    pub async fn pause(
        self: &Arc<Self>,
        who: Asker<'_>,
        id: &str,
        reason: &str,
    ) -> Result<Rollout, RolloutError> {
        let reason = reason.to_owned();
        let done = move |machine: &mut Machine, _| machine.pause(&reason);
        self.change(who, id, "rollout.paused", "only what runs or is complete can be paused", done).await
    }

    /// Goes on; nodes that failed are told again.
    ///
    /// # Errors
    /// [`RolloutError`]
    pub async fn resume(self: &Arc<Self>, who: Asker<'_>, id: &str) -> Result<Rollout, RolloutError> {
        let rollout = self.get(id)?;
        let this = Arc::clone(self);
        blocking(move || this.judge_again(&rollout)).await?;
        let advice = "only what is paused or halted goes on";
        self.change(who, id, "rollout.resumed", advice, Machine::resume).await
    }

    /// All nodes that were told run what they ran before.
    ///
    /// # Errors
    /// [`RolloutError`]
    pub async fn roll_back(self: &Arc<Self>, who: Asker<'_>, id: &str) -> Result<Rollout, RolloutError> {
        let rollout = self.get(id)?;
        let this = Arc::clone(self);
        blocking(move || this.check_former(&rollout)).await?;
        let advice = "it was rolled back, or another one took its place";
        self.change(who, id, "rollout.rollback", advice, Machine::roll_back).await
    }

    async fn change(
        self: &Arc<Self>,
        who: Asker<'_>,
        id: &str,
        event: &'static str,
        advice: &'static str,
        change: impl FnOnce(&mut Machine, i64) -> bool + Send + 'static,
    ) -> Result<Rollout, RolloutError> {
        let (this, by, id) = (Arc::clone(self), Who::of(who), id.to_owned());
        spawned(async move {
            let _door = this.door.lock().await;
            let mut rollout = this.get(&id)?;
            let before: BTreeSet<String> = rollout.machine.agents.keys().cloned().collect();
            let phase = rollout.machine.phase.word();
            if !change(&mut rollout.machine, this.clock.now_ms()) {
                let plugin = rollout.plugin;
                return Err(RolloutError::Busy { id, plugin, phase, advice });
            }
            let message = format!("the rollout of {} was {phase}", rollout.plugin);
            this.tell(by, event, id, message, rollout.json(false)).await?;
            let rollout = this.put(rollout, before).await?;
            this.publish();
            this.wake.notify_one();
            Ok(rollout)
        })
        .await
    }

    /// # Errors
    /// [`RolloutError::Unknown`]
    pub fn get(&self, id: &str) -> Result<Rollout, RolloutError> {
        let unknown = || RolloutError::Unknown(id.chars().take(64).collect());
        lock(&self.all).get(id).cloned().ok_or_else(unknown)
    }

    /// Newest first.
    pub fn list(&self, plugin: Option<&str>) -> Vec<Rollout> {
        let all = lock(&self.all);
        let mut list: Vec<Rollout> =
            all.values().filter(|r| plugin.is_none_or(|plugin| r.plugin == plugin)).cloned().collect();
        list.sort_by(|a, b| (b.created_ms, &b.id).cmp(&(a.created_ms, &a.id)));
        list
    }

    /// Writes a rollout down, with all of its agents and those of `before`.
    async fn put(
        self: &Arc<Self>,
        mut rollout: Rollout,
        mut changed: BTreeSet<String>,
    ) -> Result<Rollout, RolloutError> {
        rollout.changed_ms = self.clock.now_ms();
        changed.extend(rollout.machine.agents.keys().cloned());
        self.put_some(rollout, changed).await
    }

    /// Writes a rollout down, with these of its agents.
    async fn put_some(
        self: &Arc<Self>,
        rollout: Rollout,
        changed: BTreeSet<String>,
    ) -> Result<Rollout, RolloutError> {
        let this = Arc::clone(self);
        let rollout = blocking(move || this.store.put(&rollout, &changed).map(|()| rollout)).await?;
        lock(&self.all).insert(rollout.id.clone(), rollout.clone());
        Ok(rollout)
    }

    async fn tell(
        self: &Arc<Self>,
        who: Who,
        event: &'static str,
        subject: String,
        message: String,
        details: Value,
    ) -> Result<(), RolloutError> {
        let audit = Arc::clone(&self.audit);
        blocking(move || {
            let (actor, role, node) = (&who.name, who.role, "");
            audit.append(&Entry { actor, role, event, node, subject: &subject, message: &message, details })
        })
        .await
    }

    /// Removes from the disk what no rollout needs. Blocks on it.
    fn clear(&self) {
        let gone = {
            let all = lock(&self.all);
            self.store.trim(&all.values().collect::<Vec<_>>()).unwrap_or_else(|error| {
                tracing::warn!(%error, "old rollouts are kept for now");
                Vec::new()
            })
        };
        let mut all = lock(&self.all);
        for id in gone {
            all.remove(&id);
        }
        let live = all.values().filter(|r| r.machine.phase.is_live());
        let needed: BTreeSet<String> = live.map(|r| r.machine.digest.clone()).collect();
        drop(all);
        lock(&self.evidence).retain(|digest, _| needed.contains(digest));
        self.artifacts.clear(&needed);
    }
}

impl Rollout {
    /// As the API gives it.
    pub fn json(&self, with_nodes: bool) -> Value {
        let machine = &self.machine;
        let mut counts: BTreeMap<&str, usize> = State::ALL.iter().map(|state| (state.word(), 0)).collect();
        for agent in machine.agents.values() {
            *counts.entry(agent.state.word()).or_default() += 1;
        }
        let mut json = json!({
            "id": self.id, "plugin": self.plugin, "reference": self.reference, "resolved": self.resolved,
            "digest": machine.digest, "version": self.version, "signed_by": self.signed_by, "size": self.size,
            "selector": self.selector, "stages": machine.plan.stages, "stage": machine.stage + 1,
            "soak_seconds": machine.plan.soak_ms / 1000, "timeout_seconds": machine.plan.timeout_ms / 1000,
            "max_failures": machine.plan.max_failures, "phase": machine.phase, "reason": machine.reason,
            "well_since_ms": machine.well_since_ms, "nodes": counts,
            "created_ms": self.created_ms, "created_by": self.created_by, "changed_ms": self.changed_ms,
        });
        if with_nodes && let Some(map) = json.as_object_mut() {
            let nodes = machine.agents.iter().map(|(node, agent)| {
                json!({
                    "node": node, "state": agent.state, "well": agent.well, "stage": agent.stage + 1,
                    "attempt": agent.attempt, "since_ms": agent.since_ms, "former": agent.former,
                    "code": agent.code, "reason": agent.reason,
                })
            });
            map.insert("agents".to_owned(), nodes.collect());
        }
        json
    }
}

/// Who asks, owned.
#[derive(Debug, Clone)]
struct Who {
    name: String,
    role: &'static str,
}

impl Who {
    fn of(asker: Asker<'_>) -> Self {
        let role = crate::identity::Role::ALL.iter().map(|r| r.as_str()).find(|word| *word == asker.role);
        Self { name: asker.name.to_owned(), role: role.unwrap_or("") }
    }

    /// The aggregator itself.
    fn itself() -> Self {
        Self { name: String::new(), role: "" }
    }
}

fn time(
    key: &'static str,
    text: Option<&str>,
    default: Duration,
    least: Duration,
) -> Result<i64, RolloutError> {
    let invalid = || RolloutError::Time { key, least, most: LONGEST };
    let time = match text {
        None => default,
        Some(text) => humantime::parse_duration(text).map_err(|_| invalid())?,
    };
    if (least..=LONGEST).contains(&time) { Ok(millis(time)) } else { Err(invalid()) }
}

fn id() -> Result<String, RolloutError> {
    generate_id().map_err(|e| RolloutError::Lost(e.to_string()))
}

/// Goes on though nobody waits for it any more.
async fn spawned<T: Send + 'static>(
    work: impl Future<Output = Result<T, RolloutError>> + Send + 'static,
) -> Result<T, RolloutError> {
    tokio::spawn(work).await.map_err(|e| RolloutError::Lost(e.to_string()))?
}

async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, RolloutError>
where
    T: Send + 'static,
    E: Into<RolloutError> + Send + 'static,
{
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| RolloutError::Lost(e.to_string()))?.map_err(Into::into)
}
