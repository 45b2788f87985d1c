//! What a stream waits for before it takes a batch.

use std::pin::Pin;
use std::sync::Arc;

use picket_proto::v1;
use tokio::task::JoinHandle;

use super::admission::Recording;
use crate::log::Batch;

/// A batch that can't be taken yet; nothing is read until it is.
pub(super) enum Waiting {
    /// Its log lines are being recorded.
    Logs(Recording, Box<Prepared>),
    /// Its events are being recorded.
    Events(JoinHandle<Result<(), String>>, Box<Prepared>),
    /// They could not be: tried again after a while.
    Retry(Pin<Box<tokio::time::Sleep>>, Box<Prepared>),
    /// The log has no room.
    Room(Box<Prepared>),
}

pub(super) struct Prepared {
    pub batch: Batch,
    pub events: Arc<Vec<v1::Event>>,
    pub logs: Vec<v1::LogStream>,
}
