//! What goes over the stream about plugins that the aggregator offers, and what this node's plugins may do.
//!
//! Each is a state and not a queue: what was not sent when a newer state comes is never missed. A stream begins with the
//! states as they are.

use picket_proto::v1;
use picket_proto::v1::uplink_message::Message as Up;
use tokio::sync::{mpsc, watch};

/// The uplink's ends.
#[derive(Clone)]
pub struct Central {
    pub grants: watch::Receiver<v1::GrantReport>,
    /// What became of what is offered.
    pub states: watch::Receiver<v1::OfferReport>,
    /// The piece that is wanted next.
    pub wanted: watch::Receiver<Option<v1::PluginFetch>>,
    pub offers: watch::Sender<v1::PluginOffers>,
    pub chunks: mpsc::Sender<v1::PluginChunk>,
}

impl Central {
    pub(super) fn offered(&self, offers: v1::PluginOffers) {
        self.offers.send_replace(offers);
    }

    /// One that nobody takes is asked for again.
    pub(super) fn brought(&self, chunk: v1::PluginChunk) {
        let _ = self.chunks.try_send(chunk);
    }

    pub(super) fn listen(&self) -> Listening {
        let mut listening = Listening {
            grants: Some(self.grants.clone()),
            states: Some(self.states.clone()),
            wanted: Some(self.wanted.clone()),
        };
        begin(&mut listening.grants);
        begin(&mut listening.states);
        begin(&mut listening.wanted);
        listening
    }

    /// With the ends that a test holds.
    #[cfg(test)]
    pub(super) fn held() -> (Self, Held) {
        let (grants_sender, grants) = watch::channel(v1::GrantReport::default());
        let (states_sender, states) = watch::channel(v1::OfferReport::default());
        let (wanted_sender, wanted) = watch::channel(None);
        let (offers, offers_receiver) = watch::channel(v1::PluginOffers::default());
        let (chunks, chunks_receiver) = mpsc::channel(2);
        let held = Held {
            grants: grants_sender,
            states: states_sender,
            wanted: wanted_sender,
            offers: offers_receiver,
            chunks: chunks_receiver,
        };
        (Self { grants, states, wanted, offers, chunks }, held)
    }
}

#[cfg(test)]
pub(super) struct Held {
    pub grants: watch::Sender<v1::GrantReport>,
    pub states: watch::Sender<v1::OfferReport>,
    pub wanted: watch::Sender<Option<v1::PluginFetch>>,
    pub offers: watch::Receiver<v1::PluginOffers>,
    pub chunks: mpsc::Receiver<v1::PluginChunk>,
}

/// One stream's.
pub(super) struct Listening {
    grants: Option<watch::Receiver<v1::GrantReport>>,
    states: Option<watch::Receiver<v1::OfferReport>>,
    wanted: Option<watch::Receiver<Option<v1::PluginFetch>>>,
}

impl Listening {
    /// The next to be said; may be dropped without losing one.
    pub async fn next(&mut self) -> Up {
        loop {
            tokio::select! {
                biased;
                wanted = changed(&mut self.wanted) => {
                    if let Some(fetch) = wanted {
                        return Up::Fetch(fetch);
                    }
                }
                states = changed(&mut self.states) => return Up::Offers(states),
                grants = changed(&mut self.grants) => return Up::Grants(grants),
            }
        }
    }
}

/// What is there already is said, nothing is not.
fn begin<T: Default + PartialEq>(receiver: &mut Option<watch::Receiver<T>>) {
    if let Some(receiver) = receiver {
        receiver.mark_unchanged();
        if *receiver.borrow() != T::default() {
            receiver.mark_changed();
        }
    }
}

/// The next state; never where nobody makes one any more.
async fn changed<T: Clone>(receiver: &mut Option<watch::Receiver<T>>) -> T {
    if let Some(live) = receiver {
        if live.changed().await.is_ok() {
            return live.borrow_and_update().clone();
        }
        *receiver = None;
    }
    std::future::pending().await
}
