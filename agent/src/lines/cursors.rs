//! Where each plugin is in each log, and how that is found again.
//!
//! Two places say it. The newest segment of the queue: its header has all cursors, its records what moved since. And a
//! file, written at each start before the queue is opened, with what was found then. The file names the life that wrote
//! it, and that life's segments come later than it: if the newest segment is of that life, the segment holds, else (nothing
//! was queued since) the file.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use picket_proto::model::PluginId;
use picket_proto::spool::v1::{LogCursor, Record};
use prost::Message;

const MAGIC: &[u8; 8] = b"PKCURS01";
/// The longest file; far more than sources give.
const MAX_BYTES: u64 = 64 << 20;

/// By plugin and source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursors(BTreeMap<(String, String), String>);

impl Cursors {
    /// An empty cursor: the source is no more.
    pub fn set(&mut self, plugin: &str, source: &str, cursor: &str) {
        let key = (plugin.to_owned(), source.to_owned());
        if cursor.is_empty() {
            self.0.remove(&key);
        } else {
            self.0.insert(key, cursor.to_owned());
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.0.iter().map(|((plugin, source), cursor)| (plugin.as_str(), source.as_str(), cursor.as_str()))
    }

    /// As the header of a segment.
    pub fn record(&self) -> Record {
        let cursor = |(plugin, source, state): (&str, &str, &str)| LogCursor {
            plugin: plugin.to_owned(),
            source: source.to_owned(),
            state: state.to_owned(),
        };
        Record { cursors: self.iter().map(cursor).collect(), ..Record::default() }
    }

    fn take(&mut self, record: &Record) {
        for LogCursor { plugin, source, state } in &record.cursors {
            self.set(plugin, source, state);
        }
    }
}

/// What a record says of the cursors that moved.
pub(super) fn messages(plugin: &PluginId, moved: &[(String, String)]) -> Vec<LogCursor> {
    let cursor = |(source, state): &(String, String)| LogCursor {
        plugin: plugin.as_str().to_owned(),
        source: source.clone(),
        state: state.clone(),
    };
    moved.iter().map(cursor).collect()
}

/// The cursors as they were when the last durable record was written. What cannot be read is told and left out: then
/// lines come twice, and none is missing.
pub(super) fn recover(dir: &Path, file: &Path) -> Cursors {
    let saved = load(file).unwrap_or_else(|error| {
        tracing::error!("{} is left out: {error}; some log lines may come twice", file.display());
        None
    });
    let mut moved = Vec::new();
    let newest = picket_agent_spool::newest_segment(dir, |bytes| {
        // The lines of a whole segment are many times the memory that they are worth here.
        if let Ok(record) = Record::decode(bytes) {
            moved.extend(record.cursors);
        }
    });
    let newest = newest.unwrap_or_else(|error| {
        tracing::error!("{} cannot be read: {error}; some log lines may come twice", dir.display());
        None
    });
    let header = newest.and_then(|(life, header)| Some((life, Record::decode(header).ok()?)));
    match (saved, header) {
        (Some((writer, cursors)), header) if header.as_ref().is_none_or(|(life, _)| *life != writer) => {
            cursors
        }
        (_, Some((_, header))) => {
            let mut cursors = Cursors::default();
            cursors.take(&header);
            cursors.take(&Record { cursors: moved, ..Record::default() });
            cursors
        }
        (_, None) => Cursors::default(),
    }
}

/// Replaces the file as a whole; durable on return.
pub(super) fn save(file: &Path, life: u64, cursors: &Cursors) -> io::Result<()> {
    let body = cursors.record().encode_to_vec();
    let mut bytes = Vec::with_capacity(body.len() + 20);
    bytes.extend(MAGIC);
    bytes.extend(life.to_le_bytes());
    bytes.extend(crc32fast::hash(&body).to_le_bytes());
    bytes.extend(body);
    let new = file.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut written = options.open(&new)?;
    written.write_all(&bytes)?;
    written.sync_all()?;
    fs::rename(&new, file)?;
    match file.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn load(file: &Path) -> io::Result<Option<(u64, Cursors)>> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it is damaged");
    let length = match fs::metadata(file) {
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > MAX_BYTES {
        return Err(damaged());
    }
    let bytes = fs::read(file)?;
    let (magic, rest) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
    let (life, rest) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
    let (sum, body) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
    if magic != MAGIC || u32::from_le_bytes(*sum) != crc32fast::hash(body) {
        return Err(damaged());
    }
    let mut cursors = Cursors::default();
    cursors.take(&Record::decode(body).map_err(|_| damaged())?);
    Ok(Some((u64::from_le_bytes(*life), cursors)))
}

/// For the tests beside this module.
#[cfg(test)]
pub(super) fn record(lines: &[&str], cursors: &[(&str, &str)]) -> picket_agent_host::LogRecord {
    let stream = picket_proto::v1::LogStream {
        timestamps_ns: vec![1; lines.len()],
        lines: lines.iter().map(|line| (*line).to_owned()).collect(),
        ..Default::default()
    };
    let own = |(source, state): &(&str, &str)| ((*source).to_owned(), (*state).to_owned());
    picket_agent_host::LogRecord { streams: vec![stream], cursors: cursors.iter().map(own).collect() }
}
