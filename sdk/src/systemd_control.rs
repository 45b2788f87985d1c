//! Units of systemd, for actions: how the granted ones are, and restart, reload, start and stop of them. Grant:
//! `systemd-control`.

use crate::{Failure, sys};

/// Why there is no answer, or nothing was changed; of [`SystemdError::TimedOut`] that is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SystemdError {
    /// A unit or a verb that is not granted, or a call in which nothing may be changed.
    #[error("not allowed: {0}")]
    Denied(String),
    /// There is no such unit.
    #[error("there is no such unit: {0}")]
    NotFound(String),
    /// No unit's name.
    #[error("not valid: {0}")]
    Invalid(String),
    /// systemd does not run here.
    #[error("systemd cannot be asked: {0}")]
    Unavailable(String),
    /// Whether systemd acted is not known.
    #[error("systemd did not answer in time: {0}")]
    TimedOut(String),
    /// systemd's own words.
    #[error("systemd refused: {0}")]
    Refused(String),
    /// A reason that this version of the SDK does not know.
    #[error("{0}")]
    Other(String),
}

impl From<SystemdError> for Failure {
    fn from(error: SystemdError) -> Self {
        let reason = match error {
            SystemdError::Denied(_) => "denied",
            SystemdError::NotFound(_) => "not-found",
            SystemdError::Invalid(_) => "parameters",
            SystemdError::Unavailable(_) => "unavailable",
            SystemdError::TimedOut(_) => "timed-out",
            SystemdError::Refused(_) => "refused",
            SystemdError::Other(_) => "other",
        };
        Self::new(reason, error.to_string())
    }
}

/// A unit, in systemd's own words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Unit {
    /// Its own name, where it was asked for by an alias.
    pub id: String,
    pub description: String,
    pub load: String,
    /// `active`, `inactive`, `failed` …
    pub active: String,
    pub sub: String,
    /// Another one with each start.
    pub invocation: String,
    pub can_start: bool,
    pub can_stop: bool,
    pub can_reload: bool,
    /// When its state last changed, a reload included.
    pub changed: u64,
    pub restarts: u64,
    /// A job of it is under way.
    pub job: bool,
}

/// What can be done to a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Verb {
    Restart,
    Reload,
    Start,
    Stop,
}

/// How a unit is: `vllm.service`.
///
/// # Errors
/// Any [`SystemdError`].
pub fn show(unit: &str) -> Result<Unit, SystemdError> {
    sys::systemd_show(unit)
}

/// Changes a unit; returns when systemd says that it is done.
///
/// # Errors
/// Any [`SystemdError`].
pub fn change(unit: &str, verb: Verb) -> Result<(), SystemdError> {
    sys::systemd_change(unit, verb)
}
