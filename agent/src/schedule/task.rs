//! The life of one plugin: loaded, collected from by its own rhythm, controlled, replaced, stopped.
//!
//! One task owns one plugin, so nothing that a plugin does can make another late. It takes requests between collects
//! from a bounded mailbox. A new version that cannot be loaded, or whose first collect fails, leaves the old one running; one
//! that is taken over goes on in the old one's rhythm. When its file is taken away it stops at once, within a collect too.

use std::sync::Arc;
use std::time::Duration;

use picket_agent_host::SampleSink as _;
use picket_proto::v1;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::Wish;
use super::bring::{Beside, Brought, Tried, bring};
use super::source::{Condition, Control, ControlError, Loader, Source, SourceError, SourceSpec, Took};
use super::status::{LastCollect, PluginStatus, RefusedVersion, State, StatusBoard};
use super::ticker::Ticker;
use super::waiting::{Reply, Waiting};
use crate::clock::Clock;
use crate::collector::PluginSink;
use crate::shelf::{NotStaged, Shelf, Staged};
use crate::watch::{Seen, Stamp};

pub(super) enum Request {
    Control {
        what: Control,
        reply: oneshot::Sender<Result<String, ControlError>>,
    },
    /// Run by this from now on; where nothing has changed and all is well, nothing happens.
    Configure {
        spec: SourceSpec,
        interval: Duration,
    },
    Wish {
        wish: Wish,
        reply: oneshot::Sender<Result<String, String>>,
    },
    /// Run this version, which the shelf has; none: what lies in the plugin folder.
    Take {
        digest: Option<String>,
        reply: oneshot::Sender<Result<(), RefusedVersion>>,
    },
}

pub(super) struct Task {
    pub loader: Arc<dyn Loader>,
    pub shelf: Arc<Shelf>,
    /// How the plugin's file looks.
    pub seen: watch::Receiver<Seen>,
    /// How it looked when it was last loaded, and by which policy it was judged.
    pub stamp: Stamp,
    pub revision: u64,
    pub waiting: Option<Waiting>,
    pub clock: Arc<dyn Clock>,
    pub board: StatusBoard,
    pub sink: PluginSink,
    pub mailbox: mpsc::Receiver<Request>,
    pub stop: CancellationToken,
    /// Something happened that the plugin should tell at once.
    pub wake: Arc<Notify>,
    /// Makes the rhythm's offset, see [`Ticker::new`].
    pub seed: String,
    pub spec: SourceSpec,
    pub interval: Duration,
    /// `spec` was refused, and what runs, if anything does, is a former one.
    pub refused: bool,
}

/// The least time between a collect and one that is woken for, however much happens.
const REST: Duration = Duration::from_millis(200);

/// How long a value is shown locally that is not pushed again.
pub(super) fn stale_after(interval: Duration) -> Duration {
    (2 * interval).max(Duration::from_secs(30))
}

struct Running {
    source: Box<dyn Source>,
    /// What it was loaded from, held.
    staged: Staged,
    /// As it was wanted then.
    spec: SourceSpec,
    /// Its last collect could not read its source.
    failing: bool,
    /// The quarantine was written down.
    quarantined: bool,
    ticker: Ticker,
    at: Instant,
    /// A collect beside the rhythm, which goes on as if it had not been.
    woken: Option<Instant>,
    /// Before it no collect begins that was woken for.
    rested: Instant,
}

impl Running {
    fn due(&self) -> Instant {
        self.woken.map_or(self.at, |woken| woken.min(self.at))
    }
}

impl Task {
    pub async fn run(mut self) {
        let mut running: Option<Running> = None;
        let mut loading = Some(self.load(None));
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                request = self.mailbox.recv() => match request {
                    None => break,
                    Some(Request::Control { what, reply }) => {
                        let answer = self.control(running.as_mut(), what).await;
                        // The asker may have gone.
                        let _ = reply.send(answer);
                    }
                    Some(Request::Configure { spec, interval }) => {
                        if self.interval != interval {
                            self.interval = interval;
                            self.sink.set_stale_after(stale_after(interval));
                            if let Some(running) = &mut running {
                                running.ticker = Ticker::new(interval, &self.seed);
                                running.at = Instant::now();
                            }
                            self.update(|_| ());
                        }
                        let changed = Stamp::of(&spec.file) != self.stamp
                            || self.shelf.trust().revision() != self.revision;
                        let well = loading.is_some()
                            || !self.refused
                                && running.as_ref().is_some_and(|r| r.source.condition().state == State::Running);
                        if !well || spec != self.spec || changed {
                            self.spec = spec;
                            loading = Some(self.load(running.as_ref()));
                        }
                    }
                    Some(Request::Wish { wish, reply }) => {
                        if self.grant(wish, reply).await {
                            loading = Some(self.load(running.as_ref()));
                        }
                    }
                    Some(Request::Take { digest, reply }) => {
                        if self.take(digest, reply).await {
                            loading = Some(self.load(running.as_ref()));
                        } else {
                            loading = None;
                            self.removed(running.take(), TAKEN_BACK);
                        }
                    }
                },
                () = changed(&mut self.seen) => {
                    let seen = *self.seen.borrow_and_update();
                    match seen {
                        Seen::Unknown => {}
                        // One that was not there when it was loaded was refused for it, or runs without.
                        Seen::Gone if self.stamp.is_there() || (running.is_some() && !self.stands_alone()) => {
                            loading = None;
                            self.removed(running.take(), TAKEN_AWAY);
                        }
                        Seen::Gone => {}
                        Seen::There { stamp, revision } => {
                            if stamp != self.stamp || revision != self.revision {
                                loading = Some(self.load(running.as_ref()));
                            }
                        }
                    }
                }
                brought = finished(&mut loading) => {
                    loading = None;
                    running = self.settle(running.take(), brought).await;
                }
                () = due(running.as_ref().map(Running::due)) => {
                    if let Some(running) = &mut running {
                        self.turn(running).await;
                    }
                }
                // What happens before the plugin runs waits until it does.
                () = self.wake.notified(), if running.is_some() => {
                    if let Some(running) = &mut running {
                        running.woken = Some(running.rested.max(Instant::now()));
                    }
                }
            }
        }
    }

    fn load(&mut self, running: Option<&Running>) -> AbortOnDropHandle<Brought> {
        self.stamp = Stamp::of(&self.spec.file);
        self.revision = self.shelf.trust().revision();
        let beside = running.and_then(|running| {
            let state = running.source.condition().state;
            // What is quarantined keeps nobody's place.
            (state != State::Quarantined).then(|| Beside {
                digest: running.staged.version.digest.clone(),
                spec: running.spec.clone(),
                well: state == State::Running,
                failing: running.failing,
            })
        });
        if running.is_none() {
            self.update(|line| line.state = State::Starting);
        }
        let (loader, shelf) = (self.loader.clone(), self.shelf.clone());
        AbortOnDropHandle::new(tokio::spawn(bring(loader, shelf, self.spec.clone(), beside)))
    }

    /// Begins what an operator asks for; false: it is answered already.
    async fn grant(&mut self, wish: Wish, reply: oneshot::Sender<Result<String, String>>) -> bool {
        let (shelf, spec, id) = (self.shelf.clone(), self.spec.clone(), self.spec.id.clone());
        let done = tokio::task::spawn_blocking(move || match wish {
            Wish::RollBack => shelf.roll_back(&spec).map(Some),
            Wish::Release if shelf.release(&id) => Ok(None),
            Wish::Release => Err(format!("no version of {id} is quarantined")),
        });
        match done.await.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(undo) => {
                self.waiting = Some(Waiting { undo, reply: Reply::Wish(reply) });
                true
            }
            Err(why) => {
                let _ = reply.send(Err(why));
                false
            }
        }
    }

    /// Begins with what the aggregator offers; false: nothing is to run any more.
    async fn take(
        &mut self,
        digest: Option<String>,
        reply: oneshot::Sender<Result<(), RefusedVersion>>,
    ) -> bool {
        let (shelf, spec) = (self.shelf.clone(), self.spec.clone());
        let back = digest.is_none();
        let wanted = tokio::task::spawn_blocking(move || shelf.want(&spec, digest.as_deref()));
        let undo = wanted.await.unwrap_or_default();
        if back && !Stamp::of(&self.spec.file).is_there() {
            let _ = reply.send(Ok(()));
            return false;
        }
        self.waiting = Some(Waiting { undo: Some(undo), reply: Reply::Take(reply) });
        true
    }

    /// What a rollout brought runs though no file lies in the folder.
    fn stands_alone(&self) -> bool {
        self.shelf.stands_alone(&self.spec.id).is_some()
    }

    /// Takes what was brought up where it was, else keeps what runs, and says which.
    async fn settle(&mut self, old: Option<Running>, brought: Brought) -> Option<Running> {
        let waiting = self.waiting.take();
        let mut refusal_told = None;
        let (running, said) = match brought {
            Brought::New { tried, refused } => {
                self.refused = refused.is_some();
                refusal_told = refused.as_ref().map(RefusedVersion::from);
                let running = self.swap(old, *tried, refused).await;
                let now = &running.staged.version;
                let said = format!("{} {} (sha256 {}) runs", self.spec.id, now.version, now.digest);
                (Some(running), said)
            }
            Brought::Same(staged) => {
                self.refused = false;
                let version = staged.version.clone();
                self.adopt(&staged).await;
                self.update(|line| {
                    if line.refused.take().is_some() && line.state == State::Running {
                        line.reason.clear();
                        line.code.clear();
                    }
                });
                let running = old.map(|old| Running { staged: *staged, ..old });
                (running, format!("{} {} runs already", self.spec.id, version.version))
            }
            Brought::Refused { refused, stop } => {
                self.refused = true;
                refusal_told = Some(RefusedVersion::from(&refused));
                (self.keep(old, refused, stop), String::new())
            }
        };
        if let Some(Waiting { undo, reply }) = waiting {
            if let Some(undo) = undo.filter(|_| refusal_told.is_some()) {
                let (shelf, id) = (self.shelf.clone(), self.spec.id.clone());
                // Written down before it is answered.
                let _ = tokio::task::spawn_blocking(move || shelf.restore(&id, undo)).await;
            }
            reply.send(match &refusal_told {
                None => Ok(said),
                Some(told) => Err(told),
            });
        }
        running
    }

    /// A new version takes its place, in the rhythm of the old one.
    async fn swap(&mut self, old: Option<Running>, tried: Tried, refused: Option<NotStaged>) -> Running {
        let Tried { source, staged, trial } = tried;
        let plugin = self.spec.id.clone();
        let about = source.about();
        let version = staged.version.clone();
        tracing::info!(%plugin, version = about.version, digest = version.digest, signed_by = version.signed_by, "plugin loaded");
        let before = self.shelf.record(&plugin).current;
        self.adopt(&staged).await;
        let swapped = before.filter(|before| before.digest != version.digest);
        self.sink.start(self.clock.wall_ms());
        let whole = trial.is_some_and(|(trial, whole)| {
            trial.hand_on(&mut self.sink);
            whole
        });
        if let Some(before) = &swapped {
            self.sink.event(swap_event(&plugin, before, &version));
        }
        self.sink.commit(whole);
        let condition = source.condition();
        let told = refused.as_ref().map(RefusedVersion::from);
        if let Some(refused) = &refused {
            self.say_refused(refused);
        }
        self.update(|line| {
            line.state = condition.state;
            line.reason = match &told {
                Some(told) => told.former(),
                None => condition.reason,
            };
            line.code = told.as_ref().map(|told| told.code.clone()).unwrap_or_default();
            line.refused = told;
            line.version = about.version;
            line.digest = version.digest;
            line.world = about.world;
            line.description = about.description;
            line.controllable = about.controllable;
            line.swaps.done += u64::from(swapped.is_some());
        });
        let now = Instant::now();
        // The first collect is at once: a node shows values a moment after its start.
        let (ticker, at) = match old {
            Some(old) => (old.ticker, old.at),
            None => (Ticker::new(self.interval, &self.seed), now),
        };
        let spec = self.spec.clone();
        Running {
            source,
            staged,
            spec,
            failing: false,
            quarantined: false,
            ticker,
            at,
            woken: None,
            rested: now,
        }
    }

    /// It was let in and runs: what is known of it is written down.
    async fn adopt(&self, staged: &Staged) {
        let (shelf, id, version) = (self.shelf.clone(), self.spec.id.clone(), staged.version.clone());
        let written = tokio::task::spawn_blocking(move || {
            shelf.adopted(&id, &version);
            shelf.record(&id)
        });
        let record = written.await.unwrap_or_default();
        self.board.adopted(&self.spec, staged, record);
    }

    /// What is wanted was refused: what runs runs on, if it still may.
    fn keep(&mut self, old: Option<Running>, refused: NotStaged, stop: bool) -> Option<Running> {
        self.say_refused(&refused);
        let told = RefusedVersion::from(&refused);
        let old = if stop { None } else { old };
        let kept = old.is_some();
        if !kept {
            self.sink.end();
        }
        self.update(|line| {
            line.code.clone_from(&told.code);
            line.swaps.refused += u64::from(kept);
            if kept && line.state != State::Quarantined {
                line.reason = told.former();
            } else {
                // Quarantined it stays what it is, whatever the reason why it is not tried again.
                let held = told.code == QUARANTINED;
                line.state = if held { State::Quarantined } else { State::Refused };
                line.reason.clone_from(&told.reason);
            }
            line.refused = Some(told);
        });
        old
    }

    fn say_refused(&self, refused: &NotStaged) {
        let NotStaged { digest, version, error } = refused;
        tracing::error!(plugin = %self.spec.id, code = error.code, digest, version, "plugin refused: {error}");
        self.sink.count_error(error.reason, || format!("{} {}", error.code, error.message));
    }

    /// Nothing is there to be run.
    fn removed(&mut self, running: Option<Running>, why: &str) {
        self.stamp = Stamp::default();
        drop(running);
        self.sink.end();
        let file = self.spec.file.display().to_string();
        tracing::info!(plugin = %self.spec.id, file, "plugin stopped: {why}");
        self.update(|line| line.remove(why));
    }

    /// A collect in the plugin's rhythm, or one that it was woken for.
    async fn turn(&mut self, running: &mut Running) {
        running.woken = None;
        if running.at <= Instant::now() {
            let late = running.ticker.begin(self.clock.monotonic());
            self.collect(running, Some(late)).await;
            let next = running.ticker.next(self.clock.wall_ms(), self.clock.monotonic());
            if next.skipped > 0 {
                self.update(|line| line.collects.skipped += next.skipped);
            }
            running.at = Instant::now() + next.after;
        } else if running.source.condition().enterable {
            self.collect(running, None).await;
        }
        running.rested = Instant::now() + REST;
    }

    /// `late`: how much later than planned it begins; none: it was not planned.
    async fn collect(&mut self, running: &mut Running, late: Option<Duration>) {
        let began = self.clock.monotonic();
        let timestamp_ms = self.clock.wall_ms();
        let condition = running.source.condition();
        if condition.enterable {
            self.sink.start(timestamp_ms);
            let mut seen = self.seen.clone();
            let has_file = self.stamp.is_there();
            let collected: Result<Took, SourceError> = tokio::select! {
                biased;
                collected = running.source.collect(&mut self.sink) => collected,
                // Dropped midway, the call ends with its instance.
                () = gone(&mut seen), if has_file => {
                    self.sink.commit(false);
                    return;
                }
            };
            let committed = self.sink.commit(collected.is_ok());
            let seconds = self.clock.monotonic().saturating_sub(began).as_secs_f64();
            let after = running.source.condition();
            running.failing = collected.as_ref().is_err_and(|error| error.reason == "plugin");
            self.note_quarantine(running, &after);
            if let Err(error) = &collected {
                self.sink.count_error(error.reason, || format!("{} {}", error.code, error.message));
            }
            self.update(|line| {
                let took = collected.as_ref().copied().unwrap_or_default();
                let error = collected.as_ref().err();
                match error {
                    None => line.collects.ok += 1,
                    Some(_) => line.collects.failed += 1,
                }
                line.collects.samples += committed.samples as u64;
                line.collects.events += committed.events as u64;
                line.collects.seconds += seconds;
                line.collects.guest_seconds += took.guest_time.as_secs_f64();
                if let Some(late) = late {
                    line.collects.late.add(late + took.waited);
                }
                line.series = committed.series as u64;
                if line.state != after.state || after.state != State::Running {
                    line.reason = after.reason;
                    line.code = error.map(|error| error.code.clone()).unwrap_or_default();
                }
                line.state = after.state;
                line.last = Some(LastCollect {
                    timestamp_ms,
                    seconds,
                    guest_seconds: took.guest_time.as_secs_f64(),
                    memory_bytes: took.memory,
                    samples: committed.samples as u64,
                    error: error.map(ToString::to_string).unwrap_or_default(),
                });
            });
        } else {
            self.note_quarantine(running, &condition);
            self.sink.count_error(condition.state.word(), || condition.reason.clone());
            self.update(|line| {
                line.state = condition.state;
                line.reason = condition.reason;
            });
        }
    }

    /// Once: it is not tried again, after a restart of the agent neither.
    fn note_quarantine(&self, running: &mut Running, condition: &Condition) {
        if condition.state != State::Quarantined || running.quarantined {
            return;
        }
        running.quarantined = true;
        let (shelf, spec) = (self.shelf.clone(), running.spec.clone());
        let (digest, why) = (running.staged.version.digest.clone(), condition.reason.clone());
        // Nobody waits for the disk here.
        drop(tokio::task::spawn_blocking(move || shelf.quarantine(&spec, &digest, &why)));
    }

    async fn control(&self, running: Option<&mut Running>, what: Control) -> Result<String, ControlError> {
        match running {
            Some(running) => running.source.control(what).await,
            None => {
                let line = self.board.line(&self.spec.id).unwrap_or_default();
                Err(ControlError::NotRunning {
                    plugin: line.id,
                    state: line.state.word(),
                    reason: line.reason,
                })
            }
        }
    }

    fn update(&self, change: impl FnOnce(&mut PluginStatus)) {
        self.board.update(&self.spec.id, |line| {
            line.file.clone_from(&self.spec.file);
            line.interval_seconds = self.interval.as_secs_f64();
            line.grants = self.spec.grants.iter().map(|scope| scope.capability().word()).collect();
            line.grants.sort_unstable();
            line.grants.dedup();
            change(line);
        });
    }
}

const TAKEN_AWAY: &str = "the file was taken away";
pub(crate) const TAKEN_BACK: &str = "what a rollout brought was taken back, and there is no file";

/// The code of what is not tried again.
const QUARANTINED: &str = "PKT-0081";

pub(crate) fn swap_event(
    plugin: &picket_proto::model::PluginId,
    before: &crate::shelf::Version,
    now: &crate::shelf::Version,
) -> v1::Event {
    let attributes = [
        ("version", &now.version),
        ("digest", &now.digest),
        ("signed_by", &now.signed_by),
        ("former_version", &before.version),
        ("former_digest", &before.digest),
    ];
    v1::Event {
        kind: "plugin.swapped".to_owned(),
        severity: v1::Severity::Info.into(),
        subject_kind: "plugin".to_owned(),
        subject_id: plugin.as_str().to_owned(),
        message: format!("the plugin {plugin} runs as {}, before it was {}", now.version, before.version),
        attributes: attributes
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| v1::Label { name: name.to_owned(), value: value.clone() })
            .collect(),
        ..v1::Event::default()
    }
}

/// Ends when the file looks otherwise; never where nobody looks.
async fn changed(seen: &mut watch::Receiver<Seen>) {
    if seen.changed().await.is_err() {
        std::future::pending().await
    }
}

/// Ends when the file is gone.
async fn gone(seen: &mut watch::Receiver<Seen>) {
    if seen.wait_for(|seen| *seen == Seen::Gone).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Ends when the load does; never where none is under way.
async fn finished(loading: &mut Option<AbortOnDropHandle<Brought>>) -> Brought {
    match loading {
        Some(handle) => handle.await.unwrap_or_else(|error| Brought::Refused {
            refused: NotStaged {
                digest: String::new(),
                version: String::new(),
                error: SourceError {
                    code: String::new(),
                    message: format!(
                        "the agent failed while it loaded the plugin: {error}; please report it"
                    ),
                    reason: "host",
                },
            },
            stop: false,
        }),
        None => std::future::pending().await,
    }
}

/// Ends when the next collect is due; never where no plugin runs.
async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
