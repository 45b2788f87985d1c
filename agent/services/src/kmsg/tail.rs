//! The task that reads. Opening begins at the oldest message that the kernel holds; a read never waits, the reactor does.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::OFlags;
use rustix::time::{ClockId, clock_gettime};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::record::Record;
use super::ring::Ring;
use super::{Error, Message, Options};
use crate::always;
use crate::wakes::Wakes;

/// Longer than any record: the kernel bounds one to 8 KiB.
const BUFFER: usize = 16 << 10;
/// Other tasks have their turn after so many records.
const AT_ONCE: usize = 128;

/// How far the task is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Progress {
    /// What was there at the start is being read.
    Behind,
    /// It waits for the next message.
    Level,
    /// It tries again after a while.
    Failed(Error),
}

pub(super) struct Tail {
    pub options: Options,
    pub ring: Arc<Mutex<Ring>>,
    pub wakes: Wakes,
    pub progress: watch::Sender<Progress>,
}

impl Tail {
    /// Never ends; it is aborted.
    pub async fn run(self) {
        loop {
            let error = match self.follow().await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            if self.progress.borrow().clone() != Progress::Failed(error.clone()) {
                tracing::warn!("{error}");
            }
            self.progress.send_replace(Progress::Failed(error));
            tokio::time::sleep(self.options.again).await;
        }
    }

    async fn follow(&self) -> Result<std::convert::Infallible, Error> {
        let path = &self.options.path;
        let file = open(path)?;
        let failed = |error: std::io::Error| unavailable(path, &error);
        #[allow(
            deprecated,
            reason = "its successor is `unsafe` for types that lie about their descriptor; a file does not"
        )]
        let file = AsyncFd::with_interest(file, Interest::READABLE).map_err(failed)?;
        let mut buffer = vec![0; BUFFER];
        let mut rest: Vec<u8> = Vec::new();
        let mut level = false;
        loop {
            for _ in 0..AT_ONCE {
                match file.get_ref().read(&mut buffer) {
                    // A file that has an end is none that the kernel writes to.
                    Ok(0) => return Err(failed(ErrorKind::UnexpectedEof.into())),
                    Ok(length) => {
                        rest.extend_from_slice(buffer.get(..length).unwrap_or_default());
                        self.take(&mut rest, level);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        level = true;
                        self.progress.send_replace(Progress::Level);
                        // Edge-triggered: cleared, it waits for the next write. One between is not lost, because the
                        // guard is taken before the last read.
                        let mut guard = file.readable().await.map_err(failed)?;
                        match file.get_ref().read(&mut buffer) {
                            Ok(0) => return Err(failed(ErrorKind::UnexpectedEof.into())),
                            Ok(length) => {
                                rest.extend_from_slice(buffer.get(..length).unwrap_or_default());
                                self.take(&mut rest, level);
                            }
                            Err(error) if error.kind() == ErrorKind::WouldBlock => guard.clear_ready(),
                            Err(error) => passing(error).map_err(failed)?,
                        }
                    }
                    Err(error) => passing(error).map_err(failed)?,
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// The whole lines of what was read; the last one may not be whole yet.
    fn take(&self, rest: &mut Vec<u8>, level: bool) {
        let mut woken = Vec::new();
        {
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let Some(record) = Record::parse(line.strip_suffix(b"\n").unwrap_or(&line)) else { continue };
                let readers = ring.readers_of(&record.text);
                let message = Message {
                    sequence: record.sequence,
                    timestamp: wall_ms(record.since_boot_us),
                    priority: record.priority,
                    facility: record.facility,
                    text: record.text,
                };
                ring.add(message, !readers.is_empty());
                woken.extend(readers);
            }
        }
        // No line of the kernel's is so long: it is dropped, the next one begins anew.
        if rest.len() > BUFFER {
            rest.clear();
        }
        if level {
            for plugin in woken {
                self.wakes.wake(&plugin);
            }
        }
    }
}

/// An error after which the next read gives the next message.
fn passing(error: std::io::Error) -> std::io::Result<()> {
    match error.kind() {
        // The message was overwritten; the numbers tell how many.
        ErrorKind::BrokenPipe | ErrorKind::Interrupted => Ok(()),
        _ => Err(error),
    }
}

fn open(path: &Path) -> Result<File, Error> {
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY).bits()).unwrap_or(0);
    let failed = |error: std::io::Error| unavailable(path, &error);
    let kind = std::fs::metadata(path).map_err(failed)?.file_type();
    let fifo = kind.is_fifo();
    if !fifo && !kind.is_char_device() {
        return Err(failed(ErrorKind::UnexpectedEof.into()));
    }
    // A pipe that stands in for the device has an end whenever nobody writes, unless we might.
    File::options().read(true).write(fifo).custom_flags(flags).open(path).map_err(failed)
}

fn unavailable(path: &Path, error: &std::io::Error) -> Error {
    let advice = match error.kind() {
        ErrorKind::PermissionDenied => {
            "give the agent CAP_SYSLOG (systemd: AmbientCapabilities=CAP_SYSLOG) and read access, or set the \
             sysctl kernel.dmesg_restrict to 0"
        }
        ErrorKind::NotFound => "in a container pass the device (--device /dev/kmsg), or set `kmsg.path`",
        ErrorKind::UnexpectedEof => "it is not the kernel's device; set `kmsg.path`",
        _ => "see `kmsg.path`",
    };
    Error::Unavailable(format!("{}: {error}; {advice}", path.display()))
}

/// The kernel stamps messages with the time since the boot, less what was slept through.
fn wall_ms(since_boot_us: u64) -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let now_us = u64::try_from(now.tv_sec).unwrap_or(0).saturating_mul(1_000_000)
        + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000;
    let ago_ms = now_us.saturating_sub(since_boot_us) / 1000;
    (always::now_ns() / 1_000_000).saturating_sub(ago_ms)
}
