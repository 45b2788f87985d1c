//! What the aggregator offers this node to run: fetched by digest, judged by this node's own policy, tried, and taken over.
//!
//! An offer is a wish and no command. Which plugins run here, with which grants and settings, says the node's configuration
//! alone; whom they must be signed by, its policy alone. An offer can bring another version of a plugin that is configured,
//! through the same checks and the same trial as a file that is dropped into the folder, and what is refused leaves what ran
//! running. Another file in the folder takes the place of what was brought: the node's operator has the last word.
//!
//! Offers are worked on one after the other, in memory and on disk bounded by one plugin. What was fetched so far outlives a
//! broken stream and a restart. A version of an action plugin that is at work waits on the shelf until it is not; the others
//! go on.

mod fetch;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use picket_artifact::{Digest, Evidence, MAX_COMPONENT_BYTES};
use picket_proto::model::PluginId;
use picket_proto::v1;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::actions::{Actions, NotTaken};
use crate::schedule::{RefusedVersion, Schedule};
use crate::shelf::Shelf;
use crate::uplink::Central;

/// Offers at a time.
const MAX_OFFERS: usize = 64;
/// Chunks that came and were not taken.
const CHUNKS: usize = 2;

/// Works on what is offered.
pub struct Offers {
    schedule: Schedule,
    actions: Actions,
    shelf: Arc<Shelf>,
    /// What waits for actions that are under way, with what holds it on the shelf.
    waiting: Vec<(v1::PluginOffer, Option<Arc<()>>)>,
    offers: watch::Receiver<v1::PluginOffers>,
    states: watch::Sender<v1::OfferReport>,
    wanted: watch::Sender<Option<v1::PluginFetch>>,
    chunks: mpsc::Receiver<v1::PluginChunk>,
}

/// Why an offer was not taken.
#[derive(Debug)]
enum Not {
    /// It is not offered any more.
    Withdrawn,
    /// An action of the plugin is under way.
    Busy,
    Refused {
        code: String,
        reason: String,
    },
}

impl Not {
    fn refused(code: &str, reason: impl Into<String>) -> Self {
        Self::Refused { code: code.to_owned(), reason: reason.into() }
    }
}

impl From<RefusedVersion> for Not {
    fn from(refused: RefusedVersion) -> Self {
        Self::Refused { code: refused.code, reason: refused.reason }
    }
}

impl Offers {
    /// With the uplink's ends of it.
    pub fn new(
        schedule: Schedule,
        actions: Actions,
        shelf: Arc<Shelf>,
        grants: watch::Receiver<v1::GrantReport>,
    ) -> (Self, Central) {
        let (offers_sender, offers) = watch::channel(v1::PluginOffers::default());
        let (states, states_receiver) = watch::channel(v1::OfferReport::default());
        let (wanted, wanted_receiver) = watch::channel(None);
        let (chunks_sender, chunks) = mpsc::channel(CHUNKS);
        let central = Central {
            grants,
            states: states_receiver,
            wanted: wanted_receiver,
            offers: offers_sender,
            chunks: chunks_sender,
        };
        let waiting = Vec::new();
        (Self { schedule, actions, shelf, waiting, offers, states, wanted, chunks }, central)
    }

    pub async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.work() => {}
        }
    }

    async fn work(&mut self) {
        loop {
            let offers = self.offers.borrow_and_update().offers.clone();
            self.states.send_if_modified(|report| {
                let before = report.offers.len();
                report.offers.retain(|state| offers.iter().any(|offer| is_of(state, offer)));
                report.offers.len() != before
            });
            self.waiting.retain(|(waits, _)| offers.contains(waits));
            let waits = |offer: &_| self.waiting.iter().any(|(waits, _)| waits == offer);
            let open =
                offers.into_iter().take(MAX_OFFERS).find(|offer| !self.is_settled(offer) && !waits(offer));
            let Some(offer) = open else {
                let plugins: Vec<PluginId> =
                    self.waiting.iter().filter_map(|(waits, _)| PluginId::new(&waits.plugin).ok()).collect();
                tokio::select! {
                    changed = self.offers.changed() => if changed.is_err() {
                        // The uplink ended.
                        return;
                    },
                    () = self.actions.quiet(&plugins), if !plugins.is_empty() => self.waiting.clear(),
                }
                continue;
            };
            tracing::info!(plugin = offer.plugin, digest = offer.digest, "the aggregator offers a version");
            match self.take(&offer).await {
                Ok(()) => self.say(&offer, "running", String::new(), String::new()),
                // Nobody offers anything any more: the uplink ended.
                Err(Not::Withdrawn) if self.is_offered(&offer) => return,
                Err(Not::Withdrawn) => {
                    tracing::info!(plugin = offer.plugin, digest = offer.digest, "the offer was withdrawn");
                }
                Err(Not::Busy) => tracing::info!(
                    plugin = offer.plugin,
                    digest = offer.digest,
                    "what is offered waits: an action of the running version is under way"
                ),
                Err(Not::Refused { code, reason }) => {
                    tracing::error!(
                        plugin = offer.plugin,
                        digest = offer.digest,
                        code,
                        "what the aggregator offers is refused: {reason}"
                    );
                    self.say(&offer, "refused", code, reason);
                }
            }
            self.wanted.send_if_modified(|wanted| wanted.take().is_some());
        }
    }

    async fn take(&mut self, offer: &v1::PluginOffer) -> Result<(), Not> {
        let id = PluginId::new(&offer.plugin).map_err(|e| Not::refused("PKT-0102", e.to_string()))?;
        let acts = self.actions.has(&id);
        if !acts && !self.schedule.files().await.iter().any(|(known, _)| *known == id) {
            let reason = format!(
                "no plugin {id} is configured on this node, or it is disabled: whoever operates the node grants what it may \
                 do, in [plugins.{id}]; with role = \"action\" it needs actions.enabled = true besides"
            );
            return Err(Not::refused("PKT-0102", reason));
        }
        let (mut wanted, mut held) = (None, None);
        if !offer.digest.is_empty() {
            let digest: Digest = offer
                .digest
                .parse()
                .map_err(|_| Not::refused("PKT-0104", "its digest is none of SHA-256"))?;
            // Held until it runs, or doesn't.
            held = self.bring(&id, offer, digest).await?;
            if !self.is_offered(offer) {
                return Err(Not::Withdrawn);
            }
            wanted = Some(digest.to_string());
        }
        self.say(offer, "trying", String::new(), String::new());
        if !acts {
            return Ok(self.schedule.take(&id, wanted).await?);
        }
        match self.actions.take(&id, wanted).await {
            Ok(()) => Ok(()),
            Err(NotTaken::Refused(refused)) => Err(refused.into()),
            Err(NotTaken::Busy) => {
                self.waiting.push((offer.clone(), held));
                Err(Not::Busy)
            }
        }
    }

    /// Puts what is offered on the shelf, if this node's policy lets it.
    async fn bring(
        &mut self,
        id: &PluginId,
        offer: &v1::PluginOffer,
        digest: Digest,
    ) -> Result<Option<Arc<()>>, Not> {
        let name = digest.to_string();
        let shelf = self.shelf.clone();
        let wanted = name.clone();
        let kept = blocking(move || shelf.kept(&wanted)).await?;
        if offer.size == 0 {
            // A way back: what vouches for it is what did before.
            if kept.is_none() && !self.shelf.lies(id, &name) {
                let reason = "this version is not on the node any more, and the aggregator has it not either";
                return Err(Not::refused("PKT-0103", reason));
            }
            return Ok(None);
        }
        if offer.size > MAX_COMPONENT_BYTES {
            let reason = format!("it is larger than {MAX_COMPONENT_BYTES} bytes");
            return Err(Not::refused("PKT-0002", reason));
        }
        let bytes = match kept {
            Some(bytes) => bytes,
            None => {
                self.say(offer, "fetching", String::new(), String::new());
                self.fetch(offer, digest).await?
            }
        };
        let evidence = Evidence { signature: offer.signature.clone(), bundle: offer.bundle.clone() };
        let (shelf, plugin) = (self.shelf.clone(), id.clone());
        let received = blocking(move || shelf.receive(&plugin, &bytes, &evidence)).await?;
        let held = received.map_err(|no| Not::refused(&no.error.code, no.error.message))?;
        self.fetched(&name).await;
        Ok(Some(held))
    }

    fn say(&self, offer: &v1::PluginOffer, state: &str, code: String, reason: String) {
        let said = v1::OfferState {
            plugin: offer.plugin.clone(),
            rollout: offer.rollout.clone(),
            attempt: offer.attempt,
            digest: offer.digest.clone(),
            state: state.to_owned(),
            code,
            reason,
        };
        self.states.send_modify(|report| {
            report.offers.retain(|state| !is_of(state, offer));
            report.offers.push(said);
        });
    }

    fn is_settled(&self, offer: &v1::PluginOffer) -> bool {
        let settled = |state: &v1::OfferState| matches!(state.state.as_str(), "running" | "refused");
        self.states.borrow().offers.iter().any(|state| is_of(state, offer) && settled(state))
    }

    fn is_offered(&self, offer: &v1::PluginOffer) -> bool {
        self.offers.borrow().offers.contains(offer)
    }
}

fn is_of(state: &v1::OfferState, offer: &v1::PluginOffer) -> bool {
    (&state.plugin, &state.rollout, state.attempt, &state.digest)
        == (&offer.plugin, &offer.rollout, offer.attempt, &offer.digest)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Not> {
    let failed = |e: tokio::task::JoinError| Not::refused("PKT-0090", format!("the agent failed: {e}"));
    tokio::task::spawn_blocking(work).await.map_err(failed)
}
