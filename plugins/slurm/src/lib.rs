//! A Slurm cluster, by one node that polls it: nodes, GPUs, jobs by state, user, account and reason, partitions,
//! reservations, the scheduler's statistics, and the controller's own metrics.
//!
//! Three readers (slurmrestd, JSON of the commands, their text) fill one model; which is used is chosen at the start and said.
//! A dump of each kind is asked for at most once in `interval_seconds` (a minute), and what it gave is told until the
//! next, with its age; what is older than three intervals is not told any more. The controller is pinged first: where it is down
//! nothing else is tried. A dump that fails is said and the others go on.

mod commands;
mod events;
mod json;
mod metrics;
mod model;
mod native;
mod poller;
mod reader;
mod restd;
mod settings;
mod text;

use std::collections::BTreeSet;
use std::time::Duration;

use picket_sdk::{Collect, Describe, Failure, Source, clock, log};

use metrics::Metrics;
use model::{Controller, Nodes, Partition, Queue, Reservation, Scheduler};
use poller::Verdict;
use reader::Reader;
use settings::Poller;
pub use settings::Settings;

/// After so long in one collect the dumps that are due wait for the next: a call into a plugin has a limit.
const LONGEST: Duration = Duration::from_secs(2);
/// Intervals after which what was read is too old.
const STALE: u32 = 3;
/// Intervals after which a better reader, or who polls, is looked for anew.
const REVIEW: u32 = 10;

/// The plugin.
pub struct Slurm {
    settings: Settings,
    metrics: Metrics,
    reader: Option<(Reader, Duration)>,
    verdict: Option<(Verdict, Duration)>,
    controllers: Cache<Vec<Controller>>,
    nodes: Cache<Nodes>,
    queue: Cache<Queue>,
    partitions: Cache<Vec<Partition>>,
    reservations: Cache<Vec<Reservation>>,
    scheduler: Cache<Scheduler>,
    native_read: Cache<()>,
    native: native::Native,
    watch: events::Watch,
    failing: BTreeSet<&'static str>,
}

/// What one kind of dump gave, and when.
struct Cache<T> {
    kind: &'static str,
    tried: Option<Duration>,
    took: Option<Duration>,
    held: Option<(T, Duration)>,
}

impl<T> Cache<T> {
    fn new(kind: &'static str) -> Self {
        Self { kind, tried: None, took: None, held: None }
    }

    fn is_due(&self, now: Duration, interval: Duration) -> bool {
        self.tried.is_none_or(|at| now.saturating_sub(at) >= interval)
    }

    fn is_old(&self, now: Duration, interval: Duration) -> bool {
        self.held.as_ref().is_some_and(|(_, at)| now.saturating_sub(*at) >= interval * STALE)
    }

    fn get(&self) -> Option<&T> {
        self.held.as_ref().map(|(data, _)| data)
    }
}

impl Source for Slurm {
    type Settings = Settings;

    fn describe(d: &mut Describe) -> Self {
        Self {
            settings: Settings::default(),
            metrics: Metrics::new(d),
            reader: None,
            verdict: None,
            controllers: Cache::new("controllers"),
            nodes: Cache::new("nodes"),
            queue: Cache::new("jobs"),
            partitions: Cache::new("partitions"),
            reservations: Cache::new("reservations"),
            scheduler: Cache::new("scheduler"),
            native_read: Cache::new("openmetrics"),
            native: native::Native::default(),
            watch: events::Watch::default(),
            failing: BTreeSet::new(),
        }
    }

    fn configure(&mut self, settings: Settings) -> Result<(), Failure> {
        settings.check()?;
        self.native.configure(&settings);
        self.settings = settings;
        Ok(())
    }

    fn collect(&mut self, c: &mut Collect<'_>) -> Result<(), Failure> {
        let polls = self.polls(c);
        if let Some(polls) = polls {
            self.metrics.own.poller.set(f64::from(u8::from(polls)));
        }
        if polls != Some(true) {
            return Ok(());
        }
        self.refresh(c);
        self.tell(c);
        Ok(())
    }
}

impl Slurm {
    fn interval(&self) -> Duration {
        Duration::from_secs(self.settings.interval_seconds)
    }

    /// None: it can't be said, because Slurm does not answer.
    fn polls(&mut self, c: &mut Collect<'_>) -> Option<bool> {
        let now = clock::monotonic();
        let review = self.interval() * REVIEW;
        if let Some((verdict, at)) = &self.verdict {
            // Who polls looks each time it reads the controllers; see `refresh`.
            let again = if verdict.polls { review } else { self.interval() * 2 };
            if now.saturating_sub(*at) < again {
                return Some(verdict.polls);
            }
        }
        let found = match poller::settled(&self.settings.poller) {
            Some(verdict) => Ok(verdict),
            None => self.ask_who(now),
        };
        match found {
            Ok(verdict) => {
                if self.verdict.as_ref().is_none_or(|(v, _)| v.polls != verdict.polls) {
                    let word = if verdict.polls { "polls" } else { "does not poll" };
                    log::info(&format!("this node {word} the cluster: {}", verdict.why));
                }
                let polls = verdict.polls;
                self.verdict = Some((verdict, now));
                Some(polls)
            }
            Err(failure) => {
                c.failed(failure);
                // Who polled goes on: where nobody can be asked nobody else begins.
                let before = self.verdict.as_mut().map(|(verdict, at)| {
                    *at = now;
                    verdict.polls
                });
                before.filter(|polls| *polls)
            }
        }
    }

    fn ask_who(&mut self, now: Duration) -> Result<Verdict, Failure> {
        if let Poller::Candidates(names) = &self.settings.poller {
            return poller::elect(names);
        }
        let controllers = self.ping()?;
        let verdict = poller::beside(&controllers);
        let nobody = poller::active(&controllers).is_none();
        self.controllers.tried = Some(now);
        self.controllers.held = Some((controllers, now));
        match &self.verdict {
            // With no controller at all who polled tells that.
            Some((before, _)) if nobody => Ok(before.clone()),
            _ if nobody => {
                // Its host is told even when it is down.
                let up = |c: &Controller| Controller { up: true, ..c.clone() };
                let all: Vec<Controller> = self.controllers.get().into_iter().flatten().map(up).collect();
                Ok(poller::beside(&all))
            }
            _ => Ok(verdict),
        }
    }

    /// By the reader that is in use, else by what can be had before there is one.
    fn ping(&self) -> Result<Vec<Controller>, Failure> {
        if let Some((reader, _)) = &self.reader {
            return reader.controllers();
        }
        match restd::Restd::find(&self.settings) {
            Some(Ok(restd)) if self.settings.reader != settings::ReaderChoice::Text => {
                Reader::Restd(restd).controllers()
            }
            _ => Reader::Text.controllers(),
        }
    }

    fn refresh(&mut self, c: &mut Collect<'_>) {
        let began = clock::monotonic();
        let interval = self.interval();
        let down = self.controllers.get().is_some_and(|all| poller::active(all).is_none());
        // A controller that is down is looked at each time, so that it is soon seen to be back.
        if self.controllers.is_due(began, interval) || down {
            let controllers = self.ping();
            self.dumped(c, "controllers", began, &controllers.as_ref().map(drop));
            take(&mut self.controllers, began, controllers);
        }
        match self.controllers.get() {
            Some(all) => {
                if self.settings.events {
                    self.watch.controllers(all, c);
                }
                if poller::active(all).is_none() {
                    return;
                }
            }
            None => return,
        }
        let Some(reader) = self.reader(c, began) else { return };
        let (most, on) = (self.settings.max_nodes, self.settings.clone());
        let mut step = Step { began, interval };
        if on.nodes && step.may(&self.nodes) {
            let (got, at) = step.run(|| reader.nodes(most));
            self.dumped(c, "nodes", at, &got.as_ref().map(drop));
            let fresh = got.is_ok();
            take(&mut self.nodes, at, got);
            if let (true, true, Some(nodes)) = (fresh, on.events, self.nodes.get()) {
                self.watch.nodes(nodes, c);
            }
        }
        if on.jobs && step.may(&self.queue) {
            let (got, at) = step.run(|| reader.queue());
            self.dumped(c, "jobs", at, &got.as_ref().map(drop));
            take(&mut self.queue, at, got);
        }
        if on.partitions && step.may(&self.partitions) {
            let (got, at) = step.run(|| reader.partitions());
            self.dumped(c, "partitions", at, &got.as_ref().map(drop));
            take(&mut self.partitions, at, got);
        }
        if on.reservations && step.may(&self.reservations) {
            let (got, at) = step.run(|| reader.reservations(clock::now().as_secs_f64()));
            self.dumped(c, "reservations", at, &got.as_ref().map(drop));
            take(&mut self.reservations, at, got);
        }
        if on.scheduler && step.may(&self.scheduler) {
            let (got, at) = step.run(|| reader.scheduler());
            self.dumped(c, "scheduler", at, &got.as_ref().map(drop));
            take(&mut self.scheduler, at, got);
        }
        if self.native.is_on() && step.may(&self.native_read) {
            let at = clock::monotonic();
            let got = self.native.read(c);
            self.dumped(c, "openmetrics", at, &got.as_ref().map(drop));
            take(&mut self.native_read, at, got);
        }
    }

    /// Chosen once; a reader that is not the best is reviewed from time to time, and one with which nothing works at once.
    fn reader(&mut self, c: &mut Collect<'_>, now: Duration) -> Option<Reader> {
        let again = match &self.reader {
            None => true,
            Some((reader, at)) => {
                let wants_better = !matches!(reader, Reader::Restd(_)) && self.has_restd();
                let hopeless = self.failing.contains("nodes") && self.failing.contains("jobs");
                now.saturating_sub(*at) >= self.interval() * REVIEW && wants_better
                    || (hopeless && now.saturating_sub(*at) >= self.interval())
            }
        };
        if again {
            match Reader::choose(&self.settings) {
                Ok(reader) => {
                    let (name, api) = reader.name();
                    let before = self.reader.as_ref().map(|(r, _)| r.name());
                    if before != Some((name, api)) {
                        log::info(&format!("the cluster is read with {name} {api}"));
                    }
                    self.reader = Some((reader, now));
                }
                Err(failure) => {
                    c.failed(failure);
                    if let Some((_, at)) = &mut self.reader {
                        *at = now;
                    }
                }
            }
        }
        self.reader.as_ref().map(|(reader, _)| reader.clone())
    }

    fn has_restd(&self) -> bool {
        !self.settings.restd_url.is_empty() || !self.settings.restd_socket.is_empty()
    }

    fn dumped(&mut self, c: &mut Collect<'_>, kind: &'static str, at: Duration, got: &Result<(), &Failure>) {
        self.metrics.own.dumps.with(&[kind]).inc();
        match got {
            Ok(()) => {
                self.failing.remove(kind);
            }
            Err(failure) => {
                self.failing.insert(kind);
                let after = clock::monotonic().saturating_sub(at);
                c.fail(
                    &failure.reason,
                    &format!("{kind}, after {:.1} s: {}", after.as_secs_f64(), failure.message),
                );
            }
        }
    }

    fn tell(&mut self, c: &mut Collect<'_>) {
        let now = clock::monotonic();
        let interval = self.interval();
        forget(&mut self.controllers, now, interval);
        forget(&mut self.nodes, now, interval);
        forget(&mut self.queue, now, interval);
        forget(&mut self.partitions, now, interval);
        forget(&mut self.reservations, now, interval);
        forget(&mut self.scheduler, now, interval);
        forget(&mut self.native_read, now, interval);
        if self.native_read.get().is_none() {
            self.native.forget();
        }
        let on = &self.settings;
        let known: BTreeSet<&str> =
            self.nodes.get().into_iter().flat_map(|n| n.partitions.keys()).map(String::as_str).collect();
        if let Some(nodes) = self.nodes.get() {
            self.metrics.nodes(nodes, on.labels);
        }
        if let Some(queue) = self.queue.get() {
            self.metrics.queue(queue, &known, on);
        }
        if let Some(partitions) = self.partitions.get() {
            self.metrics.partitions(partitions);
        }
        if let Some(reservations) = self.reservations.get() {
            self.metrics.reservations(reservations);
        }
        if let Some(scheduler) = self.scheduler.get() {
            self.metrics.scheduler(scheduler, on.top_users);
        }
        if let Some(controllers) = self.controllers.get() {
            self.metrics.controllers(controllers);
        }
        if let Some((reader, _)) = &self.reader {
            let (name, api) = reader.name();
            self.metrics.own.reader.with(&[name, api]).set();
        }
        let own = &self.metrics.own;
        age(own, &self.controllers, now);
        age(own, &self.nodes, now);
        age(own, &self.queue, now);
        age(own, &self.partitions, now);
        age(own, &self.reservations, now);
        age(own, &self.scheduler, now);
        age(own, &self.native_read, now);
        own.healthy(self.health());
        self.native.emit(c);
    }

    fn health(&self) -> &'static str {
        let Some(controllers) = self.controllers.get() else { return "unknown" };
        let primary_down = controllers.first().is_some_and(|c| !c.up);
        match poller::active(controllers) {
            None => "unhealthy",
            Some(_) if primary_down || !self.failing.is_empty() => "degraded",
            Some(_) => "healthy",
        }
    }
}

/// The dumps of one collect, one after another, as long as there is time.
struct Step {
    began: Duration,
    interval: Duration,
}

impl Step {
    fn may<T>(&self, cache: &Cache<T>) -> bool {
        let now = clock::monotonic();
        now.saturating_sub(self.began) < LONGEST && cache.is_due(now, self.interval)
    }

    fn run<T>(&mut self, read: impl FnOnce() -> T) -> (T, Duration) {
        let at = clock::monotonic();
        (read(), at)
    }
}

fn take<T>(cache: &mut Cache<T>, at: Duration, got: Result<T, Failure>) {
    cache.tried = Some(at);
    if let Ok(data) = got {
        cache.took = Some(clock::monotonic().saturating_sub(at));
        cache.held = Some((data, at));
    }
}

/// What is too old stops being told.
fn forget<T>(cache: &mut Cache<T>, now: Duration, interval: Duration) {
    if cache.is_old(now, interval) {
        cache.held = None;
    }
}

fn age<T>(own: &metrics::Own, cache: &Cache<T>, now: Duration) {
    if let Some((_, at)) = &cache.held {
        own.age.with(&[cache.kind]).set(now.saturating_sub(*at).as_secs_f64());
    }
    if let Some(took) = cache.took.filter(|_| cache.held.is_some()) {
        own.duration.with(&[cache.kind]).set(took.as_secs_f64());
    }
}

picket_sdk::export!(Slurm);
