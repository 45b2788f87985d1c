//! Keys and values of a plugin that outlive the agent.
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Get { key: String },
    /// `ttl`: seconds after which the value is gone.
    Set { key: String, value: Vec<u8>, ttl: Option<u64> },
    Delete { key: String },
    Keys { prefix: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Value(Option<Vec<u8>>),
    Keys(Vec<String>),
    Done,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Full(String),
    #[error("{0}")]
    Other(String),
}
