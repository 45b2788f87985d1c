//! Files that are still there after a crash: what the log of batches and the store of log lines do alike.
//!
//! A folder is held by one process. A segment is made under a number that is never tried twice, appended to and synced before
//! anybody is told; what is written whole comes into being by rename. While the disk refuses, that is said once, counted, and tried
//! again, and nothing is told durable.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::store::lock;

/// A segment's first bytes: what it is, and its number.
pub const HEADER: u64 = 16;
/// How long after a failed write the next one is tried.
const RETRY: Duration = Duration::from_secs(1);
/// How often a packer looks at its bounds, and how long it waits after a failure.
const LOOK: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot {what} {}: {source}; the aggregator's user must own the folder and the disk must be writable", .path.display())]
    Io { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("another process holds {}; is another aggregator running on this state folder?", .path.display())]
    Locked { path: PathBuf },
    #[error("cannot start the thread {name}: {source}; the aggregator's limit of tasks may be too low")]
    Thread { name: &'static str, source: std::io::Error },
}

pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> OpenError + use<> {
    let path = path.to_path_buf();
    move |source| OpenError::Io { what, path, source }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {source}", .path.display())]
pub(crate) struct WriteError {
    what: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

/// A folder that this process alone has, and the threads that work in it.
pub(crate) struct Folder {
    lock: Mutex<Option<File>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Folder {
    /// Makes the folder when it is missing, and takes it.
    pub fn hold(dir: &Path) -> Result<Self, OpenError> {
        std::fs::create_dir_all(dir).map_err(io("make the folder", dir))?;
        let path = dir.join("lock");
        let mut options = File::options();
        let file = options.create(true).truncate(false).write(true).open(&path).map_err(io("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { lock: Mutex::new(Some(file)), threads: Mutex::default() }),
            Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::Locked { path }),
            Err(std::fs::TryLockError::Error(source)) => Err(OpenError::Io { what: "lock", path, source }),
        }
    }

    pub fn spawn(&self, name: &'static str, run: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        lock(&self.threads).push(thread.map_err(|source| OpenError::Thread { name, source })?);
        Ok(())
    }

    /// Waits for the threads and lets go of the folder. Idempotent.
    pub fn leave(&self) {
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                tracing::error!(thread = name, "a thread ended by a panic");
            }
        }
        *lock(&self.lock) = None;
    }
}

/// The segment being written.
pub(crate) struct Segment {
    pub id: u64,
    pub file: Arc<File>,
    /// What is durable of it.
    pub bytes: u64,
    path: PathBuf,
}

impl Segment {
    /// Makes the file of the number `next`. The number is used up even when that fails: a half-made file that can't be removed
    /// would stand in the way of every later try.
    pub fn create(
        next: &mut u64,
        magic: [u8; 8],
        path: impl FnOnce(u64) -> PathBuf,
    ) -> Result<Self, WriteError> {
        let id = *next;
        *next += 1;
        let path = path(id);
        let fail = |what| {
            let path = path.clone();
            move |source| WriteError { what, path, source }
        };
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true).open(&path).map_err(fail("create"))?;
        let mut header = magic.to_vec();
        header.extend_from_slice(&id.to_le_bytes());
        let began = (&file)
            .write_all(&header)
            .map_err(fail("write"))
            .and_then(|()| sync_folder(&path).map_err(fail("sync the folder of")));
        if let Err(error) = began {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        Ok(Self { id, file: Arc::new(file), bytes: HEADER, path })
    }

    /// Durable when this succeeds; else what the kernel holds of the file isn't known any more, and it must be left.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let fail = |what, source| WriteError { what, path: self.path.clone(), source };
        (&*self.file).write_all(bytes).map_err(|e| fail("write", e))?;
        self.file.sync_data().map_err(|e| fail("sync", e))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Leaves it after a failure: what was synced before stays. `false`: there is nothing, and the file is gone.
    pub fn abandon(self) -> bool {
        if self.bytes <= HEADER {
            let _ = std::fs::remove_file(&self.path);
            return false;
        }
        // When this fails too, the torn tail is recognised by its checksum.
        let _ = self.file.set_len(self.bytes);
        true
    }
}

/// Puts a whole, synced file in the place of what was there.
pub(crate) fn replace(new: &Path, path: &Path) -> std::io::Result<()> {
    std::fs::rename(new, path)?;
    sync_folder(path)
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Removes what a bound drops; `false`, said, when it can't be.
pub(crate) fn remove(path: &Path) -> bool {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "cannot remove an old file: the bound is not kept until it can be");
            false
        }
        _ => true,
    }
}

/// Whether something can be made durable, and how that is told.
pub(crate) struct Stall {
    /// What can't be written, as in "the log".
    pub what: &'static str,
    /// The counter of failed writes, and the gauge that is 1 while they fail.
    pub errors: &'static str,
    pub gauge: &'static str,
    pub why: Mutex<Option<String>>,
}

impl Stall {
    pub fn why(&self) -> Option<String> {
        lock(&self.why).clone()
    }

    /// Tries until it is written. `None`: `pause` says that the queue is closing, and it can't be.
    pub fn until_written<T>(
        &self,
        mut write: impl FnMut() -> Result<T, WriteError>,
        mut pause: impl FnMut() -> bool,
    ) -> Option<T> {
        loop {
            match write() {
                Ok(written) => {
                    self.over();
                    return Some(written);
                }
                Err(error) => self.began(&error),
            }
            if !pause() {
                return None;
            }
        }
    }

    fn began(&self, error: &WriteError) {
        metrics::counter!(self.errors).increment(1);
        metrics::gauge!(self.gauge).set(1.0);
        let text = error.to_string();
        let before = lock(&self.why).replace(text.clone());
        if before.as_ref() != Some(&text) {
            tracing::error!(
                error = text,
                "{} can't be written: nothing is acknowledged and agents keep their data until this is mended; free or repair the disk",
                self.what
            );
        }
    }

    fn over(&self) {
        if lock(&self.why).take().is_some() {
            metrics::gauge!(self.gauge).set(0.0);
            tracing::info!("{} can be written again: acknowledging goes on", self.what);
        }
    }
}

/// Waits until the next try of a failed write. `false`: the queue is closing.
pub(crate) fn pause<Q>(queue: &Mutex<Q>, wake: &Condvar, closing: impl Fn(&Q) -> bool) -> bool {
    let waited = wake.wait_timeout_while(lock(queue), RETRY, |queue| !closing(queue));
    let (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
    !closing(&queue)
}

/// What a thread does that packs sealed segments and keeps bounds of size and age.
pub(crate) trait Packer {
    type Segments;

    fn segments(&self) -> &Mutex<Self::Segments>;
    /// Is told of each segment that was sealed, and of the end.
    fn sealed(&self) -> &Condvar;
    fn closing(&self) -> bool;
    fn keep_bounds(&self);
    /// The sealed segment to pack now.
    fn next(&self, segments: &Self::Segments) -> Option<u64>;
    fn pack(&self, id: u64) -> std::io::Result<()>;
    /// Counts a failure and removes what was half made.
    fn failed(&self, id: u64);

    /// The thread's loop, until closing.
    fn run(&self) {
        loop {
            self.keep_bounds();
            let next = {
                let mut segments = lock(self.segments());
                loop {
                    if self.closing() {
                        return;
                    }
                    let next = self.next(&segments);
                    if next.is_some() {
                        break next;
                    }
                    let waited = self.sealed().wait_timeout(segments, LOOK);
                    let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                    segments = guard;
                    if timeout.timed_out() {
                        break None;
                    }
                }
            };
            let Some(id) = next else { continue };
            if let Err(error) = self.pack(id) {
                self.failed(id);
                tracing::warn!(%error, segment = id, "cannot pack a segment; it stays as it is for now");
                let segments = lock(self.segments());
                if self.closing() {
                    return;
                }
                drop(self.sealed().wait_timeout(segments, LOOK));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: [u8; 8] = *b"PKTTESTS";

    /// The file that a failed try left, and couldn't remove, holds up one try and not the next.
    #[test]
    fn a_half_made_file_costs_its_number_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = |id| dir.path().join(format!("{id}.segment"));
        let mut next = 7;
        std::fs::write(path(7), b"PKT").unwrap();
        let Err(error) = Segment::create(&mut next, MAGIC, path) else { panic!("7 was made twice") };
        assert_eq!(error.what, "create");
        let mut made = Segment::create(&mut next, MAGIC, path).unwrap();
        assert_eq!((made.id, next), (8, 9));
        made.append(b"abc").unwrap();
        assert_eq!(std::fs::read(path(8)).unwrap(), b"PKTTESTS\x08\0\0\0\0\0\0\0abc");
        assert_eq!(std::fs::read(path(7)).unwrap(), b"PKT", "what is not ours stays");
    }

    #[test]
    fn what_was_synced_outlives_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let path = |id| dir.path().join(format!("{id}.segment"));
        let mut next = 1;
        let empty = Segment::create(&mut next, MAGIC, path).unwrap();
        assert!(!empty.abandon());
        assert!(!path(1).exists());
        let mut kept = Segment::create(&mut next, MAGIC, path).unwrap();
        kept.append(b"durable").unwrap();
        (&*kept.file).write_all(b"half").unwrap();
        assert!(kept.abandon());
        assert_eq!(std::fs::metadata(path(2)).unwrap().len(), HEADER + 7);
    }

    #[test]
    fn a_folder_is_held_until_it_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let held = Folder::hold(dir.path()).unwrap();
        assert!(matches!(Folder::hold(dir.path()), Err(OpenError::Locked { .. })));
        held.leave();
        Folder::hold(dir.path()).unwrap().leave();
    }
}
