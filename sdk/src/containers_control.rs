//! Changes of what runs under Docker-compatible engines, for actions: of the granted containers, by the granted verbs.
//! Grant: `containers-control`.

use crate::{Failure, sys};

/// Why nothing was changed; of [`ControlError::TimedOut`] that is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// A verb that is not granted, or a call in which nothing may be changed.
    #[error("not allowed: {0}")]
    Denied(String),
    /// No such container among the granted ones.
    #[error("no such container among the granted ones: {0}")]
    NotFound(String),
    /// An argument that makes no sense.
    #[error("not valid: {0}")]
    Invalid(String),
    /// There is no socket.
    #[error("{0}")]
    Absent(String),
    /// Nothing answers.
    #[error("the container engine cannot be reached: {0}")]
    Unreachable(String),
    /// Too slow: whether the engine acted is not known.
    #[error("the container engine did not answer in time: {0}")]
    TimedOut(String),
    /// The engine answered with an error of its own.
    #[error("the container engine refused: {0}")]
    Refused(String),
    /// A reason that this version of the SDK does not know.
    #[error("{0}")]
    Other(String),
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let reason = match error {
            ControlError::Denied(_) => "denied",
            ControlError::NotFound(_) => "not-found",
            ControlError::Invalid(_) => "parameters",
            ControlError::Absent(_) => "absent",
            ControlError::Unreachable(_) => "unreachable",
            ControlError::TimedOut(_) => "timed-out",
            ControlError::Refused(_) => "refused",
            ControlError::Other(_) => "other",
        };
        Self::new(reason, error.to_string())
    }
}

/// What a call came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Change {
    Done,
    /// It was so already.
    Unchanged,
}

/// A change, natively.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Asked {
    Restart { id: String, grace: u32 },
    Stop { id: String, grace: u32 },
    Start { id: String },
    Kill { id: String, signal: String },
}

/// Stops the container as [`stop`] does, and starts it. An id is the whole of it, as [`crate::containers::list`] gives it.
///
/// # Errors
/// Any [`ControlError`].
pub fn restart(id: &str, grace: u32) -> Result<Change, ControlError> {
    sys::change_container(&Asked::Restart { id: id.to_owned(), grace })
}

/// Tells the container to stop, and kills it after `grace` seconds.
///
/// # Errors
/// Any [`ControlError`].
pub fn stop(id: &str, grace: u32) -> Result<Change, ControlError> {
    sys::change_container(&Asked::Stop { id: id.to_owned(), grace })
}

/// Starts a stopped container.
///
/// # Errors
/// Any [`ControlError`].
pub fn start(id: &str) -> Result<Change, ControlError> {
    sys::change_container(&Asked::Start { id: id.to_owned() })
}

/// Sends a signal by its name: `SIGKILL`, `SIGTERM`, `SIGINT`, `SIGHUP`, `SIGUSR1` or `SIGUSR2`.
///
/// # Errors
/// Any [`ControlError`].
pub fn kill(id: &str, signal: &str) -> Result<Change, ControlError> {
    sys::change_container(&Asked::Kill { id: id.to_owned(), signal: signal.to_owned() })
}
