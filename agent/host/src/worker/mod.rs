//! Workers: processes without rights in which plugins run, and the agent's side of them.
//!
//! One for all plugins, because each costs memory; a plugin that is to be alone has one of its own, and so has one whose
//! worker ended while it ran, until it has been well for a while: so the guilty one is found, and the others are left in
//! peace. What a plugin asks is answered by its own [`Desk`], with its own grants: which worker it came from gives nothing.

mod cgroup;
mod link;
mod out;
mod process;
mod serve;
#[cfg(test)]
mod tests;
pub(crate) mod trial;
mod wire;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use process::arguments;
pub use serve::main;

use crate::Isolation;
use crate::ask::Answers;
use crate::body::{Body, BoxFuture, NotPut, Place, Put, Seat};
use crate::call::{Call, Cost, Returned, Stopped};
use crate::desk::Desk;
use crate::wall::{Part, Standing, Wall};
use link::{Held, Link, Unloaded};
use wire::{NotLoaded, Report};

/// How long after `call_time` a worker may still take to say that it is over.
const GRACE: Duration = Duration::from_secs(2);

/// How often a component is mapped in another worker when the first one ends meanwhile.
const AGAIN: usize = 2;

/// How workers are set up.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// The `picket-worker` program.
    pub program: PathBuf,
    /// User and group of the workers; none: the agent's own, where it is not root.
    pub user: Option<(u32, u32)>,
    /// Memory of one worker, in bytes.
    pub memory: u64,
    /// Without these no worker is used.
    pub require: Vec<Part>,
}

/// Why a worker ended that was not to, as words.
pub const REASONS: [&str; 7] =
    ["crashed", "exited", "forbidden-call", "killed", "memory", "protocol", "stalled"];

impl WorkerOptions {
    /// How the compiler walls itself in. Of the required parts the memory cgroup is a worker's alone.
    pub(crate) fn walls(&self) -> Vec<OsString> {
        let user = self.user.iter().flat_map(|(uid, gid)| [format!("--uid={uid}"), format!("--gid={gid}")]);
        let parts = self.require.iter().filter(|part| **part != Part::Cgroup);
        user.chain(parts.map(|part| format!("--require={part}"))).map(Into::into).collect()
    }
}

/// How the wall stands on this machine: a worker raises it, says so and ends.
///
/// # Errors
/// Why there would be no worker, for a person.
pub fn probe(options: &WorkerOptions) -> Result<Wall, String> {
    let program = options.program.display();
    let output = std::process::Command::new(&options.program)
        .arg("--probe")
        .args(arguments(options))
        .env_clear()
        .current_dir("/")
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|e| format!("{program} cannot be started: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let mut wall: Wall = serde_json::from_slice(&output.stdout).map_err(|_| {
        format!("{program} is no worker of this version ({}): {}", output.status, said.trim())
    })?;
    // Of the agent's making, when it runs.
    wall.set(Part::Cgroup, cgroup::available());
    let missing: Vec<Standing> = wall.missing(&options.require);
    if missing.is_empty() { Ok(wall) } else { Err(self::missing(&missing)) }
}

/// What became of workers since the agent began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerTotals {
    pub started: u64,
    /// Those that ended and were not to, by reason.
    pub ended: BTreeMap<&'static str, u64>,
    /// Processes that run now.
    pub running: Vec<u32>,
}

/// All workers of the agent.
pub struct Workers {
    options: WorkerOptions,
    /// The one for all.
    shared: tokio::sync::Mutex<Option<Arc<Link>>>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    wall: Wall,
    totals: WorkerTotals,
    links: Vec<Weak<Link>>,
}

impl Workers {
    /// Starts the first one, which shows how the wall stands.
    ///
    /// # Errors
    /// It cannot be started, or a required part of the wall is missing.
    pub(crate) async fn new(options: WorkerOptions) -> Result<Arc<Self>, String> {
        let workers =
            Arc::new(Self { options, shared: tokio::sync::Mutex::default(), known: Mutex::default() });
        workers.shared().await?;
        Ok(workers)
    }

    pub fn wall(&self) -> Wall {
        self.known().wall.clone()
    }

    pub fn totals(&self) -> WorkerTotals {
        self.known().totals.clone()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn shared(self: &Arc<Self>) -> Result<Arc<Link>, String> {
        let mut shared = self.shared.lock().await;
        if let Some(link) = shared.as_ref().filter(|link| link.alive()) {
            return Ok(link.clone());
        }
        let link = self.start().await?;
        *shared = Some(link.clone());
        Ok(link)
    }

    async fn start(self: &Arc<Self>) -> Result<Arc<Link>, String> {
        let number = {
            let mut known = self.known();
            known.totals.started += 1;
            known.totals.started
        };
        let options = self.options.clone();
        // On a thread of the runtime's: the worker ends with the thread that started it.
        let started = tokio::spawn(async move { process::start(&options, number).await });
        let started = started.await.map_err(|e| format!("a worker could not be started: {e}"))??;
        let (link, wall, process, supervised) =
            (started.link, started.wall, started.process, started.supervised);
        {
            let mut known = self.known();
            known.wall = wall;
            known.totals.running.extend(process);
            known.links.retain(|l| l.strong_count() > 0);
            known.links.push(Arc::downgrade(&link));
        }
        let (workers, seen) = (Arc::downgrade(self), link.clone());
        tokio::spawn(async move {
            let reason = supervised.await;
            let Some(workers) = workers.upgrade() else { return };
            let mut known = workers.known();
            known.totals.running.retain(|p| Some(*p) != process);
            if reason.word != "unneeded" {
                *known.totals.ended.entry(reason.word).or_default() += 1;
                drop(known);
                tracing::error!(
                    worker = seen.number,
                    reason = reason.word,
                    "a worker ended: {}",
                    reason.text
                );
            }
        });
        Ok(link)
    }
}

/// As [`Place`]: its own type, for the workers' tasks hold it.
pub(crate) struct Walled(pub Arc<Workers>);

impl Place for Walled {
    fn put(&self, put: Put) -> BoxFuture<'_, Result<Box<dyn Seat>, NotPut>> {
        Box::pin(async move {
            let mut seat = Placed { workers: self.0.clone(), put, loaded: None, own: None };
            let mut loaded = seat.load(false).await;
            // By another plugin's doing: this one has not been entered. In the next worker it may be well.
            for _ in 0..AGAIN {
                if matches!(loaded, Err(Unplaced::Lost(_))) {
                    loaded = seat.load(false).await;
                }
            }
            match loaded {
                Ok(_) => Ok(Box::new(seat) as Box<dyn Seat>),
                Err(Unplaced::NoRoom(why) | Unplaced::Lost(why)) => Err(NotPut::NoRoom(why)),
                Err(Unplaced::Not(NotLoaded::Stale(why))) => Err(NotPut::Stale(why)),
                Err(Unplaced::Not(NotLoaded::Unlinkable(why))) => Err(NotPut::Unlinkable(why)),
            }
        })
    }
}

enum Unplaced {
    NoRoom(String),
    Lost(String),
    Not(NotLoaded),
}

/// A component that is mapped in a worker, and in another when that one ends.
struct Placed {
    workers: Arc<Workers>,
    put: Put,
    loaded: Option<(Arc<Link>, u64)>,
    /// A worker that this plugin has for itself.
    own: Option<Arc<Link>>,
}

impl Placed {
    async fn load(&mut self, apart: bool) -> Result<(Arc<Link>, u64), Unplaced> {
        let link =
            self.link(apart || self.put.isolation == Isolation::Own).await.map_err(Unplaced::NoRoom)?;
        if let Some((loaded, seat)) = &self.loaded
            && Arc::ptr_eq(loaded, &link)
        {
            return Ok((link, *seat));
        }
        self.leave();
        match link.load(&self.put).await {
            Ok(seat) => {
                tracing::debug!(plugin = %self.put.plugin, worker = link.number, "a component is mapped");
                self.loaded = Some((link.clone(), seat));
                Ok((link, seat))
            }
            Err(Unloaded::Not(not)) => Err(Unplaced::Not(not)),
            Err(Unloaded::Lost(why)) => Err(Unplaced::Lost(why)),
        }
    }

    async fn link(&mut self, own: bool) -> Result<Arc<Link>, String> {
        if !own {
            if let Some(link) = self.own.take() {
                self.leave();
                link.release();
            }
            return self.workers.shared().await;
        }
        if let Some(link) = self.own.as_ref().filter(|link| link.alive()) {
            return Ok(link.clone());
        }
        let link = self.workers.start().await?;
        self.own = Some(link.clone());
        Ok(link)
    }

    fn leave(&mut self) {
        if let Some((link, seat)) = self.loaded.take() {
            link.unload(seat);
        }
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        self.leave();
        if let Some(link) = self.own.take() {
            link.release();
        }
    }
}

impl Seat for Placed {
    fn make<'a>(
        &'a mut self,
        desk: &'a mut Desk,
        apart: bool,
    ) -> BoxFuture<'a, Result<Box<dyn Body>, Stopped>> {
        Box::pin(async move {
            let (link, seat) = match self.load(apart).await {
                Ok(loaded) => loaded,
                Err(Unplaced::NoRoom(why)) => return Err(Stopped::NoRoom(why)),
                Err(Unplaced::Lost(why)) => return Err(Stopped::Lost(why)),
                Err(Unplaced::Not(NotLoaded::Stale(why) | NotLoaded::Unlinkable(why))) => {
                    return Err(Stopped::NoRoom(format!("a worker does not take what another took: {why}")));
                }
            };
            let Some(held) = link.begin(seat, &self.put) else {
                return Err(Stopped::Lost(link.epitaph().await));
            };
            let within = self.put.bounds.call_time;
            let mut body = Afar { held, within, cost: Cost::default() };
            match body.attend(desk).await? {
                Report::Made(Ok(())) => Ok(Box::new(body) as Box<dyn Body>),
                Report::Made(Err(stopped)) => Err(stopped),
                _ => Err(Stopped::Lost("the worker gave another call's answer".to_owned())),
            }
        })
    }
}

/// An instance in a worker.
struct Afar {
    held: Held,
    within: Duration,
    cost: Cost,
}

impl Afar {
    /// Answers its host calls until it says something else. All of it within the call's time: what asks without end is no
    /// guest of ours.
    async fn attend(&mut self, desk: &mut Desk) -> Result<Report, Stopped> {
        let deadline = Instant::now() + self.within + GRACE;
        let attended = tokio::time::timeout_at(deadline, self.answer_all(desk)).await;
        match attended {
            Ok(Some(report)) => Ok(report),
            Ok(None) => Err(Stopped::Lost(self.held.link().epitaph().await)),
            Err(_) => {
                self.held.link().condemn("stalled", format!("it let a call's time pass by {GRACE:?}"));
                Err(Stopped::Lost(self.held.link().epitaph().await))
            }
        }
    }

    /// None: the worker is no more.
    async fn answer_all(&mut self, desk: &mut Desk) -> Option<Report> {
        loop {
            let ask = match self.held.hear().await? {
                Report::Ask(ask) => ask,
                other => return Some(other),
            };
            let told = tokio::select! {
                told = desk.answer(ask) => told?,
                // Its time is over, or the worker is no more: nobody waits for the answer.
                other = self.held.hear() => return other,
            };
            if !self.held.tell(told) {
                return None;
            }
        }
    }
}

impl Body for Afar {
    fn enter<'a>(&'a mut self, call: Call, desk: &'a mut Desk) -> BoxFuture<'a, Result<Returned, Stopped>> {
        Box::pin(async move {
            if !self.held.enter(call) {
                return Err(Stopped::Lost(self.held.link().epitaph().await));
            }
            match self.attend(desk).await? {
                Report::Done(returned, cost) => {
                    self.cost = cost;
                    returned
                }
                _ => Err(Stopped::Lost("the worker gave another call's answer".to_owned())),
            }
        })
    }

    fn cost(&self) -> Cost {
        self.cost
    }

    fn alive(&self) -> bool {
        self.held.link().alive()
    }
}

/// For a person: what is required and not there.
pub(crate) fn missing(parts: &[Standing]) -> String {
    let list: Vec<String> = parts.iter().map(|p| format!("{} ({})", p.part, p.detail)).collect();
    format!("worker.require names what this node does not have: {}", list.join(", "))
}
