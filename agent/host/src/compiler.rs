//! Compiled plugins: made by a child process, kept in a folder, mapped by the daemon.
//!
//! A compiled file is native code that the daemon runs as its own. So the folder is the agent's alone (mode 0700, checked
//! each time), a file's name says what it was made of (the component's SHA-256, the engine's version and configuration,
//! the processor), and nothing is ever taken from elsewhere. The child is given the very bytes that were checked, no
//! environment, and bounds on memory and time; what it says on stderr is bounded too.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use ring::digest::{SHA256, digest};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::error::codes::{self, Code};

/// The most that is kept of what the compiler says.
const MAX_TALK: u64 = 8 << 10;
/// Compiled files that are kept; the longest unused goes first.
const KEPT: usize = 64;

/// Why there is no compiled plugin.
#[derive(Debug)]
pub(crate) struct NotCompiled {
    pub code: &'static Code,
    pub message: String,
    pub source: Option<io::Error>,
}

impl NotCompiled {
    fn new(code: &'static Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), source: None }
    }

    fn io(code: &'static Code, message: impl Into<String>, source: io::Error) -> Self {
        Self { code, message: message.into(), source: Some(source) }
    }
}

#[derive(Debug)]
pub(crate) struct Compiler {
    folder: PathBuf,
    program: PathBuf,
    memory: u64,
    time: Duration,
    /// What a compiled file depends on beside the component.
    key: u64,
    /// One child at a time: the memory bound is for all of them.
    turn: Semaphore,
    next: AtomicU64,
}

impl Compiler {
    pub(crate) fn new(folder: PathBuf, program: PathBuf, memory: u64, time: Duration) -> Self {
        let mut hasher = DefaultHasher::new();
        crate::engine::FINGERPRINT.hash(&mut hasher);
        processor().hash(&mut hasher);
        Self {
            folder,
            program,
            memory,
            time,
            key: hasher.finish(),
            turn: Semaphore::new(1),
            next: AtomicU64::new(0),
        }
    }

    /// The compiled component, from the cache or newly made. `sha256` is that of `bytes`, in hex.
    pub(crate) async fn component(
        &self,
        engine: &Engine,
        bytes: &[u8],
        sha256: &str,
    ) -> Result<Component, NotCompiled> {
        self.check_folder()?;
        let file = self.folder.join(format!("{sha256}-{:016x}.cwasm", self.key));
        let _turn = self.turn.acquire().await.map_err(|e| NotCompiled::new(&codes::HOST, e.to_string()))?;
        if is_ours(&file) {
            match map(engine, &file) {
                Ok(component) => {
                    // The time of use, for `prune`. Failing that, the file only goes earlier.
                    let _ = std::fs::File::options()
                        .append(true)
                        .open(&file)
                        .and_then(|f| f.set_modified(SystemTime::now()));
                    return Ok(component);
                }
                Err(e) => {
                    tracing::warn!(file = %file.display(), error = %e, "a compiled plugin does not fit and is compiled again");
                }
            }
        }
        self.compile(bytes, &file).await?;
        self.prune();
        map(engine, &file).map_err(|e| {
            NotCompiled::new(&codes::CACHE, format!("{}, just compiled, does not fit: {e}", file.display()))
        })
    }

    fn check_folder(&self) -> Result<(), NotCompiled> {
        let shown = self.folder.display();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(|e| NotCompiled::io(&codes::CACHE, format!("the folder {shown} cannot be made"), e))?;
        let meta = std::fs::symlink_metadata(&self.folder).map_err(|e| {
            NotCompiled::io(&codes::CACHE, format!("the folder {shown} cannot be looked at"), e)
        })?;
        let me = rustix::process::geteuid().as_raw();
        if !meta.is_dir() || meta.uid() != me || meta.mode() & 0o077 != 0 {
            return Err(NotCompiled::new(
                &codes::CACHE,
                format!(
                    "{shown} must be a folder of user {me} with mode 0700, not of user {} with mode {:04o}: \
                     what lies in it runs as the agent",
                    meta.uid(),
                    meta.mode() & 0o7777
                ),
            ));
        }
        Ok(())
    }

    async fn compile(&self, bytes: &[u8], file: &Path) -> Result<(), NotCompiled> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = |end: &str| self.folder.join(format!(".{}-{number}.{end}", std::process::id()));
        let (input, output) = (Temporary(name("wasm")), Temporary(name("new")));
        let cache =
            |what: &str, e| NotCompiled::io(&codes::CACHE, format!("{what} in {}", self.folder.display()), e);
        write_new(&input.0, bytes).map_err(|e| cache("the component cannot be written", e))?;
        self.run(&input.0, &output.0).await?;
        std::fs::rename(&output.0, file).map_err(|e| cache("the compiled file cannot be put in place", e))
    }

    async fn run(&self, input: &Path, output: &Path) -> Result<(), NotCompiled> {
        let program = self.program.display();
        let mut child = Command::new(&self.program)
            .arg(format!("--memory={}", self.memory))
            .arg(format!("--cpu-seconds={}", self.time.as_secs().max(1)))
            .arg("--")
            .arg(input)
            .arg(output)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| NotCompiled::io(&codes::NO_COMPILER, format!("{program} cannot be started"), e))?;
        let stderr = child.stderr.take();
        let work = async {
            let mut talk = Vec::new();
            if let Some(stderr) = stderr {
                let mut bounded = stderr.take(MAX_TALK);
                let _ = bounded.read_to_end(&mut talk).await;
                // Past the bound it may talk on, unheard, and not wait for a reader.
                let _ = tokio::io::copy(&mut bounded.into_inner(), &mut tokio::io::sink()).await;
            }
            (child.wait().await, talk)
        };
        let seconds = self.time.as_secs_f64();
        let Ok((status, talk)) = tokio::time::timeout(self.time, work).await else {
            return Err(NotCompiled::new(
                &codes::COMPILE_LIMIT,
                format!("compiling took longer than {seconds} s"),
            ));
        };
        let status = status.map_err(|e| {
            NotCompiled::io(&codes::NO_COMPILER, format!("{program} cannot be waited for"), e)
        })?;
        let talk = String::from_utf8_lossy(&talk);
        let talk: String = talk.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if status.success() {
            return Ok(());
        }
        Err(match status.code() {
            Some(2) => {
                NotCompiled::new(&codes::COMPILE, format!("the compiler refuses the component: {talk}"))
            }
            Some(code) => {
                NotCompiled::new(&codes::NO_COMPILER, format!("{program} ended with {code}: {talk}"))
            }
            // Out of memory aborts, out of CPU time is killed.
            None => NotCompiled::new(
                &codes::COMPILE_LIMIT,
                format!(
                    "the compiler was ended ({status}) with {} bytes and {seconds} s allowed: {talk}",
                    self.memory
                ),
            ),
        })
    }

    fn prune(&self) {
        let Ok(folder) = std::fs::read_dir(&self.folder) else { return };
        let mut files: Vec<(SystemTime, PathBuf)> = folder
            .filter_map(Result::ok)
            .map(|e| e.path())
            .filter(|p| p.extension().is_some_and(|e| e == "cwasm"))
            .filter_map(|p| Some((p.metadata().ok()?.modified().ok()?, p)))
            .collect();
        files.sort_unstable();
        let surplus = files.len().saturating_sub(KEPT);
        for (_, file) in files.into_iter().take(surplus) {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// A file that is gone when this is dropped, if it was not moved away before.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}

/// A regular file of our own that nobody else may write.
fn is_ours(file: &Path) -> bool {
    std::fs::symlink_metadata(file)
        .is_ok_and(|m| m.is_file() && m.uid() == rustix::process::geteuid().as_raw() && m.mode() & 0o022 == 0)
}

#[allow(unsafe_code)]
fn map(engine: &Engine, file: &Path) -> wasmtime::Result<Component> {
    // SAFETY: the bytes become native code of this process, so they must be what our compiler wrote. They are: the file
    // lies in a folder that only this user may enter or write (`check_folder`), belongs to this user and may be written by
    // nobody else (`is_ours`, or just renamed there by us), and only `compile` puts files there, by rename, never in place.
    // The engine's own check refuses files of another version or configuration.
    unsafe { Component::deserialize_file(engine, file) }
}

/// What the processor can do: a compiled file uses it.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let features = info.lines().find(|l| l.starts_with("flags") || l.starts_with("Features"));
    format!("{} {}", std::env::consts::ARCH, features.unwrap_or_default())
}

/// SHA-256 in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}
