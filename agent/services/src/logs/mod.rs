//! Lines of log files, of the journal and of containers, from cursors that outlive the agent.
//!
//! The contract is a pull with a commit. A collect reads ([`Request::Read`]) as often as it likes, each time further on.
//! At its end [`Request::Prepare`] says which cursors stand for what was read; the caller makes them durable in one record
//! with the lines that came of it, and then says [`Request::Commit`]. A collect that does not come to that is read again:
//! the next one begins where the last commit was. So a line is in a durable record exactly if the cursor behind it is.
//!
//! What cannot be read any more (a file that was deleted before it was read to its end, one that was emptied with no copy
//! beside it, output that an engine threw away) is counted by its reason: [`Totals`].

mod docker;
mod engines;
mod find;
mod follow;
mod journal;
mod mark;
mod queue;
mod reader;
mod scope;
mod tail;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use picket_proto::model::PluginId;
use serde::{Deserialize, Serialize};

use crate::ServiceLimits;
use reader::Reader;
pub(crate) use scope::Compiled;
pub use scope::Scope;
use tail::Linger;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Read {
        /// Numbers the collects of the whole process, upward.
        collect: u64,
        wanted: Wanted,
        /// The most bytes.
        most: usize,
        /// Chunks of this collect of which a part was held back: their sources are left alone.
        held: Vec<u32>,
    },
    /// What stands for all that was read, less the last bytes of these chunks.
    Prepare {
        collect: u64,
        held: Vec<(u32, u32)>,
    },
    Commit {
        collect: u64,
    },
}

/// What is to be read, within the grant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Patterns; none: all that are granted.
    pub files: Vec<String>,
    /// Units of the journal; none: nothing of it.
    pub units: Vec<String>,
    /// Files that are there when a pattern is looked for the first time are read from their end.
    pub from_the_end: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Page(Page),
    /// By source: the cursor to keep, or an empty one where the source is no more.
    Cursors(Vec<(String, String)>),
    Committed {
        /// The collect did not come to the end of what is there.
        more: bool,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    pub chunks: Vec<Chunk>,
    /// A bound was reached: there may be more.
    pub more: bool,
    /// What could not be read: a word and a sentence each.
    pub failures: Vec<(String, String)>,
}

/// Whole lines of one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Its number in this collect.
    pub id: u32,
    pub kind: Kind,
    /// The path under which the file was found; of the journal nothing.
    pub name: String,
    /// What the host knows of the source.
    pub labels: Vec<(String, String)>,
    /// Each line with its newline.
    #[serde(with = "crate::octets")]
    pub bytes: Vec<u8>,
    /// How long the first of these lines has been held back, in milliseconds.
    pub waited: u64,
    /// The source ends here, perhaps without a newline.
    pub last: bool,
    /// The line is longer than a chunk: the rest of it is left out.
    pub cut: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    File,
    /// Entries as `journalctl --output=json` writes them.
    Journal,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    #[error("not granted: {0}")]
    Denied(String),
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    TimedOut(String),
    #[error("{0}")]
    Other(String),
}

/// Running totals of one plugin's reading, since the agent began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of lines that were committed.
    pub bytes: u64,
    /// Files that are followed now, and containers whose engine is asked.
    pub files: u64,
    /// Times that something could not be read any more, by reason: `deleted`, `truncated`, `rotated`, `clock`, `long-line`.
    pub lost: BTreeMap<&'static str, u64>,
}

/// The readers of all plugins.
#[derive(Debug)]
pub(crate) struct Logs {
    linger: Linger,
    readers: Mutex<HashMap<PluginId, Place>>,
}

#[derive(Debug, Clone, Default)]
struct Place {
    /// From before the agent began, until the plugin reads for the first time.
    restored: Vec<(String, String)>,
    reader: Option<Arc<Mutex<Reader>>>,
    totals: Arc<Mutex<Totals>>,
}

impl Default for Logs {
    fn default() -> Self {
        let linger = Linger { renamed: Duration::from_secs(60), deleted: Duration::from_secs(5) };
        Self { linger, readers: Mutex::default() }
    }
}

impl Logs {
    /// Puts back a cursor that was durable.
    pub fn restore(&self, plugin: &PluginId, source: &str, cursor: &str) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.entry(plugin.clone()).or_default().restored.push((source.to_owned(), cursor.to_owned()));
    }

    pub fn totals(&self) -> Vec<(PluginId, Totals)> {
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let total = |place: &Place| place.totals.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut list: Vec<_> = readers
            .iter()
            .filter(|(_, place)| place.reader.is_some())
            .map(|(plugin, place)| (plugin.clone(), total(place)))
            .collect();
        list.sort_by(|(a, _), (b, _)| a.cmp(b));
        list
    }

    pub async fn call(
        &self,
        plugin: &PluginId,
        scope: &Compiled,
        limits: &ServiceLimits,
        request: Request,
    ) -> Result<Answer, Error> {
        if let Request::Read { wanted, .. } = &request {
            check(scope, wanted)?;
        }
        let reader = self.reader(plugin);
        let patterns = scope.patterns.clone();
        let journal = scope.journal.clone();
        let containers = scope.containers.clone();
        let service_limits = limits.clone();
        let shown = plugin.clone();
        let task = tokio::task::spawn_blocking(move || {
            let mut reader = match reader.try_lock() {
                Ok(reader) => reader,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::TimedOut(format!("an earlier reading of {shown} still hangs")));
                }
            };
            let now = Instant::now();
            match request {
                Request::Read { collect, wanted, most, held } => {
                    reader.begin(collect);
                    let engines = containers.map(|permit| (permit, service_limits));
                    let set = reader::Ask { wanted, patterns, journal, engines };
                    reader.read(set, most, &held, now).map(Answer::Page)
                }
                Request::Prepare { collect, held } => reader.prepare(collect, &held).map(Answer::Cursors),
                Request::Commit { collect } => Ok(Answer::Committed { more: reader.commit(collect, now) }),
            }
        });
        match tokio::time::timeout(limits.file_time, task).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(e)) => Err(Error::Other(format!("the reading was lost: {e}"))),
            Err(_) => Err(Error::TimedOut(format!("no answer within {} ms", limits.file_time.as_millis()))),
        }
    }

    fn reader(&self, plugin: &PluginId) -> Arc<Mutex<Reader>> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let place = readers.entry(plugin.clone()).or_default();
        let (restored, totals) = (std::mem::take(&mut place.restored), place.totals.clone());
        let linger = self.linger;
        place
            .reader
            .get_or_insert_with(|| Arc::new(Mutex::new(Reader::new(restored, totals, linger))))
            .clone()
    }
}

fn check(scope: &Compiled, wanted: &Wanted) -> Result<(), Error> {
    if let Some(pattern) = wanted.files.iter().find(|pattern| !scope.grants_files(pattern)) {
        return Err(Error::Denied(pattern.clone()));
    }
    if let Some(unit) = wanted.units.iter().find(|unit| !scope.grants_unit(unit)) {
        return Err(Error::Denied(format!("the unit {unit}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
