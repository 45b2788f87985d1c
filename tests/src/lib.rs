//! What the end-to-end tests stand on: the real binaries in a temporary folder, driven through their public
//! interfaces alone (command line, config files, HTTP, gRPC).
//!
//! A test is `run(async |test| { … Ok(()) })`. Everything that it starts is stopped when it ends; when it fails, the
//! end of every log is printed. Nothing here sleeps for luck: [`eventually`] waits for a condition with a deadline.

mod agent;
mod aggregator;
mod bad;
mod client;
mod docker;
mod engine;
pub mod exposition;
mod litellm;
mod parts;
mod plugin;
mod podman;
mod process;
mod registry;
mod slurm;
mod slurm_dump;
mod systemd;
mod terminal;
pub mod uplink;
mod vllm;

use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

pub use agent::{Agent, AgentBuilder, grants_of, guest_section};
pub use aggregator::{Aggregator, AggregatorBuilder};
pub use bad::{BadServer, Behaviour};
pub use client::{Api, Row};
pub use docker::Docker;
pub use engine::Engine;
pub use litellm::LiteLlm;
pub use parts::{Prometheus, promtool_check};
pub use plugin::{Keys, first_party_as, picket, plugin_of, signature};
pub use podman::Podman;
pub use process::{Daemon, Output, run_program, run_program_with};
pub use registry::Registry;
pub use slurm::Slurm;
pub use slurm_dump::{large_slurm_dump, slurm_reading_a_file};
pub use systemd::Systemd;
pub use terminal::Terminal;
pub use vllm::Vllm;

/// How long a condition may take. Generous: the machines are small and shared.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Runs a test with a whole-test limit of three minutes.
pub fn run(test: impl AsyncFnOnce(&Test) -> Result<()>) {
    run_within(Duration::from_secs(180), test);
}

/// Runs a test; panics with its error and the ends of all logs if it fails or takes longer than `limit`.
pub fn run_within(limit: Duration, test: impl AsyncFnOnce(&Test) -> Result<()>) {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = runtime.context("no runtime").and_then(|runtime| {
        let this = Test::new()?;
        let outcome = runtime.block_on(async {
            tokio::time::timeout(limit, test(&this))
                .await
                .unwrap_or_else(|_| Err(anyhow!("the test took longer than {} s", limit.as_secs())))
        });
        if outcome.is_err() {
            this.print_logs();
        }
        outcome
    });
    if let Err(error) = outcome {
        panic!("{error:#}");
    }
}

/// One running test: its folder, and the logs of what it started.
pub struct Test {
    folder: tempfile::TempDir,
    logs: Arc<Mutex<Vec<(String, PathBuf)>>>,
}

impl Test {
    /// For a program that is no test: its folder lives as long as this. Tests get theirs from [`run`].
    pub fn new() -> Result<Self> {
        let folder =
            tempfile::Builder::new().prefix("picket-e2e-").tempdir().context("no temporary folder")?;
        Ok(Self { folder, logs: Arc::default() })
    }

    /// The test's own folder, removed at its end.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts an aggregator with the default config.
    pub async fn aggregator(&self) -> Result<Aggregator> {
        AggregatorBuilder::new(self)?.start().await
    }

    /// A real server or library that the test needs; `None` (and said so, and counted) if it can't be had.
    pub fn part(&self, name: &str) -> Option<PathBuf> {
        let file = target().join("parts/bin").join(name);
        if file.exists() {
            return Some(file);
        }
        skip(&format!("needs {name}: run `cargo xtask parts`"));
        None
    }

    fn log(&self, name: &str) -> Result<PathBuf> {
        let mut logs = self.logs.lock().map_err(|_| anyhow!("the list of logs is poisoned"))?;
        let file = self.folder.path().join(format!("{:02}-{name}.log", logs.len()));
        logs.push((name.to_owned(), file.clone()));
        Ok(file)
    }

    fn print_logs(&self) {
        let Ok(logs) = self.logs.lock() else { return };
        // A test that restarts its daemons often has many: the last ones tell.
        for (name, file) in logs.iter().rev().take(6).rev() {
            eprintln!("--- {name}: {} ends with\n{}", file.display(), tail(file, 40));
        }
    }
}

/// A program of this machine's.
pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Says that this test is skipped and why; `cargo xtask test` counts it.
pub fn skip(reason: &str) {
    let name = std::env::var_os("NEXTEST_TEST_NAME")
        .map(|name| name.to_string_lossy().into_owned())
        .or_else(|| std::thread::current().name().map(str::to_owned))
        .unwrap_or_else(|| "a test".to_owned());
    eprintln!("SKIPPED {name}: {reason}");
    let list = target().join("skipped-tests");
    if let Ok(mut list) = std::fs::OpenOptions::new().create(true).append(true).open(list) {
        let _ = list.write_all(format!("{name}: {reason}\n").as_bytes());
    }
}

/// Small numbers that look random and are the same in each run.
pub struct Dice(pub u64);

impl Dice {
    /// One that is less than `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Asks again and again until the answer is `Ok`; the last error, with `what`, once [`DEADLINE`] has passed.
pub async fn eventually<T, F, Fut>(what: &str, ask: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    eventually_within(DEADLINE, what, ask).await
}

/// [`eventually`] with a deadline of its own.
pub async fn eventually_within<T, F, Fut>(within: Duration, what: &str, ask: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    eventually_every(Duration::from_millis(50), within, what, ask).await
}

/// [`eventually`] for what costs something to ask: asked so seldom.
pub async fn eventually_every<T, F, Fut>(
    every: Duration,
    within: Duration,
    what: &str,
    mut ask: F,
) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + within;
    loop {
        match ask().await {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("after {} s still not: {what}", within.as_secs())));
            }
            Err(_) => tokio::time::sleep(every).await,
        }
    }
}

/// Cargo's target folder: above the folder of the profile, which has a folder `deps`, and in which this binary stands.
pub fn target() -> PathBuf {
    let this = std::env::current_exe().unwrap_or_default();
    let profile = this.ancestors().find(|folder| folder.join("deps").is_dir());
    profile.and_then(Path::parent).map(Path::to_owned).unwrap_or_default()
}

/// Where binaries are, for a program that is no test and brings its own.
static BINARIES: OnceLock<PathBuf> = OnceLock::new();

/// From now on [`binary`] looks into this folder. The first call counts.
pub fn use_binaries_of(folder: &Path) {
    let _ = BINARIES.set(folder.to_owned());
}

/// One of our binaries.
pub fn binary(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe().context("no path of this binary")?;
    let folder = BINARIES.get().map(PathBuf::as_path).or_else(|| this.ancestors().nth(2));
    let file = folder.unwrap_or(Path::new("")).join(name);
    if file.is_file() {
        return Ok(file);
    }
    Err(anyhow!("{} is missing: run `cargo xtask test`, or `cargo build --workspace --bins`", file.display()))
}

/// The folder of the built first-party plugins.
pub fn plugins() -> PathBuf {
    target().join("plugins")
}

/// The folder of the plugins made for the tests.
pub fn guests() -> PathBuf {
    target().join("guests")
}

/// The repository's root.
pub fn repository() -> PathBuf {
    let this = Path::new(env!("CARGO_MANIFEST_DIR"));
    this.parent().unwrap_or(this).to_owned()
}

/// A loopback TCP port that is free now.
pub fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

/// A path (or any text) as TOML.
pub fn quoted(text: impl AsRef<Path>) -> String {
    toml::Value::String(text.as_ref().to_string_lossy().into_owned()).to_string()
}

/// The last lines of a file.
pub fn tail(file: &Path, lines: usize) -> String {
    let text = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}
