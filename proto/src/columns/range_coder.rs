//! An adaptive binary range coder: each yes-or-no costs what it surprises, down to a thousandth of a bit.
//!
//! [`Coder`] is one interface for both directions: the writer codes the value it is given and returns it, the
//! reader ignores it and returns what it read. So one function describes a format, and writer and reader can't
//! drift apart.
//!
//! Source: G. N. N. Martin, "Range encoding" (1979); the carry is propagated as in the LZMA format.

/// The probability of `false` in 1/32768, moved by each coded bit. Never 0, never 1.
#[derive(Clone, Copy)]
pub(super) struct Bit(u16);

impl Bit {
    pub const EVEN: Self = Self(1 << (BITS - 1));
}

const BITS: u32 = 15;
/// How slowly a probability follows: by 1/32 of the distance.
const RATE: u32 = 5;
const NORMAL: u32 = 1 << 24;
/// What [`Coder::raw`] takes at once.
const CHUNK: u32 = 16;
/// Bytes at the end that may be left out because they are zero.
const TAIL: usize = 4;

pub(super) trait Coder {
    /// One bit at the cost of its probability, which then moves towards it.
    fn bit(&mut self, bit: &mut Bit, value: bool) -> bool;
    /// The lowest `count` (up to 16) bits at full cost.
    fn chunk(&mut self, count: u32, value: u32) -> u32;

    /// Nothing more can be had: what is read from now on means nothing.
    fn ended(&self) -> bool {
        false
    }

    /// The lowest `count` (up to 64) bits at full cost.
    fn raw(&mut self, count: u32, value: u64) -> u64 {
        let mut left = count;
        let mut read = 0;
        while left > 0 {
            let take = left.min(CHUNK);
            left -= take;
            let part = (value >> left) as u32 & ((1 << take) - 1);
            read = read << take | u64::from(self.chunk(take, part));
        }
        read
    }

    /// A number below 64, by a tree of bits.
    fn symbol(&mut self, tree: &mut [Bit; 64], value: u32) -> u32 {
        let mut node = 1_usize;
        for level in (0..6).rev() {
            let bit = self.bit(&mut tree[node & 63], value >> level & 1 == 1);
            node = node << 1 | usize::from(bit);
        }
        node as u32 & 63
    }

    /// Any number: its length by the tree, then its bits below the first.
    fn number(&mut self, tree: &mut [Bit; 64], value: u64) -> u64 {
        let length = self.symbol(tree, (64 - value.leading_zeros()).min(63));
        match length {
            0 => 0,
            63 => self.raw(64, value),
            _ => 1 << (length - 1) | self.raw(length - 1, value & ((1 << (length - 1)) - 1)),
        }
    }
}

/// Appends to `out`; nothing is complete before [`Writer::finish`].
pub(super) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    low: u64,
    range: u32,
    /// The byte that a carry may still change, and how many 0xFF follow it. The first byte of all is always 0
    /// and isn't written.
    cache: u8,
    pending: u32,
    first: bool,
}

impl<'a> Writer<'a> {
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, low: 0, range: u32::MAX, cache: 0, pending: 0, first: true }
    }

    fn shift(&mut self) {
        if self.low < 0xFF00_0000 || self.low > u64::from(u32::MAX) {
            let carry = (self.low >> 32) as u8;
            if !self.first {
                self.out.push(self.cache.wrapping_add(carry));
            }
            self.first = false;
            for _ in 0..self.pending {
                self.out.push(0xFF_u8.wrapping_add(carry));
            }
            self.pending = 0;
            self.cache = (self.low >> 24) as u8;
        } else {
            self.pending += 1;
        }
        self.low = (self.low & 0x00FF_FFFF) << 8;
    }

    #[inline]
    fn normalise(&mut self) {
        while self.range < NORMAL {
            self.range <<= 8;
            self.shift();
        }
    }

    /// Ends the bytes, with the value of the final range that has the most zeros at its end.
    pub fn finish(mut self) {
        let end = self.low + u64::from(self.range);
        for zeros in (0..=32).rev() {
            let value = (self.low + (1 << zeros) - 1) >> zeros << zeros;
            if value < end {
                self.low = value;
                break;
            }
        }
        for _ in 0..=TAIL {
            self.shift();
        }
        let keep = self.out.len().saturating_sub(TAIL);
        while self.out.len() > keep && self.out.last() == Some(&0) {
            self.out.pop();
        }
    }
}

impl Coder for Writer<'_> {
    #[inline]
    fn bit(&mut self, bit: &mut Bit, value: bool) -> bool {
        let bound = (self.range >> BITS) * u32::from(bit.0);
        if value {
            self.low += u64::from(bound);
            self.range -= bound;
            bit.0 -= bit.0 >> RATE;
        } else {
            self.range = bound;
            bit.0 += ((1 << BITS) - bit.0) >> RATE;
        }
        self.normalise();
        value
    }

    #[inline]
    fn chunk(&mut self, count: u32, value: u32) -> u32 {
        self.range >>= count;
        self.low += u64::from(value) * u64::from(self.range);
        self.normalise();
        value
    }
}

/// Reads what a [`Writer`] wrote. Past the end it reads zeros: ask [`Reader::past_end`] now and then.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
    code: u32,
    range: u32,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        let mut reader = Self { bytes, position: 0, code: 0, range: u32::MAX };
        for _ in 0..4 {
            reader.shift();
        }
        reader
    }

    #[inline]
    fn shift(&mut self) {
        let byte = self.bytes.get(self.position).copied().unwrap_or(0);
        self.position += 1;
        self.code = self.code << 8 | u32::from(byte);
    }

    #[inline]
    fn normalise(&mut self) {
        while self.range < NORMAL {
            self.range <<= 8;
            self.shift();
        }
    }

    /// More was read than a writer can have left out.
    #[inline]
    pub fn past_end(&self) -> bool {
        self.position > self.bytes.len() + TAIL
    }

    /// Bytes that nothing has asked for.
    pub fn unread(&self) -> usize {
        self.bytes.len().saturating_sub(self.position)
    }
}

impl Coder for Reader<'_> {
    #[inline]
    fn ended(&self) -> bool {
        self.past_end()
    }

    #[inline]
    fn bit(&mut self, bit: &mut Bit, _: bool) -> bool {
        let bound = (self.range >> BITS) * u32::from(bit.0);
        let value = self.code >= bound;
        if value {
            self.code -= bound;
            self.range -= bound;
            bit.0 -= bit.0 >> RATE;
        } else {
            self.range = bound;
            bit.0 += ((1 << BITS) - bit.0) >> RATE;
        }
        self.normalise();
        value
    }

    #[inline]
    fn chunk(&mut self, count: u32, _: u32) -> u32 {
        self.range >>= count;
        // Foreign bytes can hold a code outside the range.
        let value = (self.code / self.range).min((1 << count) - 1);
        self.code = self.code.wrapping_sub(value * self.range);
        self.normalise();
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Bit(u8, bool),
        Raw(u32, u64),
        Number(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3_u8, prop::bool::weighted(0.02)).prop_map(|(p, b)| Step::Bit(p, b)),
            1 => (0..=64_u32, any::<u64>())
                .prop_map(|(n, v)| Step::Raw(n, if n == 64 { v } else { v & ((1 << n) - 1) })),
            1 => (any::<u64>(), 0..64_u32).prop_map(|(v, s)| Step::Number(v >> s)),
        ]
    }

    fn play<C: Coder>(coder: &mut C, steps: &[Step], zero: bool) -> Vec<u64> {
        let mut bits = [Bit::EVEN; 3];
        let mut tree = [Bit::EVEN; 64];
        let mut read = Vec::new();
        for step in steps {
            read.push(match *step {
                Step::Bit(p, b) => u64::from(coder.bit(&mut bits[p as usize], b && !zero)),
                Step::Raw(n, v) => coder.raw(n, if zero { 0 } else { v }),
                Step::Number(v) => coder.number(&mut tree, if zero { 0 } else { v }),
            });
        }
        read
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(steps in prop::collection::vec(step(), 0..600)) {
            let mut out = vec![7];
            let mut writer = Writer::new(&mut out);
            let written = play(&mut writer, &steps, false);
            writer.finish();
            let mut reader = Reader::new(&out[1..]);
            prop_assert_eq!(play(&mut reader, &steps, true), written);
            prop_assert!(!reader.past_end());
            prop_assert_eq!(reader.unread(), 0);
        }

        #[test]
        fn foreign_bytes_read_as_something(bytes in prop::collection::vec(any::<u8>(), 0..64), steps in prop::collection::vec(step(), 0..200)) {
            play(&mut Reader::new(&bytes), &steps, true);
        }
    }
}
