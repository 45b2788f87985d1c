//! What a plugin implements.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use serde::de::DeserializeOwned;

use crate::core::Core;
use crate::{Describe, DynamicFamily, Event, FamilyDefinition, sys};

/// Something that reads and sets values.
pub trait Source: Sized + 'static {
    /// The operator's settings, `{}` where there are none: give every field a default, and refuse unknown ones
    /// (`#[serde(default, deny_unknown_fields)]`).
    type Settings: DeserializeOwned;

    /// Declares every family that can be known beforehand and keeps their handles. Must not depend on settings.
    fn describe(families: &mut Describe) -> Self;

    /// Takes the settings; called before the first collect.
    ///
    /// # Errors
    /// Settings that can't be used; the message says what would be.
    fn configure(&mut self, settings: Self::Settings) -> Result<(), Failure> {
        let _ = settings;
        Ok(())
    }

    /// One reading. What was set before an error is kept.
    ///
    /// # Errors
    /// Where nothing more can be read. Where only a part failed: [`Collect::fail`], and go on.
    fn collect(&mut self, collect: &mut Collect<'_>) -> Result<(), Failure>;
}

/// A source whose behaviour an operator may change while it runs.
pub trait Controllable: Source {
    /// What can be changed, as one value.
    type Control: serde::Serialize + DeserializeOwned;

    /// A JSON Schema of [`Self::Control`].
    fn schema() -> serde_json::Value;

    /// What is in force.
    fn control(&self) -> Self::Control;

    /// Puts it in force, all or nothing.
    ///
    /// # Errors
    /// What is not allowed, a line each, saying what is.
    fn set_control(&mut self, control: Self::Control) -> Result<(), Refused>;
}

/// Why a change was refused: a line for each thing that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct Refused(pub Vec<String>);

impl From<String> for Refused {
    fn from(line: String) -> Self {
        Self(vec![line])
    }
}

/// The settings of a source that has none.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

/// Why something could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Failure {
    /// A short word, the label of `picket_source_errors_total`: `unreachable`, `parse`, `not-found` …
    pub reason: Cow<'static, str>,
    /// For a person: what happened, to what, why, what to do.
    pub message: String,
}

impl Failure {
    /// A failure with a reason from a small, fixed set of words.
    pub fn new(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into() }
    }
}

/// One reading under way.
pub struct Collect<'a> {
    pub(crate) core: &'a Rc<RefCell<Core>>,
}

impl Collect<'_> {
    /// Something could not be read, and the rest goes on. Counted by `reason` (a short word), logged with `message`.
    pub fn fail(&mut self, reason: &str, message: &str) {
        sys::fail(reason, message);
    }

    /// As [`Self::fail`], of a failure that came from below.
    pub fn failed(&mut self, failure: impl Into<Failure>) {
        let failure = failure.into();
        self.fail(&failure.reason, &failure.message);
    }

    /// Sends an event; an event that ends one is made by [`Event::ended`].
    pub fn emit(&mut self, event: Event) {
        if let Err(error) = sys::emit(event) {
            self.fail("event", &format!("an event was refused: {error}"));
        }
    }

    /// A family that [`Source::describe`] could not know: of a page that is passed through. Declared with the host
    /// when it is first asked for; from then on found by its name.
    ///
    /// # Errors
    /// The host refused it: a name that is not valid, a clash of types, a limit.
    pub fn family(&mut self, definition: &FamilyDefinition<'_>) -> Result<DynamicFamily, Failure> {
        DynamicFamily::declare(self.core, definition)
    }
}
