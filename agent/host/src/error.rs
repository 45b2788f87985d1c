//! What went wrong with a plugin: which one, at which phase, whose fault it is, why, and what to do.

pub(crate) mod codes;

use std::error::Error;
use std::fmt;
use std::ops::Deref;

use picket_proto::model::PluginId;

pub use codes::{CODES, Code};

/// A plugin failed. The parts are reached through `Deref`.
#[derive(Debug)]
pub struct PluginError(Box<Failure>);

/// The parts of a [`PluginError`].
#[derive(Debug)]
pub struct Failure {
    pub plugin: PluginId,
    /// As the manifest says; empty where it was not read yet.
    pub version: String,
    /// SHA-256 of the component file in hex; empty where it was not read yet.
    pub digest: String,
    pub phase: Phase,
    pub fault: Fault,
    /// `PKT-0061`: stands in [`CODES`].
    pub code: &'static str,
    /// What happened, for a person.
    pub message: String,
    /// What to do about it.
    pub advice: &'static str,
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

/// Where in a plugin's life it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    Read,
    Manifest,
    Admit,
    Compile,
    Link,
    Instantiate,
    Describe,
    Configure,
    Collect,
    Control,
    Plan,
    Apply,
    Probe,
    Revert,
}

/// Whose it is to mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The plugin's author's.
    Plugin,
    /// A limit of the node's was reached: the author's, or the operator's who set it.
    Limit,
    /// The operator has not granted something.
    Grant,
    /// The agent's or the machine's.
    Host,
}

impl PluginError {
    pub(crate) fn new(
        plugin: &PluginId,
        phase: Phase,
        code: &'static Code,
        message: impl Into<String>,
    ) -> Self {
        Self(Box::new(Failure {
            plugin: plugin.clone(),
            version: String::new(),
            digest: String::new(),
            phase,
            fault: code.fault,
            code: code.code,
            message: message.into(),
            advice: code.advice,
            source: None,
        }))
    }

    pub(crate) fn of(mut self, version: &str, digest: &str) -> Self {
        version.clone_into(&mut self.0.version);
        digest.clone_into(&mut self.0.digest);
        self
    }

    pub(crate) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The message with the chain of its causes, without the plugin's name.
    pub fn why(&self) -> String {
        let mut text = self.0.message.clone();
        let mut cause = self.source();
        while let Some(c) = cause {
            let line = c.to_string();
            if !text.contains(&line) {
                text.push_str(": ");
                text.push_str(&line);
            }
            cause = c.source();
        }
        text
    }
}

impl Deref for PluginError {
    type Target = Failure;
    fn deref(&self) -> &Failure {
        &self.0
    }
}

impl Error for PluginError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_ref().map(|s| s.as_ref() as _)
    }
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: plugin {}", self.code, self.plugin)?;
        if !self.version.is_empty() {
            write!(f, " {}", self.version)?;
        }
        if let Some(short) = self.digest.get(..12) {
            write!(f, " (sha256 {short}…)")?;
        }
        write!(f, ", {} ({}): {}", self.phase, self.fault, self.message)?;
        if !self.advice.is_empty() {
            write!(f, ". {}", self.advice)?;
        }
        Ok(())
    }
}

impl Phase {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Manifest => "manifest",
            Self::Admit => "admit",
            Self::Compile => "compile",
            Self::Link => "link",
            Self::Instantiate => "instantiate",
            Self::Describe => "describe",
            Self::Configure => "configure",
            Self::Collect => "collect",
            Self::Control => "control",
            Self::Plan => "plan",
            Self::Apply => "apply",
            Self::Probe => "probe",
            Self::Revert => "revert",
        }
    }
}

impl Fault {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Plugin => "plugin",
            Self::Limit => "limit",
            Self::Grant => "grant",
            Self::Host => "host",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Why a control call gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nothing was changed. Each line says what is allowed.
    #[error("refused: {}", .0.join("; "))]
    Refused(Vec<String>),
    /// The plugin takes no settings while it runs.
    #[error("the plugin {0} is not controllable: its world is not picket:source/controllable-source-plugin")]
    NotControllable(PluginId),
    #[error(transparent)]
    Plugin(#[from] PluginError),
}
