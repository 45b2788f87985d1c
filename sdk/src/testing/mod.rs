//! A host for tests, without WebAssembly: the plugin runs natively, its capabilities are fakes (or the real files of
//! this machine), and what it sets can be looked at.
//!
//! It holds the plugin to the contract as a node's host does: names are checked, numbers must be known, a series
//! stands in a collect once. A break of it is a [`Host::failures`] entry, as it would be in production.

mod action;
pub(crate) mod backend;
mod commands;
mod engine;
mod gpu;
mod lines;
pub mod page;
mod sink;
mod text;
mod world;

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use crate::command::{CommandError, Output};
use crate::files::{FileSystem, FilesError};
use crate::http::{HttpError, Request, Response};
use crate::kmsg::KmsgError;
use crate::log::Level;
use crate::logs::{Batch, Selection, SourceKind};
use crate::nvml::NvmlError;
use crate::runner::{ControlFailure, Runner};
use crate::system::{TimeZone, Uname};
use crate::{Controllable, Event, Failure, Refused, Source};

pub use action::{ActionHost, NoSource};
pub use engine::Engine;
pub use sink::{DeclaredFamily, Sample};

use world::World;

/// One instance of a plugin, and the world that it sees.
pub struct Host<P> {
    world: Rc<RefCell<World>>,
    runner: Runner<P>,
}

impl<P: Source> Host<P> {
    /// A new instance, described, in a world with no files, a clock that stands at 2026-01-01T00:00:00Z, and the
    /// zone UTC.
    pub fn new() -> Self {
        Self::of(Rc::new(RefCell::new(World::default())))
    }

    fn of(world: Rc<RefCell<World>>) -> Self {
        let runner = backend::within(&world, Runner::new);
        world.borrow_mut().sink.describe(runner.families());
        Self { world, runner }
    }

    /// As after a trap: the same world, a fresh instance, not configured yet.
    #[must_use]
    pub fn restarted(self) -> Self {
        self.world.borrow_mut().sink = sink::Sink::default();
        Self::of(self.world)
    }

    /// Lets the plugin read the real files below `root` as if it were `/`. Files given by [`Self::file`] come first.
    #[must_use]
    pub fn files_root(self, root: impl Into<PathBuf>) -> Self {
        self.world.borrow_mut().root = Some(root.into());
        self
    }

    /// Adds or replaces a file.
    pub fn file(&mut self, path: &str, content: impl Into<Vec<u8>>) -> &mut Self {
        self.world.borrow_mut().files.insert(path.to_owned(), Ok(content.into()));
        self
    }

    /// Says when a file was changed, in seconds since the Unix epoch.
    pub fn file_modified(&mut self, path: &str, seconds: u64) -> &mut Self {
        self.world.borrow_mut().modified.insert(path.to_owned(), Duration::from_secs(seconds));
        self
    }

    /// Makes reading this path (a file or a directory) fail.
    pub fn broken_file(&mut self, path: &str, error: FilesError) -> &mut Self {
        self.world.borrow_mut().files.insert(path.to_owned(), Err(error));
        self
    }

    /// Adds or replaces a link.
    pub fn link(&mut self, path: &str, target: &str) -> &mut Self {
        self.world.borrow_mut().links.insert(path.to_owned(), target.to_owned());
        self
    }

    /// What `stat_file_system` says of a path.
    pub fn file_system(&mut self, path: &str, result: Result<FileSystem, FilesError>) -> &mut Self {
        self.world.borrow_mut().file_systems.insert(path.to_owned(), result);
        self
    }

    /// Sets the clock, in milliseconds since the Unix epoch.
    pub fn set_now_ms(&mut self, now_ms: u64) -> &mut Self {
        self.world.borrow_mut().now = Some(Duration::from_millis(now_ms));
        self
    }

    /// Moves both clocks on.
    pub fn advance(&mut self, by: Duration) -> &mut Self {
        self.world.borrow_mut().advance(by);
        self
    }

    /// Uses this machine's clock.
    pub fn real_clock(&mut self) -> &mut Self {
        self.world.borrow_mut().now = None;
        self
    }

    /// Seeds what `random` gives; the same seed gives the same bytes.
    pub fn seed(&mut self, seed: u64) -> &mut Self {
        self.world.borrow_mut().seed = seed;
        self
    }

    /// What the kernel says; else this machine's.
    pub fn uname(&mut self, uname: Uname) -> &mut Self {
        self.world.borrow_mut().uname = Some(uname);
        self
    }

    /// The local time zone.
    pub fn time_zone(&mut self, name: &str, offset_seconds: i32) -> &mut Self {
        self.world.borrow_mut().zone = TimeZone { name: name.to_owned(), offset_seconds };
        self
    }

    /// Answers the plugin's HTTP requests; without it they are [`HttpError::Denied`].
    pub fn http(
        &mut self,
        answer: impl FnMut(&Request) -> Result<Response, HttpError> + 'static,
    ) -> &mut Self {
        self.world.borrow_mut().http = Some(Rc::new(RefCell::new(answer)));
        self
    }

    /// Answers `nvml::snapshot`, given the age in milliseconds that the plugin asked for, with a document as
    /// [`crate::nvml::Snapshot::parse`] reads it; without it there is no driver.
    pub fn nvml(
        &mut self,
        snapshot: impl FnMut(u32) -> Result<serde_json::Value, NvmlError> + 'static,
    ) -> &mut Self {
        self.world.borrow_mut().nvml = Some(Box::new(snapshot));
        self
    }

    /// The kernel writes a message now.
    pub fn kernel_message(&mut self, text: &str) -> &mut Self {
        let mut world = self.world.borrow_mut();
        let now_ms = u64::try_from(world.now().as_millis()).unwrap_or(u64::MAX);
        world.kmsg.append(now_ms, text);
        drop(world);
        self
    }

    /// Makes reading kernel messages fail, or work again.
    pub fn broken_kmsg(&mut self, error: Option<KmsgError>) -> &mut Self {
        self.world.borrow_mut().kmsg.error = error;
        self
    }

    /// The next page says that so many messages were lost before it.
    pub fn lost_kernel_messages(&mut self, lost: u64) -> &mut Self {
        self.world.borrow_mut().kmsg.lost = lost;
        self
    }

    /// Answers the plugin's commands, given the operator's name and the slots; without it they are
    /// [`CommandError::Denied`].
    pub fn command(
        &mut self,
        answer: impl FnMut(&str, &[(&str, &str)]) -> Result<Output, CommandError> + 'static,
    ) -> &mut Self {
        self.world.borrow_mut().commands.answer = Some(Rc::new(RefCell::new(answer)));
        self
    }

    /// Answers the plugin's requests over Unix sockets, given the socket's path; without it they are
    /// [`HttpError::Denied`].
    pub fn unix_http(
        &mut self,
        answer: impl FnMut(&str, &Request) -> Result<Response, HttpError> + 'static,
    ) -> &mut Self {
        self.world.borrow_mut().unix_http = Some(Rc::new(RefCell::new(answer)));
        self
    }

    /// Changes what the plugin sees of containers; without a first call nothing is granted.
    pub fn engine(&mut self, change: impl FnOnce(&mut Engine)) -> &mut Self {
        change(self.world.borrow_mut().engine.get_or_insert_default());
        self
    }

    /// Appends to a log, which is made where there is none of this kind and name. The labels are what the host knows of it.
    pub fn write_log(
        &mut self,
        kind: SourceKind,
        name: &str,
        labels: &[(&str, &str)],
        bytes: &[u8],
    ) -> &mut Self {
        self.world.borrow_mut().lines.write(kind, name, labels, bytes);
        self
    }

    /// Nothing is added to this log any more.
    pub fn end_log(&mut self, name: &str) -> &mut Self {
        self.world.borrow_mut().lines.end(name);
        self
    }

    /// Whether the queue for log lines is full, so that none are read.
    pub fn full_log_queue(&mut self, full: bool) -> &mut Self {
        self.world.borrow_mut().lines.full = full;
        self
    }

    /// What the plugin last asked to read.
    pub fn log_selection(&self) -> Option<Selection> {
        self.world.borrow().lines.asked.clone()
    }

    /// The log lines of the good collects since the last call.
    pub fn take_lines(&mut self) -> Vec<Batch> {
        std::mem::take(&mut self.world.borrow_mut().lines.taken)
    }

    /// How many bytes the store takes (64 KiB unless said otherwise).
    pub fn store_bytes(&mut self, bytes: usize) -> &mut Self {
        self.world.borrow_mut().store.capacity = bytes;
        self
    }

    /// How many series may be registered at once.
    pub fn series_quota(&mut self, series: usize) -> &mut Self {
        self.world.borrow_mut().sink.quota = series;
        self
    }

    /// Configures the plugin.
    ///
    /// # Errors
    /// What the plugin said of them.
    pub fn configure(&mut self, settings: &serde_json::Value) -> Result<(), Failure> {
        backend::within(&self.world, || self.runner.configure(&settings.to_string()))
    }

    /// One collect. What it pushed is in [`Self::samples`], whether or not it ended well.
    ///
    /// # Errors
    /// The plugin's own.
    pub fn collect(&mut self) -> Result<(), Failure> {
        self.world.borrow_mut().sink.begin();
        let collected = backend::within(&self.world, || self.runner.collect());
        let mut world = self.world.borrow_mut();
        world.commands.call_ended();
        let now = world.now();
        world.lines.collect_ended(collected.is_ok(), now);
        drop(world);
        collected
    }

    /// The plugin itself.
    pub fn plugin(&mut self) -> &mut P {
        &mut self.runner.plugin
    }

    /// What the last collect pushed, ordered by family, labels and part.
    pub fn samples(&self) -> Vec<Sample> {
        self.world.borrow().sink.samples()
    }

    /// The value of the last collect's series of this exposed name (`x_bucket` for a bucket) and exactly these
    /// labels, in any order.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut wanted: Vec<(&str, &str)> = labels.to_vec();
        wanted.sort_unstable();
        let samples = self.samples();
        let mut found = samples.iter().filter(|s| {
            s.exposed_name() == name
                && s.labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).eq(wanted.iter().copied())
        });
        found.next().map(|s| s.value)
    }

    /// The last collect as Prometheus text, format 0.0.4.
    pub fn text(&self) -> String {
        text::render(&self.world.borrow().sink)
    }

    /// The families that are declared.
    pub fn families(&self) -> Vec<DeclaredFamily> {
        self.world.borrow().sink.families.clone()
    }

    /// How many series are registered now.
    pub fn registered(&self) -> usize {
        self.world.borrow().sink.series.len()
    }

    /// The events since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.world.borrow_mut().sink.events)
    }

    /// The failures of the last collect that the plugin (or the SDK for it) reported, as reason and message.
    pub fn failures(&self) -> Vec<(String, String)> {
        self.world.borrow().sink.failures.clone()
    }

    /// The lines logged since the last call.
    pub fn take_log(&mut self) -> Vec<(Level, String)> {
        std::mem::take(&mut self.world.borrow_mut().log)
    }
}

impl<P: Source> Default for Host<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Controllable> Host<P> {
    /// What is in force, as JSON.
    pub fn control(&mut self) -> serde_json::Value {
        let text = backend::within(&self.world, || self.runner.control()).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Changes it; gives what is in force then.
    ///
    /// # Errors
    /// What the plugin refused.
    pub fn set_control(&mut self, control: &serde_json::Value) -> Result<serde_json::Value, Refused> {
        let set = backend::within(&self.world, || self.runner.set_control(&control.to_string()));
        match set {
            Ok(text) => Ok(serde_json::from_str(&text).unwrap_or_default()),
            Err(ControlFailure::Refused(refused)) => Err(refused),
            Err(ControlFailure::Other(message)) => Err(Refused(vec![message])),
        }
    }
}
