//! Interning: turns "labels and a value" into points by number.
//!
//! One [`Core`] an instance. A series is an [`Entry`], found by the hash of its label values; its numbers at the
//! host are had when it is first pushed, all new ones of a chunk in one call. Setting a known series allocates
//! nothing and doesn't cross the border; values go over in chunks of [`CHUNK`].
//!
//! Two kinds of values: those set from a source (`set`), which live as long as collects keep setting them, and
//! those that the plugin itself adds up (`add`), which are pushed at the end of every collect until removed.

mod border;

use hashbrown::HashTable;

use crate::model::{FamilyDef, MetricType, Part, SinkError};
use crate::{FamilyDefinition, sys};

/// Points that cross the border at once.
const CHUNK: usize = 1024;
/// Series that are registered at once.
const REGISTER: usize = 256;
/// After a refusal a series is offered again after so many collects.
const RETRY_AFTER: u32 = 20;
/// No number: not registered.
const NONE: u32 = u32::MAX;
/// No number: refused.
const REFUSED: u32 = u32::MAX - 1;

pub(crate) struct FamilyState {
    pub def: FamilyDef,
    /// Its number at the host.
    pub number: u32,
    /// Labels come as names and values in turn, and the part with each series.
    pub dynamic: bool,
    /// The lines of one series where it has several (a histogram, a state set): the part and the label of each.
    pub lines: Vec<(Part, Option<(String, String)>)>,
    /// A histogram's upper bounds.
    pub bounds: Vec<f64>,
}

/// One number at the host.
struct Line {
    number: u32,
    value: f64,
}

struct Entry {
    hash: u64,
    family: u32,
    part: Part,
    /// Label values; of a dynamic family names and values in turn.
    key: Box<[Box<str>]>,
    /// The collect that last touched it.
    touched: u32,
    /// The collect that last set it.
    set: u32,
    pushed: bool,
    accumulating: bool,
    free: bool,
    refused_in: u32,
    /// Handles that name it: it keeps its place while there are any.
    pins: u32,
    line: Line,
    /// The other lines of a series that has several.
    more: Vec<Line>,
}

impl Entry {
    fn lines(&self) -> impl Iterator<Item = &Line> {
        std::iter::once(&self.line).chain(&self.more)
    }

    fn lines_mut(&mut self) -> impl Iterator<Item = &mut Line> {
        std::iter::once(&mut self.line).chain(&mut self.more)
    }
}

pub(crate) struct Core {
    pub families: Vec<FamilyState>,
    pub retire_after: u32,
    /// Labels that every series has.
    pub constant: Vec<(String, String)>,
    /// Families declared while collecting, by name.
    dynamic: std::collections::HashMap<String, u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    table: HashTable<u32>,
    /// Set and not pushed yet.
    dirty: Vec<u32>,
    timed: Vec<(u32, f64, u64)>,
    accumulating: Vec<u32>,
    fresh: Vec<u32>,
    points: Vec<sys::Point>,
    timed_points: Vec<sys::TimedPoint>,
    round: u32,
    collecting: bool,
    trouble: Trouble,
}

/// What went wrong in a collect; said once at its end.
#[derive(Default)]
struct Trouble {
    refused: u32,
    why: String,
    twice: u32,
    which: String,
}

impl Core {
    pub fn new() -> Self {
        Self {
            families: Vec::new(),
            retire_after: 1,
            constant: Vec::new(),
            dynamic: std::collections::HashMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            table: HashTable::new(),
            dirty: Vec::new(),
            timed: Vec::new(),
            accumulating: Vec::new(),
            fresh: Vec::new(),
            points: Vec::new(),
            timed_points: Vec::new(),
            round: 0,
            collecting: false,
            trouble: Trouble::default(),
        }
    }

    /// Adds a family; gives its index.
    pub fn add_family(&mut self, def: FamilyDef, number: Option<u32>) -> u32 {
        let index = u32::try_from(self.families.len()).unwrap_or(NONE);
        self.families.push(FamilyState {
            def,
            number: number.unwrap_or(index),
            dynamic: number.is_some(),
            lines: Vec::new(),
            bounds: Vec::new(),
        });
        index
    }

    fn add_dynamic(&mut self, def: FamilyDef, number: u32) -> u32 {
        let name = def.name.clone();
        let index = self.add_family(def, Some(number));
        self.dynamic.insert(name, index);
        index
    }

    /// The family of that name that was declared while collecting, declared where it is new; and whether it has that
    /// type.
    pub fn declare(&mut self, def: &FamilyDefinition<'_>) -> Result<(u32, bool), SinkError> {
        if let Some(&index) = self.dynamic.get(def.name) {
            let same = self.family(index).is_some_and(|f| f.type_is(def.metric_type));
            return Ok((index, same));
        }
        let family = FamilyDef {
            name: def.name.to_owned(),
            metric_type: def.metric_type,
            unit: def.unit.to_owned(),
            help: def.help.to_owned(),
            label_names: Vec::new(),
        };
        let number = sys::declare(&family)?;
        Ok((self.add_dynamic(family, number), true))
    }

    /// Whether a series of the family is one line under the family's own name.
    pub fn is_single(&mut self, family: u32) -> bool {
        self.family(family)
            .is_some_and(|f| !f.type_is(MetricType::Histogram) && !f.type_is(MetricType::Summary))
    }

    pub fn family(&mut self, index: u32) -> Option<&mut FamilyState> {
        self.families.get_mut(index as usize)
    }

    /// The entry of a series, made where it is new, touched.
    pub fn find<'a>(&mut self, family: u32, part: Part, key: impl Iterator<Item = &'a str> + Clone) -> u32 {
        let hash = hash(family, part, key.clone());
        let entries = &self.entries;
        let same = |&i: &u32| {
            entries.get(i as usize).is_some_and(|e| {
                e.hash == hash
                    && e.family == family
                    && e.part == part
                    && e.key.iter().map(|k| &**k).eq(key.clone())
            })
        };
        let index = match self.table.find(hash, same) {
            Some(&index) => index,
            None => self.add(hash, family, part, key.map(Box::from).collect()),
        };
        let round = self.round;
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.touched = round;
        }
        index
    }

    fn add(&mut self, hash: u64, family: u32, part: Part, key: Box<[Box<str>]>) -> u32 {
        let lines = self.families.get(family as usize).map_or(0, |f| f.lines.len());
        let new = || Line { number: NONE, value: 0.0 };
        let entry = Entry {
            hash,
            family,
            part,
            key,
            touched: self.round,
            set: 0,
            pushed: false,
            accumulating: false,
            free: false,
            refused_in: 0,
            pins: 0,
            line: new(),
            more: (1..lines).map(|_| new()).collect(),
        };
        let index = match self.free.pop() {
            Some(index) => {
                if let Some(place) = self.entries.get_mut(index as usize) {
                    *place = entry;
                }
                index
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).unwrap_or(NONE)
            }
        };
        let entries = &self.entries;
        self.table.insert_unique(hash, index, |&i| entries.get(i as usize).map_or(0, |e| e.hash));
        index
    }

    pub fn pin(&mut self, index: u32) {
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.pins += 1;
        }
    }

    pub fn unpin(&mut self, index: u32) {
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.pins = entry.pins.saturating_sub(1);
        }
    }

    /// The value of this collect.
    #[inline]
    pub fn set(&mut self, index: u32, value: f64) {
        let round = self.round;
        let Some(entry) = self.entries.get_mut(index as usize) else { return };
        entry.touched = round;
        if entry.set != round {
            entry.set = round;
            entry.pushed = false;
            entry.line.value = value;
            self.queue(index);
        } else if entry.pushed {
            self.twice(index);
        } else {
            entry.line.value = value;
        }
    }

    /// Whether it has a value in this collect.
    #[inline]
    pub fn is_set(&self, index: u32) -> bool {
        self.entries.get(index as usize).is_some_and(|entry| entry.set == self.round)
    }

    /// As [`Self::set`], for a series of several lines.
    pub fn set_lines(&mut self, index: u32, values: impl Iterator<Item = f64>) {
        let round = self.round;
        let Some(entry) = self.entries.get_mut(index as usize) else { return };
        entry.touched = round;
        if entry.set == round && entry.pushed {
            return self.twice(index);
        }
        for (line, value) in entry.lines_mut().zip(values) {
            line.value = value;
        }
        if entry.set != round {
            entry.set = round;
            entry.pushed = false;
            self.queue(index);
        }
    }

    /// A value with a time of its own, in milliseconds since the Unix epoch.
    pub fn set_at(&mut self, index: u32, value: f64, time_ms: u64) {
        let round = self.round;
        let Some(entry) = self.entries.get_mut(index as usize) else { return };
        entry.touched = round;
        self.timed.push((index, value, time_ms));
        if self.timed.len() >= CHUNK && self.collecting {
            self.push_timed();
        }
    }

    /// Adds to what the plugin itself counts.
    pub fn add_to(&mut self, index: u32, amount: f64) {
        if let Some(entry) = self.accumulate(index) {
            entry.line.value += amount;
        }
    }

    /// Counts a value in a histogram that the plugin itself keeps.
    pub fn observe(&mut self, index: u32, value: f64) {
        let Some(family) = self.entries.get(index as usize).map(|e| e.family) else { return };
        let Some(bounds) = self.families.get(family as usize).map(|f| f.bounds.len()) else { return };
        let first = self
            .families
            .get(family as usize)
            .map_or(bounds, |f| f.bounds.partition_point(|bound| *bound < value));
        let Some(entry) = self.accumulate(index) else { return };
        for (i, line) in entry.lines_mut().enumerate() {
            if i <= bounds {
                line.value += f64::from(u8::from(i >= first));
            } else if i == bounds + 1 {
                line.value += value;
            } else {
                line.value += 1.0;
            }
        }
    }

    /// Which of a state set's lines a state is, and of how many.
    pub fn state(&self, index: u32, state: &str) -> Option<(usize, usize)> {
        let entry = self.entries.get(index as usize)?;
        let lines = &self.families.get(entry.family as usize)?.lines;
        let nth = lines.iter().position(|(_, label)| label.as_ref().is_some_and(|(_, v)| v == state))?;
        Some((nth, lines.len()))
    }

    /// How many bounds the histogram of a series has.
    pub fn bounds(&self, index: u32) -> usize {
        let family = self.entries.get(index as usize).and_then(|e| self.families.get(e.family as usize));
        family.map_or(0, |f| f.bounds.len())
    }

    fn accumulate(&mut self, index: u32) -> Option<&mut Entry> {
        let round = self.round;
        let entry = self.entries.get_mut(index as usize)?;
        entry.touched = round;
        if !entry.accumulating {
            entry.accumulating = true;
            self.accumulating.push(index);
        }
        Some(entry)
    }

    /// Ends a series now, whatever it is.
    pub fn remove(&mut self, index: u32) {
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.accumulating = false;
            entry.touched = self.round.wrapping_sub(self.retire_after);
            entry.set = 0;
            entry.lines_mut().for_each(|line| line.value = 0.0);
        }
        self.accumulating.retain(|i| *i != index);
        self.dirty.retain(|i| *i != index);
        self.timed.retain(|(i, ..)| *i != index);
    }

    #[inline]
    fn queue(&mut self, index: u32) {
        self.dirty.push(index);
        if self.dirty.len() >= CHUNK && self.collecting {
            self.push();
        }
    }

    fn twice(&mut self, index: u32) {
        self.trouble.twice += 1;
        if self.trouble.which.is_empty() {
            self.trouble.which = self.describe(index);
        }
    }

    fn describe(&self, index: u32) -> String {
        let Some(entry) = self.entries.get(index as usize) else { return String::new() };
        let name = self.families.get(entry.family as usize).map_or("", |f| f.def.name.as_str());
        format!("{name}{:?}", entry.key)
    }

    /// A collect begins.
    pub fn begin(&mut self) {
        self.dirty.clear();
        self.timed.clear();
        self.round += 1;
        self.collecting = true;
    }

    /// It ends: pushes what is left, retires what was not touched, says what went wrong.
    pub fn finish(&mut self) {
        self.push();
        self.push_timed();
        let accumulating = std::mem::take(&mut self.accumulating);
        for chunk in accumulating.chunks(CHUNK) {
            self.dirty.extend_from_slice(chunk);
            self.push();
        }
        self.accumulating = accumulating;
        self.retire();
        self.collecting = false;
        let trouble = std::mem::take(&mut self.trouble);
        if trouble.refused > 0 {
            let message = format!("{} series or points refused; the first: {}", trouble.refused, trouble.why);
            sys::fail("refused", &message);
        }
        if trouble.twice > 0 {
            let message =
                format!("{} values set twice in one collect; the first: {}", trouble.twice, trouble.which);
            sys::fail("duplicate", &message);
        }
    }
}

/// Quick and good enough for a table bounded by the host's quota. Lengths are mixed in, so that `("a", "bc")` and
/// `("ab", "c")` differ.
#[inline]
fn hash<'a>(family: u32, part: Part, key: impl Iterator<Item = &'a str>) -> u64 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |h: u64, word: u64| (h.rotate_left(5) ^ word).wrapping_mul(K);
    let mut h = mix(u64::from(family), part as u64);
    for text in key {
        let (words, rest) = text.as_bytes().as_chunks::<8>();
        for word in words {
            h = mix(h, u64::from_le_bytes(*word));
        }
        let tail = rest.iter().fold(0, |tail, byte| tail << 8 | u64::from(*byte));
        h = mix(mix(h, tail), text.len() as u64);
    }
    (h ^ (h >> 32)).wrapping_mul(K)
}

/// The lines of a histogram's series: the buckets with `+Inf`, the sum, the count.
pub(crate) fn histogram_lines(bounds: &[f64]) -> Vec<(Part, Option<(String, String)>)> {
    let le = |bound: String| (Part::Bucket, Some(("le".to_owned(), bound)));
    let mut lines: Vec<_> = bounds.iter().map(|bound| le(number(*bound))).collect();
    lines.push(le("+Inf".to_owned()));
    lines.extend([(Part::Sum, None), (Part::Count, None)]);
    lines
}

/// As OpenMetrics wants bounds: with a point.
fn number(value: f64) -> String {
    format!("{value:?}")
}

/// The lines of a state set's series: one a state.
pub(crate) fn state_lines(label: &str, states: &[&str]) -> Vec<(Part, Option<(String, String)>)> {
    states.iter().map(|s| (Part::Value, Some((label.to_owned(), (*s).to_owned())))).collect()
}

impl FamilyState {
    pub fn type_is(&self, metric_type: MetricType) -> bool {
        self.def.metric_type == metric_type
    }
}
