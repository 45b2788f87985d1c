//! What crosses the border between a plugin's instance and who runs it, away from the guest: a host call, and its answer.
//! Owned, serializable data: the two may stand in two processes.
//!
//! A guest makes one host call at a time and waits for its answer. What it asks is checked where it is answered
//! ([`crate::desk`]), never here: the asker may be anything.

use picket_agent_services::grants::Capability;
use picket_agent_services::{Request, Response, always, logs};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::lines::Emitted;
use crate::points::{Ids, Points, TimedPoints};
use crate::readings::{Asked, Declared, Happened, Refused};

/// One host call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// An effect on the node, within a grant.
    Effect(Request),
    Declare(Vec<Declared>),
    Register(Vec<Asked>),
    /// A registration that can't even be written down: refused and counted.
    Unfit(String),
    Push(Points),
    PushTimed(TimedPoints),
    Retire(Ids),
    Emit(Vec<Happened>),
    Fail {
        reason: String,
        message: String,
    },
    Log(always::Level, String),
    ReadLogs {
        wanted: logs::Wanted,
        most: u32,
    },
    HoldLogs {
        chunk: u32,
        bytes: u32,
    },
    EmitLogs(Vec<Emitted>),
}

/// The answer to an [`Ask`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Told {
    Effect(Response),
    Numbers(Result<Vec<u32>, Refused>),
    Done(Result<(), Refused>),
    /// None: the queue is full.
    Logs(Option<Result<logs::Page, logs::Error>>),
    /// There is no grant behind the interface.
    NoGrant,
    /// The answer is larger than what may cross.
    TooLarge,
}

/// Answers host calls. None: nobody is there any more who could, and the guest goes no further.
pub(crate) trait Answers: Send {
    fn answer(&mut self, ask: Ask) -> impl Future<Output = Option<Told>> + Send;
}

/// A guest's way out: to whoever polls the call into it.
#[derive(Debug, Clone)]
pub(crate) struct Door(mpsc::Sender<Asking>);

/// A host call that waits.
pub(crate) type Asking = (Ask, oneshot::Sender<Told>);

impl Door {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Asking>) {
        let (sender, asked) = mpsc::channel(1);
        (Self(sender), asked)
    }

    pub(crate) async fn ask(&self, ask: Ask) -> wasmtime::Result<Told> {
        let (reply, told) = oneshot::channel();
        self.0.send((ask, reply)).await.map_err(|_| Closed)?;
        Ok(told.await.map_err(|_| Closed)?)
    }
}

/// The linker gave a plugin an interface for which it has no grant, or the services answered another question. Neither
/// can happen but by a fault of ours; then the plugin is stopped, not served.
#[derive(Debug, thiserror::Error)]
#[error("the host call {0} has no grant behind it")]
pub(crate) struct NoGrant(pub Capability);

/// Another kind of answer than the question's.
#[derive(Debug, thiserror::Error)]
#[error("the host call {0} got another call's answer")]
pub(crate) struct Mismatch(pub &'static str);

/// The answer does not fit through the border.
#[derive(Debug, thiserror::Error)]
#[error("the answer to a host call is larger than what a plugin may be given at once")]
pub(crate) struct AnswerTooLarge;

#[derive(Debug, thiserror::Error)]
#[error("nobody answers host calls any more")]
pub(crate) struct Closed;
