//! What runs under Docker-compatible engines (Docker, Podman), read only, of the granted containers alone. Grant:
//! `containers`.
//!
//! The JSON is the engine's own, less what holds secrets; read of it what you need with [`serde`].

use serde::de::DeserializeOwned;

use crate::{Failure, sys};

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContainersError {
    /// The grant allows nothing of this, or its socket must not be opened.
    #[error("not granted to this plugin: {0}")]
    Denied(String),
    /// No such container among the granted ones.
    #[error("no such container among the granted ones: {0}")]
    NotFound(String),
    /// There is no socket: the engine is not installed, or was stopped.
    #[error("{0}")]
    Absent(String),
    /// Nothing answers.
    #[error("the container engine cannot be reached: {0}")]
    Unreachable(String),
    /// Too slow.
    #[error("the container engine did not answer in time: {0}")]
    TimedOut(String),
    /// The answer is longer than the node allows.
    #[error("the container engine's answer is too large: {0}")]
    TooLarge(String),
    /// What came was not the engine's API.
    #[error("the container engine's answer is malformed: {0}")]
    Malformed(String),
    /// The engine answered with an error of its own.
    #[error("the container engine refused: {0}")]
    Refused(String),
    /// A reason that this version of the SDK does not know.
    #[error("{0}")]
    Other(String),
}

impl From<ContainersError> for Failure {
    fn from(error: ContainersError) -> Self {
        let reason = match error {
            ContainersError::Denied(_) => "denied",
            ContainersError::NotFound(_) => "not-found",
            ContainersError::Absent(_) => "absent",
            ContainersError::Unreachable(_) => "unreachable",
            ContainersError::TimedOut(_) => "timed-out",
            ContainersError::TooLarge(_) => "too-large",
            ContainersError::Malformed(_) => "malformed",
            ContainersError::Refused(_) => "refused",
            ContainersError::Other(_) => "containers",
        };
        Self::new(reason, error.to_string())
    }
}

/// The containers of all engines that answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// A JSON array of what `GET /containers/json` says; each object has also `PicketSocket`, its socket's path.
    pub containers: String,
    /// The granted sockets, in order.
    pub sockets: Vec<SocketState>,
}

impl Listing {
    /// The containers, as far as `T` looks at them.
    ///
    /// # Errors
    /// `parse` where they are not what was looked for.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<Vec<T>, Failure> {
        serde_json::from_str(&self.containers)
            .map_err(|e| Failure::new("parse", format!("the list of containers is not as expected: {e}")))
    }
}

/// A granted socket, and how asking it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SocketState {
    pub path: String,
    pub error: Option<ContainersError>,
}

/// A line of a container's output.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogLine {
    /// It was written to standard error.
    pub stderr: bool,
    /// Nanoseconds since the Unix epoch, the engine's.
    pub timestamp_ns: u64,
    /// Without its end.
    pub text: String,
}

/// What one [`logs`] gave, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogPage {
    /// The lines.
    pub lines: Vec<LogLine>,
    /// Later lines are there: ask again from the last one's time.
    pub more: bool,
}

/// The granted containers; `all`: stopped ones too. An engine that does not answer is a state of its socket.
///
/// # Errors
/// Any [`ContainersError`].
pub fn list(all: bool) -> Result<Listing, ContainersError> {
    sys::containers_list(all)
}

/// `GET /containers/{id}/json` of each, in order. An id is the whole of it, as [`list`] gives it.
pub fn inspect(ids: &[String]) -> Vec<Result<String, ContainersError>> {
    sys::containers_inspect(ids)
}

/// `GET /containers/{id}/stats` of each, one reading, in order.
pub fn stats(ids: &[String]) -> Vec<Result<String, ContainersError>> {
    sys::containers_stats(ids)
}

/// Lines of a container's output: those not older than `since_ns` (nanoseconds since the Unix epoch), or the last
/// `tail` of them.
///
/// # Errors
/// Any [`ContainersError`].
pub fn logs(id: &str, since_ns: Option<u64>, tail: Option<u32>) -> Result<LogPage, ContainersError> {
    sys::containers_logs(id, since_ns, tail)
}
