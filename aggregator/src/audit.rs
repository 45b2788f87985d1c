//! The audit log: who did what, when, and what came of it. A file that only grows, a line an entry, on the disk before what
//! it tells is done.
//!
//! ```text
//! <sha-256 of the line before it, a newline, and this JSON> <JSON>
//! ```
//!
//! The JSON names the hash before it, so an entry that is changed, taken out or put in breaks the chain from there on, and
//! anybody can check that with `sha256sum`. That the end was cut off, the chain cannot tell: the last hash is written
//! beside the log too, and belongs, from time to time, where nobody who can write here can write (`picket audit verify`
//! prints it and takes it).

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ring::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::{Value, json};

use crate::clock::Clock;

/// The hash before the first entry.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// A longer text in an entry is cut.
const MAX_TEXT: usize = 4 << 10;
/// The most bytes of one page.
const MAX_PAGE: usize = 1 << 20;

/// What is to be told.
#[derive(Debug, Clone, Default)]
pub struct Entry<'a> {
    /// The token's name; empty: the aggregator itself.
    pub actor: &'a str,
    pub role: &'a str,
    /// A dotted word: `action.planned`.
    pub event: &'a str,
    pub node: &'a str,
    /// What it is about: an execution's id.
    pub subject: &'a str,
    /// In a sentence.
    pub message: &'a str,
    pub details: Value,
}

#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("the audit log {path}: {what}: {source}", path = path.display())]
    File { path: PathBuf, what: &'static str, source: io::Error },
    /// What is told may not be done.
    #[error("the audit log {path} could not be written before; restart the aggregator when the disk works", path = .0.display())]
    Broken(PathBuf),
}

/// How the log is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct State {
    pub entries: u64,
    pub head: String,
    /// What is wrong with it; empty: nothing.
    pub problem: String,
}

pub struct Audit {
    inner: Mutex<Inner>,
    clock: Clock,
}

struct Inner {
    path: PathBuf,
    file: File,
    /// Where each entry begins, and where the next one will.
    offsets: Vec<u64>,
    end: u64,
    head: String,
    problem: String,
    broken: bool,
}

impl Audit {
    /// Opens `audit.log` in the folder and goes through its chain. A broken chain is told and stops nothing: what is
    /// done from now on is written down all the same. Blocks on the disk.
    ///
    /// # Errors
    /// [`AuditError`]
    pub fn open(folder: &Path, clock: Clock) -> Result<Self, AuditError> {
        let path = folder.join("audit.log");
        let failed = |what| {
            let path = path.clone();
            move |source| AuditError::File { path, what, source }
        };
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("it cannot be opened"))?;
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(failed("it cannot be read"))?;
        let mut chain = Chain::default();
        let (mut offsets, mut end, mut problem) = (Vec::new(), 0u64, String::new());
        for line in content.split_inclusive(|b| *b == b'\n') {
            if !line.ends_with(b"\n") {
                // The power went in the midst of it: what it was to tell was not done.
                tracing::warn!("the last entry of the audit log was cut short and is taken out");
                break;
            }
            if let Err(why) = chain.take(line)
                && problem.is_empty()
            {
                problem = format!("entry {}: {why}", offsets.len() + 1);
            }
            offsets.push(end);
            end += line.len() as u64;
        }
        let head = chain.head;
        if problem.is_empty() {
            problem = cut_off(&folder.join("audit.head"), offsets.len() as u64);
        }
        if !problem.is_empty() {
            tracing::error!(file = %path.display(), problem, "the audit log was changed by another hand");
        }
        file.set_len(end)
            .and_then(|()| file.seek(SeekFrom::Start(end)))
            .map_err(failed("it cannot be cut"))?;
        let inner = Inner { path, file, offsets, end, head, problem, broken: false };
        Ok(Self { inner: Mutex::new(inner), clock })
    }

    /// Writes an entry; when this returns it is on the disk. Blocks on it.
    ///
    /// # Errors
    /// [`AuditError`]: what was to be told must not be done.
    pub fn append(&self, entry: &Entry<'_>) -> Result<(), AuditError> {
        let time_ms = self.clock.now_ms();
        let mut inner = self.lock();
        if inner.broken {
            return Err(AuditError::Broken(inner.path.clone()));
        }
        let json = json!({
            "seq": inner.offsets.len() + 1, "time_ms": time_ms, "actor": bounded(entry.actor), "role": entry.role,
            "event": entry.event, "node": entry.node, "subject": bounded(entry.subject),
            "message": bounded(entry.message), "details": entry.details, "previous": inner.head,
        })
        .to_string();
        let hash = link(&inner.head, json.as_bytes());
        let line = format!("{hash} {json}\n");
        let written = inner.file.write_all(line.as_bytes()).and_then(|()| inner.file.sync_data());
        if let Err(source) = written {
            inner.broken = true;
            return Err(AuditError::File { path: inner.path.clone(), what: "it cannot be written", source });
        }
        let begin = inner.end;
        inner.offsets.push(begin);
        inner.end += line.len() as u64;
        inner.head = hash;
        // One that is behind says less, and nothing wrong.
        let head = format!("{} {}\n", inner.offsets.len(), inner.head);
        let file = inner.path.with_extension("head");
        let new = inner.path.with_extension("head.new");
        if let Err(error) = std::fs::write(&new, head).and_then(|()| std::fs::rename(&new, &file)) {
            tracing::warn!("the audit log's head cannot be written beside it: {error}");
        }
        Ok(())
    }

    /// Whole lines, as they stand in the file, after the entry of this number.
    ///
    /// # Errors
    /// [`AuditError`]
    pub fn page(&self, after: u64, limit: usize) -> Result<Vec<u8>, AuditError> {
        let inner = self.lock();
        let first = usize::try_from(after).unwrap_or(usize::MAX);
        let Some(begin) = inner.offsets.get(first).copied() else { return Ok(Vec::new()) };
        let mut last = first.saturating_add(limit.max(1)).min(inner.offsets.len());
        let end_of = |n: usize| inner.offsets.get(n).copied().unwrap_or(inner.end);
        while last > first + 1 && end_of(last) - begin > MAX_PAGE as u64 {
            last -= 1;
        }
        let length = usize::try_from(end_of(last) - begin).unwrap_or(0);
        let mut bytes = vec![0; length];
        inner.file.read_exact_at(&mut bytes, begin).map_err(|source| AuditError::File {
            path: inner.path.clone(),
            what: "it cannot be read",
            source,
        })?;
        Ok(bytes)
    }

    pub fn state(&self) -> State {
        let inner = self.lock();
        State {
            entries: inner.offsets.len() as u64,
            head: inner.head.clone(),
            problem: inner.problem.clone(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The chain, entry by entry.
struct Chain {
    head: String,
}

impl Default for Chain {
    fn default() -> Self {
        Self { head: GENESIS.to_owned() }
    }
}

impl Chain {
    /// Goes on with this line in any case, so that one break is told once.
    fn take(&mut self, line: &[u8]) -> Result<(), String> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let space = line.iter().position(|b| *b == b' ').unwrap_or(line.len());
        let (hash, json) = line.split_at(space);
        let json = json.get(1..).unwrap_or_default();
        let wanted = link(&self.head, json);
        let hash = String::from_utf8_lossy(hash).into_owned();
        let good = hash == wanted;
        self.head = hash;
        if good { Ok(()) } else { Err(format!("its hash is not {wanted}")) }
    }
}

fn link(previous: &str, json: &[u8]) -> String {
    let mut bytes = previous.as_bytes().to_vec();
    bytes.push(b'\n');
    bytes.extend_from_slice(json);
    digest(&SHA256, &bytes).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// Whether the log is shorter than it was.
fn cut_off(head: &Path, entries: u64) -> String {
    let text = std::fs::read_to_string(head).unwrap_or_default();
    match text.split(' ').next().and_then(|n| n.parse::<u64>().ok()) {
        Some(known) if known > entries => {
            format!("it had {known} entries and has {entries}: its end was cut off")
        }
        _ => String::new(),
    }
}

fn bounded(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn audit(folder: &Path) -> Audit {
        Audit::open(folder, Clock::manual(1_000)).unwrap()
    }

    fn write(audit: &Audit, n: usize) {
        for i in 0..n {
            let message = format!("did {i}");
            let entry = Entry { actor: "a", event: "x", message: &message, ..Entry::default() };
            audit.append(&entry).unwrap();
        }
    }

    #[test]
    fn goes_on_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        write(&audit(folder.path()), 3);
        let again = audit(folder.path());
        assert_eq!((again.state().entries, again.state().problem.as_str()), (3, ""));
        write(&again, 2);
        let last = audit(folder.path());
        assert_eq!(last.state(), again.state());
        assert_eq!(last.state().entries, 5);
        let page = String::from_utf8(last.page(1, 2).unwrap()).unwrap();
        let lines: Vec<&str> = page.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].contains("did 1") && lines[1].contains("did 2"), "{page}");
        assert!(last.page(5, 10).unwrap().is_empty());
    }

    #[test]
    fn a_line_that_the_power_cut_is_taken_out() {
        let folder = tempfile::tempdir().unwrap();
        write(&audit(folder.path()), 2);
        let path = folder.path().join("audit.log");
        let content = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&content[..], &content[..20]].concat()).unwrap();
        let again = audit(folder.path());
        assert_eq!((again.state().entries, again.state().problem.as_str()), (2, ""));
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }

    #[test]
    fn a_cut_end_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        write(&audit(folder.path()), 3);
        let path = folder.path().join("audit.log");
        let text = std::fs::read_to_string(&path).unwrap();
        let two: String = text.split_inclusive('\n').take(2).collect();
        std::fs::write(&path, two).unwrap();
        assert!(audit(folder.path()).state().problem.contains("cut off"));
    }

    proptest! {
        #[test]
        fn any_change_of_a_byte_is_seen(at in 0usize..2000, to in any::<u8>()) {
            let folder = tempfile::tempdir().unwrap();
            write(&audit(folder.path()), 4);
            let path = folder.path().join("audit.log");
            let mut content = std::fs::read(&path).unwrap();
            let at = at % content.len();
            prop_assume!(content[at] != to);
            content[at] = to;
            std::fs::write(&path, &content).unwrap();
            prop_assert!(!audit(folder.path()).state().problem.is_empty());
        }
    }
}
