//! Programs that a test runs: daemons, stopped when dropped, and commands that end by themselves.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{Test, tail};

/// A running daemon. It stays in the test's process group, so that a test runner that kills a test that hangs kills
/// it too.
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it with both outputs into a log of the test's.
    pub fn start(test: &Test, name: &str, command: &mut Command) -> Result<Self> {
        let log = test.log(name)?;
        let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// An error, with the end of its log, if it is no longer there.
    pub fn check_running(&mut self) -> Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, tail(&self.log, 20)),
        }
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no process id")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// SIGKILL, and waits for its end.
    pub fn kill(&mut self) -> Result<()> {
        let _ = self.child.kill();
        self.child.wait().map(drop).with_context(|| format!("cannot wait for {}", self.name))
    }

    /// SIGTERM, and how it ended; an error if it doesn't within `within`.
    pub async fn stop(&mut self, within: Duration) -> Result<ExitStatus> {
        if self.ended().is_none() {
            self.signal(Signal::TERM)?;
        }
        self.wait(within).await
    }

    /// Waits for its end.
    pub async fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} did not end within {} s:\n{}", self.name, within.as_secs(), tail(&self.log, 20));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A figure of `/proc/PID/status` in bytes, such as `VmRSS`.
    pub fn memory(&self, key: &str) -> Result<u64> {
        memory_of(self.pid(), key)
    }

    /// The resident memory of it and of its children, in bytes.
    pub fn memory_of_all(&self) -> Result<u64> {
        // A helper may end between the two reads.
        let sum = self.tree().into_iter().map(|pid| memory_of(pid, "VmRSS").unwrap_or_default()).sum();
        if sum == 0 { bail!("{} is gone", self.name) } else { Ok(sum) }
    }

    /// It, its children, and theirs.
    fn tree(&self) -> Vec<u32> {
        let (mut all, mut left) = (Vec::new(), vec![self.pid()]);
        while let Some(pid) = left.pop() {
            all.push(pid);
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            for task in tasks {
                let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
                left.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            }
        }
        all
    }
}

fn memory_of(pid: u32, key: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':')).context("no such figure")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// What a command that ended left.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Output {
    /// Its standard output, or an error with everything.
    pub fn ok(self) -> Result<String> {
        if self.status.success() {
            return Ok(self.out);
        }
        bail!("ended with {}: {}{}", self.status, self.out, self.err)
    }

    /// An error unless it failed by an exit code (not by a signal), saying all of `words` on standard error.
    pub fn refused(&self, words: &[&str]) -> Result<()> {
        if self.status.success() {
            bail!("succeeded, should have been refused: {}", self.out);
        }
        if let Some(signal) = self.status.signal() {
            bail!("died of signal {signal}: {}", self.err);
        }
        if self.err.contains("panicked at") {
            bail!("panicked: {}", self.err);
        }
        match words.iter().find(|word| !self.err.contains(**word)) {
            Some(word) => bail!("its error does not say {word:?}: {}", self.err),
            None => Ok(()),
        }
    }
}

/// Runs a program to its end.
pub async fn run_program(program: &Path, args: &[impl AsRef<OsStr>]) -> Result<Output> {
    run_program_with(Command::new(program).args(args)).await
}

/// Runs a command to its end; an error if it takes longer than a minute.
pub async fn run_program_with(command: &mut Command) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output());
    match tokio::time::timeout(Duration::from_secs(60), ended).await {
        Ok(output) => {
            let output = output?.with_context(|| format!("cannot wait for {name}"))?;
            Ok(Output {
                status: output.status,
                out: String::from_utf8_lossy(&output.stdout).into_owned(),
                err: String::from_utf8_lossy(&output.stderr).into_owned(),
            })
        }
        Err(_) => {
            if let Some(pid) = pid {
                let _ = kill_process(pid, Signal::KILL);
            }
            bail!("{name} did not end within a minute")
        }
    }
}
