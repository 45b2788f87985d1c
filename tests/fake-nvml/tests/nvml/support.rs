//! A helper of our own to speak to, and scenario files that change.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use picket_agent_nvml::{Ask, Tell};
use serde_json::Value;

pub const CALL_TIMEOUT: Duration = Duration::from_millis(500);

/// The folder that cargo builds into: `target/debug`.
fn built() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().to_owned()
}

pub fn helper() -> PathBuf {
    let helper = built().join("picket-nvml");
    assert!(
        helper.exists(),
        "{} is not built: cargo build -p picket-agent-nvml --features driver",
        helper.display()
    );
    helper
}

pub fn library() -> PathBuf {
    built().join("deps/libfake_nvml.so")
}

pub fn shipped(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios").join(format!("{name}.toml"));
    std::fs::read_to_string(file).unwrap()
}

/// A scenario file of this test's own.
pub struct Scenario {
    folder: tempfile::TempDir,
}

impl Scenario {
    pub fn new(text: &str) -> Self {
        let scenario = Self { folder: tempfile::tempdir().unwrap() };
        scenario.set(text);
        scenario
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("scenario.toml")
    }

    pub fn set(&self, text: &str) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path()).unwrap();
        // The library looks at the file that often.
        std::thread::sleep(Duration::from_millis(6));
    }
}

pub struct Helper {
    pub child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    /// What came beside the snapshots.
    pub told: Vec<Tell>,
}

impl Helper {
    pub fn start(scenario: &Path) -> Self {
        Self::with(&library(), Some(scenario))
    }

    pub fn with(library: &Path, scenario: Option<&Path>) -> Self {
        let mut command = Command::new(helper());
        command.arg("--library").arg(library);
        command.arg("--timeout-ms").arg(CALL_TIMEOUT.as_millis().to_string());
        match scenario {
            Some(scenario) => command.env("FAKE_NVML_SCENARIO", scenario),
            None => command.env_remove("FAKE_NVML_SCENARIO"),
        };
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
        Self { child, input, output, told: Vec::new() }
    }

    pub fn ask(&mut self) {
        self.input.as_mut().unwrap().write_all(&Ask::Snapshot.encode()).unwrap();
    }

    /// None: it has ended.
    pub fn told(&mut self) -> Option<Tell> {
        let mut head = [0; 4];
        self.output.read_exact(&mut head).ok()?;
        let mut frame = vec![0; picket_agent_nvml::length(head).unwrap()];
        self.output.read_exact(&mut frame).unwrap();
        Some(Tell::decode(&frame).unwrap())
    }

    /// The devices of a snapshot, or what was told in its place.
    pub fn snapshot(&mut self) -> Result<Vec<Value>, Tell> {
        self.ask();
        loop {
            match self.told().expect("the helper ended without a word") {
                Tell::Snapshot { system, devices } => {
                    let _: Value = serde_json::from_str(&format!("{{{system}}}")).unwrap();
                    return Ok(devices.iter().map(|d| serde_json::from_str(&d.json).unwrap()).collect());
                }
                tell @ (Tell::Xid(_) | Tell::NoEvents(_)) => self.told.push(tell),
                other => return Err(other),
            }
        }
    }

    /// The agent goes away.
    pub fn close(&mut self) {
        self.input = None;
    }

    pub fn ends_within(&mut self, within: Duration) -> bool {
        let until = Instant::now() + within;
        while Instant::now() < until {
            if self.child.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `a.b.0.c` in a document.
pub fn at<'v>(value: &'v Value, path: &str) -> &'v Value {
    path.split('.').fold(value, |value, key| match key.parse::<usize>() {
        Ok(index) if value.is_array() => &value[index],
        _ => &value[key],
    })
}
