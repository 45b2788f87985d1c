//! Reading under granted roots.
//!
//! A path is allowed by its words first: the granted patterns must match it as it is written. Then it is opened with
//! openat2(2) so that no link leads out:
//!
//! - **/proc and /sys** are anchored at the mount itself. Their links are the kernel's (`/proc/mounts` → `self/mounts`,
//!   `/sys/class/net/eth0` → `../../devices/…`), nobody can plant one, so they are followed anywhere beneath the mount;
//!   magic links (`/proc/*/root`, `exe`, `fd/*`), which lead out of it, never are. Reads there don't wait for a device, so
//!   they are done in place; what can (a process' own files, another file system mounted below) goes the slow way.
//! - **Elsewhere** the anchor is the pattern's longest folder without a star. Links are followed beneath it, and what a
//!   link leads to must match a granted pattern too, so that whoever may write there can't have another file read.
//!   A path is looked at before it is opened: only regular files are, without blocking, so a FIFO or a device does no harm.
//!   It runs on a thread of its own with a time limit; a plugin whose reads hang gets no more threads than a few.

mod mounts;
mod open;

pub(crate) use open::{Place, regular};
mod walk;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::grants::PathSet;
use crate::{Octets, ServiceLimits};

/// Reads of one plugin that may hang at a time before it gets no more threads.
const HUNG_PER_PLUGIN: usize = 4;
/// The most files of one call.
const READ_AT_ONCE: usize = 1024;
/// After so many files of one call others have their turn.
const READ_IN_A_ROW: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Read {
        path: String,
    },
    /// One answer a path; all of them together as large as one read may be.
    ReadMany {
        paths: Vec<String>,
    },
    ListDirectory {
        path: String,
    },
    ReadLink {
        path: String,
    },
    Modified {
        path: String,
    },
    StatFileSystems {
        paths: Vec<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Bytes(#[serde(with = "crate::octets")] Vec<u8>),
    /// One a path, in their order.
    Many(Vec<Result<Octets, Error>>),
    Entries(Vec<Entry>),
    Target(String),
    /// Nanoseconds since the Unix epoch.
    Modified(u64),
    /// One a path, in their order.
    FileSystems(Vec<Result<FileSystem, Error>>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub name: String,
    pub kind: EntryKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    File,
    Directory,
    Link,
    Other,
}

/// statvfs(3), in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystem {
    pub size_bytes: u64,
    pub free_bytes: u64,
    pub available_bytes: u64,
    pub files: u64,
    pub files_free: u64,
    pub read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    #[error("not granted: {0}")]
    Denied(String),
    #[error("not found: {0}")]
    NotFound(String),
    #[error("{0}")]
    WrongKind(String),
    #[error("{0}")]
    TooLarge(String),
    #[error("{0}")]
    TimedOut(String),
    #[error("{0}")]
    Io(String),
}

/// What a grant remembers of its plugin's reads: how many still hang.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    hung: Arc<AtomicUsize>,
}

/// The part that all plugins share.
#[derive(Debug, Default)]
pub(crate) struct Files {
    anchors: open::Anchors,
    mounts: mounts::Mounts,
}

impl Files {
    pub(crate) async fn call(
        &self,
        desk: &Desk,
        read: &PathSet,
        filesystems: &PathSet,
        limits: &ServiceLimits,
        request: Request,
    ) -> Result<Answer, Error> {
        let (path, what) = match request {
            Request::Read { path } => (path, open::What::Bytes { limit: limits.read_bytes }),
            Request::ReadMany { paths } => {
                return Ok(Answer::Many(self.read_many(desk, read, limits, paths).await));
            }
            Request::ListDirectory { path } => {
                (path, open::What::Entries { limit: limits.directory_entries })
            }
            Request::ReadLink { path } => (path, open::What::Target),
            Request::Modified { path } => (path, open::What::Modified),
            Request::StatFileSystems { paths } => {
                return Ok(Answer::FileSystems(
                    self.stat_file_systems(filesystems, paths, limits.file_time).await,
                ));
            }
        };
        self.look(desk, read, limits, path, what).await
    }

    async fn look(
        &self,
        desk: &Desk,
        read: &PathSet,
        limits: &ServiceLimits,
        path: String,
        what: open::What,
    ) -> Result<Answer, Error> {
        let Some(pattern) = read.find(&path) else { return Err(Error::Denied(path)) };
        if let Some(answer) = self.anchors.in_place(&path, what) {
            return answer;
        }
        if desk.hung.load(Ordering::Relaxed) >= HUNG_PER_PLUGIN {
            return Err(Error::TimedOut(format!("{path}: {HUNG_PER_PLUGIN} earlier reads still hang")));
        }
        let place = open::Place { root: pattern.root().to_owned(), granted: read.clone() };
        let shown = path.clone();
        let hung = HungGuard::enter(&desk.hung);
        let task = tokio::task::spawn_blocking(move || {
            let answer = open::anywhere(&place, &path, what);
            drop(hung);
            answer
        });
        match tokio::time::timeout(limits.file_time, task).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(e)) => Err(Error::Io(format!("{shown}: the read was lost: {e}"))),
            Err(_) => Err(timed_out(&shown, limits.file_time)),
        }
    }

    /// One after the other.
    async fn read_many(
        &self,
        desk: &Desk,
        read: &PathSet,
        limits: &ServiceLimits,
        paths: Vec<String>,
    ) -> Vec<Result<Octets, Error>> {
        let mut left = limits.read_bytes;
        let mut answers = Vec::with_capacity(paths.len());
        for (number, path) in paths.into_iter().enumerate() {
            if number >= READ_AT_ONCE {
                answers.push(Err(Error::TooLarge(format!("{path}: {READ_AT_ONCE} files stand before it"))));
                continue;
            }
            if number % READ_IN_A_ROW == READ_IN_A_ROW - 1 {
                tokio::task::yield_now().await;
            }
            let answer = self.look(desk, read, limits, path, open::What::Bytes { limit: left }).await;
            answers.push(answer.map(|answer| {
                let Answer::Bytes(bytes) = answer else { return Octets::default() };
                left = left.saturating_sub(bytes.len());
                Octets(bytes)
            }));
        }
        answers
    }

    /// Those that are granted, all at a time.
    async fn stat_file_systems(
        &self,
        granted: &PathSet,
        paths: Vec<String>,
        limit: Duration,
    ) -> Vec<Result<FileSystem, Error>> {
        let (allowed, denied): (Vec<_>, Vec<_>) =
            paths.into_iter().enumerate().partition(|(_, path)| granted.find(path).is_some());
        let (places, allowed): (Vec<_>, Vec<_>) = allowed.into_iter().unzip();
        let answers = self.mounts.stat(allowed, limit).await;
        let mut all: Vec<_> = places.into_iter().zip(answers).collect();
        all.extend(denied.into_iter().map(|(place, path)| (place, Err(Error::Denied(path)))));
        all.sort_by_key(|(place, _)| *place);
        all.into_iter().map(|(_, answer)| answer).collect()
    }
}

fn timed_out(path: &str, limit: Duration) -> Error {
    Error::TimedOut(format!("{path}: no answer within {} ms", limit.as_millis()))
}

struct HungGuard(Arc<AtomicUsize>);

impl HungGuard {
    fn enter(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for HungGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
