//! What both sides remember of each series, and how one value is coded against it.

use super::number::Form;
use super::range_coder::{Bit, Coder};

/// The last value of a series and how it has moved. 24 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    last: i64,
    /// The smoothed difference between one change and the next.
    trend: i64,
    form: Form,
    /// Whether the last eight values were the same as those before them, the latest in the lowest bit.
    history: u8,
    /// The running length, in quarters of a bit, of what is left after each prediction: the last value again;
    /// the last value and the trend.
    still_cost: u8,
    trend_cost: u8,
    /// The signs of the last two remainders.
    signs: u8,
    /// The writer's alone: changes to wait before it looks for a better form again. [`FRESH`]: it never has.
    patience: u8,
}

impl Default for State {
    fn default() -> Self {
        // A history that a known series seldom has, so that first values have a probability of their own.
        Self {
            last: 0,
            trend: 0,
            form: Form::WHOLE,
            history: 0b0101_0101,
            still_cost: 80,
            trend_cost: 80,
            signs: 0,
            patience: FRESH,
        }
    }
}

/// The probabilities, shared by all series of a stream.
pub(super) struct Model {
    same: [Bit; 256],
    reform: [Bit; Form::COUNT],
    /// The length of a remainder, by the length that is expected.
    length: [[Bit; 64]; LENGTHS],
    sign: [Bit; 4 * 4],
}

const LENGTHS: usize = 28;
const WAIT: u8 = 16;
const FRESH: u8 = u8::MAX;

impl Default for Model {
    fn default() -> Self {
        Self {
            same: [Bit::EVEN; 256],
            reform: [Bit::EVEN; Form::COUNT],
            length: [[Bit::EVEN; 64]; LENGTHS],
            sign: [Bit::EVEN; 16],
        }
    }
}

/// The bytes name a form that there isn't.
pub(super) struct NoSuchForm;

impl State {
    /// How the writer wants this value written.
    #[inline]
    pub fn choose(&mut self, value: f64) -> (Form, i64) {
        match self.form.number(value) {
            Some(number) if number == self.last => (self.form, number),
            Some(number) if self.patience != FRESH && !self.form.is_binary() => (self.form, number),
            Some(number) if self.patience != FRESH && self.patience > 0 => {
                self.patience -= 1;
                (self.form, number)
            }
            _ => {
                self.patience = WAIT;
                Form::of(value)
            }
        }
    }

    /// Codes one value, as a number in a form, and remembers it. The reader's arguments mean nothing.
    #[inline]
    pub fn code<C: Coder>(
        &mut self,
        coder: &mut C,
        model: &mut Model,
        (form, number): (Form, i64),
    ) -> Result<f64, NoSuchForm> {
        let same = form == self.form && number == self.last;
        let same = coder.bit(&mut model.same[usize::from(self.history)], same);
        self.history = self.history << 1 | u8::from(same);
        if !same {
            if coder.bit(&mut model.reform[self.form.index()], form != self.form) {
                let form = Form::from_index(coder.raw(5, form.index() as u64)).ok_or(NoSuchForm)?;
                self.last = form.number(self.form.float(self.last)).unwrap_or(0);
                self.trend = 0;
                self.form = form;
            }
            self.change(coder, model, number);
        }
        Ok(self.form.float(self.last))
    }

    fn change<C: Coder>(&mut self, coder: &mut C, model: &mut Model, number: i64) {
        let trusts_trend = self.trend_cost < self.still_cost;
        let (prediction, cost) = if trusts_trend {
            (self.last.wrapping_add(self.trend), self.trend_cost)
        } else {
            (self.last, self.still_cost)
        };
        let remainder = number.wrapping_sub(prediction);
        let magnitude = coder
            .number(&mut model.length[(usize::from(cost) / 4).min(LENGTHS - 1)], remainder.unsigned_abs());
        let negative = remainder < 0;
        let mut remainder = magnitude as i64;
        if magnitude != 0 {
            let size = (63 - magnitude.leading_zeros()).min(3);
            let sign = &mut model.sign[usize::from(self.signs & 3) << 2 | size as usize];
            let negative = coder.bit(sign, negative);
            self.signs = self.signs << 1 | u8::from(negative);
            if negative {
                remainder = remainder.wrapping_neg();
            }
        }
        let number = prediction.wrapping_add(remainder);
        let delta = number.wrapping_sub(self.last);
        follow(&mut self.still_cost, delta);
        follow(&mut self.trend_cost, delta.wrapping_sub(self.trend));
        self.trend = self.trend.wrapping_add(delta.wrapping_sub(self.trend) / 4);
        self.last = number;
    }
}

/// Moves a running cost a quarter of the way to the length of `remainder`.
fn follow(cost: &mut u8, remainder: i64) {
    let length = 64 - remainder.unsigned_abs().leading_zeros();
    *cost = (u32::from(*cost) - u32::from(*cost) / 4 + length).min(255) as u8;
}
