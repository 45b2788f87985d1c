//! How a stream's definitions and batches get into the store: numbers of one agent life in, slots of the node out.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use picket_proto::columns::Columns;
use picket_proto::model::{
    Family, MAX_LABEL_VALUE, MAX_LABELS, MetricType, Part, check_label_name, check_part,
};

use super::node::{FamilySlot, Guard, Node, Pin, REFUSED, Room, UNDEFINED};
use super::{Refusal, Store, lock, telemetry, text};

/// Family numbers a life may use.
const MAX_FAMILIES: u32 = 1 << 16;
/// Series numbers a life may use: what the codec can carry.
const MAX_NUMBERS: u32 = 1 << 22;
/// The longest series text, in bytes.
const MAX_TEXT: usize = 32 << 10;
/// Series defined under one hold of the node's lock.
const HOLD: u32 = 256;

/// Definitions that break the protocol: the stream must end, since its numbers mean nothing any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DefineError {
    #[error("series {series} names family {family}, which was never defined on this stream")]
    UndefinedFamily { series: u32, family: u32 },
    #[error("{what} number {number} is beyond {max}")]
    Number { what: &'static str, number: u32, max: u32 },
    #[error("the node was removed")]
    Gone,
}

/// A batch with a series number that was never defined on the stream: the stream must end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the batch names series {number}, which was never defined on this stream")]
pub struct UndefinedSeries {
    pub number: u32,
}

/// What a message of definitions brought.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Series not known before.
    pub created: u64,
    /// Series defined, known or not, refused ones not counted.
    pub defined: u64,
    /// Families and series refused.
    pub refused: u64,
    /// The first refusal, for the log.
    pub first_refusal: Option<Refusal>,
}

/// One agent life's way into the store, for as long as its stream lasts.
pub struct Writer {
    store: Arc<Store>,
    node: Arc<Node>,
    table: u64,
}

/// A batch whose numbers are slots now. Holds the slots' meaning until dropped.
pub struct Resolved {
    pub slots: Vec<u32>,
    pub values: Vec<f64>,
    /// Empty, or one a sample.
    pub times_ms: Vec<i64>,
    /// The time of samples without their own.
    pub timestamp_ms: i64,
    /// Samples left out because their series was refused.
    pub refused: usize,
    #[allow(dead_code, reason = "held, not read")]
    pin: Pin,
}

impl Writer {
    pub(super) fn new(store: Arc<Store>, node: Arc<Node>) -> Self {
        let table = node.open_table();
        Self { store, node, table }
    }

    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Begins a message of definitions.
    pub fn define(&mut self, now_ms: i64) -> Definer<'_, '_> {
        Definer {
            room: self.store.room(),
            cutoff_s: self.store.cutoff_s(now_ms),
            writer: self,
            guard: None,
            held: 0,
            text: Vec::new(),
            checked: Vec::new(),
            outcome: Outcome::default(),
        }
    }

    /// Turns a batch's numbers into slots. Nothing is applied yet.
    pub fn resolve(&self, mut columns: Columns) -> Result<Resolved, UndefinedSeries> {
        let inner = lock(&self.node.inner);
        let pin = self.node.pin();
        let table = inner.table_ref(self.table);
        let mut slots = std::mem::take(&mut columns.series);
        let mut refused = 0;
        for slot in &mut slots {
            let number = *slot;
            *slot = table.and_then(|t| t.numbers.get(number as usize)).copied().unwrap_or(UNDEFINED);
            match *slot {
                UNDEFINED => return Err(UndefinedSeries { number }),
                REFUSED => refused += 1,
                _ => {}
            }
        }
        drop(inner);
        let mut resolved = Resolved {
            slots,
            values: columns.values,
            times_ms: columns.times_ms,
            timestamp_ms: columns.timestamp_ms,
            refused,
            pin,
        };
        if refused > 0 {
            resolved.leave_out_refused();
        }
        Ok(resolved)
    }

    /// Forgets what the numbers meant, and gives the slots that they stood for. An undefined number is no error: a replay
    /// may retire what its snapshot doesn't hold any more.
    pub fn undefine(&self, numbers: &[u32]) -> Vec<u32> {
        let mut inner = lock(&self.node.inner);
        let Some(table) = inner.table(self.table) else { return Vec::new() };
        let mut slots = Vec::with_capacity(numbers.len());
        for &number in numbers {
            if let Some(entry) = table.numbers.get_mut(number as usize) {
                let slot = std::mem::replace(entry, UNDEFINED);
                if slot != UNDEFINED && slot != REFUSED {
                    slots.push(slot);
                }
            }
        }
        slots
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.node.close_table(self.table);
    }
}

impl Resolved {
    fn leave_out_refused(&mut self) {
        let keep: Vec<bool> = self.slots.iter().map(|&slot| slot != REFUSED).collect();
        let mut at = 0;
        self.slots.retain(|&slot| slot != REFUSED);
        self.values.retain(|_| {
            at += 1;
            keep.get(at - 1).copied().unwrap_or(false)
        });
        at = 0;
        self.times_ms.retain(|_| {
            at += 1;
            keep.get(at - 1).copied().unwrap_or(false)
        });
        metrics::counter!(telemetry::REFUSED_SAMPLES).increment(self.refused as u64);
    }

    /// About the memory that it holds.
    pub fn bytes(&self) -> usize {
        self.slots.len() * 4 + self.values.len() * 8 + self.times_ms.len() * 8
    }
}

/// One message of definitions being taken: `'w` is the writer's, `'d` the message's. Families before the series that name
/// them. The node's lock is held over a few hundred series at a time.
pub struct Definer<'w, 'd> {
    writer: &'w Writer,
    room: Room,
    cutoff_s: u32,
    guard: Option<Guard<'w>>,
    held: u32,
    text: Vec<u8>,
    /// Label names of this message that were found good, by address: the message holds each string once.
    checked: Vec<&'d str>,
    outcome: Outcome,
}

impl<'d> Definer<'_, 'd> {
    pub fn family(
        &mut self,
        number: u32,
        name: &str,
        metric_type: MetricType,
        unit: &str,
        help: &str,
    ) -> Result<(), DefineError> {
        if number >= MAX_FAMILIES {
            return Err(DefineError::Number { what: "family", number, max: MAX_FAMILIES - 1 });
        }
        // Other nodes' locks may be taken from here on.
        self.guard = None;
        let admitted = Family::new(name, metric_type, unit, help)
            .map_err(Refusal::from)
            .and_then(|family| self.writer.store.registry.admit(&family, self.cutoff_s))
            .and_then(|entry| {
                self.writer.node.block_for(&entry, self.room).map_err(|_| Refusal::quota(self.room))
            });
        let slot = match admitted {
            Ok(block) => FamilySlot::Block { block, metric_type },
            Err(refusal) => {
                self.refuse(refusal);
                FamilySlot::Refused
            }
        };
        let mut inner = lock(&self.writer.node.inner);
        let table = inner.table(self.writer.table).ok_or(DefineError::Gone)?;
        let at = number as usize;
        if table.families.len() <= at {
            table.families.resize(at + 1, FamilySlot::Undefined);
        }
        if let Some(entry) = table.families.get_mut(at) {
            *entry = slot;
        }
        Ok(())
    }

    /// `labels` must come in order of name; one without a value is no label.
    pub fn series(
        &mut self,
        number: u32,
        family: u32,
        part: Part,
        labels: impl Iterator<Item = (&'d str, &'d str)> + Clone,
    ) -> Result<(), DefineError> {
        if number >= MAX_NUMBERS {
            return Err(DefineError::Number { what: "series", number, max: MAX_NUMBERS - 1 });
        }
        let writer = self.writer;
        if self.held >= HOLD {
            self.guard = None;
        }
        if self.guard.is_none() {
            self.held = 0;
            self.guard = Some(lock(&writer.node.inner));
        }
        self.held += 1;
        let Some(inner) = self.guard.as_mut() else { return Err(DefineError::Gone) };
        let slot = inner
            .table_ref(writer.table)
            .ok_or(DefineError::Gone)?
            .families
            .get(family as usize)
            .copied()
            .unwrap_or(FamilySlot::Undefined);
        let found = match slot {
            FamilySlot::Undefined => return Err(DefineError::UndefinedFamily { series: number, family }),
            FamilySlot::Refused => Ok(None),
            FamilySlot::Block { block, metric_type } => {
                let Some(entry) = inner.blocks.get(block as usize).map(|b| Arc::clone(b.family())) else {
                    return Err(DefineError::Gone);
                };
                let name = &*entry.name;
                let labels = labels.filter(|(_, value)| !value.is_empty());
                check_series(&mut self.checked, name, metric_type, part, labels.clone()).and_then(|()| {
                    self.text.clear();
                    if metric_type == MetricType::StateSet && !labels.clone().any(|(label, _)| label == name)
                    {
                        entry.loose.store(true, Ordering::Relaxed);
                    }
                    text::push_series(&mut self.text, name, part, writer.node.id.as_str(), labels);
                    if self.text.len() > MAX_TEXT {
                        return Err(Refusal::TooLong {
                            family: name.to_owned(),
                            bytes: self.text.len(),
                            max: MAX_TEXT,
                        });
                    }
                    let full = |_| Refusal::quota(self.room);
                    writer.node.slot_for(inner, block, &self.text, self.room).map(Some).map_err(full)
                })
            }
        };
        let entry = match found {
            Ok(Some((slot, new))) => {
                self.outcome.created += u64::from(new);
                self.outcome.defined += 1;
                slot
            }
            Ok(None) => REFUSED,
            Err(refusal) => {
                self.refuse(refusal);
                REFUSED
            }
        };
        let table = self.guard.as_mut().and_then(|g| g.table(writer.table)).ok_or(DefineError::Gone)?;
        let at = number as usize;
        if table.numbers.len() <= at {
            table.numbers.resize(at + 1, UNDEFINED);
        }
        if let Some(place) = table.numbers.get_mut(at) {
            *place = entry;
        }
        Ok(())
    }

    /// Ends the message.
    pub fn finish(self) -> Outcome {
        if self.outcome.created > 0 {
            metrics::counter!(telemetry::CREATED).increment(self.outcome.created);
        }
        self.outcome
    }

    fn refuse(&mut self, refusal: Refusal) {
        metrics::counter!(telemetry::REFUSED, "reason" => refusal.reason()).increment(1);
        self.outcome.refused += 1;
        self.outcome.first_refusal.get_or_insert(refusal);
    }
}

fn check_series<'d>(
    checked: &mut Vec<&'d str>,
    family: &str,
    metric_type: MetricType,
    part: Part,
    labels: impl Iterator<Item = (&'d str, &'d str)>,
) -> Result<(), Refusal> {
    check_part(metric_type, part)?;
    let mut before = "";
    for (count, (name, value)) in labels.enumerate() {
        if count >= MAX_LABELS || value.len() > MAX_LABEL_VALUE {
            return Err(Refusal::TooLong {
                family: family.to_owned(),
                bytes: value.len(),
                max: MAX_LABEL_VALUE,
            });
        }
        if !checked.iter().any(|known| std::ptr::eq(*known, name)) {
            check_label_name(name)?;
            if checked.len() < MAX_LABELS {
                checked.push(name);
            }
        }
        if name <= before {
            return Err(picket_proto::model::InvalidName::Twice { name: name.to_owned() }.into());
        }
        before = name;
    }
    Ok(())
}
