//! The segments that are there: write-ahead files with their frames' times, chunk files with what their footers say.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use super::chunk::ChunkFile;
use super::follow::Position;
use super::wal::{self, FrameAt};

/// A write-ahead file. Its handle stays good when the file goes.
pub struct Wal {
    pub file: Arc<File>,
    /// What is durable of it.
    pub bytes: u64,
    pub frames: Vec<FrameAt>,
    pub newest_ms: i64,
    /// The writer is done with it.
    pub sealed: bool,
}

#[derive(Default)]
pub struct Segments {
    pub wals: BTreeMap<u64, Wal>,
    pub chunks: BTreeMap<u64, Arc<ChunkFile>>,
}

/// The part of a write-ahead file that a reader wants.
pub struct WalPart {
    pub id: u64,
    pub file: Arc<File>,
    pub frames: Vec<FrameAt>,
}

/// The segments as they were at one moment, those with lines of a time.
pub struct Snapshot {
    pub wals: Vec<WalPart>,
    pub chunks: Vec<Arc<ChunkFile>>,
    /// What comes after it.
    pub end: Position,
}

impl Segments {
    /// What may have lines with `from_ns <= time < to_ns`.
    pub fn snapshot(&self, from_ns: i64, to_ns: i64) -> Snapshot {
        let touches = |min_ns: i64, max_ns: i64| max_ns >= from_ns && min_ns < to_ns;
        let wals = self.wals.iter().map(|(&id, wal)| WalPart {
            id,
            file: Arc::clone(&wal.file),
            frames: wal.frames.iter().filter(|f| touches(f.min_ns, f.max_ns)).copied().collect(),
        });
        let chunks = self.chunks.values().filter(|c| touches(c.footer.min_ns, c.footer.max_ns));
        Snapshot {
            wals: wals.filter(|part| !part.frames.is_empty()).collect(),
            chunks: chunks.cloned().collect(),
            end: self.end(),
        }
    }

    /// Behind all that is durable.
    pub fn end(&self) -> Position {
        match (self.wals.last_key_value(), self.chunks.last_key_value()) {
            (Some((&id, wal)), _) => Position { segment: id, offset: wal.bytes },
            (None, Some((&id, chunk))) => Position { segment: id, offset: chunk.footer.wal_bytes },
            (None, None) => Position { segment: 0, offset: wal::HEADER },
        }
    }

    /// The first segment after this one.
    pub fn after(&self, id: u64) -> Option<u64> {
        let wal = self.wals.range(id.saturating_add(1)..).next().map(|(&id, _)| id);
        let chunk = self.chunks.range(id.saturating_add(1)..).next().map(|(&id, _)| id);
        [wal, chunk].into_iter().flatten().min()
    }

    pub fn last(&self) -> Option<u64> {
        self.wals.last_key_value().map(|(&id, _)| id).max(self.chunks.last_key_value().map(|(&id, _)| id))
    }

    pub fn bytes(&self) -> u64 {
        self.wals.values().map(|wal| wal.bytes).sum::<u64>()
            + self.chunks.values().map(|chunk| chunk.bytes).sum::<u64>()
    }

    pub fn count(&self) -> usize {
        self.wals.len() + self.chunks.len()
    }

    pub fn oldest_ns(&self) -> Option<i64> {
        let wals = self.wals.values().flat_map(|wal| &wal.frames).filter(|f| f.lines > 0).map(|f| f.min_ns);
        let chunks = self.chunks.values().filter(|c| c.footer.lines > 0).map(|c| c.footer.min_ns);
        wals.chain(chunks).min()
    }
}
