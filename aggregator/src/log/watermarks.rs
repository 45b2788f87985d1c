//! What is durable, per node and agent life. Kept longer than any spool can hold a record, so that a replay after weeks is
//! still recognised; bounded per node.

use std::path::Path;

use hashbrown::HashMap;
use picket_proto::model::NodeId;

use super::frame::{Fields, put_bytes, put_i64, put_u32, put_u64};
use crate::durable;

const FILE: &str = "watermarks";
const MAGIC: [u8; 8] = *b"PKTMARK1";
/// Lives kept a node; the one that was quiet longest goes first.
const MAX_LIVES: usize = 256;
/// How long a quiet life is kept: ten times the longest age of a spool by default.
const KEEP_MS: i64 = 30 * 24 * 3600 * 1000;

/// How far one agent life is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    pub life: u64,
    pub sequence: u64,
    /// When its last batch came, Unix ms.
    pub seen_ms: i64,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Watermarks {
    nodes: HashMap<NodeId, Vec<Watermark>>,
    /// Segments up to this one are covered by the checkpoint on disk.
    pub covered: u64,
}

impl Watermarks {
    pub fn of(&self, node: &NodeId) -> Vec<Watermark> {
        self.nodes.get(node).cloned().unwrap_or_default()
    }

    /// The last sequence of one life; 0 where none is known.
    pub fn reached(&self, node: &NodeId, life: u64) -> u64 {
        let lives = self.nodes.get(node).map(Vec::as_slice).unwrap_or_default();
        lives.iter().find(|mark| mark.life == life).map_or(0, |mark| mark.sequence)
    }

    pub fn lives(&self) -> usize {
        self.nodes.values().map(Vec::len).sum()
    }

    pub fn raise(&mut self, node: &NodeId, life: u64, sequence: u64, seen_ms: i64) {
        let lives = match self.nodes.get_mut(node) {
            Some(lives) => lives,
            None => self.nodes.entry(node.clone()).or_default(),
        };
        if let Some(mark) = lives.iter_mut().find(|m| m.life == life) {
            mark.sequence = mark.sequence.max(sequence);
            mark.seen_ms = mark.seen_ms.max(seen_ms);
            return;
        }
        if lives.len() >= MAX_LIVES {
            let oldest = lives.iter().enumerate().min_by_key(|(_, m)| m.seen_ms).map(|(at, _)| at);
            if let Some(oldest) = oldest {
                lives.swap_remove(oldest);
            }
        }
        lives.push(Watermark { life, sequence, seen_ms });
    }

    pub fn prune(&mut self, now_ms: i64) {
        self.nodes.retain(|_, lives| {
            lives.retain(|m| now_ms.saturating_sub(m.seen_ms) <= KEEP_MS);
            !lives.is_empty()
        });
    }

    /// Checkpoints all up to a segment. While that fails, what it would cover stays on disk as it is.
    pub fn checkpoint(&mut self, dir: &Path, segment: u64, now_ms: i64) {
        self.prune(now_ms);
        match self.save(dir, segment) {
            Ok(()) => self.covered = segment,
            Err(error) => {
                tracing::warn!(%error, dir = %dir.display(), "cannot write the checkpoint; the next segment tries again");
            }
        }
    }

    /// Writes the checkpoint in place of the last one, durably. `segment`: all up to it are covered.
    pub fn save(&self, dir: &Path, segment: u64) -> std::io::Result<()> {
        let mut out = Vec::with_capacity(64 + self.lives() * 48);
        out.extend_from_slice(&MAGIC);
        put_u64(&mut out, segment);
        for (node, lives) in &self.nodes {
            put_bytes(&mut out, node.as_str().as_bytes());
            put_u32(&mut out, lives.len() as u32);
            for mark in lives {
                put_u64(&mut out, mark.life);
                put_u64(&mut out, mark.sequence);
                put_i64(&mut out, mark.seen_ms);
            }
        }
        let crc = crc32fast::hash(&out);
        put_u32(&mut out, crc);
        let new = dir.join(format!("{FILE}.new"));
        let mut file = std::fs::File::create(&new)?;
        std::io::Write::write_all(&mut file, &out)?;
        file.sync_data()?;
        durable::replace(&new, &dir.join(FILE))
    }

    /// Reads the checkpoint. `Ok(None)`: there is none. `Err(true)`: it is damaged, and all segments must be read.
    pub fn load(dir: &Path) -> Result<Option<Self>, bool> {
        let bytes = match std::fs::read(dir.join(FILE)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(_) => return Err(false),
        };
        Self::parse(&bytes).map(Some).ok_or(true)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut fields = Fields(body.strip_prefix(&MAGIC)?);
        let mut marks = Self { covered: fields.u64()?, ..Self::default() };
        while !fields.0.is_empty() {
            let node = NodeId::new(fields.str()?).ok()?;
            for _ in 0..fields.u32()? {
                let (life, sequence, seen_ms) = (fields.u64()?, fields.u64()?, fields.i64()?);
                marks.raise(&node, life, sequence, seen_ms);
            }
        }
        Some(marks)
    }
}
