//! NVIDIA GPUs, read only: one snapshot shared by all that ask within a tick.

mod scope;

use serde::{Deserialize, Serialize};

pub use scope::Scope;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Snapshot {
        /// Milliseconds. An older snapshot is not given: a new one is taken.
        max_age: u32,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// When the snapshot was taken, milliseconds since the Unix epoch.
    pub timestamp: u64,
    /// JSON, as `docs/plugins/capabilities.md` describes it.
    pub document: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    #[error("no NVIDIA driver: {0}")]
    NoDriver(String),
    #[error("the NVIDIA driver does not answer: {0}")]
    Hung(String),
    #[error("{0}")]
    Other(String),
}
