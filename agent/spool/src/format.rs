//! The bytes of a segment: a head with the caller's header, then frames of one record each. Numbers are little-endian.
//!
//! A frame's head has a checksum of its own, so that what follows a damaged record can still be counted, and a frame
//! that a crash cut short (the file ends before it does, or only zeros follow) can be told from one that was damaged.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::MAX_RECORD;
use crate::disk::File;

const MAGIC: [u8; 8] = *b"PKSPOOL1";
const COMPRESSED: u32 = 1;
/// Magic, life, first sequence, time, flags, stored length, length, checksum of the header, of all before.
pub(crate) const SEGMENT_HEAD: usize = 52;
/// Stored length, length, sequence, time, checksum of the record, flags, checksum of all before.
pub(crate) const FRAME_HEAD: usize = 36;

/// Compresses what gets smaller by it. Keeps its memory for the next.
#[derive(Default)]
pub(crate) struct Packer {
    compressor: Option<zstd::bulk::Compressor<'static>>,
    buffer: Vec<u8>,
}

/// Below this nothing is gained.
const WORTHWHILE: usize = 64;
/// A compressor that has seen more than this at once is given up for its size.
const LARGE: usize = 256 << 10;

impl Packer {
    pub fn segment(&mut self, life: u64, first: u64, time_ms: i64, header: &[u8], out: &mut Vec<u8>) {
        let (flags, stored) = self.pack(header);
        let mut head = Vec::with_capacity(SEGMENT_HEAD);
        head.extend(MAGIC);
        head.extend(life.to_le_bytes());
        head.extend(first.to_le_bytes());
        head.extend(time_ms.to_le_bytes());
        head.extend(flags.to_le_bytes());
        head.extend((stored.len() as u32).to_le_bytes());
        head.extend((header.len() as u32).to_le_bytes());
        head.extend(crc32fast::hash(stored).to_le_bytes());
        head.extend(crc32fast::hash(&head).to_le_bytes());
        out.extend(head);
        out.extend(stored);
    }

    pub fn frame(&mut self, sequence: u64, time_ms: i64, record: &[u8], out: &mut Vec<u8>) {
        let (flags, stored) = self.pack(record);
        let mut head = Vec::with_capacity(FRAME_HEAD);
        head.extend((stored.len() as u32).to_le_bytes());
        head.extend((record.len() as u32).to_le_bytes());
        head.extend(sequence.to_le_bytes());
        head.extend(time_ms.to_le_bytes());
        head.extend(crc32fast::hash(stored).to_le_bytes());
        head.extend(flags.to_le_bytes());
        head.extend(crc32fast::hash(&head).to_le_bytes());
        out.extend(head);
        out.extend(stored);
    }

    fn pack<'a>(&'a mut self, bytes: &'a [u8]) -> (u32, &'a [u8]) {
        if bytes.len() > LARGE {
            // One of its own, below: the memory goes with it.
            self.compressor = None;
        }
        if bytes.len() < WORTHWHILE || !self.compress(bytes) {
            return (0, bytes);
        }
        if bytes.len() > LARGE {
            self.compressor = None;
        }
        if self.buffer.len() < bytes.len() / 16 * 15 { (COMPRESSED, &self.buffer) } else { (0, bytes) }
    }

    fn compress(&mut self, bytes: &[u8]) -> bool {
        if self.compressor.is_none() {
            self.compressor = zstd::bulk::Compressor::new(1).ok();
        }
        let Some(compressor) = &mut self.compressor else { return false };
        self.buffer.clear();
        self.buffer.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
        compressor.compress_to_buffer(bytes, &mut self.buffer).is_ok()
    }
}

fn unpack(flags: u32, length: u32, stored: &[u8]) -> Option<Bytes> {
    if flags & COMPRESSED == 0 {
        return Some(Bytes::copy_from_slice(stored));
    }
    let bytes = zstd::bulk::decompress(stored, length as usize).ok()?;
    (bytes.len() == length as usize).then(|| bytes.into())
}

/// Reads a file in large pieces, up to an end that is given each time.
pub(crate) struct Source {
    file: Arc<dyn File>,
    buffer: Vec<u8>,
    start: u64,
}

const PIECE: usize = 64 << 10;

impl Source {
    pub fn new(file: Arc<dyn File>) -> Self {
        Self { file, buffer: Vec::new(), start: 0 }
    }

    /// `None`: `end` or the file's own end comes first.
    fn get(&mut self, offset: u64, length: usize, end: u64) -> io::Result<Option<&[u8]>> {
        if offset.saturating_add(length as u64) > end {
            return Ok(None);
        }
        let held = self.start..=self.start + self.buffer.len() as u64;
        if !(held.contains(&offset) && held.contains(&(offset + length as u64))) {
            self.buffer.clear();
            self.buffer.shrink_to(PIECE);
            self.start = offset;
            let want = length.max(PIECE).min(usize::try_from(end - offset).unwrap_or(usize::MAX));
            self.buffer.resize(want, 0);
            let mut filled = 0;
            while filled < want {
                match self.file.read_at(&mut self.buffer[filled..], offset + filled as u64) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) => {
                        self.buffer.clear();
                        return Err(error);
                    }
                }
            }
            self.buffer.truncate(filled);
        }
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        Ok(self.buffer.get(from..from.saturating_add(length)))
    }
}

/// A segment's head, checked.
#[derive(Debug, Clone)]
pub(crate) struct SegmentHead {
    pub life: u64,
    pub first: u64,
    pub time_ms: i64,
    pub header: Bytes,
    /// Where the first frame is.
    pub length: u64,
}

/// `None`: it is damaged, or cut short.
pub(crate) fn read_segment_head(source: &mut Source, end: u64) -> io::Result<Option<SegmentHead>> {
    let Some(bytes) = source.get(0, SEGMENT_HEAD, end)? else { return Ok(None) };
    let mut fields = Fields(bytes);
    let magic = fields.take::<8>();
    let (life, first, time_ms) = (fields.u64(), fields.u64(), fields.u64() as i64);
    let (flags, stored, length, sum) = (fields.u32(), fields.u32(), fields.u32(), fields.u32());
    let good = fields.u32() == crc32fast::hash(&bytes[..SEGMENT_HEAD - 4]);
    if !good || magic != MAGIC || stored as usize > MAX_RECORD || length as usize > MAX_RECORD {
        return Ok(None);
    }
    let Some(bytes) = source.get(SEGMENT_HEAD as u64, stored as usize, end)? else { return Ok(None) };
    if crc32fast::hash(bytes) != sum {
        return Ok(None);
    }
    let Some(header) = unpack(flags, length, bytes) else { return Ok(None) };
    Ok(Some(SegmentHead { life, first, time_ms, header, length: SEGMENT_HEAD as u64 + u64::from(stored) }))
}

/// Where a walk through a segment's frames stands.
#[derive(Debug, Clone)]
pub(crate) struct Scan {
    pub offset: u64,
    /// The sequence after the last good record.
    pub next: u64,
    /// The first record that is damaged; it and all behind it are lost.
    pub first_bad: Option<u64>,
    /// The highest sequence seen in what is lost.
    highest: u64,
    /// Frames of a segment whose head is damaged, but for those that were counted before: from this sequence on.
    pub frames_lost: u64,
    counted_from: u64,
    /// When the last good record was appended, Unix ms.
    pub time_ms: i64,
}

/// A good record.
#[derive(Debug)]
pub(crate) struct Record {
    pub sequence: u64,
    pub bytes: Bytes,
}

#[derive(Clone, Copy)]
struct FrameHead {
    stored: u32,
    length: u32,
    sequence: u64,
    time_ms: i64,
    sum: u32,
    flags: u32,
}

impl Scan {
    pub fn new(head: &SegmentHead) -> Self {
        Self {
            offset: head.length,
            next: head.first,
            first_bad: None,
            highest: 0,
            frames_lost: 0,
            counted_from: 0,
            time_ms: head.time_ms,
        }
    }

    /// For a file whose head is damaged: all records in it are lost, those from `counted_from` on since longer.
    pub fn of_damaged(counted_from: u64) -> Self {
        Self { offset: 0, next: 0, first_bad: Some(0), highest: 0, frames_lost: 0, counted_from, time_ms: 0 }
    }

    /// The next good record, up to `end`. With `bytes` false, its bytes are checked and not given.
    pub fn step(&mut self, source: &mut Source, end: u64, bytes: bool) -> io::Result<Option<Record>> {
        while self.offset < end {
            let Some(head) = source.get(self.offset, FRAME_HEAD, end)?.map(FrameHead::parse) else {
                return Ok(None);
            };
            let Some(head) = head.filter(|head| self.plausible(head)) else {
                if !self.find_next(source, end)? {
                    return Ok(None);
                }
                continue;
            };
            let start = self.offset + FRAME_HEAD as u64;
            let after = start + u64::from(head.stored);
            if self.first_bad.is_some() || head.sequence != self.next {
                self.first_bad.get_or_insert(self.next);
                self.highest = self.highest.max(head.sequence);
                self.frames_lost += u64::from(head.sequence < self.counted_from);
                self.offset = after.min(end);
                continue;
            }
            let Some(stored) = source.get(start, head.stored as usize, end)? else { return Ok(None) };
            let good = crc32fast::hash(stored) == head.sum;
            let record = match (good, bytes) {
                (true, true) => unpack(head.flags, head.length, stored),
                (true, false) => Some(Bytes::new()),
                (false, _) => None,
            };
            self.offset = after;
            let Some(bytes) = record else {
                self.first_bad = Some(self.next);
                self.highest = head.sequence;
                continue;
            };
            self.next = self.next.saturating_add(1);
            self.time_ms = head.time_ms;
            return Ok(Some(Record { sequence: head.sequence, bytes }));
        }
        Ok(None)
    }

    /// How many records above `acked` are lost. `after`: the first sequence of the segment behind, where that is known
    /// to follow without a gap.
    pub fn lost(&self, after: Option<u64>, acked: u64) -> u64 {
        let last = match (after, self.first_bad) {
            (Some(after), _) => after.saturating_sub(1),
            (None, Some(bad)) => self.highest.max(bad),
            (None, None) => return 0,
        };
        let first = self.first_bad.unwrap_or(self.next).max(acked.saturating_add(1));
        last.saturating_add(1).saturating_sub(first)
    }

    /// Sequences of a life rise one by one: what jumps far is no frame.
    fn plausible(&self, head: &FrameHead) -> bool {
        let from = if self.first_bad.is_some() { self.highest.max(self.next) } else { self.next };
        head.sequence >= from && head.sequence - from < 1 << 32
    }

    /// Moves on to the next bytes that are a frame's head. False: there are none; where there is more than the zeros
    /// of a write that a crash cut short, one record at least was damaged.
    fn find_next(&mut self, source: &mut Source, end: u64) -> io::Result<bool> {
        let mut zeros = true;
        let mut at = self.offset;
        while let Some(bytes) = source.get(at, FRAME_HEAD, end)? {
            zeros &= bytes.first() == Some(&0);
            if at > self.offset && FrameHead::parse(bytes).is_some_and(|head| self.plausible(&head)) {
                self.first_bad.get_or_insert(self.next);
                self.offset = at;
                return Ok(true);
            }
            at += 1;
        }
        let rest = usize::try_from(end.saturating_sub(at)).unwrap_or(0).min(FRAME_HEAD);
        zeros &= source.get(at, rest, end)?.is_none_or(|bytes| bytes.iter().all(|&byte| byte == 0));
        if !zeros {
            self.first_bad.get_or_insert(self.next);
            self.highest = self.highest.max(self.next);
            self.offset = end;
        }
        Ok(false)
    }
}

impl FrameHead {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let (stored, length, sequence) = (fields.u32(), fields.u32(), fields.u64());
        let (time_ms, sum, flags) = (fields.u64() as i64, fields.u32(), fields.u32());
        // The checksum last: this is asked at each byte behind a damaged one.
        let fits = stored <= length && length as usize <= MAX_RECORD && flags <= COMPRESSED;
        (fits && bytes.len() >= FRAME_HEAD && fields.u32() == crc32fast::hash(&bytes[..FRAME_HEAD - 4]))
            .then_some(Self { stored, length, sequence, time_ms, sum, flags })
    }
}

/// Fields off the front; zeros when there are no more.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let Some((field, rest)) = self.0.split_first_chunk::<N>() else { return [0; N] };
        self.0 = rest;
        *field
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}
