//! What runs under a Docker-compatible engine, read only: its own JSON, of the granted containers alone.

mod scope;

use serde::{Deserialize, Serialize};

pub use scope::Scope;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// `GET /containers/json`
    List {
        /// Stopped ones too.
        all: bool,
    },
    /// `GET /containers/{id}/json` of each.
    Inspect { ids: Vec<String> },
    /// `GET /containers/{id}/stats`, one reading of each.
    Stats { ids: Vec<String> },
    /// `GET /containers/{id}/logs`
    Logs {
        id: String,
        /// Unix seconds; none: as far back as `tail` says.
        since: Option<u64>,
        /// The most lines, from the end.
        tail: u32,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// A JSON array, of all granted sockets; `PicketSocket` names the one that each is of.
    List(String),
    /// The engine's JSON objects, in the order of the ids.
    Objects(Vec<Result<String, Error>>),
    Logs(Vec<LogLine>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// It was written to standard error.
    pub stderr: bool,
    /// Nanoseconds since the Unix epoch, the engine's.
    pub timestamp: u64,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    #[error("not granted: {0}")]
    Denied(String),
    #[error("no such container: {0}")]
    NotFound(String),
    #[error("the container engine cannot be reached: {0}")]
    Unreachable(String),
    #[error("the container engine did not answer in time: {0}")]
    TimedOut(String),
    #[error("the answer is too large: {0}")]
    TooLarge(String),
    #[error("the answer is malformed: {0}")]
    Malformed(String),
    #[error("{0}")]
    Other(String),
}
