//! The write-ahead file: a header, then a frame a batch, `[length u32][crc32 u32][payload]`, little-endian, as they came.

use std::path::{Path, PathBuf};

use picket_proto::model::{Labels, NodeId};

use super::run::{Run, put_plain, skip_plain, take_plain};
use super::{Digest, Entry, Origin, labels};
pub use crate::durable::HEADER;
use crate::log::frame::{self, Fields, put_bytes, put_i64, put_u32, put_u64};

pub const MAGIC: [u8; 8] = *b"PKTLINE1";
const FRAME_HEAD: usize = 8;
const AGENT: u8 = 1;
const PUSH: u8 = 2;

pub fn path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:020}.wal"))
}

/// Where a frame's payload stands in the file, and the times of its lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameAt {
    pub offset: u64,
    pub length: u32,
    pub lines: u32,
    pub min_ns: i64,
    pub max_ns: i64,
}

impl FrameAt {
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.length)
    }
}

/// What a frame's payload begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub source: Source,
    pub received_ms: i64,
    pub min_ns: i64,
    pub max_ns: i64,
    pub lines: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Agent { node: NodeId, life: u64, sequence: u64 },
    Push { digest: Digest },
}

/// Appends a batch's frame; says where its payload stands in `out`. Nothing for one that was taken before.
pub fn put(entry: &Entry, out: &mut Vec<u8>) -> Option<FrameAt> {
    let kind = match &entry.origin {
        Origin::Agent { .. } => AGENT,
        Origin::Push { .. } => PUSH,
        Origin::Again => return None,
    };
    let at = frame::begin(out, kind);
    match &entry.origin {
        Origin::Agent { node, life, sequence } => {
            put_bytes(out, node.as_str().as_bytes());
            put_u64(out, *life);
            put_u64(out, *sequence);
        }
        Origin::Push { digest } => out.extend_from_slice(digest),
        Origin::Again => {}
    }
    let times = || entry.streams.iter().flat_map(|stream| &stream.times).copied();
    let (min_ns, max_ns) = (times().min().unwrap_or(i64::MAX), times().max().unwrap_or(i64::MIN));
    let lines = entry.streams.iter().map(|stream| stream.times.len()).sum::<usize>() as u32;
    put_i64(out, entry.received_ms);
    put_i64(out, min_ns);
    put_i64(out, max_ns);
    put_u32(out, lines);
    put_u32(out, entry.streams.len() as u32);
    for stream in &entry.streams {
        labels::put(&stream.labels, out);
        put_plain(&stream.times, &stream.lengths, &stream.text, out);
    }
    frame::end(out, at);
    let offset = at + FRAME_HEAD;
    let length = (out.len() - offset) as u32;
    Some(FrameAt { offset: offset as u64, length, lines, min_ns, max_ns })
}

/// A payload's streams, one after the other.
pub struct Streams<'a> {
    fields: Fields<'a>,
    left: u32,
}

/// Reads a payload's head; what follows are its streams.
pub fn open(payload: &[u8]) -> Option<(Head, Streams<'_>)> {
    let mut fields = Fields(payload);
    let source = match fields.u8()? {
        AGENT => Source::Agent {
            node: NodeId::new(fields.str()?).ok()?,
            life: fields.u64()?,
            sequence: fields.u64()?,
        },
        PUSH => Source::Push { digest: fields.take(16)?.try_into().ok()? },
        _ => return None,
    };
    let head = Head {
        source,
        received_ms: fields.i64()?,
        min_ns: fields.i64()?,
        max_ns: fields.i64()?,
        lines: fields.u32()?,
    };
    let left = fields.u32()?;
    Some((head, Streams { fields, left }))
}

impl<'a> Streams<'a> {
    /// The next stream's labels, and its lines if they are wanted.
    pub fn next(&mut self, wanted: impl FnOnce(&Labels) -> bool) -> Option<(Labels, Option<Run<'a>>)> {
        self.left = self.left.checked_sub(1)?;
        let labels = labels::take(&mut self.fields)?;
        if wanted(&labels) {
            let run = take_plain(&mut self.fields)?;
            Some((labels, Some(run)))
        } else {
            skip_plain(&mut self.fields)?;
            Some((labels, None))
        }
    }
}

/// What a read of a whole file found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub frames: Vec<FrameAt>,
    pub corrupt: u64,
    /// Behind it stands a torn tail, if anything.
    pub good_end: u64,
    pub newest_ms: i64,
}

/// Finds the good frames of a file's bytes and tells the head of each.
pub fn read(bytes: &[u8], mut tell: impl FnMut(&Head)) -> Found {
    let mut found = Found::default();
    if !bytes.starts_with(&MAGIC) || (bytes.len() as u64) < HEADER {
        return found;
    }
    found.good_end = HEADER;
    let mut at = HEADER as usize;
    while let Some(mut head) = bytes.get(at..at + FRAME_HEAD).map(Fields) {
        let (Some(length), Some(crc)) = (head.u32(), head.u32()) else { break };
        let begin = at + FRAME_HEAD;
        let Some(payload) = begin.checked_add(length as usize).and_then(|end| bytes.get(begin..end)) else {
            break;
        };
        if length == 0 {
            break;
        }
        at = begin + payload.len();
        match open(payload).filter(|_| crc32fast::hash(payload) == crc) {
            Some((head, _)) => {
                found.newest_ms = found.newest_ms.max(head.received_ms);
                found.frames.push(FrameAt {
                    offset: begin as u64,
                    length,
                    lines: head.lines,
                    min_ns: head.min_ns,
                    max_ns: head.max_ns,
                });
                tell(&head);
                found.good_end = at as u64;
            }
            None => found.corrupt += 1,
        }
    }
    found
}
