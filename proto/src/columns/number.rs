//! Forms: ways to write a float as a whole number and back, bit by bit the same. A counter of hundredths of a
//! second is a whole number in the form "hundredths", and whole numbers have small differences.

/// How a series' values are written as whole numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Form(u8);

/// n / 10^k for k = 0..=9, then n · 10^-k for k = 1..=9 (another rounding: both are in use), then sectors, KiB and
/// pages, then the order of the 32-bit floats, then that of the 64-bit floats, in which every value has a place.
const DIVIDED: u8 = 10;
const MULTIPLIED: u8 = 19;
const BLOCKS: u8 = 22;
const SINGLE: u8 = 22;
const ORDER: u8 = 23;

/// The blocks that byte counts are often multiples of. Smaller values are so by chance.
const BLOCK: [f64; 3] = [512.0, 1024.0, 4096.0];
const BLOCKS_FROM: f64 = 65536.0;

const TEN: [f64; 10] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
const TENTH: [f64; 10] = [1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9];

/// Above this, neighbouring whole numbers are the same float.
const WHOLE: u64 = 1 << 53;
/// With many decimals, numbers near 2^53 are found for floats that are no decimals at all.
const FINE: u64 = 1 << 47;

impl Form {
    pub const COUNT: usize = ORDER as usize + 1;
    pub const WHOLE: Self = Self(0);

    pub fn from_index(index: u64) -> Option<Self> {
        (index < Self::COUNT as u64).then_some(Self(index as u8))
    }

    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// A form for floats that are no decimals; a better one may fit later values.
    pub fn is_binary(self) -> bool {
        self.0 >= SINGLE
    }

    /// The float that `number` stands for. Any number gives some float.
    #[inline]
    pub fn float(self, number: i64) -> f64 {
        match self.0 {
            0 => number as f64,
            1..DIVIDED => number as f64 / TEN[usize::from(self.0)],
            DIVIDED..MULTIPLIED => number as f64 * TENTH[usize::from(self.0 - DIVIDED) + 1],
            MULTIPLIED..BLOCKS => number as f64 * BLOCK[usize::from(self.0 - MULTIPLIED)],
            SINGLE => {
                let bits = number as i32;
                f64::from(f32::from_bits((if bits < 0 { bits ^ i32::MAX } else { bits }) as u32))
            }
            _ => f64::from_bits((if number < 0 { number ^ i64::MAX } else { number }) as u64),
        }
    }

    /// The number that gives this very float, if there is one.
    #[inline]
    pub fn number(self, value: f64) -> Option<i64> {
        let number = match self.0 {
            0 => value as i64,
            1..MULTIPLIED => {
                let k = if self.0 < DIVIDED { self.0 } else { self.0 - DIVIDED + 1 };
                let scaled = value * TEN[usize::from(k)];
                let number = (scaled + if scaled < 0.0 { -0.5 } else { 0.5 }) as i64;
                if number.unsigned_abs() > if k <= 6 { WHOLE } else { FINE } {
                    return None;
                }
                number
            }
            MULTIPLIED..BLOCKS => (value / BLOCK[usize::from(self.0 - MULTIPLIED)]) as i64,
            SINGLE => {
                if !value.is_finite() {
                    return None;
                }
                let bits = (value as f32).to_bits() as i32;
                i64::from(if bits < 0 { bits ^ i32::MAX } else { bits })
            }
            _ => {
                let bits = value.to_bits() as i64;
                return Some(if bits < 0 { bits ^ i64::MAX } else { bits });
            }
        };
        (number.unsigned_abs() <= WHOLE && self.float(number).to_bits() == value.to_bits()).then_some(number)
    }

    /// The form that gives the smallest number.
    pub fn of(value: f64) -> (Self, i64) {
        let blocks = if value >= BLOCKS_FROM { MULTIPLIED..BLOCKS } else { 0..0 };
        blocks
            .rev()
            .chain(0..MULTIPLIED)
            .chain([SINGLE])
            .find_map(|form| Self(form).number(value).map(|number| (Self(form), number)))
            .unwrap_or_else(|| (Self(ORDER), Self(ORDER).number(value).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms_are_found() {
        for (value, form, number) in [
            (0.0, 0, 0),
            (-17.0, 0, -17),
            (512.0, 0, 512),
            (131_072.0 * 4096.0, 21, 131_072),
            (131_073.0 * 1024.0, 20, 131_073),
            (9_007_199_254_740_991.0, 0, (1 << 53) - 1),
            (0.25, 2, 25),
            (123.45, 2, 12345),
            (-0.1, 1, -1),
            (1_763_722.123_456, 6, 1_763_722_123_456),
            // As an exporter gets milliseconds to seconds by multiplication: not the float nearest to 0.059.
            (59.0 * 0.001, 12, 59),
            (f64::from(0.1_f32), SINGLE, i64::from(0.1_f32.to_bits())),
        ] {
            assert_eq!(Form::of(value), (Form(form), number), "{value:?}");
        }
        for odd in [f64::NAN, f64::INFINITY, -0.0, f64::MIN_POSITIVE / 2.0, std::f64::consts::PI] {
            assert_eq!(Form::of(odd).0, if odd == 0.0 { Form(SINGLE) } else { Form(ORDER) }, "{odd:?}");
        }
    }

    proptest! {
        #[test]
        fn every_float_comes_back(bits in any::<u64>(), form in 0..Form::COUNT as u64) {
            let value = f64::from_bits(bits);
            let (found, number) = Form::of(value);
            prop_assert_eq!(found.float(number).to_bits(), bits);
            let form = Form::from_index(form).unwrap();
            if let Some(number) = form.number(value) {
                prop_assert_eq!(form.float(number).to_bits(), bits);
            }
        }

        #[test]
        fn decimals_are_found(number in -(1_i64 << 46)..1 << 46, k in 0..10_usize) {
            let value = number as f64 / TEN[k];
            let (form, _) = Form::of(value);
            prop_assert!(!form.is_binary());
        }

        #[test]
        fn any_number_is_a_float(number in any::<i64>(), form in 0..Form::COUNT as u64) {
            Form::from_index(form).unwrap().float(number);
        }
    }
}
