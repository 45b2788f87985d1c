//! The daemon: builds its parts from the configuration, runs them, and takes them down in order.
//!
//! Going up, what can fail for good fails before anything is promised: the address is bound and the state folder
//! locked first. What can do with less does: a plugin that is refused, a disk that cannot be written and an aggregator
//! that is away are said in `/readyz` and stop nothing. Going down, each stage has its time: plugins end their collects,
//! the uplink brings up what is durable, the spool is flushed, the local page is served to the end.

pub mod author;
pub mod bundle;
mod commands;
mod reload;
mod worker;

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use picket_agent_host::{Host, HostError, HostOptions, PluginError, Program, SETTLED_AFTER, Wall};
use picket_agent_services::{ServiceLimits, Services, ServicesError, ServicesOptions, kmsg, nvml};
use picket_agent_spool::Spool;
use picket_proto::model::{LOG_LIFE, PluginId};
use picket_proto::v1;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::actions::journal::Journal;
use crate::actions::{self, ActionPlanned, Actions, ActionsOptions, HostActors};
use crate::clock::{Clock, SystemClock};
use crate::collector::Collector;
use crate::conditions::Conditions;
use crate::config::{self, Config, Sources};
use crate::health::Health;
use crate::http;
use crate::lines::Lines;
use crate::logs::LogHandle;
use crate::offers::Offers;
use crate::own::Own;
use crate::schedule::{self, HostLoader, Planned, Schedule, ScheduleOptions, SourceSpec};
use crate::shelf::{self, Shelf};
use crate::trust::Trust;
use crate::watch::Watcher;
use crate::{identity, notify, uplink};

/// Commands from the aggregator that wait.
const COMMANDS: usize = 8;
const HOUR: Duration = Duration::from_secs(3600);
/// One segment of the spool, in bytes.
const SEGMENT: u64 = 8 << 20;
/// What may wait for the spool's writer, in bytes.
const SPOOL_QUEUE: usize = 8 << 20;
/// The spool in memory, where the disk cannot be written, at most this many bytes.
const MEMORY_SPOOL: u64 = 16 << 20;
/// What each stage of the way down may take.
const ACTIONS_END_WITHIN: Duration = Duration::from_secs(10);
const COLLECTS_END_WITHIN: Duration = Duration::from_secs(5);
const UPLINK_ENDS_WITHIN: Duration = Duration::from_secs(8);
const SPOOL_CLOSES_WITHIN: Duration = Duration::from_secs(5);

/// Why the agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("http.listen: {address} cannot be listened on: {source}; is another agent running?")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("{path} is locked: another picket-agent runs with this state_dir; stop it, or give each its own")]
    Locked { path: PathBuf },
    #[error("the plugins' services could not be set up: {0}")]
    Services(#[from] ServicesError),
    #[error("the plugin host could not be set up: {0}")]
    Host(#[from] HostError),
    #[error("{0}")]
    Worker(String),
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
    #[error("there is no randomness to number this run with")]
    Random,
}

/// How a command says what it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    Text,
    Json,
}

pub struct App {
    config: Config,
    sources: Sources,
    logs: LogHandle,
    signals: Signals,
    listener: TcpListener,
    schedule: Schedule,
    actions: Actions,
    health: Arc<Health>,
    own: Own,
    watcher: Watcher,
    shelf: Arc<Shelf>,
    trust: Arc<Trust>,
    /// What the watcher looks at.
    plugin_dir: Arc<std::sync::Mutex<PathBuf>>,
    api: http::Api,
    life: u64,
    /// Held so that no second agent uses the state folder.
    _lock: Option<File>,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl App {
    /// Binds, locks, opens; starts no plugin.
    pub async fn build(config: Config, sources: Sources, logs: LogHandle) -> Result<Self, StartError> {
        // From here on a signal is not lost.
        let signals = Signals {
            terminate: signal(SignalKind::terminate()).map_err(StartError::Signals)?,
            interrupt: signal(SignalKind::interrupt()).map_err(StartError::Signals)?,
            reload: signal(SignalKind::hangup()).map_err(StartError::Signals)?,
        };
        let address = config.http.listen;
        let listener =
            TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })?;
        let listen = listener.local_addr().unwrap_or(address);
        let lock = lock(&config.state_dir)?;
        let life = random()? & !LOG_LIFE;
        let log_life = random()? | LOG_LIFE;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let node = rustix::system::uname().nodename().to_string_lossy().into_owned();

        let has_uplink = config.uplink.aggregator.is_some() || identity::enrolled(&config.state_dir);
        let (spool, spool_fallback) = if has_uplink { open_spool(&config, life) } else { (None, None) };
        let lines = Lines::open(&config.state_dir, &config.logs.spool, log_life, has_uplink);
        let collector = Collector::with_lines(clock.clone(), spool.clone(), lines.clone());
        let services = Services::new(ServicesOptions {
            state_dir: config.state_dir.clone(),
            extra_authorities: None,
            limits: ServiceLimits::default(),
            nvml: nvml_options(&config),
            kmsg: kmsg::Options { path: config.kmsg.path.clone(), ..kmsg::Options::default() },
        })?;
        for (plugin, source, cursor) in lines.restored() {
            services.restore_log_cursor(&plugin, &source, &cursor);
        }
        let services = Arc::new(services);
        let wakes = services.wakes().clone();
        let host_options = HostOptions {
            cache_dir: config.cache_dir.clone(),
            compiler: compiler(&config),
            compile_memory: config.compile.memory.0,
            compile_timeout: config.compile.timeout,
            services: services.clone(),
        };
        let host = Host::walled(host_options, worker::options(&config).map_err(StartError::Worker)?).await?;
        say_wall(&host);
        let workers = host.workers().cloned();
        let trust = Arc::new(Trust::open(&config.trust));
        let shelf = Arc::new(Shelf::open(&config.state_dir, &config.cache_dir, trust.clone()));
        let schedule = Schedule::new(ScheduleOptions {
            loader: Arc::new(HostLoader(host.clone())),
            shelf: shelf.clone(),
            clock: clock.clone(),
            collector: collector.clone(),
            node: node.clone(),
            wakes,
        });
        let actions = Actions::new(ActionsOptions {
            settings: config.actions.clone(),
            loader: Arc::new(HostActors(host)),
            shelf: shelf.clone(),
            clock: clock.clone(),
            board: schedule.board().clone(),
            journal: config.actions.enabled.then(|| open_journal(&config, clock.wall_ms())),
        });
        let health = Arc::new(Health {
            board: schedule.board().clone(),
            spool,
            spool_fallback,
            lines: lines.clone(),
            uplink: has_uplink.then(Arc::default),
            workers,
            trust: trust.clone(),
            stopping: AtomicBool::new(false),
            config: std::sync::Mutex::default(),
        });
        let own = Own {
            started_ms: clock.wall_ms(),
            clock,
            collector: collector.clone(),
            health: health.clone(),
            node,
            conditions: Conditions::load(&config.state_dir),
            lines: lines.clone(),
            services,
            actions: actions.clone(),
        };
        let plugin_dir = Arc::new(std::sync::Mutex::new(config.plugin_dir.clone()));
        let watcher = Watcher {
            schedule: schedule.clone(),
            shelf: shelf.clone(),
            folder: plugin_dir.clone(),
            state_dir: config.state_dir.clone(),
        };
        let api = http::Api { collector, schedule: schedule.clone(), health: health.clone(), listen };
        Ok(Self {
            config,
            sources,
            logs,
            signals,
            listener,
            schedule,
            actions,
            health,
            own,
            watcher,
            shelf,
            trust,
            plugin_dir,
            api,
            life,
            _lock: lock,
        })
    }

    /// Runs until it is told to stop; a second signal ends it at once.
    pub async fn run(mut self) {
        let stop = Stops::default();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            listen = %self.api.listen,
            plugins = self.config.plugins.values().filter(|plugin| plugin.enabled).count(),
            "picket-agent runs"
        );
        let server = tokio::spawn(http::serve(self.listener, http::router(self.api), stop.server.clone()));
        let watchdog = tokio::spawn(notify::watchdog(stop.server.clone()));
        self.schedule.apply(plan(&self.config)).await;
        let (actions, planned) = (self.actions.clone(), plan_actions(&self.config));
        // Compiling takes its time, and nothing here waits for it.
        let configured = tokio::spawn(async move {
            actions.configure(planned).await;
            actions.resume();
        });
        drop(tokio::spawn(settle()));
        let own = tokio::spawn(self.own.run(stop.own.clone()));
        // Looks, and holds nothing: it ends with the plugins.
        let watch = tokio::spawn(self.watcher.run(stop.watch.clone()));
        let (uplink, commands) = match (&self.health.spool, &self.health.uplink) {
            (Some(spool), Some(status)) => {
                let (sender, receiver) = mpsc::channel(COMMANDS);
                let grants = self.schedule.board().grants();
                let (schedule, actions) = (self.schedule.clone(), self.actions.clone());
                let (offers, central) = Offers::new(schedule, actions, self.shelf.clone(), grants);
                // Ends with the plugins: what is under way goes on where it was.
                let stop_offers = stop.watch.clone();
                tokio::spawn(async move {
                    // What is offered of an action plugin is tried beside the version that runs.
                    let _ = configured.await;
                    offers.run(stop_offers).await;
                });
                let task = uplink::spawn(uplink::UplinkOptions {
                    config: self.config.uplink.clone(),
                    state_dir: self.config.state_dir.clone(),
                    spool: spool.clone(),
                    life: self.life,
                    lines: self.health.lines.spool().cloned(),
                    plugins: self.schedule.board().subscribe(),
                    actions: self.actions.subscribe(),
                    commands: sender,
                    central,
                    labels: labels(&self.config),
                    shutdown: stop.uplink.clone(),
                    status: status.clone(),
                });
                (
                    Some(task),
                    Some(tokio::spawn(commands::serve(
                        self.schedule.clone(),
                        self.actions.clone(),
                        receiver,
                    ))),
                )
            }
            _ => (None, None),
        };
        notify::ready(&summary(&self.config, uplink.is_some()));

        loop {
            let name = tokio::select! {
                _ = self.signals.terminate.recv() => "SIGTERM",
                _ = self.signals.interrupt.recv() => "SIGINT",
                _ = self.signals.reload.recv() => {
                    notify::reloading();
                    let parts = reload::Parts {
                        logs: &self.logs,
                        schedule: &self.schedule,
                        health: &self.health,
                        trust: &self.trust,
                        plugin_dir: &self.plugin_dir,
                    };
                    reload::reload(&mut self.config, &self.sources, parts).await;
                    self.actions.configure(plan_actions(&self.config)).await;
                    notify::ready(&summary(&self.config, uplink.is_some()));
                    continue;
                }
            };
            tracing::info!(signal = name, "picket-agent stops");
            break;
        }
        notify::stopping();
        self.health.stopping.store(true, Ordering::Relaxed);
        stop.watch.cancel();
        let _ = watch.await;
        self.actions.stop(ACTIONS_END_WITHIN).await;
        let down = take_down(&self.schedule, &self.health, &stop, own, uplink, commands);
        tokio::select! {
            () = down => {}
            _ = self.signals.terminate.recv() => tracing::warn!("told to stop again: ends at once"),
            _ = self.signals.interrupt.recv() => tracing::warn!("told to stop again: ends at once"),
        }
        stop.server.cancel();
        watchdog.abort();
        let _ = server.await;
    }
}

/// What is told to stop, each at its time.
#[derive(Default)]
struct Stops {
    watch: CancellationToken,
    own: CancellationToken,
    uplink: CancellationToken,
    server: CancellationToken,
}

async fn take_down(
    schedule: &Schedule,
    health: &Health,
    stop: &Stops,
    own: JoinHandle<()>,
    uplink: Option<JoinHandle<()>>,
    commands: Option<JoinHandle<()>>,
) {
    schedule.stop(COLLECTS_END_WITHIN).await;
    stop.own.cancel();
    let _ = own.await;
    stop.uplink.cancel();
    if let Some(mut uplink) = uplink
        && tokio::time::timeout(UPLINK_ENDS_WITHIN, &mut uplink).await.is_err()
    {
        tracing::warn!("the uplink did not end in time; what is not acknowledged is sent at the next start");
        uplink.abort();
    }
    if let Some(commands) = commands {
        commands.abort();
    }
    let lines = health.lines.clone();
    if let Err(error) = tokio::task::spawn_blocking(move || lines.save()).await {
        tracing::error!("the places in the logs were not saved: {error}");
    }
    for spool in health.lines.spool().cloned().into_iter().chain(health.spool.clone()) {
        let closed = tokio::task::spawn_blocking(move || spool.close());
        match tokio::time::timeout(SPOOL_CLOSES_WITHIN, closed).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::error!("the spool was not flushed: {error}"),
            Ok(Err(error)) => tracing::error!("the spool was not flushed: {error}"),
            Err(_) => {
                tracing::error!("the spool was not flushed within {SPOOL_CLOSES_WITHIN:?}: the disk hangs")
            }
        }
    }
}

/// The enabled plugins.
fn plan(config: &Config) -> Vec<Planned> {
    config
        .plugins
        .iter()
        .filter(|(_, plugin)| plugin.enabled && plugin.action.is_none())
        .map(|(id, plugin)| Planned { spec: spec(config, id, plugin), interval: plugin.interval })
        .collect()
}

fn spec(config: &Config, id: &PluginId, plugin: &config::Plugin) -> SourceSpec {
    SourceSpec {
        id: id.clone(),
        file: config.plugin_file(plugin),
        settings: plugin.settings.clone(),
        grants: plugin.grants.clone(),
        limits: plugin.limits.clone(),
        isolation: plugin.isolation,
    }
}

/// Lets go of the memory that only the start needed, and each hour of what something rare needed since.
async fn settle() {
    for wait in [SETTLED_AFTER, 2 * SETTLED_AFTER].into_iter().chain(std::iter::repeat(HOUR)) {
        tokio::time::sleep(wait).await;
        // The kernel's list of mappings takes a while to be written.
        let _ = tokio::task::spawn_blocking(|| Program::of_this_process().let_go()).await;
    }
}

/// The enabled action plugins.
fn plan_actions(config: &Config) -> Vec<ActionPlanned> {
    let all = config.plugins.iter().filter(|(_, plugin)| plugin.enabled);
    all.filter_map(|(id, plugin)| {
        let rules = plugin.action.clone()?;
        Some(ActionPlanned { spec: spec(config, id, plugin), rules })
    })
    .collect()
}

fn labels(config: &Config) -> Vec<v1::Label> {
    let pairs = config.node.labels.iter();
    pairs.map(|(name, value)| v1::Label { name: name.clone(), value: value.clone() }).collect()
}

/// Where it is written down what is done to this node.
fn open_journal(config: &Config, now_ms: i64) -> Result<Journal, String> {
    Journal::open(&config.state_dir.join("actions"), now_ms).map_err(|error| {
        tracing::error!("no action is let in: {error}");
        error.to_string()
    })
}

/// The enabled plugins that this agent would refuse before it ran anything of them, each with the reason.
pub fn refused_plugins(config: &Config) -> Vec<String> {
    let trust = Trust::open(&config.trust);
    let check = |spec: SourceSpec, check: fn(SourceSpec) -> Result<(), PluginError>| match shelf::judge(
        &trust, &spec,
    ) {
        Err(no) => Some(format!("{}: plugin {}: {}", no.error.code, spec.id, no.error.message)),
        Ok(()) => check(spec).err().map(|error| error.to_string()),
    };
    let sources = plan(config).into_iter().filter_map(|planned| check(planned.spec, schedule::check));
    let actions = plan_actions(config).into_iter().filter_map(|planned| check(planned.spec, actions::check));
    sources.chain(actions).collect()
}

fn summary(config: &Config, uplink: bool) -> String {
    let plugins = config.plugins.values().filter(|plugin| plugin.enabled).count();
    let towards = if uplink { "with an uplink" } else { "standing alone" };
    format!("{plugins} plugins, {towards}, http on {}", config.http.listen)
}

/// What of the second wall this node has not.
fn say_wall(host: &Host) {
    for standing in host.workers().map(|workers| workers.wall().parts).unwrap_or_default() {
        if standing.up {
            tracing::info!("the plugins' second wall has {standing}");
        } else {
            tracing::warn!("the plugins' second wall lacks {standing}");
        }
    }
}

/// How the second wall would stand, as a worker finds it.
///
/// # Errors
/// Why plugins would not run at all, for a person.
pub fn wall(config: &Config) -> Result<Wall, String> {
    picket_agent_host::probe(&worker::options(config)?)
}

/// The helpers stand beside the agent where the configuration does not say otherwise.
fn compiler(config: &Config) -> PathBuf {
    config.compiler.clone().unwrap_or_else(|| beside("picket-compile"))
}

fn nvml_options(config: &Config) -> nvml::Options {
    nvml::Options {
        helper: config.nvml.helper.clone().unwrap_or_else(|| beside("picket-nvml")),
        library: config.nvml.library.clone(),
        timeout: config.nvml.timeout,
        ..nvml::Options::default()
    }
}

fn beside(name: &str) -> PathBuf {
    std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join(name)))
        .unwrap_or_else(|| PathBuf::from(name))
}

/// Holds the state folder for this process. A folder that cannot be written cannot be spoiled by two agents either.
fn lock(state_dir: &Path) -> Result<Option<File>, StartError> {
    let path = state_dir.join("agent.lock");
    let opened = std::fs::create_dir_all(state_dir)
        .and_then(|()| File::options().create(true).truncate(false).write(true).open(&path));
    let file = match opened {
        Ok(file) => file,
        Err(error) => {
            tracing::warn!("{} cannot be made: {error}", path.display());
            return Ok(None);
        }
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Err(StartError::Locked { path }),
        Err(std::fs::TryLockError::Error(error)) => {
            tracing::warn!("{} cannot be locked: {error}", path.display());
            Ok(Some(file))
        }
    }
}

/// The spool on disk, or in memory with the reason why.
fn open_spool(config: &Config, life: u64) -> (Option<Spool>, Option<String>) {
    let dir = config.state_dir.join("spool");
    let max_bytes = config.spool.max_size.0;
    let options = picket_agent_spool::Options {
        dir: dir.clone(),
        max_bytes,
        max_age: config.spool.max_age,
        segment_bytes: SEGMENT.min(max_bytes / 8),
        queue_bytes: SPOOL_QUEUE,
    };
    match Spool::open(options, life) {
        Ok(spool) => (Some(spool), None),
        Err(error) => {
            tracing::error!("the spool in {} cannot be used, samples wait in memory: {error}", dir.display());
            (Some(Spool::in_memory(max_bytes.min(MEMORY_SPOOL), life)), Some(error.to_string()))
        }
    }
}

/// A number of this run that no other has.
fn random() -> Result<u64, StartError> {
    use ring::rand::SecureRandom;
    let mut bytes = [0; 8];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| StartError::Random)?;
    Ok(u64::from_le_bytes(bytes).max(1))
}
