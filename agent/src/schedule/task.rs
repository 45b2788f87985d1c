//! The life of one plugin: loaded, collected from by its own rhythm, controlled, replaced, stopped.
//!
//! One task owns one plugin, so nothing that a plugin does can make another late. It takes requests between collects
//! from a bounded mailbox. A new version that cannot be loaded leaves the old one running.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::source::{Control, ControlError, Loader, Source, SourceError, SourceSpec};
use super::status::{LastCollect, PluginStatus, State, StatusBoard};
use super::ticker::Ticker;
use crate::clock::Clock;
use crate::collector::PluginSink;

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
}

pub(super) struct Task {
    pub loader: Arc<dyn Loader>,
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

/// Tells whether the file is another one than before.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fingerprint(Option<(u64, u64, Option<SystemTime>)>);

impl Fingerprint {
    fn of(file: &Path) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self(std::fs::metadata(file).ok().map(|meta| (meta.ino(), meta.len(), meta.modified().ok())))
    }
}

type Loaded = Result<Box<dyn Source>, SourceError>;

struct Running {
    source: Box<dyn Source>,
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
        let mut fingerprint = Fingerprint::of(&self.spec.file);
        let mut loading = Some(self.load());
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
                        let now = Fingerprint::of(&spec.file);
                        let well = loading.is_some()
                            || !self.refused
                                && running.as_ref().is_some_and(|r| r.source.condition().state == State::Running);
                        if !well || spec != self.spec || now != fingerprint {
                            self.spec = spec;
                            fingerprint = now;
                            loading = Some(self.load());
                            if running.is_none() {
                                self.update(|line| line.state = State::Starting);
                            }
                        }
                    }
                },
                loaded = finished(&mut loading) => {
                    loading = None;
                    running = self.swap(running.take(), loaded);
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

    fn load(&self) -> AbortOnDropHandle<Loaded> {
        AbortOnDropHandle::new(tokio::spawn(self.loader.load(self.spec.clone())))
    }

    /// Takes the new one where it could be loaded, else keeps the old one, and says which.
    fn swap(&mut self, old: Option<Running>, loaded: Loaded) -> Option<Running> {
        let plugin = self.spec.id.clone();
        self.refused = loaded.is_err();
        match loaded {
            Ok(source) => {
                let about = source.about();
                tracing::info!(%plugin, version = about.version, digest = about.digest, "plugin loaded");
                let condition = source.condition();
                self.update(|line| {
                    line.state = condition.state;
                    line.reason = condition.reason;
                    line.code.clear();
                    line.version = about.version;
                    line.digest = about.digest;
                    line.world = about.world;
                    line.description = about.description;
                    line.controllable = about.controllable;
                });
                // The first collect is at once: a node shows values a moment after its start.
                let ticker = Ticker::new(self.interval, &self.seed);
                let now = Instant::now();
                Some(Running { source, ticker, at: now, woken: None, rested: now })
            }
            Err(error) => {
                tracing::error!(%plugin, code = error.code, "plugin refused: {error}");
                let kept = old.is_some();
                self.update(|line| {
                    line.code = error.code;
                    if kept {
                        line.reason = format!(
                            "the file or config as it is now was refused, the former runs on: {}",
                            error.message
                        );
                    } else {
                        line.state = State::Refused;
                        line.reason = error.message;
                    }
                });
                old
            }
        }
    }

    /// A collect in the plugin's rhythm, or one that it was woken for.
    async fn turn(&mut self, running: &mut Running) {
        running.woken = None;
        if running.at <= Instant::now() {
            running.ticker.begin(self.clock.monotonic());
            self.collect(running).await;
            let next = running.ticker.next(self.clock.wall_ms(), self.clock.monotonic());
            if next.skipped > 0 {
                self.update(|line| line.collects.skipped += next.skipped);
            }
            running.at = Instant::now() + next.after;
        } else if running.source.condition().enterable {
            self.collect(running).await;
        }
        running.rested = Instant::now() + REST;
    }

    async fn collect(&mut self, running: &mut Running) {
        let began = self.clock.monotonic();
        let timestamp_ms = self.clock.wall_ms();
        let condition = running.source.condition();
        if condition.enterable {
            self.sink.start(timestamp_ms);
            let collected = running.source.collect(&mut self.sink).await;
            let committed = self.sink.commit(collected.is_ok());
            let seconds = self.clock.monotonic().saturating_sub(began).as_secs_f64();
            let after = running.source.condition();
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
            self.sink.count_error(condition.state.word(), || condition.reason.clone());
            self.update(|line| {
                line.state = condition.state;
                line.reason = condition.reason;
            });
        }
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

/// Ends when the load does; never where none is under way.
async fn finished(loading: &mut Option<AbortOnDropHandle<Loaded>>) -> Loaded {
    match loading {
        Some(handle) => handle.await.unwrap_or_else(|error| {
            Err(SourceError {
                code: String::new(),
                message: format!("the agent failed while it loaded the plugin: {error}; please report it"),
                reason: "host",
            })
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
