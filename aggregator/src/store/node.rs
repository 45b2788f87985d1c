//! One node's series: their texts, their latest values, and the tables that turn a stream's numbers into slots.
//!
//! A series has a *slot* within its node. Values, times and freshness stand in columns by slot, so a batch is applied by
//! index alone; the texts stand in one arena a family, in the order in which a scrape copies them. One lock a node, held
//! for microseconds. A slot means the same series for the whole of an *epoch*; reclaiming begins a new one, and
//! waits while anything that names slots (a batch on its way to the log) is pinned.
//! Cost: 32 bytes a series beside its text, 4 in the table of each open stream, about 8 in the index.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use picket_proto::model::{MetricType, NodeId};

use super::registry::{FamilyEntry, Holder};
use super::selector::{self, Selector};
use super::{Resolved, lock, read, text, write};

/// Stands in a table for a number that was never defined, or is retired.
pub(crate) const UNDEFINED: u32 = u32::MAX;
/// Stands in a table for a series that was refused: its samples are dropped and counted.
pub(crate) const REFUSED: u32 = u32::MAX - 1;

pub struct Node {
    pub(super) id: NodeId,
    hasher: DefaultHashBuilder,
    /// Batches that name slots and are not yet in the log.
    pins: AtomicU32,
    pub(super) connected: AtomicU32,
    /// Unix ms of the last batch received; 0: none yet.
    pub(super) received_ms: AtomicI64,
    pub(super) samples: AtomicU64,
    next_table: AtomicU64,
    pub(super) inner: Mutex<Inner>,
}

#[derive(Default)]
pub(super) struct Inner {
    epoch: u32,
    values: Vec<f64>,
    /// The sample's time in ms, doubled; plus one when the sample brought a time of its own.
    stamps: Vec<i64>,
    /// Unix seconds up to which the value was known to hold; 0: retired, or never had one.
    fresh: Vec<u32>,
    places: Vec<Place>,
    pub(super) blocks: Vec<Block>,
    block_of: HashMap<Arc<str>, u32>,
    index: HashTable<u32>,
    tables: Vec<Table>,
    text_bytes: usize,
    /// A definition was refused for want of room: reclaim at the next chance.
    crowded: bool,
}

#[derive(Clone, Copy)]
struct Place {
    block: u32,
    at: u32,
}

/// The series of one family.
pub(super) struct Block {
    family: Arc<FamilyEntry>,
    arena: Vec<u8>,
    ends: Vec<u32>,
    slots: Vec<u32>,
}

pub(super) struct Table {
    id: u64,
    /// Slot by the stream's series number.
    pub numbers: Vec<u32>,
    pub families: Vec<FamilySlot>,
}

impl Block {
    pub fn family(&self) -> &Arc<FamilyEntry> {
        &self.family
    }
}

#[derive(Clone, Copy)]
pub(super) enum FamilySlot {
    Undefined,
    Refused,
    Block { block: u32, metric_type: MetricType },
}

/// When and in which order a batch's samples count.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// The batch's time, Unix ms by the agent's clock.
    pub timestamp_ms: i64,
    /// Unix ms by this machine's clock up to which the values are known to hold: when they were taken.
    pub fresh_ms: i64,
    /// The batch follows all that came before it, so its samples replace the latest values whatever their times say (the
    /// agent's clock may have been set back). Else only a sample that isn't older than what it replaces does.
    pub in_order: bool,
}

/// Keeps a node's slots meaning what they mean.
pub struct Pin(Arc<Node>);

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.pins.fetch_sub(1, Ordering::Release);
    }
}

/// What one scrape asks of every block.
pub(super) struct Ask<'a> {
    pub cutoff_s: u32,
    pub open_metrics: bool,
    pub selectors: &'a [Selector],
}

impl Node {
    pub(super) fn new(id: NodeId) -> Self {
        Self {
            id,
            hasher: DefaultHashBuilder::default(),
            pins: AtomicU32::new(0),
            connected: AtomicU32::new(0),
            received_ms: AtomicI64::new(0),
            samples: AtomicU64::new(0),
            next_table: AtomicU64::new(0),
            inner: Mutex::default(),
        }
    }

    pub fn id(&self) -> &NodeId {
        &self.id
    }

    pub(crate) fn pin(self: &Arc<Self>) -> Pin {
        self.pins.fetch_add(1, Ordering::Acquire);
        Pin(Arc::clone(self))
    }

    /// A stream of this node has said Hello.
    pub(crate) fn connected(&self) {
        self.connected.fetch_add(1, Ordering::Relaxed);
    }

    /// Such a stream has ended.
    pub(crate) fn disconnected(&self) {
        self.connected.fetch_sub(1, Ordering::Relaxed);
    }

    /// A batch came, at this Unix ms.
    pub(crate) fn received(&self, now_ms: i64) {
        self.received_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Takes a resolved block as the latest values.
    pub(crate) fn take(&self, block: &Resolved, stamp: Stamp) {
        self.samples.fetch_add(block.slots.len() as u64, Ordering::Relaxed);
        self.apply(&block.slots, &block.values, &block.times_ms, stamp);
    }

    pub(crate) fn epoch(&self) -> u32 {
        lock(&self.inner).epoch
    }

    /// Tells family and text of each slot, under one lock. The caller holds a [`Pin`] from before the slots were resolved.
    pub(crate) fn describe(&self, slots: &[u32], mut tell: impl FnMut(u32, &FamilyEntry, &[u8])) {
        let inner = lock(&self.inner);
        for &slot in slots {
            if let Some((block, series)) = inner.series(slot) {
                tell(slot, &block.family, series);
            }
        }
    }

    pub(super) fn open_table(&self) -> u64 {
        let id = self.next_table.fetch_add(1, Ordering::Relaxed);
        lock(&self.inner).tables.push(Table { id, numbers: Vec::new(), families: Vec::new() });
        id
    }

    pub(super) fn close_table(&self, id: u64) {
        lock(&self.inner).tables.retain(|t| t.id != id);
    }

    /// The block of a family, made and announced to the family when new; it stays for as long as the node. Takes the node's lock itself.
    pub(super) fn block_for(self: &Arc<Self>, family: &Arc<FamilyEntry>, room: Room) -> Result<u32, Full> {
        let (block, new) = {
            let mut inner = lock(&self.inner);
            match inner.block_of.get(&family.name) {
                Some(&block) => (block, false),
                None if inner.blocks.len() >= room.families => return Err(Full),
                None => {
                    let block = inner.blocks.len() as u32;
                    inner.blocks.push(Block {
                        family: Arc::clone(family),
                        arena: Vec::new(),
                        ends: Vec::new(),
                        slots: Vec::new(),
                    });
                    inner.block_of.insert(Arc::clone(&family.name), block);
                    (block, true)
                }
            }
        };
        if new {
            write(&family.holders).push(Holder { node: Arc::clone(self), block });
        }
        Ok(block)
    }

    /// Finds or makes the slot of a series text. `Err`: no room. The flag says that it was made.
    pub(super) fn slot_for(
        &self,
        inner: &mut Inner,
        block: u32,
        series: &[u8],
        room: Room,
    ) -> Result<(u32, bool), Full> {
        let hash = self.hasher.hash_one(series);
        if let Some(&slot) =
            inner.index.find(hash, |&slot| inner.series(slot).is_some_and(|(_, s)| s == series))
        {
            return Ok((slot, false));
        }
        if inner.places.len() >= room.series || inner.text_bytes + series.len() > room.text_bytes {
            inner.crowded = true;
            return Err(Full);
        }
        let slot = inner.places.len() as u32;
        let Some(into) = inner.blocks.get_mut(block as usize) else { return Err(Full) };
        let Ok(end) = u32::try_from(into.arena.len() + series.len()) else { return Err(Full) };
        into.arena.extend_from_slice(series);
        into.ends.push(end);
        into.slots.push(slot);
        let at = (into.ends.len() - 1) as u32;
        inner.text_bytes += series.len();
        inner.places.push(Place { block, at });
        inner.values.push(0.0);
        inner.stamps.push(i64::MIN);
        inner.fresh.push(0);
        let Inner { index, places, blocks, .. } = inner;
        let rehash = |&slot: &u32| {
            let series = series_of(places, blocks, slot).map_or(&[][..], |(_, s)| s);
            self.hasher.hash_one(series)
        };
        index.insert_unique(hash, slot, rehash);
        Ok((slot, true))
    }

    /// Takes samples as the latest values. `times_ms` is empty, or one a sample.
    pub(crate) fn apply(&self, slots: &[u32], values: &[f64], times_ms: &[i64], stamp: Stamp) {
        let fresh = seconds(stamp.fresh_ms).max(1);
        let mut inner = lock(&self.inner);
        let Inner { values: latest, stamps, fresh: freshness, .. } = &mut *inner;
        for (i, (&slot, &value)) in slots.iter().zip(values).enumerate() {
            let slot = slot as usize;
            let (Some(latest), Some(old), Some(freshness)) =
                (latest.get_mut(slot), stamps.get_mut(slot), freshness.get_mut(slot))
            else {
                continue;
            };
            let own = times_ms.get(i);
            let time = *own.unwrap_or(&stamp.timestamp_ms);
            let overwrites = (stamp.in_order && own.is_none()) || time >= *old >> 1;
            if overwrites {
                *latest = value;
                *old = doubled(time) | i64::from(own.is_some());
                *freshness = if stamp.in_order { fresh } else { fresh.max(*freshness) };
            }
        }
    }

    /// Ends series: they are absent from now on, until a newer sample comes.
    pub(crate) fn retire(&self, slots: &[u32], timestamp_ms: i64) {
        let mut inner = lock(&self.inner);
        let Inner { stamps, fresh, .. } = &mut *inner;
        for &slot in slots {
            if let (Some(stamp), Some(fresh)) = (stamps.get_mut(slot as usize), fresh.get_mut(slot as usize))
            {
                *stamp = doubled(timestamp_ms).max(*stamp & !1);
                *fresh = 0;
            }
        }
    }

    /// Writes the lines of a block from position `from` until `out` holds `until` bytes; gives the position to go on
    /// from, `None` at the block's end. `header` is called before the first line. Series last fresh before
    /// `cutoff_s` are left out.
    pub(super) fn expose(
        &self,
        block: u32,
        from: usize,
        ask: &Ask<'_>,
        until: usize,
        out: &mut Vec<u8>,
        header: &mut dyn FnMut(&mut Vec<u8>),
    ) -> Option<usize> {
        let inner = lock(&self.inner);
        let block = inner.blocks.get(block as usize)?;
        let mut start = match from {
            0 => 0,
            _ => *block.ends.get(from - 1)? as usize,
        };
        for (at, (&end, &slot)) in block.ends.iter().zip(&block.slots).enumerate().skip(from) {
            if out.len() >= until {
                return Some(at);
            }
            let series = block.arena.get(start..end as usize).unwrap_or_default();
            start = end as usize;
            let slot = slot as usize;
            let (Some(&fresh), Some(&value), Some(&stamp)) =
                (inner.fresh.get(slot), inner.values.get(slot), inner.stamps.get(slot))
            else {
                continue;
            };
            if fresh < ask.cutoff_s || fresh == 0 || !selected(ask.selectors, &block.family.name, series) {
                continue;
            }
            header(out);
            out.extend_from_slice(series);
            out.push(b' ');
            text::push_value(out, value);
            if stamp & 1 == 1 {
                out.push(b' ');
                push_time(out, stamp >> 1, ask.open_metrics);
            }
            out.push(b'\n');
        }
        None
    }

    pub(super) fn block_is_vacant(&self, block: u32, cutoff_s: u32) -> bool {
        let inner = lock(&self.inner);
        inner.blocks.get(block as usize).is_none_or(|b| {
            b.slots.iter().all(|&s| inner.fresh.get(s as usize).is_none_or(|&f| f == 0 || f < cutoff_s))
        })
    }

    /// How many series are exposed at `cutoff_s`.
    pub(super) fn live(&self, cutoff_s: u32) -> usize {
        lock(&self.inner).fresh.iter().filter(|&&f| f >= cutoff_s && f != 0).count()
    }

    /// Tells every series: family, text, value, time, and whether it is live.
    pub(super) fn each(
        &self,
        cutoff_s: u32,
        mut tell: impl FnMut(&FamilyEntry, &str, f64, i64, bool) -> bool,
    ) {
        let inner = lock(&self.inner);
        for (slot, ((&value, &stamp), &fresh)) in
            inner.values.iter().zip(&inner.stamps).zip(&inner.fresh).enumerate()
        {
            let Some((block, series)) = inner.series(slot as u32) else { continue };
            let Ok(series) = std::str::from_utf8(series) else { continue };
            if fresh != 0 && !tell(&block.family, series, value, stamp >> 1, fresh >= cutoff_s) {
                return;
            }
        }
    }

    /// Gives back the slots of series that no open stream names and that were last fresh before `cutoff_s`. Does nothing
    /// while pinned, or when it isn't worth it. Returns how many went.
    pub(super) fn reclaim(&self, cutoff_s: u32) -> usize {
        let mut inner = lock(&self.inner);
        if self.pins.load(Ordering::Acquire) != 0 {
            return 0;
        }
        let total = inner.places.len();
        let mut keep: Vec<bool> = inner.fresh.iter().map(|&f| f != 0 && f >= cutoff_s).collect();
        for &slot in inner.tables.iter().flat_map(|t| &t.numbers) {
            if let Some(keep) = keep.get_mut(slot as usize) {
                *keep = true;
            }
        }
        let gone = keep.iter().filter(|&&k| !k).count();
        if gone == 0 || (!inner.crowded && gone < total / 8) {
            return 0;
        }
        self.rebuild(&mut inner, &keep);
        gone
    }

    fn rebuild(&self, inner: &mut Inner, keep: &[bool]) {
        let mut moved = vec![UNDEFINED; keep.len()];
        let mut next = 0u32;
        for (new, _) in moved.iter_mut().zip(keep).filter(|(_, keep)| **keep) {
            *new = next;
            next += 1;
        }
        let kept = |slot: u32| moved.get(slot as usize).copied().unwrap_or(UNDEFINED);
        retain(&mut inner.values, keep);
        retain(&mut inner.stamps, keep);
        retain(&mut inner.fresh, keep);
        let mut places = vec![Place { block: 0, at: 0 }; next as usize];
        let mut text_bytes = 0;
        for (number, block) in inner.blocks.iter_mut().enumerate() {
            let (mut arena, mut ends, mut slots) = (Vec::new(), Vec::new(), Vec::new());
            let mut start = 0;
            for (&end, &slot) in block.ends.iter().zip(&block.slots) {
                let series = block.arena.get(start..end as usize).unwrap_or_default();
                start = end as usize;
                if let Some(place) = places.get_mut(kept(slot) as usize) {
                    *place = Place { block: number as u32, at: ends.len() as u32 };
                    arena.extend_from_slice(series);
                    ends.push(arena.len() as u32);
                    slots.push(kept(slot));
                }
            }
            arena.shrink_to_fit();
            text_bytes += arena.len();
            (block.arena, block.ends, block.slots) = (arena, ends, slots);
        }
        inner.places = places;
        inner.text_bytes = text_bytes;
        for number in inner.tables.iter_mut().flat_map(|t| &mut t.numbers) {
            if *number != UNDEFINED && *number != REFUSED {
                *number = kept(*number);
            }
        }
        let Inner { index, places, blocks, .. } = inner;
        let hash =
            |slot: u32| self.hasher.hash_one(series_of(places, blocks, slot).map_or(&[][..], |(_, s)| s));
        *index = HashTable::with_capacity(next as usize);
        for slot in 0..next {
            index.insert_unique(hash(slot), slot, |&slot| hash(slot));
        }
        inner.epoch += 1;
        inner.crowded = false;
    }

    /// Drops all series; open tables name nothing any more.
    pub(super) fn clear(&self) {
        let mut inner = lock(&self.inner);
        let epoch = inner.epoch + 1;
        *inner = Inner { epoch, ..Inner::default() };
    }
}

/// The most a node may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub families: usize,
    pub series: usize,
    pub text_bytes: usize,
}

/// The node holds all it may.
pub(super) struct Full;

impl Inner {
    fn series(&self, slot: u32) -> Option<(&Block, &[u8])> {
        series_of(&self.places, &self.blocks, slot)
    }

    pub fn table(&mut self, id: u64) -> Option<&mut Table> {
        self.tables.iter_mut().find(|t| t.id == id)
    }

    pub fn table_ref(&self, id: u64) -> Option<&Table> {
        self.tables.iter().find(|t| t.id == id)
    }
}

pub(super) type Guard<'a> = MutexGuard<'a, Inner>;

fn series_of<'a>(places: &[Place], blocks: &'a [Block], slot: u32) -> Option<(&'a Block, &'a [u8])> {
    let place = places.get(slot as usize)?;
    let block = blocks.get(place.block as usize)?;
    let at = place.at as usize;
    let start = match at {
        0 => 0,
        _ => *block.ends.get(at - 1)? as usize,
    };
    Some((block, block.arena.get(start..*block.ends.get(at)? as usize)?))
}

fn selected(selectors: &[Selector], family: &str, series: &[u8]) -> bool {
    selectors.is_empty()
        || std::str::from_utf8(series)
            .ok()
            .and_then(text::parse)
            .is_some_and(|parsed| selector::any(selectors, family, &parsed))
}

fn push_time(out: &mut Vec<u8>, time_ms: i64, open_metrics: bool) {
    if !open_metrics {
        out.extend_from_slice(itoa::Buffer::new().format(time_ms).as_bytes());
        return;
    }
    if time_ms < 0 {
        out.push(b'-');
    }
    let ms = time_ms.unsigned_abs();
    out.extend_from_slice(itoa::Buffer::new().format(ms / 1000).as_bytes());
    let rest = (ms % 1000) as u16;
    out.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
}

fn digit(number: u16) -> u8 {
    b'0' + (number % 10) as u8
}

fn retain<T: Copy>(column: &mut Vec<T>, keep: &[bool]) {
    *column = column.iter().zip(keep).filter(|(_, keep)| **keep).map(|(value, _)| *value).collect();
}

fn doubled(time_ms: i64) -> i64 {
    time_ms.clamp(i64::MIN / 2, i64::MAX / 2) * 2
}

/// Unix ms as Unix seconds, within what a u32 holds (until 2106).
pub(super) fn seconds(ms: i64) -> u32 {
    u32::try_from(ms.max(0) / 1000).unwrap_or(u32::MAX)
}

/// The family's type as registered now.
pub(super) fn type_of(family: &FamilyEntry) -> MetricType {
    read(&family.meta).metric_type
}
