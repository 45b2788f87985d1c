//! Segment files: names, reading them whether compressed or not, and what happens to them at start.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use hashbrown::HashMap;
use picket_proto::model::NodeId;

use super::frame::{BATCH, BatchHead, Fields, Frames, HEADER, NODE, Next};
use super::watermarks::Watermarks;
use super::{LogOptions, Shared, telemetry};
use crate::durable::{OpenError, io};
use crate::store::lock;

const RAW: &str = "log";
const PACKED: &str = "log.zst";
const TEMPORARY: &str = "log.zst.new";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    pub bytes: u64,
    pub packed: bool,
    /// When its last batch came, Unix ms.
    pub newest_ms: i64,
    /// The writer is done with it.
    pub sealed: bool,
}

/// What was found at start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    pub segments: usize,
    pub bytes: u64,
    /// Nodes' lives with a watermark.
    pub lives: usize,
    /// Frames whose checksum was wrong: their samples are lost.
    pub corrupt_frames: u64,
    /// Bytes cut off the end of the last segment: a write that a crash interrupted, never acknowledged.
    pub torn_bytes: u64,
}

pub fn raw_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:020}.{RAW}"))
}

pub fn packed_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:020}.{PACKED}"))
}

pub fn temporary_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:020}.{TEMPORARY}"))
}

pub fn path(dir: &Path, id: u64, packed: bool) -> PathBuf {
    if packed { packed_path(dir, id) } else { raw_path(dir, id) }
}

/// The segments as they are now, oldest first, with the time of their last batch.
pub(super) fn paths(shared: &Shared) -> Vec<SegmentPath> {
    let dir = shared.options.dir.clone();
    lock(&shared.segments)
        .iter()
        .map(|(&id, info)| SegmentPath {
            dir: dir.clone(),
            id,
            packed: info.packed,
            newest_ms: info.newest_ms,
        })
        .collect()
}

#[derive(Debug, Clone)]
pub struct SegmentPath {
    dir: PathBuf,
    id: u64,
    packed: bool,
    pub newest_ms: i64,
}

pub type Source = Frames<Box<dyn Read + Send>>;

impl SegmentPath {
    /// Opens it. `None` when the bound has dropped it meanwhile, or it can't be read.
    pub fn open(&self) -> Option<Source> {
        // It may have been compressed since it was listed.
        [self.packed, true].into_iter().find_map(|packed| open(&path(&self.dir, self.id, packed), packed))
    }
}

fn open(path: &Path, packed: bool) -> Option<Source> {
    let file = File::open(path).ok()?;
    let read: Box<dyn Read + Send> = if packed {
        Box::new(BufReader::with_capacity(256 << 10, zstd::Decoder::new(file).ok()?))
    } else {
        Box::new(BufReader::with_capacity(256 << 10, file))
    };
    Frames::new(read)
}

/// Lists the folder, reads every segment that the checkpoint doesn't cover, and cuts the torn tail of the last.
pub fn recover(
    options: &LogOptions,
) -> Result<(Recovered, BTreeMap<u64, SegmentInfo>, Watermarks), OpenError> {
    let dir = &options.dir;
    let mut segments = list(dir)?;
    let mut marks = match Watermarks::load(dir) {
        Ok(found) => found.unwrap_or_default(),
        Err(damaged) => {
            tracing::error!(dir = %dir.display(), damaged, "the log's checkpoint can't be used: reading all segments instead; lives whose segments are gone may be counted twice if replayed");
            Watermarks::default()
        }
    };
    let mut recovered = Recovered::default();
    let mut gone = Vec::new();
    for (&id, info) in segments.range_mut(marks.covered.saturating_add(1)..) {
        let file = path(dir, id, info.packed);
        let scan = scan(&file, info.packed, &mut marks);
        recovered.corrupt_frames += scan.corrupt;
        if scan.newest_ms > 0 {
            info.newest_ms = scan.newest_ms;
        }
        if !info.packed && scan.good_end < info.bytes {
            recovered.torn_bytes += info.bytes - scan.good_end;
            if scan.good_end <= HEADER as u64 {
                std::fs::remove_file(&file).map_err(io("remove the empty segment", &file))?;
                gone.push(id);
                continue;
            }
            let open = File::options().write(true).open(&file).map_err(io("open", &file))?;
            open.set_len(scan.good_end).map_err(io("cut the torn tail of", &file))?;
            open.sync_all().map_err(io("sync", &file))?;
            info.bytes = scan.good_end;
        }
    }
    segments.retain(|id, _| !gone.contains(id));
    metrics::counter!(telemetry::CORRUPT)
        .increment(recovered.corrupt_frames + u64::from(recovered.torn_bytes > 0));
    if recovered.corrupt_frames > 0 {
        tracing::warn!(frames = recovered.corrupt_frames, dir = %dir.display(), "damaged frames in the log were skipped: their samples are lost");
    }
    recovered.segments = segments.len();
    recovered.bytes = segments.values().map(|s| s.bytes).sum();
    recovered.lives = marks.lives();
    Ok((recovered, segments, marks))
}

fn list(dir: &Path) -> Result<BTreeMap<u64, SegmentInfo>, OpenError> {
    let mut segments = BTreeMap::new();
    for item in std::fs::read_dir(dir).map_err(io("list", dir))? {
        let item = item.map_err(io("list", dir))?;
        let name = item.file_name();
        let Some((id, kind)) = name.to_str().and_then(|n| n.split_once('.')) else { continue };
        let Ok(id) = id.parse::<u64>() else { continue };
        let meta = match item.metadata() {
            Ok(meta) => meta,
            Err(_) => continue,
        };
        if kind == TEMPORARY {
            let _ = std::fs::remove_file(item.path());
            continue;
        }
        if kind != RAW && kind != PACKED {
            continue;
        }
        let packed = kind == PACKED;
        let newest_ms = meta.modified().ok().map_or(0, unix_ms);
        let info = SegmentInfo { bytes: meta.len(), packed, newest_ms, sealed: true };
        // Both are there when a crash came between the compressed one's birth and the raw one's removal.
        if segments.get(&id).is_some_and(|other: &SegmentInfo| other.packed) {
            let _ = std::fs::remove_file(item.path());
        } else if segments.insert(id, info).is_some() {
            let _ = std::fs::remove_file(raw_path(dir, id));
        }
    }
    Ok(segments)
}

struct Scan {
    good_end: u64,
    corrupt: u64,
    newest_ms: i64,
}

fn scan(file: &Path, packed: bool, marks: &mut Watermarks) -> Scan {
    let mut scan = Scan { good_end: 0, corrupt: 0, newest_ms: 0 };
    let Some(mut frames) = open(file, packed) else { return scan };
    let mut nodes: HashMap<u32, NodeId> = HashMap::new();
    loop {
        match frames.next() {
            Next::Frame => {
                let mut fields = Fields(&frames.payload);
                match fields.u8() {
                    Some(NODE) => {
                        if let (Some(number), Some(Ok(node))) = (fields.u32(), fields.str().map(NodeId::new))
                        {
                            nodes.insert(number, node);
                        }
                    }
                    Some(BATCH) => {
                        let Some(head) = BatchHead::take(&mut fields) else { continue };
                        if let Some(node) = nodes.get(&head.namespace) {
                            marks.raise(node, head.life, head.sequence, head.received_ms);
                        }
                        scan.newest_ms = scan.newest_ms.max(head.received_ms);
                    }
                    _ => {}
                }
            }
            Next::Corrupt => scan.corrupt += 1,
            Next::End { .. } => break,
        }
    }
    scan.good_end = frames.good_end;
    scan
}

fn unix_ms(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
