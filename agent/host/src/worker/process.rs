//! A worker's process: started with nothing of the agent's, watched, ended, waited for.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::process::{Child, ChildStderr, Command};

use super::WorkerOptions;
use super::cgroup::Cgroup;
use super::link::{Link, Reason};
use super::out::Out;
use super::wire::{self, HEAD, Head, MAX_SMALL, Ready, Report, VERSION};
use crate::body::BoxFuture;
use crate::wall::{Part, Wall};

/// How long a worker may take from its start to its first word.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// How long it may leave what is sent to it lying.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long an ended process is waited for before it is killed.
const ENDS_WITHIN: Duration = Duration::from_millis(500);
/// What is kept of what it says on standard error, in bytes.
const TALK: u64 = 4 << 10;

/// Address space beyond memory: reserved for what plugins may grow to, not used.
const RESERVED: u64 = 8 << 30;

/// The arguments that say how the wall is raised.
pub(crate) fn arguments(options: &WorkerOptions) -> Vec<OsString> {
    let mut list = vec![
        format!("--memory={}", options.memory).into(),
        format!("--address-space={}", options.memory.saturating_add(RESERVED)).into(),
    ];
    if let Some((uid, gid)) = options.user {
        list.push(format!("--uid={uid}").into());
        list.push(format!("--gid={gid}").into());
    }
    list
}

/// A worker that runs.
pub(crate) struct Started {
    pub link: Arc<Link>,
    pub wall: Wall,
    pub process: Option<u32>,
    /// To be polled; ends with the worker.
    pub supervised: BoxFuture<'static, Reason>,
}

/// Starts one and hears its first word.
pub(crate) async fn start(options: &WorkerOptions, number: u64) -> Result<Started, String> {
    let program = options.program.display();
    let (ours, theirs) = StdStream::pair().map_err(|e| format!("no socket pair can be made: {e}"))?;
    ours.set_nonblocking(true).map_err(|e| format!("the socket to a worker: {e}"))?;
    let ours = UnixStream::from_std(ours).map_err(|e| format!("the socket to a worker: {e}"))?;
    let mut child = command(&options.program, theirs.into())
        .args(arguments(options))
        .spawn()
        .map_err(|e| format!("{program} cannot be started: {e}"))?;
    let cgroup = Cgroup::new(options.memory, number, child.id());
    let talk = tokio::spawn(talk(child.stderr.take()));
    let (read, write) = ours.into_split();
    let mut read = BufReader::with_capacity(HEAD, read);
    let ready = match tokio::time::timeout(READY_WITHIN, first_word(&mut read)).await {
        Ok(Some(ready)) => ready,
        Ok(None) => {
            let status = end(&mut child).await;
            let said =
                tokio::time::timeout(ENDS_WITHIN, talk).await.ok().and_then(Result::ok).unwrap_or_default();
            return Err(format!(
                "{program} ended before it was ready: {}{}",
                ended(status).text,
                spoken(&said)
            ));
        }
        Err(_) => {
            end(&mut child).await;
            return Err(format!("{program} was not ready within {READY_WITHIN:?}"));
        }
    };
    if ready.version != VERSION {
        end(&mut child).await;
        return Err(format!("{program} is of another version than the agent: {:?}", ready.version));
    }
    let mut wall = ready.wall;
    let memory = cgroup.as_ref().map(|c| c.described()).map_err(Clone::clone);
    wall.set(Part::Cgroup, memory);
    let missing = wall.missing(&options.require);
    if !missing.is_empty() {
        end(&mut child).await;
        return Err(super::missing(&missing));
    }
    let link = Arc::new(Link::new(number, Out::new(write)));
    // What is left in the small buffer is nothing: a worker says no more before it is spoken to.
    let process = child.id();
    let supervised = Box::pin(supervise(link.clone(), child, read.into_inner(), talk, cgroup.ok()));
    Ok(Started { link, wall, process, supervised })
}

fn command(program: &Path, socket: OwnedFd) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn first_word(read: &mut BufReader<OwnedReadHalf>) -> Option<Ready> {
    let mut head = [0; HEAD];
    read.read_exact(&mut head).await.ok()?;
    let head = Head::read(head);
    if head.kind != wire::READY || head.length > MAX_SMALL {
        return None;
    }
    let mut body = vec![0; head.length];
    read.read_exact(&mut body).await.ok()?;
    match Report::decode(head.kind, &body, MAX_SMALL) {
        Ok(Report::Ready(ready)) => Some(ready),
        _ => None,
    }
}

/// Until it ends, well or not. Then all who wait hear why.
async fn supervise(
    link: Arc<Link>,
    mut child: Child,
    read: OwnedReadHalf,
    talk: tokio::task::JoinHandle<String>,
    cgroup: Option<Cgroup>,
) -> Reason {
    let mut reason = tokio::select! {
        heard = link.listen(read) => match heard {
            Ok(()) => None,
            Err(broken) => Some(Reason { word: "protocol", text: broken.to_string() }),
        },
        reason = link.condemned() => Some(reason),
        reason = link.flush(PATIENCE) => Some(reason),
        () = link.unneeded() => Some(Reason { word: "unneeded", text: "no plugin is in it any more".to_owned() }),
    };
    // From here on nobody is put into it.
    link.condemn("ended", "it ended");
    let status = match reason {
        // It closed its socket: it ends by itself, or does not.
        None => end(&mut child).await,
        Some(_) => {
            let _ = child.start_kill();
            child.wait().await.ok()
        }
    };
    let said = tokio::time::timeout(ENDS_WITHIN, talk).await.ok().and_then(Result::ok).unwrap_or_default();
    let over_memory = cgroup.as_ref().is_some_and(Cgroup::killed);
    drop(cgroup);
    let reason = reason.get_or_insert_with(|| {
        if over_memory {
            return Reason {
                word: "memory",
                text: "the worker was killed: it wanted more memory than worker.memory".to_owned(),
            };
        }
        ended(status)
    });
    let text = format!("{}{}", reason.text, spoken(&said));
    link.bury(&text);
    Reason { word: reason.word, text }
}

async fn end(child: &mut Child) -> Option<ExitStatus> {
    if let Ok(status) = tokio::time::timeout(ENDS_WITHIN, child.wait()).await {
        return status.ok();
    }
    let _ = child.start_kill();
    child.wait().await.ok()
}

/// What a status says.
fn ended(status: Option<ExitStatus>) -> Reason {
    let Some(status) = status else {
        return Reason { word: "killed", text: "the worker ended".to_owned() };
    };
    match (status.signal(), status.code()) {
        (Some(libc::SIGSYS), _) => Reason {
            word: "forbidden-call",
            text: "the worker was killed at a system call that nothing in it may make: it was taken over"
                .to_owned(),
        },
        (Some(libc::SIGKILL), _) => Reason { word: "killed", text: "the worker was killed".to_owned() },
        (Some(signal), _) => {
            Reason { word: "crashed", text: format!("the worker crashed with signal {signal}") }
        }
        (None, code) => {
            Reason { word: "exited", text: format!("the worker ended with {}", code.unwrap_or_default()) }
        }
    }
}

fn spoken(said: &str) -> String {
    let line: String = said.trim().chars().take(400).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.is_empty() { line } else { format!("; it said: {line}") }
}

/// The first of what it says on standard error. The rest is heard and dropped, so that it waits for no reader.
async fn talk(stderr: Option<ChildStderr>) -> String {
    let Some(stderr) = stderr else { return String::new() };
    let mut said = Vec::new();
    let mut bounded = stderr.take(TALK);
    let _ = bounded.read_to_end(&mut said).await;
    let _ = tokio::io::copy(&mut bounded.into_inner(), &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&said).into_owned()
}
