//! One command that runs: its process group, its output, its time.
//!
//! The process belongs to a task of its own, the keeper, which kills the group when the program ended, when its time is up
//! or when the [`Run`] is dropped, and only then waits for the program: until it is waited for, its number can't come to
//! mean another group.

use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::scope::Rule;
use super::{Error, Outcome, Permit, program};

/// The most bytes of one read.
const MAX_READ: u32 = 256 << 10;
/// What is kept of standard error: the end of it.
const STDERR_BYTES: usize = 4 << 10;
/// How long is waited for a killed program and for the end of its pipes.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Run {
    name: String,
    output: tokio::sync::Mutex<Output>,
    /// Dropped, the keeper kills.
    alive: Mutex<Option<oneshot::Sender<()>>>,
    ended: watch::Receiver<Option<Ended>>,
    limit: Duration,
    deadline: Instant,
}

#[derive(Debug)]
struct Output {
    pipe: pipe::Receiver,
    left: u64,
    most: u64,
    at_end: bool,
}

#[derive(Debug, Clone)]
struct Ended {
    outcome: Outcome,
    late: bool,
}

pub(super) async fn start(
    name: &str,
    rule: &Rule,
    arguments: Vec<String>,
    permit: Permit,
) -> Result<Run, Error> {
    let (wanted, environment) = (rule.program.clone(), rule.environment.clone());
    let spawned = tokio::task::spawn_blocking(move || {
        let file = program::resolve(&wanted)?;
        std::process::Command::new(&file)
            .arg0(&wanted)
            .args(arguments)
            .env_clear()
            .envs(environment)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map(Group)
            .map_err(|e| Error::Refused(format!("{wanted}: {e}")))
    });
    let lost = |what: &str, e: &dyn std::fmt::Display| Error::Other(format!("command {name}: {what}: {e}"));
    // A program that was started while the caller went away is killed by the group's end.
    let mut group = spawned.await.map_err(|e| lost("it could not be started", &e))??;
    let (Some(stdout), Some(stderr)) = (group.0.stdout.take(), group.0.stderr.take()) else {
        return Err(Error::Other(format!("command {name}: it has no pipes")));
    };
    let pipe_of = |fd: OwnedFd| pipe::Receiver::from_owned_fd(fd).map_err(|e| lost("its pipe", &e));
    let output = pipe_of(stdout.into())?;
    let errors = pipe_of(stderr.into())?;
    let handle = rustix::process::pidfd_open(group.pid()?, PidfdFlags::NONBLOCK)
        .map_err(|e| lost("it cannot be watched", &e))?;
    #[allow(deprecated, reason = "unsound for types that do not own their descriptor; this one does")]
    let handle = AsyncFd::with_interest(handle, tokio::io::Interest::READABLE)
        .map_err(|e| lost("it cannot be watched", &e))?;
    let (alive, dropped) = oneshot::channel();
    let (tell, ended) = watch::channel(None);
    let deadline = Instant::now() + rule.timeout;
    tokio::spawn(keep(Keeper { group, handle, errors, dropped, tell, deadline, permit }));
    Ok(Run {
        name: name.to_owned(),
        output: tokio::sync::Mutex::new(Output {
            pipe: output,
            left: rule.output_bytes,
            most: rule.output_bytes,
            at_end: false,
        }),
        alive: Mutex::new(Some(alive)),
        ended,
        limit: rule.timeout,
        deadline,
    })
}

impl Run {
    /// Waits until there is something, the output is at its end, or the time is up.
    pub(super) async fn read(&self, most: u32) -> Result<Vec<u8>, Error> {
        let mut output = self.output.lock().await;
        let mut ended = self.ended.clone();
        let mut bytes = vec![0; most.clamp(1, MAX_READ) as usize];
        let got = loop {
            if output.at_end {
                break 0;
            }
            let failed =
                |e: &dyn std::fmt::Display| Error::Other(format!("command {}: its output: {e}", self.name));
            if ended.borrow().is_some() {
                // All that it wrote is in the pipe. Who else still holds that is none of its group.
                match rustix::io::read(&output.pipe, bytes.as_mut_slice()) {
                    Ok(n) => break n,
                    Err(Errno::AGAIN) => break 0,
                    Err(Errno::INTR) => continue,
                    Err(e) => return Err(failed(&e)),
                }
            }
            match output.pipe.try_read(&mut bytes) {
                Ok(n) => break n,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(failed(&e)),
            }
            tokio::select! {
                _ = output.pipe.readable() => {}
                _ = ended.changed() => {}
            }
        };
        if got == 0 {
            output.at_end = true;
            // Killed at its time limit, it is as much at its end; the keeper may not have said so yet.
            if self.is_late() || Instant::now() >= self.deadline {
                return Err(self.too_late());
            }
        }
        output.left = output.left.checked_sub(got as u64).ok_or_else(|| {
            self.kill();
            Error::TooLarge(format!("{}: more than the {} bytes of its output_bytes", self.name, output.most))
        })?;
        bytes.truncate(got);
        Ok(bytes)
    }

    pub(super) async fn end(&self) -> Result<Outcome, Error> {
        if !self.output.lock().await.at_end {
            self.kill();
        }
        let mut ended = self.ended.clone();
        let seen = ended.wait_for(Option::is_some).await.ok().and_then(|e| (*e).clone());
        match seen {
            Some(Ended { late: true, .. }) => Err(self.too_late()),
            Some(Ended { outcome, .. }) => Ok(outcome),
            None => Err(Error::Other(format!("command {}: it was lost", self.name))),
        }
    }

    fn kill(&self) {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn is_late(&self) -> bool {
        self.ended.borrow().as_ref().is_some_and(|e| e.late)
    }

    fn too_late(&self) -> Error {
        Error::TimedOut(format!("{}: it was killed after {} s", self.name, self.limit.as_secs()))
    }
}

struct Keeper {
    group: Group,
    handle: AsyncFd<OwnedFd>,
    errors: pipe::Receiver,
    dropped: oneshot::Receiver<()>,
    tell: watch::Sender<Option<Ended>>,
    deadline: Instant,
    permit: Permit,
}

async fn keep(keeper: Keeper) {
    let Keeper { mut group, handle, errors, mut dropped, tell, deadline, permit } = keeper;
    let tail = Arc::new(Mutex::new(Vec::new()));
    let mut reading = std::pin::pin!(read_tail(errors, tail.clone()));
    let mut reading_ended = false;
    let late = loop {
        tokio::select! {
            biased;
            _ = handle.readable() => break false,
            _ = &mut dropped => break false,
            () = tokio::time::sleep_until(deadline) => break true,
            () = &mut reading, if !reading_ended => reading_ended = true,
        }
    };
    group.kill();
    if !reading_ended {
        let _ = tokio::time::timeout(GRACE, reading).await;
    }
    // One that hangs in the kernel does not die yet; it keeps this task, and is waited for whenever it does.
    let _ = handle.readable().await;
    let status = group.wait();
    let stderr = String::from_utf8_lossy(&tail.lock().unwrap_or_else(PoisonError::into_inner)).into_owned();
    drop(permit);
    let _ = tell.send(Some(Ended { outcome: Outcome { status, stderr }, late }));
}

async fn read_tail(errors: pipe::Receiver, tail: Arc<Mutex<Vec<u8>>>) {
    let mut bytes = [0; 4096];
    loop {
        match errors.try_read(&mut bytes) {
            Ok(0) => return,
            Ok(n) => {
                let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
                tail.extend_from_slice(bytes.get(..n).unwrap_or_default());
                let over = tail.len().saturating_sub(STDERR_BYTES);
                tail.drain(..over);
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                if errors.readable().await.is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

/// A program that leads a process group. Dropped, the group is killed and the program waited for.
#[derive(Debug)]
struct Group(Child);

impl Group {
    fn pid(&self) -> Result<Pid, Error> {
        let raw = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        raw.ok_or_else(|| Error::Other("the system gave no process number".to_owned()))
    }

    /// Only before [`Self::wait`]: then the number is the group's, whoever of it still lives.
    fn kill(&self) {
        if let Ok(pid) = self.pid() {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }

    /// Of a program that ended.
    fn wait(&mut self) -> i32 {
        match self.0.wait() {
            Ok(status) => status.code().unwrap_or_else(|| -status.signal().unwrap_or(0)),
            Err(_) => -1,
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.kill();
            for _ in 0..100 {
                if !matches!(self.0.try_wait(), Ok(None)) {
                    break;
                }
                std::thread::sleep(GRACE / 100);
            }
        }
    }
}
