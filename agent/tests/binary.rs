//! The real binary: its commands and exit codes, and the daemon standing alone with the real plugins.
//!
//! The daemon runs plugins in `picket-worker`, which lies beside it after `cargo build --workspace --bins`.
//! The tests with plugins need `cargo xtask build-plugins` and `picket-compile` too; where one is missing they say so and pass.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const AGENT: &str = env!("CARGO_BIN_EXE_picket-agent");
const WITHIN: Duration = Duration::from_secs(60);

struct Folder {
    dir: tempfile::TempDir,
}

impl Folder {
    fn new(config: &str) -> Self {
        let folder = Self { dir: tempfile::tempdir().unwrap() };
        folder.write(config);
        folder
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn write(&self, config: &str) {
        let path = self.path().display();
        let text = format!("state_dir = \"{path}/state\"\ncache_dir = \"{path}/cache\"\n{config}");
        std::fs::write(self.path().join("agent.toml"), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(AGENT);
        command
            .args(arguments)
            .arg("--config")
            .arg(self.path().join("agent.toml"))
            .env_remove("NOTIFY_SOCKET")
            .env_remove("JOURNAL_STREAM")
            .stdin(Stdio::null());
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

/// A daemon that ends with the test, and its log.
struct Daemon {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Daemon {
    fn start(folder: &Folder, config: &str, environment: &[(&str, &str)]) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        folder.write(config);
        let log = folder.path().join("log");
        let child = folder
            .command(&["run"])
            .env("PICKET_HTTP__LISTEN", address.to_string())
            .envs(environment.iter().copied())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut daemon = Self { child, address, log };
        daemon.until("the agent answers", |d| d.get("/healthz").is_some_and(|(status, _)| status == 200));
        daemon
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn request(&self, request: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        self.request(&format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"))
    }

    fn put(&self, path: &str, body: &str) -> Option<(u16, String)> {
        let length = body.len();
        self.request(&format!(
            "PUT {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    }

    fn metrics(&self) -> String {
        self.get("/metrics").map(|(_, body)| body).unwrap_or_default()
    }

    fn plugin(&self, id: &str) -> serde_json::Value {
        let answer: serde_json::Value = self
            .get("/api/v1/plugins")
            .and_then(|(_, body)| serde_json::from_str(&body).ok())
            .unwrap_or_default();
        let lines = answer["plugins"].as_array().cloned().unwrap_or_default();
        lines.into_iter().find(|line| line["id"] == id).unwrap_or_default()
    }

    fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + WITHIN;
        while !holds(self) {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the agent ended with {status} before: {what}\n{}", self.log());
            }
            assert!(
                Instant::now() < deadline,
                "not within {WITHIN:?}: {what}\n{}\n{:?}",
                self.log(),
                self.get("/api/v1/plugins")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Ends it as systemd does; returns its exit code.
    fn stop(mut self) -> Option<i32> {
        self.signal("TERM");
        let deadline = Instant::now() + Duration::from_secs(25);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the agent does not stop\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn check_config_prints_what_is_in_force() {
    let folder = Folder::new("[log]\nlevel = 'debug'\n");
    let output = folder.command(&["check-config"]).env("PICKET_SPOOL__MAX_AGE", "1h").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let printed: toml::Value = toml::from_str(&String::from_utf8(output.stdout).unwrap()).unwrap();
    assert_eq!(printed["log"]["level"].as_str(), Some("debug"));
    assert_eq!(printed["spool"]["max_age"].as_str(), Some("1h"));
    let output = folder.output(&["check-config", "--output", "json"]);
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["http"]["listen"], "127.0.0.1:9460");
}

#[test]
fn exit_codes() {
    for (config, arguments, code, says) in [
        ("[htttp]\n", &["check-config"] as &[&str], 78, "did you mean \"http\""),
        ("[htttp]\n", &["run"], 78, "did you mean \"http\""),
        ("plugin_dir = '/nowhere'\n[plugins.a]\nfile = 'a.wasm'\n", &["check-config"], 3, "/nowhere/a.wasm"),
        ("[http]\nlisten = '127.0.0.1:1'\n", &["plugins"], 1, "no agent answers at 127.0.0.1:1"),
        ("", &["enroll", "--token", "nonsense"], 1, "token"),
        ("", &["fly"], 2, "fly"),
    ] {
        let output = Folder::new(config).output(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(says), "{arguments:?}: {}", stderr(&output));
        // A configuration that is valid is printed, whatever its plugins are.
        assert_eq!(output.stdout.is_empty(), code != 3);
    }
}

#[test]
fn without_plugins_it_runs_reloads_and_stops() {
    let folder = Folder::new("");
    let mut daemon = Daemon::start(&folder, "", &[]);
    daemon.until("it is ready", |d| d.get("/readyz").is_some_and(|(status, _)| status == 200));
    daemon.until("its own metrics stand on the page", |d| d.metrics().contains("picket_agent_info{version="));

    // A second one with the same folder is refused.
    let output = folder.command(&["run"]).env("PICKET_HTTP__LISTEN", "127.0.0.1:0").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("is locked"), "{}", stderr(&output));
    let output =
        folder.command(&["run"]).env("PICKET_HTTP__LISTEN", daemon.address.to_string()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot be listened on"), "{}", stderr(&output));

    folder.write("[plugins.a]\nfile = '/nowhere/a.wasm'\nintervall = '1s'\n");
    daemon.signal("HUP");
    daemon.until("an invalid configuration is told", |d| {
        d.get("/readyz").is_some_and(|(status, body)| status == 200 && body.contains("intervall"))
    });
    folder.write("[plugins.a]\nfile = '/nowhere/a.wasm'\n[spool]\nmax_size = '2MiB'\n");
    daemon.signal("HUP");
    daemon.until("the plugin is refused", |d| d.plugin("a")["state"] == "refused");
    let (status, body) = daemon.get("/readyz").unwrap();
    assert_eq!(status, 503);
    assert!(body.contains("plugin/a") && body.contains("/nowhere/a.wasm"), "{body}");
    daemon.until("what needs a restart is told", |d| {
        d.get("/readyz").is_some_and(|(_, body)| body.contains("only after a restart: spool"))
    });
    folder.write("");
    daemon.signal("HUP");
    daemon.until("it is ready again", |d| d.get("/readyz").is_some_and(|(status, _)| status == 200));
    assert_eq!(daemon.stop(), Some(0));
}

/// The built plugins and the compiler, or nothing, said loudly.
fn built() -> Option<(PathBuf, PathBuf)> {
    let binaries = Path::new(AGENT).parent().unwrap();
    let plugins = binaries.parent().unwrap().join("plugins");
    let compiler = binaries.join("picket-compile");
    for needed in [plugins.join("node.wasm"), plugins.join("mock.wasm"), compiler.clone()] {
        if !needed.is_file() {
            eprintln!("SKIPPED: {} is not built; run `cargo xtask build-plugins`", needed.display());
            return None;
        }
    }
    Some((plugins, compiler))
}

#[test]
fn standing_alone_with_the_real_plugins() {
    let Some((plugins, compiler)) = built() else { return };
    let grants = shipped_grants();
    let config = format!(
        "plugin_dir = '{}'\ncompiler = '{}'\ntrust.allow_unsigned = true\n\
         [plugins.node]\nfile = 'node.wasm'\ninterval = '500ms'\n\
         {grants}\n\
         [plugins.mock]\nfile = 'mock.wasm'\ninterval = '500ms'\n\
         [plugins.ungranted]\nfile = 'node.wasm'\n",
        plugins.display(),
        compiler.display()
    );
    let folder = Folder::new("");
    let mut daemon = Daemon::start(&folder, &config, &[]);
    daemon.until("the plugins collect", |d| {
        let page = d.metrics();
        page.contains("node_cpu_seconds_total{")
            && page.contains("DCGM_FI_DEV_GPU_UTIL{")
            && ["node", "mock"].iter().all(|id| {
                let line = d.plugin(id);
                line["state"] == "running" && line["collects"]["ok"].as_u64() > Some(1)
            })
    });
    daemon.until("the ungranted one is refused with the lines to add", |d| {
        let line = d.plugin("ungranted");
        line["state"] == "refused"
            && line["reason"].as_str().is_some_and(|why| why.contains("capability = \"files\""))
    });
    let (status, body) = daemon.get("/readyz").unwrap();
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("plugin/ungranted"), "{body}");

    let before = daemon.get("/api/v1/scenario").unwrap();
    assert_eq!(before.0, 200, "{before:?}");
    let refused = daemon.put("/api/v1/scenario", r#"{"scenario":"no such"}"#).unwrap();
    assert_eq!(refused.0, 400);
    assert!(refused.1.contains("\"allowed\":[") && refused.1.contains("high_load"), "{refused:?}");
    assert_eq!(daemon.get("/api/v1/scenario").unwrap(), before);
    let set = daemon.put("/api/v1/scenario", r#"{"scenario":"high_load"}"#).unwrap();
    assert_eq!(set.0, 200, "{set:?}");
    assert!(set.1.contains("high_load"));

    let output =
        folder.command(&["plugins"]).env("PICKET_HTTP__LISTEN", daemon.address.to_string()).output().unwrap();
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(table.contains("node") && table.contains("running") && table.contains("refused"), "{table}");

    for format in ["text/plain", "application/openmetrics-text"] {
        let request = format!("GET /metrics HTTP/1.0\r\nHost: localhost\r\nAccept: {format}\r\n\r\n");
        let (status, page) = daemon.request(&request).unwrap();
        assert_eq!(status, 200);
        check_page(&page);
    }
    assert_eq!(daemon.stop(), Some(0));
}

/// The grants that the shipped configuration gives to `node`, as TOML.
fn shipped_grants() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/agent.toml");
    let shipped: toml::Value = toml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let grants = &shipped["plugins"]["node"]["grants"];
    let node = toml::Table::from_iter([("grants".to_owned(), grants.clone())]);
    let plugins = toml::Table::from_iter([("node".to_owned(), toml::Value::Table(node))]);
    toml::to_string(&toml::Table::from_iter([("plugins".to_owned(), toml::Value::Table(plugins))])).unwrap()
}

/// Every family once, every series once.
fn check_page(page: &str) {
    let mut families = std::collections::HashSet::new();
    let mut series = std::collections::HashSet::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(families.insert(rest.split(' ').next().unwrap_or_default()), "twice: {line}");
        } else if !line.starts_with('#') {
            let name = match line.rfind('}') {
                Some(end) => line.split_at(end + 1).0,
                None => line.split(' ').next().unwrap_or_default(),
            };
            assert!(series.insert(name), "twice: {line}");
        }
    }
    assert!(series.len() > 100, "{} series", series.len());
}
