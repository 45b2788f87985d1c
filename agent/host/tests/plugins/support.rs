//! Guests, hosts and sinks for the tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, SystemTime};

use picket_agent_host::{
    Host, HostOptions, Limits, Plugin, PluginError, PluginSpec, SampleSink, WorkerOptions,
};
use picket_agent_services::grants::Scope;
use picket_agent_services::{ServiceLimits, Services, ServicesOptions};
use picket_proto::model::{Family, Labels, Part, PluginId};
use picket_proto::v1;
use serde_json::json;

/// The workspace's target folder, two above the test's own place.
fn target() -> PathBuf {
    let me = std::env::current_exe().unwrap();
    me.ancestors().nth(3).unwrap().to_owned()
}

fn cargo(arguments: &[&str], folder: &Path) {
    let done = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .unwrap();
    assert!(done.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Whether `made` is newer than everything below the sources: then cargo, which waits for other builds, is not asked.
fn fresh(made: &Path, sources: &[PathBuf]) -> bool {
    fn newest(path: &Path) -> Option<SystemTime> {
        if path.is_dir() {
            return std::fs::read_dir(path).ok()?.flatten().filter_map(|e| newest(&e.path())).max();
        }
        path.metadata().ok()?.modified().ok()
    }
    let Ok(made) = made.metadata().and_then(|m| m.modified()) else { return false };
    sources.iter().filter_map(|s| newest(s)).all(|changed| changed <= made)
}

/// The core module of a guest.
fn core(name: &str) -> Vec<u8> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let out = target().join("host-guests");
        let made = out.join("wasm32-unknown-unknown/release");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests");
        let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
        let shared = source.join("../../../../tests/guests/former");
        if ["deed", "early", "former", "hostile", "stranger"]
            .iter()
            .all(|n| fresh(&made.join(format!("{n}.wasm")), &[source.join(n), wit.clone(), shared.clone()]))
        {
            return made;
        }
        let arguments = [
            "build",
            "--quiet",
            "--release",
            "--target",
            "wasm32-unknown-unknown",
            "--target-dir",
            out.to_str().unwrap(),
        ];
        cargo(&arguments, &source);
        made
    });
    std::fs::read(folder.join(format!("{name}.wasm"))).unwrap()
}

pub fn core_module() -> Vec<u8> {
    core("hostile")
}

pub fn component(name: &str) -> Vec<u8> {
    wit_component::ComponentEncoder::default().module(&core(name)).unwrap().validate(true).encode().unwrap()
}

/// The component with a manifest as its author would embed it.
pub fn with_manifest(mut component: Vec<u8>, manifest: &str) -> Vec<u8> {
    use wasm_encoder::{CustomSection, Section};
    let section = CustomSection { name: "picket:manifest".into(), data: manifest.as_bytes().into() };
    section.append_to(&mut component);
    component
}

fn compiler() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
            let feature = "picket-agent-host/compile";
            let made = target().join("debug/picket-compile");
            if fresh(&made, &[root.join("agent/host/src"), root.join("agent/host/Cargo.toml")]) {
                return made;
            }
            // All the workspace is named, as xtask does: else its dependencies are built once more, with fewer features.
            cargo(
                &["build", "--quiet", "--workspace", "--features", feature, "--bin", "picket-compile"],
                root,
            );
            made
        })
        .clone()
}

/// The worker, built with the tests.
pub fn worker_options() -> WorkerOptions {
    let root = rustix::process::geteuid().is_root();
    WorkerOptions {
        program: env!("CARGO_BIN_EXE_picket-worker").into(),
        user: root.then_some((65_533, 65_533)),
        memory: 512 << 20,
        require: Vec::new(),
    }
}

/// On a runtime of its own, which outlives the test's.
pub fn walled(options: HostOptions, workers: WorkerOptions) -> Arc<Host> {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    });
    let started = std::thread::spawn(move || RUNTIME.block_on(Host::walled(options, workers)));
    started.join().unwrap().unwrap()
}

pub struct Fixture {
    pub folder: tempfile::TempDir,
    pub host: Arc<Host>,
}

impl Fixture {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut HostOptions)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = Self::options(folder.path(), change);
        let host =
            if crate::WALLED { walled(options, worker_options()) } else { Host::new(options).unwrap() };
        Self { host, folder }
    }

    /// Those of a host that keeps its files there.
    pub fn options(folder: &Path, change: impl FnOnce(&mut HostOptions)) -> HostOptions {
        let services = Services::new(ServicesOptions {
            state_dir: folder.join("state"),
            extra_authorities: None,
            limits: ServiceLimits { http_time: Duration::from_secs(60), ..ServiceLimits::default() },
            nvml: Default::default(),
            kmsg: Default::default(),
        });
        let mut options = HostOptions {
            cache_dir: folder.join("cache"),
            compiler: compiler(),
            compile_memory: 2 << 30,
            compile_timeout: Duration::from_secs(60),
            services: Arc::new(services.unwrap()),
        };
        change(&mut options);
        options
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// The hostile plugin with everything granted.
    pub fn hostile(&self, mode: &str) -> PluginSpec {
        let file = self.path("hostile.wasm");
        if !file.exists() {
            self.file("hostile.wasm", &component("hostile"));
        }
        spec("hostile", file, json!({ "mode": mode }))
    }

    pub fn hostile_with(&self, mode: &str, argument: &str) -> PluginSpec {
        PluginSpec { settings: json!({ "mode": mode, "argument": argument }), ..self.hostile(mode) }
    }

    pub async fn load(&self, spec: PluginSpec) -> Plugin {
        self.host.load(spec).await.unwrap_or_else(|e| panic!("{e}: {}", e.why()))
    }

    pub async fn refused(&self, spec: PluginSpec) -> PluginError {
        self.host.load(spec).await.expect_err("it was loaded")
    }
}

pub fn spec(id: &str, file: PathBuf, settings: serde_json::Value) -> PluginSpec {
    PluginSpec {
        id: PluginId::new(id).unwrap(),
        file,
        settings,
        grants: everything(),
        limits: limits(),
        isolation: Default::default(),
    }
}

pub fn everything() -> Vec<Scope> {
    serde_json::from_value(json!([
        { "capability": "store", "bytes": 1000 },
        { "capability": "files", "read": ["/**"], "filesystems": ["/**"] },
        { "capability": "http", "urls": [{ "host": "127.0.0.1", "port": 9 }] },
        { "capability": "system" },
    ]))
    .unwrap()
}

/// Small enough for tests to reach them.
pub fn limits() -> Limits {
    Limits {
        guest_time: Duration::from_millis(200),
        call_time: Duration::from_secs(5),
        memory: 32 << 20,
        samples: 5_000,
        series: 1_000,
        back_off: Duration::from_millis(50),
        ..Limits::default()
    }
}

/// Keeps what it is given, as lines of the exposition.
#[derive(Debug, Default)]
pub struct Kept {
    pub generations: Vec<u64>,
    pub families: BTreeMap<u32, Family>,
    pub names: BTreeMap<u32, String>,
    /// Refuse series of this family.
    pub refuse: Option<&'static str>,
    pub values: BTreeMap<String, f64>,
    pub timed: usize,
    pub retired: Vec<String>,
    pub events: Vec<v1::Event>,
    pub failures: Vec<(String, String)>,
}

impl Kept {
    pub fn reasons(&self) -> Vec<&str> {
        self.failures.iter().map(|(r, _)| r.as_str()).collect()
    }

    pub fn value(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }
}

impl SampleSink for Kept {
    fn begin(&mut self, generation: u64) {
        self.generations.push(generation);
        self.families.clear();
        self.names.clear();
    }

    fn family(&mut self, id: u32, family: &Family) {
        assert_eq!(id as usize, self.families.len(), "families are dense");
        self.families.insert(id, family.clone());
    }

    fn series(&mut self, id: u32, family: u32, part: Part, labels: &Labels) -> Result<(), String> {
        let family = &self.families[&family];
        if self.refuse == Some(family.name.as_str()) {
            return Err(format!("{} is another plugin's", family.name));
        }
        let labels: Vec<String> = labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let name = format!("{}{}{{{}}}", family.name, picket_proto::model::suffix(part), labels.join(","));
        assert!(self.names.insert(id, name).is_none(), "number {id} was given twice");
        Ok(())
    }

    fn points(&mut self, points: &[(u32, f64)]) {
        for (id, value) in points {
            assert!(!value.is_nan());
            self.values.insert(self.names[id].clone(), *value);
        }
    }

    fn timed_points(&mut self, points: &[(u32, f64, i64)]) {
        self.timed += points.len();
    }

    fn retire(&mut self, ids: &[u32]) {
        self.retired.extend(ids.iter().map(|id| self.names[id].clone()));
    }

    fn event(&mut self, event: v1::Event) {
        self.events.push(event);
    }

    fn fail(&mut self, reason: &str, message: &str) {
        self.failures.push((reason.to_owned(), message.to_owned()));
    }
}
