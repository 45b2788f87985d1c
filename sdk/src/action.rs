//! Plugins that change something.
//!
//! An action says beforehand, step by step, exactly what it would do ([`Action::plan`]); only what was agreed to is done
//! ([`Action::apply`]), a step at a time. Each command gets a fresh instance, so what a step needs stands in the step. The
//! plan has to be the same for the same state of the node: it is made again before it is applied, and where it differs
//! from what was agreed to, nothing is done. So put into a step's arguments the state that it relies on.
//!
//! Outside of `apply` and `revert` the host refuses all that would change something.
//!
//! ```
//! use picket_sdk::action::{Action, Applied, Definition, Parameters, Plan, Step, Verdict};
//! use picket_sdk::{Failure, NoSettings, containers_control as control};
//!
//! struct Kick;
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Wish {
//!     id: String,
//! }
//!
//! impl Action for Kick {
//!     type Settings = NoSettings;
//!
//!     fn describe() -> Vec<Definition> {
//!         vec![Definition::new("restart", "Restarts a container").disturbs(&["container"])]
//!     }
//!
//!     fn new(_: NoSettings) -> Result<Self, Failure> {
//!         Ok(Self)
//!     }
//!
//!     fn plan(&mut self, _: &str, parameters: &Parameters) -> Result<Plan, Failure> {
//!         let wish: Wish = parameters.read()?;
//!         let summary = format!("restart the container {}", wish.id);
//!         Ok(Plan::of(vec![Step::new(summary, ("container", &wish.id), &wish)?]))
//!     }
//!
//!     fn apply(&mut self, _: &str, step: &Step) -> Result<Applied, Failure> {
//!         let wish: Wish = step.arguments()?;
//!         control::restart(&wish.id, 10)?;
//!         Ok(Applied::new("restarted"))
//!     }
//!
//!     fn probe(&mut self, _: &str, _: &Step) -> Verdict {
//!         Verdict::CannotTell("its start was not noted".to_owned())
//!     }
//! }
//!
//! picket_sdk::export_action!(Kick);
//! # fn main() {}
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Failure;

/// Something that can be done to a node.
pub trait Action: Sized + 'static {
    /// The operator's settings, `{}` where there are none: give every field a default, and refuse unknown ones
    /// (`#[serde(default, deny_unknown_fields)]`).
    type Settings: DeserializeOwned;

    /// What it can do. Must not depend on settings or the node.
    fn describe() -> Vec<Definition>;

    /// An instance for one command.
    ///
    /// # Errors
    /// Settings that can't be used; the message says what would be.
    fn new(settings: Self::Settings) -> Result<Self, Failure>;

    /// The exact steps. Nothing can be changed here.
    ///
    /// # Errors
    /// Parameters that make no sense, a subject that is not there, a precondition that is not met.
    fn plan(&mut self, name: &str, parameters: &Parameters) -> Result<Plan, Failure>;

    /// Does one step.
    ///
    /// # Errors
    /// What went wrong; then [`Self::probe`] says whether anything was changed all the same.
    fn apply(&mut self, name: &str, step: &Step) -> Result<Applied, Failure>;

    /// Whether a step took effect whose apply did not end well: an error, the agent died, the time was up.
    fn probe(&mut self, name: &str, step: &Step) -> Verdict;

    /// Undoes one step, given what its apply found; says what was done.
    ///
    /// # Errors
    /// Where nothing was changed; as here, where the action can't be undone.
    fn revert(&mut self, name: &str, step: &Step, before: &str) -> Result<String, Failure> {
        let _ = (step, before);
        Err(Failure::new("irreversible", format!("{name} can't be undone")))
    }
}

/// One thing that a plugin can do.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Definition {
    /// A word: `restart`.
    pub name: String,
    /// One line for a person.
    pub summary: String,
    /// A JSON Schema of the parameters.
    pub parameters: Value,
    /// What it may disturb: `process`, `container`, `gpu`, `node`, `service`, `data`, or a word of one's own.
    pub disturbs: Vec<String>,
    /// [`Action::revert`] brings back what was there.
    pub reversible: bool,
}

impl Definition {
    /// One without parameters that disturbs nothing and can't be undone.
    pub fn new(name: &str, summary: &str) -> Self {
        let parameters =
            serde_json::json!({ "type": "object", "additionalProperties": false, "properties": {} });
        let (name, summary) = (name.to_owned(), summary.to_owned());
        Self { name, summary, parameters, disturbs: Vec::new(), reversible: false }
    }

    /// A JSON Schema of the parameters.
    #[must_use]
    pub fn parameters(mut self, schema: Value) -> Self {
        self.parameters = schema;
        self
    }

    /// What it may disturb.
    #[must_use]
    pub fn disturbs(mut self, what: &[&str]) -> Self {
        self.disturbs = what.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// It can be undone.
    #[must_use]
    pub fn reversible(mut self) -> Self {
        self.reversible = true;
        self
    }
}

/// What is wanted: a JSON object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters(pub(crate) String);

impl Parameters {
    /// As a type of the plugin's own; refuse unknown fields with `#[serde(deny_unknown_fields)]`.
    ///
    /// # Errors
    /// `parameters` where they are not what was looked for.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let text = if self.0.trim().is_empty() { "{}" } else { self.0.as_str() };
        serde_json::from_str(text)
            .map_err(|e| Failure::new("parameters", format!("the parameters are not valid: {e}")))
    }
}

/// One effect, exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What is done to what, for a person.
    pub summary: String,
    /// Its kind (`container`, `unit`, `gpu`, `slurm-node`, `job`, `file`, `node`) and its name. Cooldowns go by it.
    pub subject: (String, String),
    pub(crate) arguments: String,
}

impl Step {
    /// `arguments`: all that apply, probe and revert need, with the state that the plan relies on.
    ///
    /// # Errors
    /// Arguments that are no JSON.
    pub fn new(
        summary: impl Into<String>,
        subject: (&str, &str),
        arguments: &impl Serialize,
    ) -> Result<Self, Failure> {
        let arguments = serde_json::to_string(arguments)
            .map_err(|e| Failure::new("other", format!("the step can't be written down: {e}")))?;
        let (kind, id) = subject;
        Ok(Self { summary: summary.into(), subject: (kind.to_owned(), id.to_owned()), arguments })
    }

    /// What [`Self::new`] was given.
    ///
    /// # Errors
    /// `other` where it is not that.
    pub fn arguments<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.arguments)
            .map_err(|e| Failure::new("other", format!("the step is not of this plugin: {e}")))
    }
}

/// What will be done, and what whoever decides should know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In this order. None: what is wanted is so already.
    pub steps: Vec<Step>,
    /// For a person.
    pub notes: Vec<String>,
}

impl Plan {
    /// Without notes.
    pub fn of(steps: Vec<Step>) -> Self {
        Self { steps, notes: Vec::new() }
    }

    /// Nothing is to be done; the note says why.
    pub fn nothing(why: impl Into<String>) -> Self {
        Self { steps: Vec::new(), notes: vec![why.into()] }
    }

    /// With one note more.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }
}

/// What a step did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// The state that was found, for [`Action::revert`].
    pub before: String,
    /// For a person.
    pub message: String,
}

impl Applied {
    /// With nothing to remember.
    pub fn new(message: impl Into<String>) -> Self {
        Self { before: String::new(), message: message.into() }
    }

    /// With the state that was found.
    #[must_use]
    pub fn before(mut self, before: impl Into<String>) -> Self {
        self.before = before.into();
        self
    }
}

/// Whether a step took effect; the text says by what that is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It did.
    Done(String),
    /// It did not.
    NotDone(String),
    /// Nobody can say.
    CannotTell(String),
}

/// An instance of `A`, of settings as the host gives them.
pub(crate) fn instance<A: Action>(settings: &str) -> Result<A, Failure> {
    let settings = if settings.trim().is_empty() { "{}" } else { settings };
    let settings = serde_json::from_str(settings)
        .map_err(|e| Failure::new("settings", format!("the settings are not valid: {e}")))?;
    A::new(settings)
}
