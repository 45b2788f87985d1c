//! The journal of what is done to this node: a file of lines, each with its check sum, on disk before what it says is done.
//!
//! A line that the power cut short is the last one; it is cut off, for what it announced was not begun. Anything else that
//! can't be read is damage: the file is set aside, what stood before the damage holds, and it is said.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::execution::{Entry, Executions};

/// A file that has grown beyond this is written anew, with what is still of use.
const COMPACT_BYTES: u64 = 8 << 20;
/// A longer file is no journal of ours.
const MAX_BYTES: u64 = 256 << 20;
/// Executions that are kept after their end.
pub const KEPT: usize = 128;

/// Why the journal can't be used. Then nothing is done.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("the journal of actions {path}: {what}: {source}")]
    File { path: PathBuf, what: &'static str, source: io::Error },
    #[error(
        "the journal of actions {path} is {bytes} bytes long, more than it ever becomes: look at it and set it aside"
    )]
    TooLong { path: PathBuf, bytes: u64 },
    /// An earlier write failed half way: what the file ends in is not known.
    #[error(
        "the journal of actions {path} could not be written before; restart the agent when the disk works"
    )]
    Broken { path: PathBuf },
    #[error("the task that writes the journal of actions was lost: {0}")]
    Lost(String),
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: File,
    bytes: u64,
    broken: bool,
    known: Executions,
    /// What can rebuild `known`.
    entries: Vec<Entry>,
}

impl Journal {
    /// Reads what an earlier run wrote. Blocks on the disk.
    ///
    /// # Errors
    /// [`JournalError`]
    pub fn open(folder: &Path, now_ms: i64) -> Result<Self, JournalError> {
        let path = folder.join("journal");
        let failed = |what| {
            let path = path.clone();
            move |source| JournalError::File { path, what, source }
        };
        std::fs::create_dir_all(folder).map_err(failed("its folder cannot be made"))?;
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("it cannot be opened"))?;
        let bytes = file.metadata().map_err(failed("it cannot be looked at"))?.len();
        if bytes > MAX_BYTES {
            return Err(JournalError::TooLong { path, bytes });
        }
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(failed("it cannot be read"))?;
        let (entries, good, damaged) = parse(&content);
        if damaged {
            let aside = folder.join(format!("journal.damaged-{now_ms}"));
            std::fs::write(&aside, &content).map_err(failed("it is damaged and cannot be set aside"))?;
            tracing::error!(file = %aside.display(), "the journal of actions is damaged after byte {good}; what was read of it holds");
        }
        let mut inner =
            Inner { path, file, bytes: good, broken: false, known: Executions::default(), entries };
        for entry in &inner.entries {
            inner.known.take(entry);
        }
        inner.cut(good)?;
        if inner.bytes > COMPACT_BYTES {
            inner.compact()?;
        }
        Ok(Self { inner: Arc::new(Mutex::new(inner)) })
    }

    /// Writes an entry; when this returns it is on the disk.
    ///
    /// # Errors
    /// [`JournalError`]: nothing may be done that the entry announces.
    pub async fn write(&self, entry: Entry) -> Result<(), JournalError> {
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || lock(&inner).write(entry))
            .await
            .map_err(|e| JournalError::Lost(e.to_string()))?
    }

    /// What is known now.
    pub fn read<R>(&self, look: impl FnOnce(&Executions) -> R) -> R {
        look(&lock(&self.inner).known)
    }
}

fn lock(inner: &Mutex<Inner>) -> std::sync::MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn write(&mut self, entry: Entry) -> Result<(), JournalError> {
        if self.broken {
            return Err(JournalError::Broken { path: self.path.clone() });
        }
        let line = line(&entry);
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            self.broken = true;
            return Err(self.failed("it cannot be written", source));
        }
        self.bytes += line.len() as u64;
        self.known.take(&entry);
        let ended = matches!(entry, Entry::Ended { .. });
        self.entries.push(entry);
        // The old file goes on being good.
        if ended
            && self.bytes > COMPACT_BYTES
            && let Err(error) = self.compact()
        {
            tracing::warn!("{error}");
        }
        Ok(())
    }

    fn cut(&mut self, length: u64) -> Result<(), JournalError> {
        use std::io::Seek as _;
        let cut = self
            .file
            .set_len(length)
            .and_then(|()| self.file.seek(io::SeekFrom::Start(length)))
            .and_then(|_| self.file.sync_all());
        cut.map_err(|e| self.failed("it cannot be cut", e))
    }

    /// The same without what nobody will ask for: written beside, then put in its place.
    fn compact(&mut self) -> Result<(), JournalError> {
        self.known.forget(KEPT);
        let known = &self.known;
        self.entries.retain(|entry| known.get(entry.execution()).is_some());
        let text: String = self.entries.iter().map(line).collect();
        let new = self.path.with_extension("new");
        let made = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&new)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()?;
                std::fs::rename(&new, &self.path)?;
                if let Some(folder) = self.path.parent() {
                    File::open(folder)?.sync_all()?;
                }
                Ok(file)
            });
        self.file = made.map_err(|e| self.failed("it cannot be written anew", e))?;
        self.bytes = text.len() as u64;
        Ok(())
    }

    fn failed(&self, what: &'static str, source: io::Error) -> JournalError {
        JournalError::File { path: self.path.clone(), what, source }
    }
}

fn line(entry: &Entry) -> String {
    // An entry is made of texts and numbers: it always has a JSON.
    let json = serde_json::to_string(entry).unwrap_or_default();
    format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()))
}

/// The good lines, how many bytes they are, and whether more follows than one that was cut short.
fn parse(content: &[u8]) -> (Vec<Entry>, u64, bool) {
    let mut entries = Vec::new();
    let mut good = 0;
    for line in content.split_inclusive(|b| *b == b'\n') {
        match entry(line) {
            Some(entry) => {
                entries.push(entry);
                good += line.len();
            }
            None => {
                let last = good + line.len() == content.len();
                return (entries, good as u64, !last || line.ends_with(b"\n"));
            }
        }
    }
    (entries, good as u64, false)
}

fn entry(line: &[u8]) -> Option<Entry> {
    let line = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
    let (sum, json) = line.split_once(' ')?;
    let sum = u32::from_str_radix(sum, 16).ok()?;
    (crc32fast::hash(json.as_bytes()) == sum).then(|| serde_json::from_str(json).ok()).flatten()
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
