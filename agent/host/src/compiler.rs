//! Compiled plugins: made by a child process, kept in a folder, handed on open.
//!
//! A compiled file is native code that runs beside the agent. So the folder is the agent's alone (mode 0700, checked
//! each time), a file's name says what it was made of (the component's SHA-256, the engine's version and configuration,
//! the processor), and nothing is ever taken from elsewhere. The child is given the very bytes that were checked, no
//! environment, and bounds on memory and time; what it says on stderr is bounded too.

use std::ffi::OsString;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use ring::digest::{SHA256, digest};
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::Semaphore;

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
    /// More arguments: how the child walls itself in.
    walls: Vec<OsString>,
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
            walls: Vec::new(),
            key: hasher.finish(),
            turn: Semaphore::new(1),
            next: AtomicU64::new(0),
        }
    }

    pub(crate) fn walls(&mut self, walls: Vec<OsString>) {
        self.walls = walls;
    }

    /// The compiled component, from the cache or newly made, open for reading. `sha256` is that of `bytes`, in hex.
    /// `anew`: what the cache has does not fit.
    pub(crate) async fn component(
        &self,
        bytes: &[u8],
        sha256: &str,
        anew: bool,
    ) -> Result<File, NotCompiled> {
        self.check_folder()?;
        let file = self.folder.join(format!("{sha256}-{:016x}.cwasm", self.key));
        let _turn = self.turn.acquire().await.map_err(|e| NotCompiled::new(&codes::HOST, e.to_string()))?;
        if !anew && let Some(open) = open_ours(&file) {
            // The time of use, for `prune`. Failing that, the file only goes earlier.
            let _ = File::options().append(true).open(&file).and_then(|f| f.set_modified(SystemTime::now()));
            return Ok(open);
        }
        self.compile(bytes, &file).await?;
        self.prune();
        open_ours(&file).ok_or_else(|| {
            NotCompiled::new(&codes::CACHE, format!("{}, just compiled, is not ours", file.display()))
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
        let output = Temporary(self.folder.join(format!(".{}-{number}.new", std::process::id())));
        let cache =
            |what: &str, e| NotCompiled::io(&codes::CACHE, format!("{what} in {}", self.folder.display()), e);
        let input = in_memory(bytes).map_err(|e| {
            NotCompiled::io(&codes::HOST, "the component cannot be handed to the compiler", e)
        })?;
        let written = new_file(&output.0).map_err(|e| cache("no compiled file can be made", e))?;
        self.run(input, written).await?;
        std::fs::rename(&output.0, file).map_err(|e| cache("the compiled file cannot be put in place", e))
    }

    /// The child reads its standard input and writes its standard output, and has nothing else.
    async fn run(&self, input: File, output: File) -> Result<(), NotCompiled> {
        let program = self.program.display();
        let mut child = Command::new(&self.program)
            .arg(format!("--memory={}", self.memory))
            .arg(format!("--cpu-seconds={}", self.time.as_secs().max(1)))
            .args(&self.walls)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(output))
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

fn new_file(path: &Path) -> io::Result<File> {
    std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// A file of these bytes that no folder has.
fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("component", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

/// The file, if it is a regular one of our own that nobody else may write. What is looked at is what is opened.
fn open_ours(file: &Path) -> Option<File> {
    let flags = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).ok()?;
    let open = File::options().read(true).custom_flags(flags).open(file).ok()?;
    let meta = open.metadata().ok()?;
    let ours =
        meta.is_file() && meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o022 == 0;
    ours.then_some(open)
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
