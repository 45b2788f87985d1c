//! What the last run left: chunk files as they are, write-ahead files with their torn tails cut.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use super::chunk::{self, ChunkFile};
use super::segments::{Segments, Wal};
use super::wal::{self, Source};
use super::{Digest, Options, telemetry};
use crate::durable::{OpenError, io};
use crate::log::Watermarks;

/// What was found at start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    pub segments: usize,
    pub bytes: u64,
    /// Nodes' lives with a watermark.
    pub lives: usize,
    /// Damaged frames and files: their lines are lost.
    pub corrupt: u64,
    /// Bytes cut off the end of write-ahead files: writes that a crash interrupted, never acknowledged.
    pub torn_bytes: u64,
}

pub(super) struct Found {
    pub recovered: Recovered,
    pub segments: Segments,
    pub marks: Watermarks,
    pub digests: Vec<Digest>,
}

pub(super) fn recover(options: &Options) -> Result<Found, OpenError> {
    let dir = &options.dir;
    let marks = Watermarks::load(dir).unwrap_or_else(|damaged| {
        tracing::error!(dir = %dir.display(), damaged, "the log store's checkpoint can't be used; agents' batches of segments that are packed may be kept twice if they come again");
        None
    });
    let mut found = Found {
        recovered: Recovered::default(),
        segments: Segments::default(),
        marks: marks.unwrap_or_default(),
        digests: Vec::new(),
    };
    let (mut wals, mut chunks) = list(dir)?;
    wals.sort_unstable();
    chunks.sort_unstable();
    for id in chunks {
        match ChunkFile::open(dir, id).map_err(io("read", &chunk::path(dir, id)))? {
            Some(file) => {
                found.segments.chunks.insert(id, Arc::new(file));
            }
            None => {
                found.recovered.corrupt += 1;
                set_aside(&chunk::path(dir, id));
            }
        }
    }
    for id in wals {
        let path = wal::path(dir, id);
        if found.segments.chunks.contains_key(&id) {
            // A crash came between the chunk file's birth and this one's removal.
            std::fs::remove_file(&path).map_err(io("remove the packed", &path))?;
            continue;
        }
        found.wal(&path, id)?;
    }
    let last = found.segments.last();
    if let Some(last) = last.filter(|last| *last > found.marks.covered) {
        found.marks.save(dir, last).map_err(io("write the checkpoint of", dir))?;
        found.marks.covered = last;
    }
    let recovered = &mut found.recovered;
    recovered.segments = found.segments.count();
    recovered.bytes = found.segments.bytes();
    recovered.lives = found.marks.lives();
    metrics::counter!(telemetry::CORRUPT).increment(recovered.corrupt);
    if recovered.corrupt > 0 {
        tracing::warn!(parts = recovered.corrupt, dir = %dir.display(), "damaged parts of the log store were skipped: their lines are lost");
    }
    Ok(found)
}

impl Found {
    fn wal(&mut self, path: &Path, id: u64) -> Result<(), OpenError> {
        let bytes = std::fs::read(path).map_err(io("read", path))?;
        let (marks, digests) = (&mut self.marks, &mut self.digests);
        let read = wal::read(&bytes, |head| match &head.source {
            Source::Agent { node, life, sequence } => marks.raise(node, *life, *sequence, head.received_ms),
            Source::Push { digest } => digests.push(*digest),
        });
        self.recovered.corrupt += read.corrupt;
        // A damaged frame at the end counts as torn too: its length can't be believed.
        self.recovered.torn_bytes += (bytes.len() as u64).saturating_sub(read.good_end);
        if read.frames.is_empty() {
            return std::fs::remove_file(path).map_err(io("remove the empty", path));
        }
        let file = File::options().read(true).write(true).open(path).map_err(io("open", path))?;
        if read.good_end < bytes.len() as u64 {
            file.set_len(read.good_end).map_err(io("cut the torn tail of", path))?;
            file.sync_all().map_err(io("sync", path))?;
        }
        self.segments.wals.insert(
            id,
            Wal {
                file: Arc::new(file),
                bytes: read.good_end,
                frames: read.frames,
                newest_ms: read.newest_ms,
                sealed: true,
            },
        );
        Ok(())
    }
}

/// A chunk file without a good footer is kept for a person to look at, under another name.
fn set_aside(path: &Path) {
    let aside = path.with_extension("damaged");
    tracing::error!(file = %path.display(), aside = %aside.display(), "this chunk file is damaged; it is set aside and can be removed");
    if let Err(error) = std::fs::rename(path, &aside) {
        tracing::warn!(%error, file = %path.display(), "cannot set it aside");
    }
}

/// The numbers of write-ahead and of chunk files.
fn list(dir: &Path) -> Result<(Vec<u64>, Vec<u64>), OpenError> {
    let (mut wals, mut chunks) = (Vec::new(), Vec::new());
    for item in std::fs::read_dir(dir).map_err(io("list", dir))? {
        let item = item.map_err(io("list", dir))?;
        let name = item.file_name();
        let Some((id, kind)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
        let Ok(id) = id.parse::<u64>() else { continue };
        match kind {
            "wal" => wals.push(id),
            "chunks" => chunks.push(id),
            "chunks.new" => drop(std::fs::remove_file(item.path())),
            _ => {}
        }
    }
    Ok((wals, chunks))
}
