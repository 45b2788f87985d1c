//! Changes of what runs under Docker-compatible engines: start, stop, restart and kill of the granted containers.
//!
//! The check is that of [`crate::containers`], made anew before each change: the engine's own record of the very id is
//! held against the filter of a grant that has the verb. An id is whole, never a name or a prefix, so what was looked at
//! is what is changed: an engine never gives an id twice, and never changes a container's labels or image.

mod scope;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ServiceLimits;
use crate::containers::{self, Changed};
pub(crate) use scope::Rules;
pub use scope::{Scope, Verb};

/// The longest that a container is given to stop by itself.
pub const MAX_GRACE_SECONDS: u32 = 300;

/// The signals that may be sent.
pub const SIGNALS: [&str; 6] = ["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Restart { id: String, grace: u32 },
    Stop { id: String, grace: u32 },
    Start { id: String },
    Kill { id: String, signal: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Done,
    /// It was so already.
    Unchanged,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    #[error("not granted: {0}")]
    Denied(String),
    #[error("no such container among the granted ones: {0}")]
    NotFound(String),
    #[error("not valid: {0}")]
    Invalid(String),
    #[error("{0}")]
    Absent(String),
    #[error("the container engine cannot be reached: {0}")]
    Unreachable(String),
    /// Whether the engine acted is not known.
    #[error("the container engine did not answer in time: {0}")]
    TimedOut(String),
    #[error("the container engine refused: {0}")]
    Refused(String),
    #[error("{0}")]
    Other(String),
}

impl Request {
    fn verb(&self) -> Verb {
        match self {
            Self::Restart { .. } => Verb::Restart,
            Self::Stop { .. } => Verb::Stop,
            Self::Start { .. } => Verb::Start,
            Self::Kill { .. } => Verb::Kill,
        }
    }

    /// The container, what is asked of it, and the time that the engine may take for that beyond its answer.
    fn target(&self) -> Result<(&str, String, Duration), Error> {
        let graceful = |word: &str, grace: u32| {
            if grace > MAX_GRACE_SECONDS {
                return Err(Error::Invalid(format!(
                    "a grace of {grace} s: at most {MAX_GRACE_SECONDS} are allowed"
                )));
            }
            Ok((format!("{word}?t={grace}"), Duration::from_secs(grace.into())))
        };
        let (id, (target, longer)) = match self {
            Self::Restart { id, grace } => (id, graceful("restart", *grace)?),
            Self::Stop { id, grace } => (id, graceful("stop", *grace)?),
            Self::Start { id } => (id, ("start".to_owned(), Duration::ZERO)),
            Self::Kill { id, signal } => {
                if !SIGNALS.contains(&signal.as_str()) {
                    let shown: String = signal.chars().take(40).collect();
                    return Err(Error::Invalid(format!(
                        "the signal {shown:?}: one of {} is wanted",
                        SIGNALS.join(", ")
                    )));
                }
                (id, (format!("kill?signal={signal}"), Duration::ZERO))
            }
        };
        Ok((id, target, longer))
    }
}

/// Does what is asked, if a grant has the verb and its filter lets the container through.
pub(crate) async fn call(rules: &Rules, limits: &ServiceLimits, request: Request) -> Result<Answer, Error> {
    let verb = request.verb();
    let (id, target, longer) = request.target()?;
    let mut permits = rules.with(verb).peekable();
    if permits.peek().is_none() {
        return Err(Error::Denied(format!("the verb {verb}; granted are {}", rules.verbs())));
    }
    let limit = limits.control_time.saturating_add(longer);
    let work = async {
        let mut last = Error::NotFound(id.to_owned());
        for permit in permits {
            match containers::change(permit, limits, id, &target).await {
                Ok(Changed::Done) => return Ok(Answer::Done),
                Ok(Changed::Unchanged) => return Ok(Answer::Unchanged),
                Err(e @ containers::Error::NotFound(_)) => last = e.into(),
                Err(e) => return Err(e.into()),
            }
        }
        Err(last)
    };
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        Err(Error::TimedOut(format!("{verb} of {id}: no answer within {} s", limit.as_secs())))
    })
}

impl From<containers::Error> for Error {
    fn from(e: containers::Error) -> Self {
        use containers::Error as E;
        match e {
            E::Denied(m) => Self::Denied(m),
            E::NotFound(m) => Self::NotFound(m),
            E::Absent(m) => Self::Absent(m),
            E::Unreachable(m) => Self::Unreachable(m),
            E::TimedOut(m) => Self::TimedOut(m),
            E::Refused(m) => Self::Refused(m),
            E::TooLarge(m) | E::Malformed(m) | E::Other(m) => Self::Other(m),
        }
    }
}

#[cfg(test)]
mod tests;
