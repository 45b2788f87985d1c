//! What goes on by itself: nodes are looked at, told, and heard.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use picket_proto::model::NodeId;
use picket_proto::v1;
use prost::Message;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::machine::{Note, Outcome, Phase, Seen, State};
use super::{NodeSelector, Rollout, RolloutError, Rollouts, Who, blocking, telemetry};
use crate::ingest::RolloutSink;
use crate::store::lock;

/// How often the fleet is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Nodes that one entry of the audit log names.
const NAMES: usize = 200;
/// What is kept of a node's report.
const MAX_OFFERS: usize = 64;
const MAX_TEXT: usize = 1024;
/// Bytes of all that is offered to one node at a time; agents take messages of twice as much.
const MAX_SAID: usize = 2 << 20;

impl Rollouts {
    /// Goes on with all rollouts until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
                () = self.wake.notified() => {}
            }
            if let Err(error) = self.step().await {
                tracing::error!(%error, "rollouts do not go on; nobody is told anything new until this is mended");
            }
        }
    }

    /// One look at the fleet, for each rollout.
    pub(super) async fn step(self: &Arc<Self>) -> Result<(), RolloutError> {
        let _door = self.door.lock().await;
        let live: Vec<Rollout> = {
            let all = lock(&self.all);
            all.values().filter(|r| r.machine.phase.is_live()).cloned().collect()
        };
        if live.is_empty() {
            return Ok(());
        }
        let this = Arc::clone(self);
        let judge = blocking(move || Ok::<_, RolloutError>(this.policy.changed())).await?;
        for mut rollout in live {
            let before = rollout.machine.head();
            let fleet = self.fleet(&rollout.plugin, &rollout.selector, &rollout.id);
            let now = self.clock.now_ms();
            let mut notes = Vec::new();
            let going = matches!(rollout.machine.phase, Phase::Running | Phase::Paused | Phase::Complete);
            if judge
                && going
                && let Some(why) = self.distrusted(&rollout).await?
            {
                rollout.machine.phase = Phase::Halted;
                rollout.machine.reason = why;
                notes.push(Note::Phase(Phase::Halted));
            }
            let (more, changed) = rollout.machine.tick(now, &fleet, self.settings.max_in_flight);
            notes.extend(more);
            if notes.is_empty() && changed.is_empty() && rollout.machine.head() == before {
                continue;
            }
            self.note(&rollout, &notes).await?;
            if !notes.is_empty() {
                rollout.changed_ms = now;
            }
            let ended = !rollout.machine.phase.is_live();
            self.put_some(rollout, changed).await?;
            if ended {
                let this = Arc::clone(self);
                blocking(move || {
                    this.clear();
                    Ok::<_, RolloutError>(())
                })
                .await?;
            }
        }
        self.publish();
        self.measure();
        Ok(())
    }

    /// Why it is trusted no more.
    async fn distrusted(self: &Arc<Self>, rollout: &Rollout) -> Result<Option<String>, RolloutError> {
        let (this, rollout) = (Arc::clone(self), rollout.clone());
        blocking(move || match this.judge_again(&rollout) {
            Ok(()) => Ok::<_, RolloutError>(None),
            Err(error @ (RolloutError::Untrusted { .. } | RolloutError::Policy(_))) => {
                Ok(Some(error.to_string()))
            }
            Err(error) => Err(error),
        })
        .await
    }

    /// The nodes that are meant, as they are now, and what they say of this rollout's offers.
    pub(super) fn fleet(
        &self,
        plugin: &str,
        selector: &NodeSelector,
        rollout: &str,
    ) -> BTreeMap<String, Seen> {
        let Some(ingest) = self.ingest.get() else { return BTreeMap::new() };
        let said = lock(&self.said);
        ingest
            .glimpses(plugin)
            .into_iter()
            .filter(|(node, glimpse)| selector.matches(node.as_str(), &glimpse.labels))
            .map(|(node, glimpse)| {
                let states = said.get(&node).map(Vec::as_slice).unwrap_or_default();
                let own = states.iter().rev().find(|state| state.rollout == rollout);
                let seen = Seen {
                    connected: glimpse.connected,
                    digest: glimpse.digest,
                    state: glimpse.state,
                    outcome: own.and_then(outcome),
                };
                (node.to_string(), seen)
            })
            .collect()
    }

    /// What happened goes into the audit log, before anybody is told anything by it.
    async fn note(self: &Arc<Self>, rollout: &Rollout, notes: &[Note]) -> Result<(), RolloutError> {
        let plugin = &rollout.plugin;
        let mut of_nodes: BTreeMap<&'static str, Vec<&String>> = BTreeMap::new();
        for note in notes {
            let (event, node) = match note {
                Note::Told(node) => ("rollout.offered", node),
                Note::Done(node) => ("rollout.node-done", node),
                Note::Failed(node) => ("rollout.node-failed", node),
                Note::Reverting(node) => ("rollout.revert-offered", node),
                Note::Reverted(node) => ("rollout.node-reverted", node),
                Note::RevertFailed(node) => ("rollout.node-revert-failed", node),
                Note::Stage(_) | Note::Phase(_) => continue,
            };
            let counted = plugin.clone();
            match note {
                Note::Told(_) => metrics::counter!(telemetry::OFFERS, "plugin" => counted).increment(1),
                Note::Failed(_) => metrics::counter!(telemetry::FAILURES, "plugin" => counted).increment(1),
                _ => {}
            }
            of_nodes.entry(event).or_default().push(node);
        }
        for (event, nodes) in of_nodes {
            for some in nodes.chunks(NAMES) {
                let message = format!("{} nodes, rollout of {plugin}", some.len());
                let why: Vec<_> = some
                    .iter()
                    .filter_map(|node| rollout.machine.agents.get(*node).map(|agent| (node, agent)))
                    .map(|(node, agent)| json!({ "node": node, "attempt": agent.attempt, "code": agent.code, "reason": agent.reason }))
                    .collect();
                let details = json!({ "plugin": plugin, "digest": rollout.machine.digest, "nodes": why });
                self.tell(Who::itself(), event, rollout.id.clone(), message, details).await?;
            }
        }
        for note in notes {
            let (event, message) = match note {
                Note::Stage(stage) => ("rollout.stage", format!("{plugin}: stage {} begins", stage + 1)),
                Note::Phase(Phase::Halted) => ("rollout.halted", rollout.machine.reason.clone()),
                Note::Phase(Phase::Complete) => ("rollout.completed", format!("{plugin} is rolled out")),
                Note::Phase(_) => ("rollout.reverted", format!("{plugin} is rolled back")),
                _ => continue,
            };
            if event == "rollout.halted" {
                metrics::counter!(telemetry::HALTS, "plugin" => plugin.clone()).increment(1);
                tracing::warn!(%plugin, rollout = rollout.id, reason = message, "a rollout halted");
            } else {
                tracing::info!(%plugin, rollout = rollout.id, "{message}");
            }
            self.tell(Who::itself(), event, rollout.id.clone(), message, rollout.json(false)).await?;
        }
        Ok(())
    }

    /// Tells nodes what they are offered now, where that is something else than before.
    pub(super) fn publish(&self) {
        let now = self.offers_now();
        let changed: Vec<(NodeId, v1::PluginOffers)> = {
            let mut offered = lock(&self.offered);
            let gone = offered.keys().filter(|node| !now.contains_key(*node)).cloned();
            let gone: Vec<_> = gone.map(|node| (node, v1::PluginOffers::default())).collect();
            let new = now.iter().filter(|(node, offers)| offered.get(*node) != Some(offers));
            let new: Vec<_> = new.map(|(node, offers)| (node.clone(), offers.clone())).collect();
            *offered = now;
            gone.into_iter().chain(new).collect()
        };
        if let Some(ingest) = self.ingest.get() {
            for (node, offers) in changed {
                ingest.offer(&node, offers);
            }
        }
    }

    fn offers_now(&self) -> HashMap<NodeId, v1::PluginOffers> {
        let all = lock(&self.all);
        let mut now: HashMap<NodeId, v1::PluginOffers> = HashMap::new();
        for rollout in all.values().filter(|r| r.machine.phase.is_live()) {
            for name in rollout.machine.agents.keys() {
                let Some(offer) = rollout.machine.offer(name) else { continue };
                let Ok(node) = NodeId::new(name) else { continue };
                let mut said = v1::PluginOffer {
                    plugin: rollout.plugin.clone(),
                    rollout: rollout.id.clone(),
                    attempt: offer.attempt,
                    digest: offer.digest.to_owned(),
                    ..v1::PluginOffer::default()
                };
                if offer.new {
                    let evidence = self.evidence_of(offer.digest);
                    said.size = rollout.size;
                    said.signature = evidence.signature;
                    said.bundle = evidence.bundle;
                }
                // One message brings all of them: what finds no room waits until another one is settled.
                let room = MAX_SAID.saturating_sub(now.get(&node).map_or(0, Message::encoded_len));
                if said.encoded_len() < room {
                    now.entry(node).or_default().offers.push(said);
                }
            }
        }
        now
    }

    fn evidence_of(&self, digest: &str) -> picket_artifact::Evidence {
        let mut known = lock(&self.evidence);
        if let Some(evidence) = known.get(digest) {
            return evidence.clone();
        }
        match self.artifacts.evidence(digest) {
            Ok(evidence) => {
                known.insert(digest.to_owned(), evidence.clone());
                evidence
            }
            // Nodes will say that it is not signed.
            Err(error) => {
                tracing::error!(%error, "what vouches for a plugin cannot be read");
                picket_artifact::Evidence::default()
            }
        }
    }

    /// The gauges, of each plugin's newest rollout.
    fn measure(&self) {
        let all = lock(&self.all);
        let mut newest: BTreeMap<&str, &Rollout> = BTreeMap::new();
        for rollout in all.values() {
            let place = newest.entry(&rollout.plugin).or_insert(rollout);
            if (rollout.created_ms, &rollout.id) > (place.created_ms, &place.id) {
                *place = rollout;
            }
        }
        for (plugin, rollout) in newest {
            let machine = &rollout.machine;
            for phase in Phase::ALL {
                let on = f64::from(u8::from(machine.phase == phase));
                metrics::gauge!(telemetry::PHASE, "plugin" => plugin.to_owned(), "phase" => phase.word())
                    .set(on);
            }
            for state in State::ALL {
                let nodes = machine.agents.values().filter(|agent| agent.state == state).count();
                metrics::gauge!(telemetry::NODES, "plugin" => plugin.to_owned(), "state" => state.word())
                    .set(nodes as f64);
            }
            metrics::gauge!(telemetry::STAGE, "plugin" => plugin.to_owned()).set((machine.stage + 1) as f64);
        }
    }
}

/// A node's last word on what it was offered; none while it is at it.
fn outcome(state: &v1::OfferState) -> Option<Outcome> {
    let refused = match state.state.as_str() {
        "running" => None,
        "refused" => Some((state.code.clone(), state.reason.clone())),
        _ => return None,
    };
    Some(Outcome { attempt: state.attempt, refused })
}

impl RolloutSink for Rollouts {
    fn offers(&self, node: &NodeId) -> v1::PluginOffers {
        lock(&self.offered).get(node).cloned().unwrap_or_default()
    }

    fn said(&self, node: &NodeId, report: v1::OfferReport) {
        let ours: Vec<v1::OfferState> = {
            let all = lock(&self.all);
            let known = |state: &v1::OfferState| all.contains_key(&state.rollout);
            report.offers.into_iter().filter(known).take(MAX_OFFERS).collect()
        };
        let states = ours.into_iter().map(|state| v1::OfferState {
            plugin: bounded(&state.plugin),
            rollout: bounded(&state.rollout),
            attempt: state.attempt,
            digest: bounded(&state.digest),
            state: bounded(&state.state),
            code: bounded(&state.code),
            reason: bounded(&state.reason),
        });
        lock(&self.said).insert(node.clone(), states.collect());
        self.wake.notify_one();
    }

    fn chunk(&self, node: &NodeId, fetch: &v1::PluginFetch) -> v1::PluginChunk {
        let v1::PluginFetch { digest, offset } = fetch;
        let mut chunk =
            v1::PluginChunk { digest: digest.clone(), offset: *offset, ..v1::PluginChunk::default() };
        let offered = lock(&self.offered)
            .get(node)
            .is_some_and(|offers| offers.offers.iter().any(|o| o.size > 0 && o.digest == *digest));
        if !offered {
            chunk.refused = "it is not offered to this node".to_owned();
            return chunk;
        }
        match self.artifacts.chunk(digest, *offset) {
            Ok(content) => {
                metrics::counter!(telemetry::SENT).increment(content.len() as u64);
                chunk.content = content;
            }
            Err(error) => {
                tracing::error!(%node, %error, "a piece of a plugin cannot be given");
                chunk.refused = "the aggregator cannot read it; its log says why".to_owned();
            }
        }
        chunk
    }
}

fn bounded(text: &str) -> String {
    text.chars().take(MAX_TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
