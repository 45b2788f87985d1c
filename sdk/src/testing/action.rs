//! The host for tests of actions: what a node's executor does, without a node.

use std::cell::RefCell;
use std::rc::Rc;

use super::world::World;
use super::{Host, backend};
use crate::Failure;
use crate::action::{self, Action, Applied, Definition, Parameters, Plan, Step, Verdict};
use crate::files_write::Found;
use crate::systemd_control::{SystemdError, Unit, Verb};

/// Commands to an action plugin, each with a fresh instance, in a world that stays. The world is set up as a source's is:
/// through the [`World`] methods of a [`Host`], by [`Self::world`].
pub struct ActionHost<A> {
    world: Rc<RefCell<World>>,
    settings: String,
    plugin: std::marker::PhantomData<A>,
}

impl<A: Action> ActionHost<A> {
    /// In the world of a new [`Host`], without settings.
    pub fn new() -> Self {
        let world = Rc::new(RefCell::new(World::default()));
        Self { world, settings: "{}".to_owned(), plugin: std::marker::PhantomData }
    }

    /// The operator's settings for the commands that follow.
    #[must_use]
    pub fn settings(mut self, settings: &serde_json::Value) -> Self {
        self.settings = settings.to_string();
        self
    }

    /// The world that the plugin sees, to be changed as a source's test does.
    pub fn world(&self) -> Host<NoSource> {
        Host::of(self.world.clone())
    }

    /// The commands of the grant that have `reads = true`.
    #[must_use]
    pub fn reads(self, commands: &[&str]) -> Self {
        self.world.borrow_mut().commands.reads = commands.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// Adds or replaces a unit of systemd.
    pub fn unit(&self, unit: Unit) -> &Self {
        self.world.borrow_mut().units.insert(unit.id.clone(), unit);
        self
    }

    /// Makes changes of units end so, or work again; [`SystemdError::Unavailable`] is said of looks at them too.
    pub fn broken_units(&self, error: Option<SystemdError>) -> &Self {
        self.world.borrow_mut().broken_units = error;
        self
    }

    /// The changes of units since the last call.
    pub fn take_unit_changes(&self) -> Vec<(String, Verb)> {
        std::mem::take(&mut self.world.borrow_mut().unit_changes)
    }

    /// Adds a file that may be deleted.
    pub fn deletable(&self, found: Found) -> &Self {
        self.world.borrow_mut().deletable.push(found);
        self
    }

    /// The bundles' files: `/bundles/BUNDLE/FILE` and what each holds.
    pub fn bundles(&self) -> std::collections::BTreeMap<String, Vec<u8>> {
        self.world.borrow().bundles.clone()
    }

    /// Those that are left.
    pub fn left(&self) -> Vec<String> {
        self.world.borrow().deletable.iter().map(|f| f.path.clone()).collect()
    }

    /// The definitions, as they are shown.
    pub fn describe(&self) -> Vec<Definition> {
        backend::within(&self.world, A::describe)
    }

    /// The plan; nothing can be changed.
    ///
    /// # Errors
    /// The plugin's own.
    pub fn plan(&self, name: &str, parameters: &serde_json::Value) -> Result<Plan, Failure> {
        self.command(true, |a| a.plan(name, &Parameters(parameters.to_string())))?
    }

    /// One step.
    ///
    /// # Errors
    /// The plugin's own.
    pub fn apply(&self, name: &str, step: &Step) -> Result<Applied, Failure> {
        self.command(false, |a| a.apply(name, step))?
    }

    /// As after a crash; nothing can be changed.
    pub fn probe(&self, name: &str, step: &Step) -> Verdict {
        match self.command(true, |a| a.probe(name, step)) {
            Ok(verdict) => verdict,
            Err(failure) => Verdict::CannotTell(failure.to_string()),
        }
    }

    /// Undoes a step.
    ///
    /// # Errors
    /// The plugin's own.
    pub fn revert(&self, name: &str, step: &Step, before: &str) -> Result<String, Failure> {
        self.command(false, |a| a.revert(name, step, before))?
    }

    fn command<R>(&self, held: bool, f: impl FnOnce(&mut A) -> R) -> Result<R, Failure> {
        self.world.borrow_mut().held = held;
        let done =
            backend::within(&self.world, || action::instance::<A>(&self.settings).map(|mut a| f(&mut a)));
        let mut world = self.world.borrow_mut();
        world.held = false;
        world.commands.call_ended();
        done
    }
}

impl<A: Action> Default for ActionHost<A> {
    fn default() -> Self {
        Self::new()
    }
}

/// Nothing is collected: the source of [`ActionHost::world`].
pub struct NoSource;

impl crate::Source for NoSource {
    type Settings = crate::NoSettings;

    fn describe(_: &mut crate::Describe) -> Self {
        Self
    }

    fn collect(&mut self, _: &mut crate::Collect<'_>) -> Result<(), Failure> {
        Ok(())
    }
}
