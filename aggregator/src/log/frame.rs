//! The bytes of a segment: a header, then frames, each `[length u32][crc32 u32][payload]`, all little-endian.
//!
//! A payload is a kind and its fields. Nodes, families and lists of series ("shapes") have numbers of the segment's own;
//! series are named by the node's slots. Everything is defined before it is named.

use std::io::Read;

pub const MAGIC: [u8; 8] = *b"PKTLOG01";
pub const HEADER: usize = crate::durable::HEADER as usize;
/// The largest payload.
pub const MAX_PAYLOAD: usize = 256 << 20;
/// Instead of a shape's number: the slots follow.
pub const INLINE: u32 = u32::MAX;

pub const NODE: u8 = 1;
pub const FAMILY: u8 = 2;
pub const SERIES: u8 = 3;
pub const SHAPE: u8 = 4;
pub const BATCH: u8 = 5;

/// Begins a frame at the buffer's end; [`end`] fills in length and checksum.
pub fn begin(out: &mut Vec<u8>, kind: u8) -> usize {
    let at = out.len();
    out.extend_from_slice(&[0; 8]);
    out.push(kind);
    at
}

pub fn end(out: &mut [u8], at: usize) {
    let Some((head, payload)) = out.get_mut(at..).and_then(|frame| frame.split_at_mut_checked(8)) else {
        return;
    };
    let crc = crc32fast::hash(payload).to_le_bytes();
    let length = (payload.len() as u32).to_le_bytes();
    for (to, from) in head.iter_mut().zip(length.iter().chain(&crc)) {
        *to = *from;
    }
}

pub fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub fn put_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, bytes.len() as u32);
    out.extend_from_slice(bytes);
}

/// Reads fields off the front of a payload; `None` when it ends early.
#[derive(Clone, Copy)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    pub fn str(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    pub fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    /// A count and that many fields of `width` bytes each, undecoded.
    pub fn columns(&mut self, count: usize, width: usize) -> Option<&'a [u8]> {
        self.take(count.checked_mul(width)?)
    }
}

/// The head of a batch's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHead {
    pub namespace: u32,
    pub life: u64,
    pub sequence: u64,
    pub received_ms: i64,
    pub fresh_ms: i64,
}

impl BatchHead {
    pub fn put(self, out: &mut Vec<u8>) {
        put_u32(out, self.namespace);
        put_u64(out, self.life);
        put_u64(out, self.sequence);
        put_i64(out, self.received_ms);
        put_i64(out, self.fresh_ms);
    }

    pub fn take(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            namespace: fields.u32()?,
            life: fields.u64()?,
            sequence: fields.u64()?,
            received_ms: fields.i64()?,
            fresh_ms: fields.i64()?,
        })
    }
}

/// What came next in a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// The payload is in the buffer.
    Frame,
    /// A frame whose checksum is wrong; the next one may be good.
    Corrupt,
    /// The segment ends here, in order or within a frame.
    End { torn: bool },
}

/// Reads frames. Counts where the last good one ended.
pub struct Frames<R> {
    from: R,
    at: u64,
    pub good_end: u64,
    pub payload: Vec<u8>,
}

impl<R: Read> Frames<R> {
    /// `None`: no header of ours.
    pub fn new(mut from: R) -> Option<Self> {
        let mut header = [0; HEADER];
        from.read_exact(&mut header).ok()?;
        let start = HEADER as u64;
        header.starts_with(&MAGIC).then(|| Self { from, at: start, good_end: start, payload: Vec::new() })
    }

    pub fn next(&mut self) -> Next {
        let mut head = [0; 8];
        let mut have = 0;
        while let Some(rest) = head.get_mut(have..).filter(|rest| !rest.is_empty()) {
            match self.from.read(rest) {
                Ok(0) => return Next::End { torn: have > 0 },
                Ok(n) => have += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return Next::End { torn: true },
            }
        }
        let mut fields = Fields(&head);
        let (Some(length), Some(crc)) = (fields.u32(), fields.u32()) else { return Next::End { torn: true } };
        if length == 0 || length as usize > MAX_PAYLOAD {
            return Next::End { torn: true };
        }
        self.payload.clear();
        // Grows with what is there, not with what the length says.
        match (&mut self.from).take(u64::from(length)).read_to_end(&mut self.payload) {
            Ok(n) if n == length as usize => {}
            _ => return Next::End { torn: true },
        }
        self.at += 8 + u64::from(length);
        if crc32fast::hash(&self.payload) != crc {
            return Next::Corrupt;
        }
        self.good_end = self.at;
        Next::Frame
    }
}
