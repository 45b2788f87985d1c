//! Who waits for a version to be brought up: an operator of this node, or what came from the aggregator.

use tokio::sync::oneshot;

use super::status::RefusedVersion;
use crate::shelf::Pin;

/// Who waits for the load that is under way.
pub(super) struct Waiting {
    /// What was wanted before, to be wanted again where the load fails.
    pub undo: Option<Option<Pin>>,
    pub reply: Reply,
}

pub(super) enum Reply {
    Wish(oneshot::Sender<Result<String, String>>),
    Take(oneshot::Sender<Result<(), RefusedVersion>>),
}

impl Reply {
    /// The asker may have gone.
    pub fn send(self, answer: Result<String, &RefusedVersion>) {
        match self {
            Self::Wish(reply) => {
                drop(reply.send(answer.map_err(|told| format!("{} {}", told.code, told.reason))));
            }
            Self::Take(reply) => drop(reply.send(answer.map(drop).map_err(Clone::clone))),
        }
    }
}
