//! Commands that the operator defined by name: the plugin fills typed slots, nothing else. No shell.

mod scope;

use serde::{Deserialize, Serialize};

pub use scope::{CommandRule, Scope};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The operator's name for it.
    pub command: String,
    pub slots: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The exit status, or minus the signal that ended it.
    pub status: i32,
    pub stdout: Vec<u8>,
    /// At most 4 KiB, the end of it.
    pub stderr: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    #[error("not granted: {0}")]
    Denied(String),
    #[error("not a valid value: {0}")]
    Invalid(String),
    #[error("the program is not there: {0}")]
    NotFound(String),
    #[error("the command did not end in time: {0}")]
    TimedOut(String),
    #[error("the command wrote too much: {0}")]
    TooLarge(String),
    #[error("{0}")]
    Other(String),
}
