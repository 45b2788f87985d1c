//! Deleting files, by rule: of a granted pattern, old enough, large enough, so many at most; and putting together bundles of
//! files, in one folder that the operator names.
//!
//! A file is never reached by a path that is resolved twice. The folder of a pattern is opened through openat2(2) without
//! following any link, what lies below it likewise and without leaving its file system; a file is looked at beside its open
//! folder, and deleted from that very folder if it is still the one that was found (inode, size, time). So neither a link
//! that is put in the way nor a mount leads anywhere else. A kernel without openat2(2) deletes nothing.

mod bundle;
mod scope;
mod walk;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ServiceLimits;
pub(crate) use scope::Rules;
pub use scope::Scope;

/// Files of one answer.
pub const MAX_FOUND: u32 = 1_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Find {
        rule: Rule,
    },
    /// Exactly the one that was found: another file in its place is left alone.
    Delete {
        found: Found,
    },
    Put(Put),
}

/// Bytes for a file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    pub bundle: String,
    pub file: String,
    #[serde(with = "crate::octets")]
    pub content: Vec<u8>,
    /// In the place of what the file holds, not behind it.
    pub first: bool,
}

/// Which files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Within a granted one.
    pub pattern: String,
    /// Not changed for so many seconds; the grant's own least age holds too.
    pub older_than: u64,
    /// At least so many bytes.
    pub at_least: u64,
    /// The oldest so many.
    pub most: u32,
}

/// A file, as it was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Found {
    /// Nanoseconds since the Unix epoch. First, so that the oldest come first.
    pub modified: u64,
    pub path: String,
    pub bytes: u64,
    pub inode: u64,
    pub device: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Found {
        /// The oldest first.
        files: Vec<Found>,
        /// There are more.
        more: bool,
    },
    Deleted,
    /// It is not there any more.
    Gone,
    /// Where the file lies.
    Put {
        path: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    #[error("not granted: {0}")]
    Denied(String),
    #[error("not found: {0}")]
    NotFound(String),
    #[error("not valid: {0}")]
    Invalid(String),
    /// Another file stands there now, or it was changed.
    #[error("it is another one now: {0}")]
    Changed(String),
    #[error("too much to look at: {0}")]
    TooLarge(String),
    #[error("{0}")]
    TimedOut(String),
    #[error("{0}")]
    Io(String),
}

/// Does it on a thread of its own, within `limits.control_time`.
pub(crate) async fn call(rules: &Rules, limits: &ServiceLimits, request: Request) -> Result<Answer, Error> {
    let now = Duration::from_nanos(crate::always::now_ns());
    let deadline = std::time::Instant::now() + limits.control_time;
    let work: Box<dyn FnOnce() -> Result<Answer, Error> + Send> = match request {
        Request::Find { rule } => {
            let place = rules.find(&rule)?;
            Box::new(move || walk::find(&place, &rule, now, deadline))
        }
        Request::Delete { found } => {
            let place = rules.delete(&found.path)?;
            Box::new(move || walk::delete(&place, &found, now))
        }
        Request::Put(put) => {
            let place = rules.bundles()?;
            Box::new(move || bundle::put(&place, &put))
        }
    };
    let task = tokio::task::spawn_blocking(work);
    match tokio::time::timeout(limits.control_time + Duration::from_secs(1), task).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(e)) => Err(Error::Io(format!("the look at the files was lost: {e}"))),
        Err(_) => Err(Error::TimedOut(format!("no answer within {} s", limits.control_time.as_secs()))),
    }
}

#[cfg(test)]
mod tests;
