//! From the spool's records to the stream's messages: definitions once, then batches in columns.
//!
//! A record at or below the aggregator's watermark is read for its definitions alone. Samples of a series that no
//! definition on this stream covers (the record that held it was lost) are left out and counted: the aggregator would have
//! to end the stream over them, again and again.

use std::collections::VecDeque;

use bytes::Bytes;
use picket_agent_spool::Item;
use picket_proto::columns::{ColumnsError, Encoder};
use picket_proto::spool::v1 as spool;
use picket_proto::v1;
use picket_proto::v1::uplink_message::Message;
use prost::Message as _;

use super::definitions::{Damaged, Table};

/// Bounds of one batch, so that it fits a message that the aggregator accepts.
const MAX_SAMPLES: usize = 1 << 20;
const MAX_EVENT_BYTES: usize = 4 << 20;
/// One more than the largest series number of the columns codec.
const MAX_SERIES: i64 = 1 << 22;

#[derive(Debug, thiserror::Error)]
pub enum TranslateError {
    #[error("record {sequence} of life {life:016x} is damaged: {why}")]
    Damaged { life: u64, sequence: u64, why: String },
    #[error("record {sequence} of life {life:016x} is too large for one message ({what})")]
    TooLarge { life: u64, sequence: u64, what: String },
    /// The codec's state may be off now: only a new stream mends that.
    #[error("record {sequence} of life {life:016x} cannot be written in columns: {source}")]
    Columns { life: u64, sequence: u64, source: ColumnsError },
}

/// What became of a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Translated {
    /// A batch was queued.
    Batch {
        /// Samples left out for want of a definition.
        undefined: u64,
    },
    /// The aggregator holds it already.
    Skipped,
}

/// The state of one stream's upward direction.
#[derive(Default)]
pub(super) struct Translator {
    current: Option<Life>,
    record: spool::Record,
    columns: Columns,
}

struct Life {
    life: u64,
    /// The `Life` message was queued.
    said: bool,
    table: Table,
    encoder: Encoder,
}

/// Buffers, kept from record to record.
#[derive(Default)]
struct Columns {
    series: Vec<u32>,
    values: Vec<f64>,
    times: Vec<i64>,
    bytes: Vec<u8>,
}

impl Translator {
    /// Queues what this record needs. `held`: the aggregator has the record already.
    pub fn translate(
        &mut self,
        item: &Item,
        held: bool,
        queue: &mut VecDeque<v1::UplinkMessage>,
    ) -> Result<Translated, TranslateError> {
        let (life, sequence) = (item.life, item.sequence);
        let damaged = |why: String| TranslateError::Damaged { life, sequence, why };
        let current = match &mut self.current {
            Some(current) if current.life == life => current,
            other => {
                other.insert(Life { life, said: false, table: Table::default(), encoder: Encoder::new() })
            }
        };

        if let Some(header) = &item.header {
            let header = spool::Record::decode(header.clone())
                .map_err(|e| damaged(format!("its segment's header: {e}")))?;
            let taken = header.definitions.map_or(Ok(()), |definitions| current.table.snapshot(definitions));
            taken.map_err(|e| damaged(format!("its segment's header: {e}")))?;
        }
        let record = &mut self.record;
        record.clear();
        record.merge(item.bytes.clone()).map_err(|e| damaged(e.to_string()))?;
        if let Some(definitions) = record.definitions.take() {
            current.table.define(definitions).map_err(|e: Damaged| damaged(e.to_string()))?;
        }
        if held {
            current.table.retire(&record.retired);
            return Ok(Translated::Skipped);
        }
        check(record).map_err(|fault| match fault {
            Fault::Damaged(why) => damaged(why.to_owned()),
            Fault::TooLarge(what) => TranslateError::TooLarge { life, sequence, what },
        })?;

        if !current.said {
            current.said = true;
            queue.push_back(message(Message::Life(v1::Life { life })));
        }
        current.table.take(|definitions| queue.push_back(message(Message::Definitions(definitions))));

        let mut undefined = 0;
        let mut columns = Vec::with_capacity(record.blocks.len());
        for block in &record.blocks {
            let (left, written) = self
                .columns
                .encode(record.timestamp_ms, block, current)
                .map_err(|source| TranslateError::Columns { life, sequence, source })?;
            undefined += left;
            columns.extend(written);
        }
        current.table.retire(&record.retired);
        current.encoder.forget(&record.retired);
        let batch = v1::Batch {
            sequence,
            columns,
            events: std::mem::take(&mut record.events),
            retired: std::mem::take(&mut record.retired),
            logs: std::mem::take(&mut record.logs),
            life: 0,
        };
        queue.push_back(message(Message::Batch(batch)));
        Ok(Translated::Batch { undefined })
    }
}

/// The batch of a record of log lines; none where it moves cursors alone.
///
/// # Errors
/// The record is damaged.
pub(super) fn lines(item: &Item) -> Result<Option<v1::UplinkMessage>, TranslateError> {
    let (life, sequence) = (item.life, item.sequence);
    let damaged = |why: String| TranslateError::Damaged { life, sequence, why };
    let record = spool::Record::decode(item.bytes.clone()).map_err(|e| damaged(e.to_string()))?;
    if record.logs.iter().any(|stream| stream.timestamps_ns.len() != stream.lines.len()) {
        return Err(damaged("times and lines differ in number".to_owned()));
    }
    if record.logs.is_empty() {
        return Ok(None);
    }
    let batch = v1::Batch { sequence, logs: record.logs, life, ..v1::Batch::default() };
    Ok(Some(message(Message::Batch(batch))))
}

impl Columns {
    /// One block, checked before, in the codec's bytes; and how many samples were left out. No block: none was left.
    fn encode(
        &mut self,
        timestamp_ms: i64,
        block: &spool::Block,
        life: &mut Life,
    ) -> Result<(u64, Option<Bytes>), ColumnsError> {
        self.series.clear();
        self.values.clear();
        self.times.clear();
        self.bytes.clear();
        let timed = !block.time_deltas_ms.is_empty();
        let mut series = 0i64;
        let mut undefined = 0;
        for (index, (delta, value)) in block.series_deltas.iter().zip(&block.values).enumerate() {
            series += i64::from(*delta);
            let number = u32::try_from(series).unwrap_or(u32::MAX);
            if !life.table.has(number) {
                undefined += 1;
                continue;
            }
            self.series.push(number);
            self.values.push(*value);
            if timed {
                let delta = block.time_deltas_ms.get(index).copied().unwrap_or(0);
                self.times.push(timestamp_ms.saturating_add(delta));
            }
        }
        if self.series.is_empty() {
            return Ok((undefined, None));
        }
        let times = timed.then_some(self.times.as_slice());
        life.encoder.encode(timestamp_ms, &self.series, &self.values, times, &mut self.bytes)?;
        Ok((undefined, Some(Bytes::copy_from_slice(&self.bytes))))
    }
}

enum Fault {
    Damaged(&'static str),
    TooLarge(String),
}

/// All that could stop a record half way, before the codec's state has moved.
fn check(record: &spool::Record) -> Result<(), Fault> {
    let mut samples = 0usize;
    for block in &record.blocks {
        let count = block.values.len();
        samples = samples.saturating_add(count);
        let times = block.time_deltas_ms.len();
        if block.series_deltas.len() != count || (times != 0 && times != count) {
            return Err(Fault::Damaged("a block's columns differ in length"));
        }
        let mut series = 0i64;
        for delta in &block.series_deltas {
            series += i64::from(*delta);
            if !(0..MAX_SERIES).contains(&series) {
                return Err(Fault::Damaged("a series number is out of range"));
            }
        }
    }
    if samples > MAX_SAMPLES {
        return Err(Fault::TooLarge(format!("{samples} samples, {MAX_SAMPLES} are the most")));
    }
    let events: usize = record.events.iter().map(prost::Message::encoded_len).sum();
    if events > MAX_EVENT_BYTES {
        return Err(Fault::TooLarge(format!("{events} bytes of events, {MAX_EVENT_BYTES} are the most")));
    }
    Ok(())
}

pub(super) fn message(message: Message) -> v1::UplinkMessage {
    v1::UplinkMessage { message: Some(message) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use picket_proto::columns::{Columns as Decoded, Decoder};
    use proptest::prelude::*;

    const SERIES: u32 = 40;

    /// Series, value, and how far its time is from the record's.
    type Sample = (u32, i64, Option<i64>);

    fn definitions() -> v1::Definitions {
        let mut all = v1::Definitions { strings: vec![String::new(), "up".into()], ..Default::default() };
        all.families.extend([0, 1, 1, 0, 0, 0]);
        all.series.extend((0..SERIES).flat_map(|number| [number, 0, 0, 0]));
        all
    }

    fn record(timestamp_ms: i64, samples: &[Sample]) -> spool::Record {
        let mut blocks = [spool::Block::default(), spool::Block::default()];
        let mut last = [0i32; 2];
        for (series, value, time) in samples {
            let which = usize::from(time.is_some());
            let number = i32::try_from(*series).unwrap();
            blocks[which].series_deltas.push(number - last[which]);
            last[which] = number;
            blocks[which].values.push(*value as f64);
            blocks[which].time_deltas_ms.extend(*time);
        }
        spool::Record { timestamp_ms, blocks: blocks.to_vec(), ..Default::default() }
    }

    fn samples() -> impl Strategy<Value = Vec<Sample>> {
        prop::collection::vec(
            (0..SERIES, any::<i32>().prop_map(i64::from), prop::option::of(-5000i64..5000)),
            0..60,
        )
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            records in prop::collection::vec((samples(), any::<bool>()), 1..20),
            lives in prop::collection::vec(1u64..3, 20),
        ) {
            let mut lives = lives;
            lives.sort_unstable();
            let mut translator = Translator::default();
            let mut queue = VecDeque::new();
            let mut decoder = Decoder::new();
            let (mut life, mut known) = (0, false);
            for (index, ((samples, held), expected_life)) in records.iter().zip(&lives).enumerate() {
                let timestamp_ms = 1_700_000_000_000 + index as i64 * 15_000;
                let header = spool::Record { definitions: Some(definitions()), ..Default::default() };
                let item = Item {
                    life: *expected_life,
                    sequence: index as u64 + 1,
                    header: Some(header.encode_to_vec().into()),
                    bytes: record(timestamp_ms, samples).encode_to_vec().into(),
                };
                let done = translator.translate(&item, *held, &mut queue).unwrap();
                prop_assert_eq!(done == Translated::Skipped, *held);
                let mut got = Vec::new();
                for message in queue.drain(..) {
                    match message.message.unwrap() {
                        Message::Life(said) => {
                            life = said.life;
                            known = false;
                            decoder = Decoder::new();
                        }
                        Message::Definitions(_) => {
                            prop_assert!(!known, "definitions are sent once");
                            known = true;
                        }
                        Message::Batch(batch) => {
                            prop_assert!(known && life == *expected_life && batch.sequence == item.sequence);
                            for bytes in &batch.columns {
                                let mut columns = Decoded::default();
                                decoder.decode(bytes, &mut columns).unwrap();
                                for (at, (series, value)) in columns.series.iter().zip(&columns.values).enumerate() {
                                    let time = columns.times_ms.get(at).map(|time| time - timestamp_ms);
                                    prop_assert_eq!(columns.timestamp_ms, timestamp_ms);
                                    got.push((*series, *value as i64, time));
                                }
                            }
                        }
                        other => prop_assert!(false, "{other:?}"),
                    }
                }
                let mut expected = if *held { Vec::new() } else { samples.clone() };
                got.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(got, expected);
            }
        }

        #[test]
        fn any_bytes_are_answered(header in prop::option::of(prop::collection::vec(any::<u8>(), 0..100)), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let item = Item { life: 1, sequence: 1, header: header.map(Into::into), bytes: bytes.into() };
            let _ = Translator::default().translate(&item, false, &mut VecDeque::new());
        }
    }
}
