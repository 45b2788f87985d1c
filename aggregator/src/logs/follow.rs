//! Reads what became durable, in that order, from a position on: for live tails and for forwarding.

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use picket_proto::model::Labels;
use serde::{Deserialize, Serialize};

use super::{Shared, run, wal};
use crate::store::lock;

/// A place in the store, in the order in which lines came: a segment, and how much of its write-ahead file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    pub segment: u64,
    pub offset: u64,
}

/// Times and lines.
pub type Lines = Vec<(i64, String)>;

/// Lines that came together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Piece {
    pub streams: Vec<(Arc<Labels>, Lines)>,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Piece(Piece),
    /// Lines that were packed before they were read here: the whole segment again. The place goes on behind it.
    Packed(Piece),
    /// Segments that retention dropped before they were read.
    Gone {
        segments: u64,
    },
    /// Nothing yet.
    End,
}

pub struct Follower {
    shared: Arc<Shared>,
    position: Position,
    /// Where in a packed segment; pages.
    page: usize,
}

/// What the segments say about a position.
enum Look {
    Frame(Arc<std::fs::File>, wal::FrameAt),
    Chunk(Arc<super::chunk::ChunkFile>),
    Go(u64),
    End,
}

impl Follower {
    pub(super) fn new(shared: Arc<Shared>, position: Position) -> Self {
        Self { shared, position, page: 0 }
    }

    /// All before it has been read. In the middle of a packed segment: where that begins.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Goes on behind the segment that is being read.
    pub fn skip_segment(&mut self) {
        self.position.offset = u64::MAX;
        self.page = 0;
    }

    /// The next lines. Blocking: reads the disk.
    pub fn read(&mut self) -> Next {
        loop {
            match self.look() {
                Look::End => return Next::End,
                Look::Go(segment) => {
                    let gone = segment.saturating_sub(self.position.segment).saturating_sub(1);
                    let known = self.position.segment > 0;
                    self.position = Position { segment, offset: wal::HEADER };
                    self.page = 0;
                    if gone > 0 && known {
                        return Next::Gone { segments: gone };
                    }
                }
                Look::Frame(file, frame) => {
                    self.position.offset = frame.end();
                    let mut bytes = vec![0; frame.length as usize];
                    let Ok(()) = file.read_exact_at(&mut bytes, frame.offset) else { continue };
                    if let Some(piece) = piece(&bytes) {
                        return Next::Piece(piece);
                    }
                }
                Look::Chunk(chunk) => {
                    let piece = chunk.index(&self.shared.indexes).and_then(|(file, index)| {
                        let page = *index.pages.get(self.page)?;
                        Some(page_piece(&chunk, &file, &index, self.page, &page).unwrap_or_default())
                    });
                    self.page += 1;
                    match piece {
                        Some(piece) if piece.streams.is_empty() => {}
                        Some(piece) => return Next::Packed(piece),
                        None => {
                            self.page = 0;
                            self.position.offset = u64::MAX;
                        }
                    }
                }
            }
        }
    }

    fn look(&self) -> Look {
        let segments = lock(&self.shared.segments);
        let Position { segment, offset } = self.position;
        let go = || segments.after(segment).map_or(Look::End, Look::Go);
        if let Some(wal) = segments.wals.get(&segment) {
            let at = wal.frames.partition_point(|frame| frame.offset < offset);
            return match wal.frames.get(at) {
                Some(frame) => Look::Frame(Arc::clone(&wal.file), *frame),
                None if wal.sealed => go(),
                None => Look::End,
            };
        }
        match segments.chunks.get(&segment) {
            Some(chunk) if offset < chunk.footer.wal_bytes => Look::Chunk(Arc::clone(chunk)),
            _ => go(),
        }
    }
}

fn piece(payload: &[u8]) -> Option<Piece> {
    let (_, mut streams) = wal::open(payload)?;
    let mut piece = Piece::default();
    while let Some((labels, Some(run))) = streams.next(|_| true) {
        let lines = run.lines().map(|(time, line)| (time, line.to_owned())).collect();
        piece.streams.push((Arc::new(labels), lines));
    }
    Some(piece)
}

fn page_piece(
    chunk: &super::chunk::ChunkFile,
    file: &std::fs::File,
    index: &super::chunk::Index,
    number: usize,
    page: &super::chunk::Page,
) -> Option<Piece> {
    let bytes = chunk.page(file, page)?;
    let mut piece = Piece::default();
    for stream in &index.streams {
        for at in stream.runs.iter().filter(|run| run.page as usize == number) {
            let raw = bytes.get(at.at as usize..)?.get(..at.bytes as usize)?;
            let run = run::take_packed(raw, at.lines as usize)?;
            let lines = run.lines().map(|(time, line)| (time, line.to_owned())).collect();
            piece.streams.push((Arc::clone(&stream.labels), lines));
        }
    }
    Some(piece)
}
