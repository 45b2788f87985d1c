//! The columns in which samples travel: one block is a time, a list of series and their values.
//!
//! Both sides remember the stream: the lists of series they have seen (a list seen before costs a few bits), and of
//! each series its last value and how it moves. A value is written as a whole number in a form that gives the same
//! float back bit by bit (`number.rs`), as its difference to what was expected of it (`series.rs`), and by its
//! probability (`range_coder.rs`): a value that stays as it was, as most of a node's do, costs a hundredth of a bit.
//! A general compressor behind such columns needs a window of the stream's past for each stream; this needs 24 bytes a
//! series and 5 KiB a stream, and writes less.
//!
//! So the blocks of a stream must be decoded in the order in which they were encoded, all of them, once each. An
//! encoder refuses bad arguments before it changes anything. A decoder that has met a malformed block has lost its
//! place: it refuses all that follows.
//!
//! Layout: one byte, the format, 1; then the bits of a range coder: the time as the difference of its difference;
//! the list, by its place among those last used or in full; whether samples have times of their own; these; the values.
//!
//! Bounds, as the bytes are foreign: 2^20 samples a block, series numbers below 2^22, 2^20 series in remembered
//! lists. Memory grows with the bytes that came, never by what they claim.

mod number;
mod range_coder;
mod series;

use range_coder::{Bit, Coder, Reader, Writer};
use series::{Model, NoSuchForm, State};

/// The version of the bytes, as agreed in `Hello` and `Welcome`.
pub const CODEC: u32 = 1;
/// The most samples in one block.
pub const MAX_SAMPLES: usize = 1 << 20;
/// Series numbers are below this.
pub const MAX_SERIES: u32 = 1 << 22;

const FORMAT: u8 = 1;
/// How many lists of series are remembered.
const LISTS: usize = 16;
const PAGE: usize = 64;

/// Why a block was not written, or could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ColumnsError {
    #[error("{series} series numbers, {values} values and {times} times do not make one block")]
    Lengths { series: usize, values: usize, times: usize },
    #[error("{count} samples in one block, {MAX_SAMPLES} are allowed: split it")]
    TooMany { count: u64 },
    #[error("the series number {number} is not below {MAX_SERIES}")]
    Series { number: i64 },
    #[error("the block is empty: not even a format byte")]
    Empty,
    #[error("the block's format is {format}; this version reads {FORMAT}")]
    Format { format: u8 },
    #[error("the block ends after {read} of {samples} samples")]
    Truncated { read: usize, samples: usize },
    #[error("{count} bytes follow the block's end")]
    Trailing { count: usize },
    #[error("the block refers to the list of series {place}, {known} are known")]
    List { place: usize, known: usize },
    #[error("a value has a form that is not known")]
    Form,
    #[error(
        "an earlier block of this stream was malformed: nothing after it can be read; begin a new stream"
    )]
    Lost,
}

impl From<NoSuchForm> for ColumnsError {
    fn from(_: NoSuchForm) -> Self {
        Self::Form
    }
}

/// Writes the blocks of one life on one stream.
#[derive(Default)]
pub struct Encoder {
    stream: Stream,
}

impl Encoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one block to `out`. The times, if given, are Unix ms and one a sample; else all samples are of
    /// `timestamp_ms`. After an error, neither `out` nor what is remembered has changed.
    pub fn encode(
        &mut self,
        timestamp_ms: i64,
        series: &[u32],
        values: &[f64],
        times_ms: Option<&[i64]>,
        out: &mut Vec<u8>,
    ) -> Result<(), ColumnsError> {
        if series.len() != values.len() || times_ms.is_some_and(|times| times.len() != series.len()) {
            let times = times_ms.map_or(0, <[i64]>::len);
            return Err(ColumnsError::Lengths { series: series.len(), values: values.len(), times });
        }
        if series.len() > MAX_SAMPLES {
            return Err(ColumnsError::TooMany { count: series.len() as u64 });
        }
        if let Some(&number) = series.iter().find(|&&number| number >= MAX_SERIES) {
            return Err(ColumnsError::Series { number: number.into() });
        }
        out.push(FORMAT);
        let mut writer = Writer::new(out);
        let Stream { shared, lists, states } = &mut self.stream;
        let shared = shared.get_or_insert_default();
        shared.code_time(&mut writer, timestamp_ms);

        let place = lists.place(series);
        if writer.bit(&mut shared.new_list, place.is_none()) {
            shared.code_list(&mut writer, series.len(), series.iter().copied(), |_| {})?;
            lists.add(series.into());
        } else {
            let place = place.unwrap_or_default();
            writer.symbol(&mut shared.place, place as u32);
            lists.use_again(place);
        }

        writer.bit(&mut shared.timed, times_ms.is_some());
        if let Some(times) = times_ms {
            let mut before = timestamp_ms;
            for &time in times {
                code_signed(&mut writer, &mut shared.times, time.wrapping_sub(before));
                before = time;
            }
        }

        for (&number, &value) in series.iter().zip(values) {
            let state = states.get(number);
            let choice = state.choose(value);
            state.code(&mut writer, &mut shared.model, choice)?;
        }
        writer.finish();
        Ok(())
    }
}

/// Reads the blocks of one life on one stream.
#[derive(Default)]
pub struct Decoder {
    stream: Stream,
    lost: bool,
}

/// One block, read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Columns {
    /// Unix ms.
    pub timestamp_ms: i64,
    pub series: Vec<u32>,
    pub values: Vec<f64>,
    /// Unix ms, one a sample. Empty: all are of `timestamp_ms`.
    pub times_ms: Vec<i64>,
}

impl Decoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads one block into `into`, whose memory is used again. After an error nothing in `into` means anything, and
    /// this decoder reads no more.
    pub fn decode(&mut self, bytes: &[u8], into: &mut Columns) -> Result<(), ColumnsError> {
        if self.lost {
            return Err(ColumnsError::Lost);
        }
        let result = self.read(bytes, into);
        self.lost = result.is_err();
        result
    }

    fn read(&mut self, bytes: &[u8], into: &mut Columns) -> Result<(), ColumnsError> {
        into.series.clear();
        into.values.clear();
        into.times_ms.clear();
        let (&format, bytes) = bytes.split_first().ok_or(ColumnsError::Empty)?;
        if format != FORMAT {
            return Err(ColumnsError::Format { format });
        }
        let mut reader = Reader::new(bytes);
        let Stream { shared, lists, states } = &mut self.stream;
        let shared = shared.get_or_insert_default();
        into.timestamp_ms = shared.code_time(&mut reader, 0);

        if reader.bit(&mut shared.new_list, false) {
            let series = &mut into.series;
            shared.code_list(&mut reader, 0, std::iter::repeat(0), |number| series.push(number))?;
            lists.add(series.as_slice().into());
        } else {
            let place = reader.symbol(&mut shared.place, 0) as usize;
            let known = lists.0.len();
            let list = lists.use_again(place).ok_or(ColumnsError::List { place, known })?;
            into.series.extend_from_slice(list);
        }
        let samples = into.series.len();

        if reader.bit(&mut shared.timed, false) {
            let mut before = into.timestamp_ms;
            for read in 0..samples {
                before = before.wrapping_add(code_signed(&mut reader, &mut shared.times, 0));
                into.times_ms.push(before);
                if reader.past_end() {
                    return Err(ColumnsError::Truncated { read, samples });
                }
            }
        }

        for (read, &number) in into.series.iter().enumerate() {
            let value = states.get(number).code(&mut reader, &mut shared.model, Default::default())?;
            into.values.push(value);
            if reader.past_end() {
                return Err(ColumnsError::Truncated { read, samples });
            }
        }
        if reader.past_end() {
            return Err(ColumnsError::Truncated { read: samples, samples });
        }
        match reader.unread() {
            0 => Ok(()),
            count => Err(ColumnsError::Trailing { count }),
        }
    }
}

/// What both sides remember of a stream.
#[derive(Default)]
struct Stream {
    /// Made with the first block: a stream that sends nothing costs nothing.
    shared: Option<Box<Shared>>,
    lists: Lists,
    states: States,
}

struct Shared {
    time_ms: i64,
    interval_ms: i64,
    time: [Bit; 64],
    new_list: Bit,
    place: [Bit; 64],
    count: [Bit; 64],
    /// The series number is the one after that before: by whether that was so for the last two.
    next: [Bit; 4],
    step: [Bit; 64],
    timed: Bit,
    times: [Bit; 64],
    model: Model,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            time_ms: 0,
            interval_ms: 0,
            time: [Bit::EVEN; 64],
            new_list: Bit::EVEN,
            place: [Bit::EVEN; 64],
            count: [Bit::EVEN; 64],
            next: [Bit::EVEN; 4],
            step: [Bit::EVEN; 64],
            timed: Bit::EVEN,
            times: [Bit::EVEN; 64],
            model: Model::default(),
        }
    }
}

impl Shared {
    fn code_time<C: Coder>(&mut self, coder: &mut C, time_ms: i64) -> i64 {
        let expected = self.time_ms.wrapping_add(self.interval_ms);
        let off = code_signed(coder, &mut self.time, time_ms.wrapping_sub(expected));
        let time_ms = expected.wrapping_add(off);
        self.interval_ms = time_ms.wrapping_sub(self.time_ms);
        self.time_ms = time_ms;
        time_ms
    }

    fn code_list<C: Coder>(
        &mut self,
        coder: &mut C,
        count: usize,
        mut series: impl Iterator<Item = u32>,
        mut found: impl FnMut(u32),
    ) -> Result<(), ColumnsError> {
        let count = coder.number(&mut self.count, count as u64);
        if count > MAX_SAMPLES as u64 {
            return Err(ColumnsError::TooMany { count });
        }
        let mut before = -1_i64;
        let mut history = 3;
        for read in 0..count {
            if coder.ended() {
                return Err(ColumnsError::Truncated { read: read as usize, samples: count as usize });
            }
            let step = i64::from(series.next().unwrap_or(0)) - before;
            let next = coder.bit(&mut self.next[history & 3], step == 1);
            history = history << 1 | usize::from(next);
            let number =
                if next { before + 1 } else { before.wrapping_add(code_signed(coder, &mut self.step, step)) };
            if !(0..i64::from(MAX_SERIES)).contains(&number) {
                return Err(ColumnsError::Series { number });
            }
            found(number as u32);
            before = number;
        }
        Ok(())
    }
}

fn code_signed<C: Coder>(coder: &mut C, tree: &mut [Bit; 64], value: i64) -> i64 {
    let folded = coder.number(tree, (value << 1 ^ value >> 63) as u64);
    (folded >> 1) as i64 ^ -((folded & 1) as i64)
}

/// The lists of series last used, the latest first. The oldest go when there are too many, or too long ones.
#[derive(Default)]
struct Lists(Vec<Box<[u32]>>);

impl Lists {
    fn place(&self, series: &[u32]) -> Option<usize> {
        self.0.iter().position(|list| **list == *series)
    }

    fn use_again(&mut self, place: usize) -> Option<&[u32]> {
        self.0.get_mut(..=place)?.rotate_right(1);
        self.0.first().map(|list| &**list)
    }

    fn add(&mut self, list: Box<[u32]>) {
        self.0.insert(0, list);
        let mut total = 0;
        let keep = self.0.iter().take_while(|list| {
            total += list.len();
            total <= MAX_SAMPLES
        });
        let keep = keep.count().min(LISTS);
        self.0.truncate(keep);
    }
}

/// The states by series number, in pages that are made when first used.
#[derive(Default)]
struct States {
    pages: Vec<Option<Box<[State; PAGE]>>>,
}

impl States {
    #[inline]
    fn get(&mut self, number: u32) -> &mut State {
        let page = number as usize / PAGE;
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, || None);
        }
        let page = self.pages[page].get_or_insert_with(|| Box::new([State::default(); PAGE]));
        &mut page[number as usize % PAGE]
    }
}

#[cfg(test)]
mod tests;
