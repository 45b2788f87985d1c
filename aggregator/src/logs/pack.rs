//! The packer thread: makes a chunk file of each sealed write-ahead file, and keeps the bounds of size and age.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};

use hashbrown::HashMap;
use picket_proto::model::Labels;

use super::chunk::{self, ChunkFile, Footer, Index, Page, RunAt, StreamAt};
use super::run::put_packed;
use super::segments::Segments;
use super::{Shared, labels, telemetry, wal};
use crate::clock::millis;
use crate::durable::{self, Packer};
use crate::log::frame::put_u64;
use crate::store::lock;

/// Text of one page, about.
const PAGE_BYTES: usize = 256 << 10;
const LEVEL: i32 = 3;
/// Write-ahead files that are kept for a forwarder which is behind.
const KEPT_FOR_FORWARDER: usize = 8;

impl Packer for Shared {
    type Segments = Segments;

    fn segments(&self) -> &Mutex<Segments> {
        &self.segments
    }

    fn sealed(&self) -> &Condvar {
        &self.sealed
    }

    fn closing(&self) -> bool {
        lock(&self.queue).closing
    }

    fn keep_bounds(&self) {
        keep_bounds(self);
    }

    fn next(&self, segments: &Segments) -> Option<u64> {
        next(self, segments)
    }

    fn pack(&self, id: u64) -> std::io::Result<()> {
        pack(self, id)
    }

    fn failed(&self, id: u64) {
        metrics::counter!(telemetry::ERRORS).increment(1);
        let _ = std::fs::remove_file(chunk::temporary_path(&self.options.dir, id));
    }
}

fn next(shared: &Shared, segments: &Segments) -> Option<u64> {
    let covered = lock(&shared.marks).covered;
    let sealed = segments.wals.iter().filter(|(_, wal)| wal.sealed);
    let crowded = sealed.clone().count() > KEPT_FOR_FORWARDER;
    let forwarding = shared.forwarding.load(Ordering::Relaxed);
    sealed.map(|(&id, _)| id).find(|&id| id <= covered && (crowded || id < forwarding))
}

/// A line of the write-ahead file: which stream, when, where its text is.
struct Line {
    stream: u32,
    time: i64,
    at: u32,
    length: u32,
}

fn pack(shared: &Shared, id: u64) -> std::io::Result<()> {
    let dir = &shared.options.dir;
    let (wal_bytes, newest_ms) = {
        let segments = lock(&shared.segments);
        let Some(wal) = segments.wals.get(&id) else { return Ok(()) };
        (wal.bytes, wal.newest_ms)
    };
    let bytes = std::fs::read(wal::path(dir, id))?;
    let new = chunk::temporary_path(dir, id);
    write_chunks(&new, id, &bytes, wal_bytes, newest_ms)?;
    durable::replace(&new, &chunk::path(dir, id))?;
    let Some(file) = ChunkFile::open(dir, id)? else {
        return Err(std::io::Error::other("the chunk file does not read back"));
    };
    {
        let mut segments = lock(&shared.segments);
        segments.chunks.insert(id, Arc::new(file));
        segments.wals.remove(&id);
    }
    std::fs::remove_file(wal::path(dir, id))
}

fn write_chunks(path: &Path, id: u64, bytes: &[u8], wal_bytes: u64, newest_ms: i64) -> std::io::Result<()> {
    let (streams, lines) = gather(bytes);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut header = chunk::MAGIC.to_vec();
    put_u64(&mut header, id);
    out.write_all(&header)?;
    let mut at = header.len() as u64;
    let mut index = Index::default();
    let mut pages = Pages { raw: Vec::new(), text: 0, packer: zstd::bulk::Compressor::new(LEVEL)? };
    let text = |line: &Line| {
        let end = line.at as usize + line.length as usize;
        // It was checked when it was gathered.
        bytes.get(line.at as usize..end).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or_default()
    };
    for stream in lines.chunk_by(|a, b| a.stream == b.stream) {
        let Some(labels) = stream.first().and_then(|line| streams.get(line.stream as usize)) else {
            continue;
        };
        let mut runs = Vec::new();
        let mut rest = stream;
        while !rest.is_empty() {
            let mut room = PAGE_BYTES.saturating_sub(pages.text);
            let fits = rest.iter().take_while(|line| {
                let had_room = room > 0;
                room = room.saturating_sub(line.length as usize + 1);
                had_room
            });
            let count = fits.count();
            let (now, later) = rest.split_at(count);
            rest = later;
            if let (Some(first), Some(last)) = (now.first(), now.last()) {
                let begin = pages.raw.len();
                put_packed(now.iter().map(|line| (line.time, text(line))), &mut pages.raw);
                let text_bytes: usize = now.iter().map(|line| line.length as usize).sum();
                pages.text += text_bytes + now.len();
                runs.push(RunAt {
                    page: index.pages.len() as u32,
                    at: begin as u32,
                    bytes: (pages.raw.len() - begin) as u32,
                    lines: now.len() as u32,
                    text_bytes: text_bytes as u32,
                    min_ns: first.time,
                    max_ns: last.time,
                });
            }
            if pages.text >= PAGE_BYTES {
                pages.flush(&mut out, &mut at, &mut index)?;
            }
        }
        index.streams.push(StreamAt { labels: Arc::clone(labels), runs });
    }
    pages.flush(&mut out, &mut at, &mut index)?;
    let raw = index.put();
    let packed = pages.packer.compress(&raw)?;
    out.write_all(&packed)?;
    let footer = Footer {
        index_at: at,
        index_packed: packed.len() as u32,
        index_bytes: raw.len() as u32,
        index_crc: crc32fast::hash(&packed),
        min_ns: lines.iter().map(|line| line.time).min().unwrap_or(i64::MAX),
        max_ns: lines.iter().map(|line| line.time).max().unwrap_or(i64::MIN),
        newest_ms,
        lines: lines.len() as u64,
        wal_bytes,
    };
    let mut end = Vec::new();
    footer.put(&mut end);
    out.write_all(&end)?;
    out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
}

struct Pages<'a> {
    raw: Vec<u8>,
    text: usize,
    packer: zstd::bulk::Compressor<'a>,
}

impl Pages<'_> {
    fn flush(
        &mut self,
        out: &mut impl std::io::Write,
        at: &mut u64,
        index: &mut Index,
    ) -> std::io::Result<()> {
        if self.raw.is_empty() {
            return Ok(());
        }
        let packed = self.packer.compress(&self.raw)?;
        out.write_all(&packed)?;
        index.pages.push(Page {
            at: *at,
            packed: packed.len() as u32,
            bytes: self.raw.len() as u32,
            crc: crc32fast::hash(&packed),
        });
        *at += packed.len() as u64;
        self.raw.clear();
        self.text = 0;
        Ok(())
    }
}

/// All lines of a write-ahead file, by stream (alike ones beside each other) and time.
fn gather(bytes: &[u8]) -> (Vec<Arc<Labels>>, Vec<Line>) {
    let mut numbers: HashMap<Labels, u32> = HashMap::new();
    let mut lines = Vec::new();
    let base = bytes.as_ptr() as usize;
    for frame in wal::read(bytes, |_| {}).frames {
        let payload = bytes.get(frame.offset as usize..frame.end() as usize).unwrap_or_default();
        let Some((_, mut streams)) = wal::open(payload) else { continue };
        while let Some((labels, Some(run))) = streams.next(|_| true) {
            let next = numbers.len() as u32;
            let stream = *numbers.entry(labels).or_insert(next);
            for (time, line) in run.lines() {
                let at = (line.as_ptr() as usize).saturating_sub(base) as u32;
                lines.push(Line { stream, time, at, length: line.len() as u32 });
            }
        }
    }
    let mut ordered: Vec<(String, Labels, u32)> =
        numbers.into_iter().map(|(labels, number)| (labels::text(labels.iter()), labels, number)).collect();
    ordered.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let mut ranks = vec![0u32; ordered.len()];
    let mut streams = Vec::with_capacity(ordered.len());
    for (rank, (_, labels, number)) in ordered.into_iter().enumerate() {
        if let Some(place) = ranks.get_mut(number as usize) {
            *place = rank as u32;
        }
        streams.push(Arc::new(labels));
    }
    for line in &mut lines {
        line.stream = ranks.get(line.stream as usize).copied().unwrap_or_default();
    }
    // Stable: lines of one time stay in the order in which they came.
    lines.sort_by_key(|line| (line.stream, line.time));
    (streams, lines)
}

/// Drops the oldest segments while all together are too large, and those that are too old.
fn keep_bounds(shared: &Shared) {
    let now_ms = shared.options.clock.now_ms();
    let max_age_ms = millis(shared.options.max_age);
    let mut dropped: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut segments = lock(&shared.segments);
    loop {
        let too_large = segments.bytes() > shared.options.max_bytes;
        let Some((&id, oldest)) = segments.chunks.first_key_value() else { break };
        let reason = match () {
            () if too_large => "size",
            () if now_ms.saturating_sub(oldest.footer.newest_ms) > max_age_ms => "age",
            () => break,
        };
        if !durable::remove(&oldest.path) {
            break;
        }
        *dropped.entry(reason).or_default() += oldest.footer.lines;
        segments.chunks.remove(&id);
        shared.indexes.forget(id);
    }
    let (bytes, count, oldest_ns) = (segments.bytes(), segments.count(), segments.oldest_ns());
    drop(segments);
    for (reason, lines) in dropped {
        metrics::counter!(telemetry::DROPPED, "reason" => reason).increment(lines);
    }
    metrics::gauge!(telemetry::STORE_BYTES).set(bytes as f64);
    metrics::gauge!(telemetry::SEGMENTS).set(count as f64);
    if let Some(ns) = oldest_ns {
        metrics::gauge!(telemetry::OLDEST).set(ns as f64 / 1e9);
    }
    let mut streams = lock(&shared.streams);
    streams.sweep(now_ms);
    metrics::gauge!(telemetry::STREAMS).set(streams.len() as f64);
}
