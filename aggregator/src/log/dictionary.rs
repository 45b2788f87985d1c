//! What a segment has defined so far, and the encoding of batches against it.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use picket_proto::model::{MetricType, NodeId};

use super::Entry;
use super::frame::{
    self, BATCH, BatchHead, FAMILY, INLINE, NODE, SERIES, SHAPE, put_bytes, put_i64, put_u32,
};
use crate::store::{FamilyEntry, Node, Resolved, read};

/// Lists of series kept a node and segment, measured in slots per series of the node: agents send the same few lists
/// again and again. Beyond, a list is written with its batch.
const LISTS_PER_SERIES: usize = 4;
const MIN_LIST_ROOM: usize = 16 << 10;

#[derive(Default)]
pub struct Dictionary {
    namespaces: HashMap<NodeId, Namespace>,
    next_namespace: u32,
    families: HashMap<Arc<str>, (u32, MetricType)>,
    next_family: u32,
    next_shape: u32,
    hasher: DefaultHashBuilder,
}

/// One epoch of one node.
struct Namespace {
    number: u32,
    node: Arc<Node>,
    epoch: u32,
    /// A bit a slot.
    defined: Vec<u64>,
    defined_count: usize,
    shapes: HashTable<Shape>,
    listed: usize,
}

struct Shape {
    hash: u64,
    number: u32,
    slots: Box<[u32]>,
}

impl Dictionary {
    /// Appends the frames of a batch, with whatever it names first.
    pub fn encode(&mut self, entry: &Entry, out: &mut Vec<u8>) {
        let batch = &entry.batch;
        let epoch = entry.node.epoch();
        let current = self
            .namespaces
            .get(entry.node.id())
            .is_some_and(|ns| ns.epoch == epoch && Arc::ptr_eq(&ns.node, &entry.node));
        if !current {
            self.begin_namespace(&entry.node, epoch, out);
        }
        let Self { namespaces, families, next_family, next_shape, hasher, .. } = self;
        let Some(namespace) = namespaces.get_mut(entry.node.id()) else { return };
        let mut shapes = Vec::with_capacity(batch.blocks.len());
        for block in &batch.blocks {
            let hash = hasher.hash_one(block.slots.as_slice());
            if let Some(shape) = namespace.shapes.find(hash, |s| s.hash == hash && *s.slots == *block.slots) {
                shapes.push(shape.number);
                continue;
            }
            namespace.define(&block.slots, families, next_family, out);
            shapes.push(namespace.list(hash, block, next_shape, out));
        }
        namespace.define(&batch.retired, families, next_family, out);
        let at = frame::begin(out, BATCH);
        BatchHead {
            namespace: namespace.number,
            life: batch.life,
            sequence: batch.sequence,
            received_ms: batch.received_ms,
            fresh_ms: batch.fresh_ms,
        }
        .put(out);
        put_u32(out, batch.blocks.len() as u32);
        for (block, shape) in batch.blocks.iter().zip(shapes) {
            put_block(block, shape, out);
        }
        put_u32(out, batch.retired.len() as u32);
        batch.retired.iter().for_each(|&slot| put_u32(out, slot));
        frame::end(out, at);
    }

    fn begin_namespace(&mut self, node: &Arc<Node>, epoch: u32, out: &mut Vec<u8>) {
        let number = self.next_namespace;
        self.next_namespace += 1;
        let at = frame::begin(out, NODE);
        put_u32(out, number);
        put_bytes(out, node.id().as_str().as_bytes());
        frame::end(out, at);
        self.namespaces.insert(
            node.id().clone(),
            Namespace {
                number,
                node: Arc::clone(node),
                epoch,
                defined: Vec::new(),
                defined_count: 0,
                shapes: HashTable::new(),
                listed: 0,
            },
        );
    }
}

impl Namespace {
    /// Writes the definitions of those slots that the segment doesn't know.
    fn define(
        &mut self,
        slots: &[u32],
        families: &mut HashMap<Arc<str>, (u32, MetricType)>,
        next_family: &mut u32,
        out: &mut Vec<u8>,
    ) {
        let mut new = Vec::new();
        for &slot in slots {
            let (word, bit) = (slot as usize / 64, 1u64 << (slot % 64));
            if self.defined.len() <= word {
                self.defined.resize(word + 1, 0);
            }
            if let Some(word) = self.defined.get_mut(word).filter(|word| **word & bit == 0) {
                *word |= bit;
                new.push(slot);
            }
        }
        if new.is_empty() {
            return;
        }
        self.defined_count += new.len();
        let mut series = Vec::with_capacity(new.len() * 128);
        let mut count = 0u32;
        self.node.describe(&new, |slot, family, text| {
            let number = family_number(family, families, next_family, out);
            put_u32(&mut series, slot);
            put_u32(&mut series, number);
            put_bytes(&mut series, text);
            count += 1;
        });
        let at = frame::begin(out, SERIES);
        put_u32(out, self.number);
        put_u32(out, count);
        out.extend_from_slice(&series);
        frame::end(out, at);
    }

    /// Gives a new list of series a number, if there is room for one more.
    fn list(&mut self, hash: u64, block: &Resolved, next_shape: &mut u32, out: &mut Vec<u8>) -> u32 {
        let room = (self.defined_count * LISTS_PER_SERIES).max(MIN_LIST_ROOM);
        if self.listed + block.slots.len() > room {
            return INLINE;
        }
        self.listed += block.slots.len();
        let number = *next_shape;
        *next_shape += 1;
        let at = frame::begin(out, SHAPE);
        put_u32(out, number);
        put_u32(out, self.number);
        put_u32(out, block.slots.len() as u32);
        block.slots.iter().for_each(|&slot| put_u32(out, slot));
        frame::end(out, at);
        let shape = Shape { hash, number, slots: block.slots.as_slice().into() };
        self.shapes.insert_unique(hash, shape, |s| s.hash);
        number
    }
}

fn family_number(
    family: &FamilyEntry,
    families: &mut HashMap<Arc<str>, (u32, MetricType)>,
    next_family: &mut u32,
    out: &mut Vec<u8>,
) -> u32 {
    let meta = read(&family.meta);
    if let Some(&(number, metric_type)) = families.get(&family.name)
        && metric_type == meta.metric_type
    {
        return number;
    }
    let number = *next_family;
    *next_family += 1;
    let at = frame::begin(out, FAMILY);
    put_u32(out, number);
    out.push(meta.metric_type as i32 as u8);
    put_bytes(out, family.name.as_bytes());
    put_bytes(out, meta.unit.as_bytes());
    put_bytes(out, meta.help.as_bytes());
    frame::end(out, at);
    families.insert(Arc::clone(&family.name), (number, meta.metric_type));
    number
}

fn put_block(block: &Resolved, shape: u32, out: &mut Vec<u8>) {
    put_i64(out, block.timestamp_ms);
    put_u32(out, shape);
    put_u32(out, block.slots.len() as u32);
    if shape == INLINE {
        block.slots.iter().for_each(|&slot| put_u32(out, slot));
    }
    let timed = block.times_ms.len() == block.slots.len() && !block.times_ms.is_empty();
    out.push(u8::from(timed));
    out.reserve(block.values.len() * 16);
    for value in &block.values {
        out.extend_from_slice(&value.to_le_bytes());
    }
    if timed {
        block.times_ms.iter().for_each(|&time| put_i64(out, time));
    }
}
