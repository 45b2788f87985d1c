//! What an action plugin says, as plain data: of its own crossing the border to the guest, and what the agent works with.

use serde::{Deserialize, Serialize};

/// One thing that a plugin can do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    pub name: String,
    pub summary: String,
    /// A JSON Schema of the parameters.
    pub parameters: serde_json::Value,
    /// What it may disturb: `process`, `container`, `gpu`, `node`, `service`, `data`, or a word of the plugin's own.
    pub disturbs: Vec<String>,
    /// `revert` brings back what was there.
    pub reversible: bool,
}

impl Definition {
    /// It can't be undone, and reaches further than one service or one piece of work: a second person has to agree. What
    /// a plugin calls by a word of its own counts as such.
    pub fn is_dangerous(&self) -> bool {
        !self.reversible
            && self.disturbs.iter().any(|what| !matches!(what.as_str(), "process" | "container" | "service"))
    }
}

/// One effect, exactly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What is done to what, for a person.
    pub summary: String,
    pub subject_kind: String,
    pub subject_id: String,
    /// The plugin's own words.
    pub arguments: String,
}

/// What will be done, and what whoever decides should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// None: what is wanted is so already.
    pub steps: Vec<Step>,
    pub notes: Vec<String>,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The state that it found: the plugin's own words, for `revert`.
    pub before: String,
    pub message: String,
}

/// Whether a step took effect whose apply did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    Done(String),
    NotDone(String),
    CannotTell(String),
}

/// The plugin's own no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Declined {
    /// A short word.
    pub reason: String,
    pub message: String,
}

/// A definition as it comes from the guest, not looked at yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Described {
    pub name: String,
    pub summary: String,
    pub parameters: String,
    pub disturbs: Vec<String>,
    pub reversible: bool,
}
