//! The whole aggregator: config → [`App::build`] → [`App::run`] → drain.
//!
//! Building opens everything that can fail (files, databases, ports), so that a wrong configuration is told before
//! the first agent is let in. On the stop: no new connections, streams told to go elsewhere, the log synced, the rest
//! given a bounded time.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use picket_proto::model::NodeId;
use picket_proto::v1::enrolment_server::EnrolmentServer;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::actions::{Actions, Bounds, StoreError};
use crate::audit::{Audit, AuditError};
use crate::clock::{Clock, millis};
use crate::config::{Config, ConfigError, OwnCertificates};
use crate::durable::OpenError;
use crate::events::{Events, EventsError};
use crate::http;
use crate::identity::{
    Access, AccessError, Authority, AuthorityError, Database, EnrolmentService, Gatekeeper, Mode,
    NewApiToken, Registry, RegistryError, Role,
};
use crate::ingest::{Options, UplinkService};
use crate::limiter::FailureLimiter;
use crate::log::{Log, LogOptions};
use crate::logs::LogStore;
use crate::logs::forward::{ForwardError, Forwarder, Target};
use crate::rollout::{RolloutError, Rollouts};
use crate::store::{Store, StoreOptions};
use crate::telemetry::{LogLevel, TelemetryError};
use crate::transport::{
    Gate, GateOptions, OwnFiles, Port, Protocol, ServerCertificate, ServerTls, TicketError, TicketKeys,
    TlsError, TlsOptions,
};

/// The server's own certificate lasts this long and is replaced at half of it.
const SERVER_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Housekeeping: rotation of certificates and keys, changed certificate files, gauges.
const TICK: Duration = Duration::from_secs(10);
/// Old rows of the databases go this often.
const TIDY: Duration = Duration::from_secs(3600);
/// What a stop may take before connections are dropped.
const DRAIN: Duration = Duration::from_secs(8);
/// Connections that a node may have at one time: one stream, and those that it lost without knowing.
const PER_CERTIFICATE: usize = 16;

/// Why the aggregator does not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot {what} {}: {source}", path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot listen on {address} ({key}): {source}")]
    Listen { key: &'static str, address: SocketAddr, source: io::Error },
    #[error("{} is not set up yet: run `picket-aggregator init` first", .0.display())]
    NotInitialised(PathBuf),
    #[error("{} is there already. Nothing was changed.", .0.display())]
    Initialised(PathBuf),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Events(#[from] EventsError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Tickets(#[from] TicketError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Actions(#[from] StoreError),
    #[error(transparent)]
    Rollouts(#[from] RolloutError),
    #[error(transparent)]
    Forward(#[from] ForwardError),
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
}

/// What `init` made.
#[derive(Debug)]
pub struct Initialised {
    /// The CA's certificate and its fingerprint; none with a CA of the operator's own.
    pub authority: Option<(PathBuf, String)>,
    pub admin_token: PathBuf,
}

/// Sets up a state folder: a CA (unless the operator brings one) and an admin's API token. Never overwrites.
pub fn init(config: &Config, clock: &Clock) -> Result<Initialised, AppError> {
    let dir = &config.state_dir;
    let admin_token = dir.join("admin.token");
    if admin_token.exists() {
        return Err(AppError::Initialised(admin_token));
    }
    make_state_dir(dir)?;
    let authority = match config.own_certificates() {
        Some(own) => {
            OwnFiles::load(&own)?;
            None
        }
        None => {
            let authority = Authority::create(dir, clock.clone())?;
            Some((dir.join("ca.pem"), authority.fingerprint()))
        }
    };
    let made = create_token(config, clock, "admin", Role::Admin, None)?;
    crate::identity::write_new(&admin_token, 0o600, format!("{}\n", made.text).as_bytes())?;
    Ok(Initialised { authority, admin_token })
}

/// Makes an API token in the state folder, whether the aggregator runs or not.
pub fn create_token(
    config: &Config,
    clock: &Clock,
    name: &str,
    role: Role,
    life: Option<Duration>,
) -> Result<NewApiToken, AppError> {
    if !config.state_dir.is_dir() {
        return Err(AppError::NotInitialised(config.state_dir.clone()));
    }
    let database = Arc::new(Database::open(&config.state_dir.join("identity.db"))?);
    Ok(Access::new(database, clock.clone()).create(name, role, life, "picket-aggregator")?)
}

/// The aggregator, ready to run.
pub struct App {
    config: Config,
    clock: Clock,
    api: Arc<http::App>,
    certificates: Certificates,
    forwarder: Option<Forwarder>,
    uplink: Port,
    http: Port,
    uplink_address: SocketAddr,
    http_address: SocketAddr,
}

impl App {
    /// Opens all that the configuration names.
    pub async fn build(config: Config, clock: Clock, metrics: PrometheusHandle) -> Result<Self, AppError> {
        let dir = config.state_dir.clone();
        if !dir.is_dir() {
            return Err(AppError::NotInitialised(dir));
        }
        raise_open_files();
        let certificates = Certificates::load(&config, &clock)?;
        let database = Arc::new(Database::open(&dir.join("identity.db"))?);
        let registry = Arc::new(Registry::new(Arc::clone(&database), clock.clone())?);
        let access = Arc::new(Access::new(database, clock.clone()));
        let events = Arc::new(Events::open(
            &dir.join("events.db"),
            config.events.max_count,
            config.events.max_age,
            clock.clone(),
        )?);
        let store =
            Store::new(StoreOptions { stale_after: config.store.stale_after, ..StoreOptions::default() });
        let log = {
            let options = LogOptions {
                dir: dir.join("log"),
                max_bytes: config.store.log_max_size.as_u64(),
                max_age: config.store.log_max_age,
                clock: clock.clone(),
                ..LogOptions::default()
            };
            let (store, now) = (Arc::clone(&store), clock.now_ms());
            blocking(move || {
                let (log, recovered) = Log::open(options)?;
                let series = UplinkService::restore(&store, &log, now);
                tracing::info!(?recovered, series, "read the log of the last run");
                Ok(log)
            })
            .await?
        };
        let (logs, forwarder) = open_logs(&config, &clock).await?;
        for record in registry.nodes()? {
            match (NodeId::new(&record.name), record.revoked_ms) {
                (Ok(node), None) => drop(store.know(&node)),
                // The log still has its values.
                (Ok(node), Some(_)) => store.forget(&node),
                (Err(_), _) => {}
            }
        }
        let mode = certificates.mode(&config);
        let limiter = Arc::new(FailureLimiter::new(clock.clone()));
        let gatekeeper = Arc::new(Gatekeeper::new(Arc::clone(&registry), mode.clone(), clock.clone()));
        let ingest = UplinkService::new(
            Arc::clone(&store),
            Arc::clone(&log),
            gatekeeper,
            events.clone(),
            Arc::new(Arc::clone(&logs)),
            Options { clock: clock.clone(), ..Options::default() },
        );
        let actions = open_actions(&config, &clock).await?;
        actions.connect(ingest.clone());
        ingest.set_actions(actions.clone());
        let rollouts = open_rollouts(&config, &clock, Arc::clone(actions.audit())).await?;
        rollouts.connect(ingest.clone());
        ingest.set_rollouts(rollouts.clone());
        let enrolment = EnrolmentService::new(Arc::clone(&registry), mode.clone(), Arc::clone(&limiter));

        let uplink_gate = Gate::new(GateOptions {
            pending: 4096,
            trusted: config.uplink.max_connections,
            per_certificate: PER_CERTIFICATE,
        });
        let http_gate =
            Gate::new(GateOptions { pending: 256, trusted: config.http.max_connections, per_certificate: 1 });
        let (uplink_listener, uplink_address) = listen("uplink.listen", config.uplink.listen).await?;
        let (http_listener, http_address) = listen("http.listen", config.http.listen).await?;
        let api = Arc::new(http::App {
            registry,
            access,
            limiter,
            store,
            log,
            ingest: ingest.clone(),
            events,
            logs: http::Logs::new(logs, &config.logs),
            actions,
            rollouts,
            mode,
            advertised: config.advertised(),
            metrics,
            uplink_gate: Arc::clone(&uplink_gate),
            http_gate: Arc::clone(&http_gate),
            certificate: Arc::clone(&certificates.server),
            started_ms: clock.now_ms(),
            clock: clock.clone(),
            exports: http::App::export_permits(),
            ready: AtomicBool::new(false),
        });
        let grpc = tonic::service::Routes::new(ingest.server())
            .add_service(EnrolmentServer::new(enrolment).max_decoding_message_size(64 * 1024));
        let uplink = Port {
            listener: uplink_listener,
            protocol: Protocol::Grpc,
            tls: Some(Arc::clone(&certificates.uplink)),
            gate: uplink_gate,
            router: grpc.into_axum_router(),
        };
        let http = Port {
            listener: http_listener,
            protocol: Protocol::Http,
            tls: config.http.tls.then(|| Arc::clone(&certificates.http)),
            gate: http_gate,
            router: http::router(Arc::clone(&api)).0,
        };
        Ok(Self { config, clock, api, certificates, forwarder, uplink, http, uplink_address, http_address })
    }

    /// Where agents connect: the configured address, with the port that the system chose for port 0.
    pub fn uplink_address(&self) -> SocketAddr {
        self.uplink_address
    }

    /// Where the API answers.
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// What the API works on; for tests that look behind it.
    pub fn api(&self) -> Arc<http::App> {
        Arc::clone(&self.api)
    }

    /// Serves until `stop` is cancelled, then drains. A message on `reload` reads certificates again.
    pub async fn run(self, stop: CancellationToken, reload: Arc<tokio::sync::Notify>) {
        let Self { config, clock, api, certificates, forwarder, uplink, http, .. } = self;
        let tasks = TaskTracker::new();
        let drain = CancellationToken::new();
        let ports = TaskTracker::new();
        ports.spawn(uplink.serve(drain.clone(), tasks.clone()));
        ports.spawn(http.serve(drain.clone(), tasks.clone()));
        ports.close();
        if let Some(forwarder) = forwarder {
            tasks.spawn(forwarder.run(drain.clone()));
        }
        tasks.spawn(Arc::clone(&api.actions).run(drain.clone()));
        tasks.spawn(Arc::clone(&api.rollouts).run(drain.clone()));
        api.ready.store(true, Ordering::Release);
        tracing::info!(
            uplink = %self.uplink_address,
            http = %self.http_address,
            tls = config.http.tls,
            "picket-aggregator is ready"
        );

        keep_house(&config, &clock, &api, certificates, &reload, &stop).await;

        api.ready.store(false, Ordering::Release);
        tracing::info!("stopping");
        drain.cancel();
        api.logs.stop();
        ports.wait().await;
        let ended = tokio::time::timeout(DRAIN, async {
            api.ingest.shutdown();
            tasks.close();
            tasks.wait().await;
        });
        if ended.await.is_err() {
            tracing::warn!(open = tasks.len(), "some connections did not end in time and are dropped");
        }
        let (log, logs) = (Arc::clone(&api.log), Arc::clone(&api.logs.store));
        // What was accepted is written, acknowledged or not: an agent that sends it again is answered from it.
        let _ = tokio::task::spawn_blocking(move || {
            log.close();
            logs.close();
        })
        .await;
    }
}

/// The repeated small work, until `stop`.
async fn keep_house(
    config: &Config,
    clock: &Clock,
    api: &Arc<http::App>,
    mut certificates: Certificates,
    reload: &tokio::sync::Notify,
    stop: &CancellationToken,
) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tidy = tokio::time::interval(TIDY);
    tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
            () = reload.notified() => {}
            _ = tidy.tick() => {
                let api = Arc::clone(api);
                let done = tokio::task::spawn_blocking(move || -> Result<(), AppError> {
                    api.registry.tidy()?;
                    Ok(api.events.trim()?)
                });
                if let Ok(Err(error)) = done.await {
                    tracing::error!(%error, "cannot drop old rows");
                }
                continue;
            }
        }
        certificates.refresh(config, clock);
        api.metrics.run_upkeep();
    }
}

/// What the fleet is told to do, and the log of who told it.
async fn open_actions(config: &Config, clock: &Clock) -> Result<Arc<Actions>, AppError> {
    let (dir, wanted, clock) = (config.state_dir.clone(), config.actions.clone(), clock.clone());
    blocking(move || {
        let audit = Arc::new(Audit::open(&dir, clock.clone())?);
        let bounds = Bounds {
            max_running: wanted.max_running,
            per_hour: wanted.per_hour,
            max_nodes_percent: wanted.max_nodes_percent,
        };
        let options = crate::actions::Options { bounds, plan_ttl: wanted.plan_ttl, clock };
        Ok(Actions::open(&dir, audit, options)?)
    })
    .await
}

/// What is rolled out to the fleet.
async fn open_rollouts(config: &Config, clock: &Clock, audit: Arc<Audit>) -> Result<Arc<Rollouts>, AppError> {
    let (dir, settings, clock) = (config.state_dir.clone(), config.rollout.clone(), clock.clone());
    blocking(move || Ok(Rollouts::open(&dir, settings, audit, clock)?)).await
}

/// The store of log lines, and what sends them on where that is configured.
async fn open_logs(config: &Config, clock: &Clock) -> Result<(Arc<LogStore>, Option<Forwarder>), AppError> {
    let dir = config.state_dir.join("logs");
    let wanted = &config.logs;
    let options = crate::logs::Options {
        dir: dir.clone(),
        max_bytes: wanted.max_size.as_u64(),
        max_age: wanted.max_age,
        max_streams: wanted.max_streams_per_node,
        clock: clock.clone(),
        ..crate::logs::Options::default()
    };
    let target = wanted.forward.url.clone().map(|url| Target {
        url,
        tenant: wanted.forward.tenant.clone(),
        bearer_file: wanted.forward.bearer_file.clone(),
        username: wanted.forward.username.clone(),
        password_file: wanted.forward.password_file.clone(),
        authorities: wanted.forward.authorities.clone(),
    });
    blocking(move || {
        let (store, recovered) = LogStore::open(options)?;
        tracing::info!(?recovered, "read the log lines of the last run");
        let forwarder = target.map(|target| Forwarder::new(Arc::clone(&store), target, &dir)).transpose()?;
        Ok((store, forwarder))
    })
    .await
}

/// The certificates of both ports, and where they come from.
struct Certificates {
    source: Source,
    server: Arc<ServerCertificate>,
    uplink: Arc<ServerTls>,
    http: Arc<ServerTls>,
    tickets: Arc<TicketKeys>,
}

enum Source {
    Picket { authority: Arc<Authority>, replace_at_ms: i64 },
    Own { paths: OwnCertificates, digest: [u8; 32] },
}

impl Certificates {
    fn load(config: &Config, clock: &Clock) -> Result<Self, AppError> {
        let (source, certified, clients): (_, _, Vec<CertificateDer<'static>>) =
            match config.own_certificates() {
                Some(paths) => {
                    let files = OwnFiles::load(&paths)?;
                    (Source::Own { paths, digest: files.digest }, files.certificate, files.clients)
                }
                None => {
                    let authority = Arc::new(Authority::load(&config.state_dir, clock.clone())?);
                    let certified = authority.issue_server(&config.server_names(), SERVER_LIFE)?;
                    let clients = vec![authority.certificate().clone()];
                    (Source::Picket { authority, replace_at_ms: replace_at(clock) }, certified, clients)
                }
            };
        let tickets = TicketKeys::open(Some(&config.state_dir.join("ticket-keys")), clock.clone())?;
        let server = ServerCertificate::new(certified);
        let options = |protocol: Protocol, clients| TlsOptions {
            certificate: Arc::clone(&server),
            alpn: protocol.alpn(),
            clients,
            tickets: Arc::clone(&tickets),
        };
        let uplink = ServerTls::new(options(Protocol::Grpc, Some(clients)))?;
        let http = ServerTls::new(options(Protocol::Http, None))?;
        Ok(Self { source, server, uplink, http, tickets })
    }

    fn mode(&self, config: &Config) -> Mode {
        match &self.source {
            Source::Picket { authority, .. } => {
                Mode::Picket { authority: Arc::clone(authority), life: config.identity.certificate_life }
            }
            Source::Own { .. } => Mode::Own,
        }
    }

    /// Replaces what is due or has changed. What fails is told and stays as it was.
    fn refresh(&mut self, config: &Config, clock: &Clock) {
        if let Err(error) = self.tickets.rotate() {
            tracing::error!(%error, "cannot rotate the keys of TLS tickets");
        }
        match &mut self.source {
            Source::Picket { authority, replace_at_ms } if clock.now_ms() >= *replace_at_ms => {
                match authority.issue_server(&config.server_names(), SERVER_LIFE) {
                    Ok(certified) => {
                        self.server.replace(certified);
                        *replace_at_ms = replace_at(clock);
                        tracing::info!("replaced the server's certificate");
                    }
                    Err(error) => tracing::error!(%error, "cannot replace the server's certificate"),
                }
            }
            Source::Picket { .. } => {}
            Source::Own { paths, digest } => match OwnFiles::load(paths) {
                Ok(files) if files.digest == *digest => {}
                Ok(files) => match self.uplink.set_clients(&files.clients) {
                    Ok(()) => {
                        self.server.replace(files.certificate);
                        *digest = files.digest;
                        tracing::info!("read the changed certificate files");
                    }
                    Err(error) => tracing::error!(%error, "the changed certificate files are not used"),
                },
                Err(error) => tracing::error!(%error, "the changed certificate files are not used"),
            },
        }
    }
}

/// Runs what blocks off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AppError> + Send + 'static,
) -> Result<T, AppError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Changes the log level as the file says now; what else has changed needs a restart.
pub fn reload_log_level(path: Option<&Path>, level: &LogLevel) {
    match Config::load(path).map_err(AppError::from).and_then(|config| Ok(level.set(&config.log.level)?)) {
        Ok(()) => tracing::info!("read the log level and the certificates again"),
        Err(error) => tracing::error!(%error, "the configuration was not read again"),
    }
}

fn replace_at(clock: &Clock) -> i64 {
    clock.now_ms().saturating_add(millis(SERVER_LIFE / 2))
}

fn make_state_dir(dir: &Path) -> Result<(), AppError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| AppError::File {
        what: "create",
        path: dir.to_owned(),
        source,
    })
}

async fn listen(key: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), AppError> {
    let failed = |source| AppError::Listen { key, address, source };
    // tokio's own bind has a backlog of 1024: ten thousand agents that come back at once need more.
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4(),
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6(),
    }
    .map_err(failed)?;
    socket.set_reuseaddr(true).map_err(failed)?;
    socket.bind(address).map_err(failed)?;
    let listener = socket.listen(16 * 1024).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Takes as many open files as the system lets it have: one a connection.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "cannot raise the limit of open files");
        }
    }
}
