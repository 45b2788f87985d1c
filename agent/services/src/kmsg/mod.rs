//! Kernel messages, from a cursor that the reader keeps.

mod scope;

use serde::{Deserialize, Serialize};

pub use scope::Scope;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Read {
        /// What an earlier [`Answer::cursor`] was; none: from the oldest message that the kernel holds.
        after: Option<String>,
        /// The most messages.
        most: u32,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub messages: Vec<Message>,
    pub cursor: String,
    /// Messages that the kernel overwrote before they were read.
    pub lost: u64,
    /// Later ones are there.
    pub more: bool,
}

/// A record of /dev/kmsg (Documentation/ABI/testing/dev-kmsg).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub sequence: u64,
    /// Milliseconds since the Unix epoch.
    pub timestamp: u64,
    /// 0 (emergency) to 7 (debug), syslog(3).
    pub priority: u8,
    pub facility: u8,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    #[error("the cursor is none that this capability gave: {0}")]
    Invalid(String),
    #[error("kernel messages cannot be read: {0}")]
    Unavailable(String),
    #[error("{0}")]
    Other(String),
}
