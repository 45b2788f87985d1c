//! The queue of log lines, and the places in the logs that go with it.
//!
//! Lines have a spool of their own, so that no flood of them costs a sample. Each record holds lines and the cursors
//! behind them, and each segment begins with all cursors that hold then; so what is durable of the queue says how far the
//! logs were read, exactly, without a second file to keep in step. [`cursors`] says how that is found again at a start.
//!
//! Back-pressure: where three quarters of the queue are full, nothing is read any more, and lines wait in their files.
//! They are dropped only here: by age, or where the disk has no room, whole segments and counted.

mod cursors;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use picket_agent_host::LogRecord;
use picket_agent_spool::{Options, Spool};
use picket_proto::model::PluginId;
use picket_proto::spool::v1::Record;
use prost::Message;

pub use cursors::Cursors;

use crate::config;

/// One segment, in bytes.
const SEGMENT: u64 = 8 << 20;
/// What may wait for the writer, in bytes.
const QUEUE: usize = 8 << 20;
/// The queue in memory, where the disk cannot be written, at most this many bytes.
const MEMORY: u64 = 16 << 20;

/// Cheap to clone; all clones are the same queue.
#[derive(Clone, Default)]
pub struct Lines {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// None: the agent stands alone, and lines are counted and left.
    spool: Option<Spool>,
    /// Why it is in memory, where it is.
    fallback: Option<String>,
    max_bytes: u64,
    /// None: nothing is kept over a restart.
    file: Option<PathBuf>,
    life: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cursors: Cursors,
    /// The cursors have moved since they were saved; only where no spool keeps them.
    unsaved: bool,
    totals: BTreeMap<PluginId, Totals>,
}

/// Running totals of one plugin, since the agent began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Lines taken, and the bytes of them.
    pub lines: u64,
    pub bytes: u64,
    /// Lines that nobody will ever see: the agent stands alone.
    pub unsent: u64,
}

/// How the queue does.
pub struct Status {
    pub spool: Option<Spool>,
    pub fallback: Option<String>,
    /// Nothing is read because the queue is full.
    pub full: bool,
    pub totals: Vec<(PluginId, Totals)>,
}

impl Lines {
    /// Finds the cursors of before, and opens the queue where there is an uplink to empty it. Blocks.
    pub fn open(state_dir: &Path, config: &config::Spool, life: u64, uplink: bool) -> Self {
        let dir = state_dir.join("log-spool");
        let file = state_dir.join("log-cursors");
        let cursors = cursors::recover(&dir, &file);
        // Before the queue is opened, which may drop the segment that they were read from.
        let saved = cursors::save(&file, life, &cursors);
        if let Err(error) = &saved {
            tracing::error!(
                "{} cannot be written: {error}; after a crash, lines may come twice",
                file.display()
            );
        }
        let max_bytes = config.max_size.0;
        let (mut spool, mut fallback) = (None, None);
        if uplink {
            let options = Options {
                dir: dir.clone(),
                max_bytes,
                max_age: config.max_age,
                segment_bytes: SEGMENT.min(max_bytes / 8),
                queue_bytes: QUEUE,
            };
            spool = Some(Spool::open(options, life).unwrap_or_else(|error| {
                tracing::error!(
                    "the queue of log lines in {} cannot be used, they wait in memory: {error}",
                    dir.display()
                );
                fallback = Some(error.to_string());
                Spool::in_memory(max_bytes.min(MEMORY), life)
            }));
        }
        let max_bytes = if fallback.is_some() { max_bytes.min(MEMORY) } else { max_bytes };
        let state = Mutex::new(State { cursors, ..State::default() });
        Self { shared: Arc::new(Shared { spool, fallback, max_bytes, file: Some(file), life, state }) }
    }

    /// The cursors of before, to be put back before a plugin reads.
    pub fn restored(&self) -> Vec<(PluginId, String, String)> {
        let state = self.state();
        let all = state.cursors.iter();
        all.filter_map(|(plugin, source, cursor)| {
            Some((PluginId::new(plugin).ok()?, source.to_owned(), cursor.to_owned()))
        })
        .collect()
    }

    pub fn spool(&self) -> Option<&Spool> {
        self.shared.spool.as_ref()
    }

    /// How many bytes of lines would be taken now; 0: reading stops.
    pub fn room(&self) -> u64 {
        let Some(spool) = &self.shared.spool else { return u64::MAX };
        let stats = spool.stats();
        let full = stats.bytes >= self.shared.max_bytes / 4 * 3 || stats.unwritten_bytes > QUEUE as u64 / 4;
        if full { 0 } else { u64::MAX }
    }

    /// Takes lines with the cursors behind them, both or neither.
    ///
    /// # Errors
    /// Why not, for a person.
    pub fn append(&self, plugin: &PluginId, timestamp_ms: i64, taken: LogRecord) -> Result<(), String> {
        let LogRecord { streams, cursors } = taken;
        let lines = streams.iter().map(|stream| stream.lines.len() as u64).sum::<u64>();
        let bytes =
            streams.iter().flat_map(|stream| &stream.lines).map(|line| line.len() as u64).sum::<u64>();
        let mut state = self.state();
        let State { cursors: table, totals, unsaved } = &mut *state;
        let totals = totals.entry(plugin.clone()).or_default();
        match &self.shared.spool {
            Some(spool) => {
                let record = Record {
                    plugin: plugin.as_str().to_owned(),
                    timestamp_ms,
                    logs: streams,
                    cursors: cursors::messages(plugin, &cursors),
                    ..Record::default()
                };
                spool
                    .append(&record.encode_to_vec(), || table.record().encode_to_vec())
                    .map_err(|e| e.to_string())?;
            }
            None => {
                totals.unsent += lines;
                *unsaved = true;
            }
        }
        totals.lines += lines;
        totals.bytes += bytes;
        for (source, cursor) in &cursors {
            table.set(plugin.as_str(), source, cursor);
        }
        Ok(())
    }

    /// Saves the cursors where no queue holds them. Blocks.
    pub fn save(&self) {
        let Some(file) = &self.shared.file else { return };
        let cursors = {
            let mut state = self.state();
            if self.shared.spool.is_some() || !state.unsaved {
                return;
            }
            state.unsaved = false;
            state.cursors.clone()
        };
        if let Err(error) = cursors::save(file, self.shared.life, &cursors) {
            tracing::warn!("{} cannot be written: {error}", file.display());
            self.state().unsaved = true;
        }
    }

    pub fn status(&self) -> Status {
        let totals = self.state().totals.iter().map(|(plugin, totals)| (plugin.clone(), *totals)).collect();
        let full = self.room() == 0;
        Status { spool: self.shared.spool.clone(), fallback: self.shared.fallback.clone(), full, totals }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing here leaves the state half-written where it can panic.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
