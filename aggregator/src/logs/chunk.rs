//! A chunk file: one segment's lines ordered by stream and time, in compressed pages, and an index of which stream has lines
//! where. Written once; whole or not there.
//!
//! Header, pages (zstd, a checksum each in the index), index (zstd), footer. A *run* is lines of one stream within a page; a page holds
//! runs of many small streams or a part of a large one, so that small streams compress as well as large ones.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use hashbrown::HashMap;
use picket_proto::model::Labels;

use super::{labels, telemetry};
use crate::log::frame::{Fields, put_i64, put_u32, put_u64};
use crate::store::lock;

pub const MAGIC: [u8; 8] = *b"PKTCHNK1";
const FOOTER: usize = 80;
/// More than any page or index of ours is, unpacked.
const MAX_PAGE: usize = 64 << 20;
const MAX_INDEX: usize = 256 << 20;
/// Unpacked indexes that are kept, roughly in bytes.
const CACHED: usize = 32 << 20;

pub fn path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:020}.chunks"))
}

pub fn temporary_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:020}.chunks.new"))
}

/// What stands at the end of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    pub index_at: u64,
    pub index_packed: u32,
    pub index_bytes: u32,
    pub index_crc: u32,
    pub min_ns: i64,
    pub max_ns: i64,
    /// When its last batch came, Unix ms.
    pub newest_ms: i64,
    pub lines: u64,
    /// How long the write-ahead file was that it was made of.
    pub wal_bytes: u64,
}

impl Footer {
    pub fn put(&self, out: &mut Vec<u8>) {
        let at = out.len();
        put_u64(out, self.index_at);
        put_u32(out, self.index_packed);
        put_u32(out, self.index_bytes);
        put_u32(out, self.index_crc);
        put_i64(out, self.min_ns);
        put_i64(out, self.max_ns);
        put_i64(out, self.newest_ms);
        put_u64(out, self.lines);
        put_u64(out, self.wal_bytes);
        // Room for what a later version may say.
        put_u64(out, 0);
        let crc = crc32fast::hash(out.get(at..).unwrap_or_default());
        put_u32(out, crc);
        out.extend_from_slice(&MAGIC);
    }

    fn take(bytes: &[u8]) -> Option<Self> {
        let body = bytes.strip_suffix(&MAGIC)?;
        let (body, crc) = body.split_last_chunk::<4>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut fields = Fields(body);
        Some(Self {
            index_at: fields.u64()?,
            index_packed: fields.u32()?,
            index_bytes: fields.u32()?,
            index_crc: fields.u32()?,
            min_ns: fields.i64()?,
            max_ns: fields.i64()?,
            newest_ms: fields.i64()?,
            lines: fields.u64()?,
            wal_bytes: fields.u64()?,
        })
    }
}

/// A compressed page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    pub at: u64,
    pub packed: u32,
    pub bytes: u32,
    pub crc: u32,
}

/// Lines of one stream within a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunAt {
    pub page: u32,
    pub at: u32,
    pub bytes: u32,
    pub lines: u32,
    /// Of the lines alone.
    pub text_bytes: u32,
    pub min_ns: i64,
    pub max_ns: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamAt {
    pub labels: Arc<Labels>,
    pub runs: Vec<RunAt>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Index {
    pub pages: Vec<Page>,
    pub streams: Vec<StreamAt>,
}

impl Index {
    pub fn put(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u32(&mut out, self.pages.len() as u32);
        for page in &self.pages {
            put_u64(&mut out, page.at);
            for value in [page.packed, page.bytes, page.crc] {
                put_u32(&mut out, value);
            }
        }
        put_u32(&mut out, self.streams.len() as u32);
        for stream in &self.streams {
            labels::put(&stream.labels, &mut out);
            put_u32(&mut out, stream.runs.len() as u32);
            for run in &stream.runs {
                for value in [run.page, run.at, run.bytes, run.lines, run.text_bytes] {
                    put_u32(&mut out, value);
                }
                put_i64(&mut out, run.min_ns);
                put_i64(&mut out, run.max_ns);
            }
        }
        out
    }

    fn take(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let mut index = Self::default();
        for _ in 0..fields.u32()? {
            index.pages.push(Page {
                at: fields.u64()?,
                packed: fields.u32()?,
                bytes: fields.u32()?,
                crc: fields.u32()?,
            });
        }
        for _ in 0..fields.u32()? {
            let labels = Arc::new(labels::take(&mut fields)?);
            let mut runs = Vec::new();
            for _ in 0..fields.u32()? {
                runs.push(RunAt {
                    page: fields.u32()?,
                    at: fields.u32()?,
                    bytes: fields.u32()?,
                    lines: fields.u32()?,
                    text_bytes: fields.u32()?,
                    min_ns: fields.i64()?,
                    max_ns: fields.i64()?,
                });
            }
            index.streams.push(StreamAt { labels, runs });
        }
        Some(index)
    }

    fn memory(&self) -> usize {
        let stream = |s: &StreamAt| {
            96 + s.runs.len() * size_of::<RunAt>()
                + s.labels.iter().map(|(n, v)| 64 + n.len() + v.len()).sum::<usize>()
        };
        self.pages.len() * size_of::<Page>() + self.streams.iter().map(stream).sum::<usize>()
    }
}

/// A chunk file that is there. It is opened when it is read, and may then be gone.
#[derive(Debug)]
pub struct ChunkFile {
    pub id: u64,
    pub path: PathBuf,
    pub bytes: u64,
    pub footer: Footer,
}

impl ChunkFile {
    /// Reads the footer. `Ok(None)`: this is no chunk file, or a damaged one.
    pub fn open(dir: &Path, id: u64) -> std::io::Result<Option<Self>> {
        let path = path(dir, id);
        let file = File::open(&path)?;
        let bytes = file.metadata()?.len();
        let Some(at) = bytes.checked_sub(FOOTER as u64) else { return Ok(None) };
        let mut end = [0; FOOTER];
        file.read_exact_at(&mut end, at)?;
        Ok(Footer::take(&end).map(|footer| Self { id, path, bytes, footer }))
    }

    /// The open file and its index; `None` when retention was faster, or it is damaged (counted).
    pub fn index(&self, cache: &IndexCache) -> Option<(File, Arc<Index>)> {
        let file = File::open(&self.path).ok()?;
        if let Some(index) = cache.get(self.id) {
            return Some((file, index));
        }
        let footer = &self.footer;
        let packed = read(&file, footer.index_at, footer.index_packed);
        let index = packed
            .filter(|packed| crc32fast::hash(packed) == footer.index_crc)
            .and_then(|packed| unpack(&packed, footer.index_bytes, MAX_INDEX))
            .and_then(|bytes| Index::take(&bytes));
        let Some(index) = index else {
            self.damaged("its index can't be read: none of its lines are told");
            return None;
        };
        let index = Arc::new(index);
        cache.put(self.id, &index);
        Some((file, index))
    }

    /// A page, unpacked; `None` when it is damaged (counted).
    pub fn page(&self, file: &File, page: &Page) -> Option<Vec<u8>> {
        let bytes = read(file, page.at, page.packed)
            .filter(|packed| crc32fast::hash(packed) == page.crc)
            .and_then(|packed| unpack(&packed, page.bytes, MAX_PAGE));
        if bytes.is_none() {
            self.damaged("a page can't be read: its lines are not told");
        }
        bytes
    }

    fn damaged(&self, what: &str) {
        metrics::counter!(telemetry::CORRUPT).increment(1);
        tracing::warn!(file = %self.path.display(), "the chunk file is damaged; {what}");
    }
}

fn read(file: &File, at: u64, length: u32) -> Option<Vec<u8>> {
    // Not more than there is, whatever the file says.
    let end = at.checked_add(u64::from(length))?;
    if file.metadata().ok()?.len() < end {
        return None;
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, at).ok()?;
    Some(bytes)
}

fn unpack(packed: &[u8], bytes: u32, limit: usize) -> Option<Vec<u8>> {
    let bytes = bytes as usize;
    if bytes > limit {
        return None;
    }
    zstd::bulk::decompress(packed, bytes).ok().filter(|got| got.len() == bytes)
}

/// The indexes that were read last.
#[derive(Default)]
pub struct IndexCache(Mutex<Cache>);

#[derive(Default)]
struct Cache {
    known: HashMap<u64, (Arc<Index>, usize, u64)>,
    bytes: usize,
    clock: u64,
}

impl IndexCache {
    fn get(&self, id: u64) -> Option<Arc<Index>> {
        let mut cache = lock(&self.0);
        cache.clock += 1;
        let now = cache.clock;
        cache.known.get_mut(&id).map(|(index, _, used)| {
            *used = now;
            Arc::clone(index)
        })
    }

    fn put(&self, id: u64, index: &Arc<Index>) {
        let bytes = index.memory();
        if bytes > CACHED / 2 {
            return;
        }
        let mut cache = lock(&self.0);
        while cache.bytes + bytes > CACHED {
            let Some(oldest) = cache.known.iter().min_by_key(|(_, (_, _, used))| *used).map(|(&id, _)| id)
            else {
                break;
            };
            cache.remove(oldest);
        }
        cache.remove(id);
        cache.clock += 1;
        let now = cache.clock;
        cache.bytes += bytes;
        cache.known.insert(id, (Arc::clone(index), bytes, now));
    }

    pub fn forget(&self, id: u64) {
        lock(&self.0).remove(id);
    }
}

impl Cache {
    fn remove(&mut self, id: u64) {
        if let Some((_, bytes, _)) = self.known.remove(&id) {
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_footer_reads_back_and_notices_a_flipped_bit() {
        let footer = Footer {
            index_at: 99,
            index_packed: 5,
            index_bytes: 6,
            index_crc: 7,
            min_ns: -1,
            max_ns: 2,
            newest_ms: 3,
            lines: 4,
            wal_bytes: 8,
        };
        let mut bytes = Vec::new();
        footer.put(&mut bytes);
        assert_eq!(bytes.len(), FOOTER);
        assert_eq!(Footer::take(&bytes), Some(footer));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            if let Some(byte) = bad.get_mut(at) {
                *byte ^= 1;
            }
            assert_eq!(Footer::take(&bad), None, "bit flipped at {at}");
        }
    }

    proptest! {
        #[test]
        fn a_foreign_index_does_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Index::take(&bytes);
            let _ = Footer::take(&bytes);
        }
    }
}
