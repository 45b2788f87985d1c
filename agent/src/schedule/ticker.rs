//! When a plugin collects next.
//!
//! Ticks stand at fixed places of the wall clock, so that they are the same after a restart, moved by an offset that is
//! each node's own, so that a fleet does not speak at once. All plugins of a node have the same: it is disturbed once, not
//! once a plugin, and what they give leaves it in one piece. Waits are measured by the monotonic clock and
//! are never longer than one and a half intervals nor shorter than half of one, whatever the wall clock does in
//! between: stepped back it causes no stall, stepped forward no burst.

use std::hash::Hasher;
use std::time::Duration;

/// The rhythm of one plugin.
#[derive(Debug, Clone)]
pub(crate) struct Ticker {
    interval: Duration,
    offset: Duration,
    /// When the last planned tick was due, and when it began, on the monotonic clock.
    last: Option<(Duration, Duration)>,
}

/// The next tick, and those that passed while the last collect was still running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Next {
    pub after: Duration,
    pub skipped: u64,
}

impl Ticker {
    /// `seed`: what makes the offset, the same for the same node for ever. Of two intervals of which one is a multiple of the
    /// other, the ticks of the longer are ticks of the shorter.
    pub fn new(interval: Duration, seed: &str) -> Self {
        let millis = as_millis(interval).max(1);
        let mut hasher = Fnv::default();
        hasher.write(seed.as_bytes());
        Self { interval, offset: Duration::from_millis(hasher.finish() % millis), last: None }
    }

    /// A tick begins now, so much later than planned. The first one may come at any time.
    pub fn begin(&mut self, monotonic: Duration) -> Duration {
        let due = match self.last {
            Some((due, _)) if due <= monotonic => due,
            _ => monotonic,
        };
        self.last = Some((due, monotonic));
        monotonic.saturating_sub(due)
    }

    /// Plans the tick that follows.
    pub fn next(&mut self, wall_ms: i64, monotonic: Duration) -> Next {
        let interval = as_millis(self.interval).max(1);
        let phase =
            (i128::from(wall_ms) - i128::from(as_millis(self.offset))).rem_euclid(i128::from(interval));
        let mut after = Duration::from_millis(interval - u64::try_from(phase).unwrap_or(0));
        let mut skipped = 0;
        if let Some((due, began)) = self.last {
            let earliest = began + self.interval / 2;
            while monotonic + after < earliest {
                after += self.interval;
            }
            let late = monotonic.saturating_sub(due);
            skipped = u64::try_from(late.as_nanos() / self.interval.as_nanos().max(1)).unwrap_or(u64::MAX);
        }
        self.last = Some((monotonic + after, self.last.map_or(Duration::ZERO, |(_, began)| began)));
        Next { after, skipped }
    }
}

fn as_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// FNV-1a, 64 bits: the standard library's hashers may change between versions, an offset must not.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        // FNV's low bits of similar texts are near each other; a multiplication and a shift part them.
        (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn stands_at_the_same_place_of_the_wall_clock() {
        let mut ticker = Ticker::new(15 * SECOND, "node-a");
        let offset = ticker.offset.as_millis() as i64;
        let mut wall = 1_700_000_000_123;
        let mut monotonic = SECOND;
        ticker.begin(monotonic);
        for _ in 0..10 {
            let next = ticker.next(wall, monotonic);
            assert_eq!(next.skipped, 0);
            wall += next.after.as_millis() as i64;
            monotonic += next.after;
            ticker.begin(monotonic);
            assert_eq!((wall - offset).rem_euclid(15_000), 0);
            // The collect takes 100 ms.
            wall += 100;
            monotonic += SECOND / 10;
        }
        assert_eq!(Ticker::new(15 * SECOND, "node-a").offset, ticker.offset);
        let often = Ticker::new(5 * SECOND, "node-a").offset;
        assert_eq!((ticker.offset - often).as_millis() % 5000, 0);
    }

    #[test]
    fn offsets_are_spread() {
        let mut tenths = [0; 10];
        for node in 0..1000 {
            let offset = Ticker::new(10 * SECOND, &format!("node{node}")).offset;
            tenths[offset.as_secs() as usize] += 1;
        }
        assert!(tenths.iter().all(|n| (50..200).contains(n)), "{tenths:?}");
    }

    #[test]
    fn a_long_collect_skips_what_passed() {
        let mut ticker = Ticker { interval: SECOND, offset: Duration::ZERO, last: None };
        assert_eq!(ticker.begin(10 * SECOND), Duration::ZERO);
        assert_eq!(ticker.next(10_000, 10 * SECOND), Next { after: SECOND, skipped: 0 });
        assert_eq!(ticker.begin(11 * SECOND + SECOND / 10), SECOND / 10);
        // 3.5 s later: the ticks of 12, 13 and 14 are gone.
        assert_eq!(
            ticker.next(14_500, Duration::from_millis(14_500)),
            Next { after: SECOND / 2, skipped: 3 }
        );
    }

    proptest! {
        #[test]
        fn no_stall_and_no_burst_whatever_the_wall_does(
            interval_ms in 100u64..100_000,
            seed in "[a-z]{1,8}",
            steps in prop::collection::vec((-10_000_000_000i64..10_000_000_000, 0u64..300_000), 1..50),
        ) {
            let interval = Duration::from_millis(interval_ms);
            let mut ticker = Ticker::new(interval, &seed);
            let mut wall = 1_700_000_000_000i64;
            let mut monotonic = SECOND;
            for (step, busy) in steps {
                ticker.begin(monotonic);
                let began = monotonic;
                let busy = Duration::from_millis(busy);
                monotonic += busy;
                wall += busy.as_millis() as i64 + step;
                let next = ticker.next(wall, monotonic);
                prop_assert!(next.after > Duration::ZERO && next.after <= interval * 3 / 2 + Duration::from_millis(1));
                prop_assert!(monotonic + next.after >= began + interval / 2);
                // What is called skipped fits in the time that the collect took.
                prop_assert!(next.skipped <= (busy.as_nanos() / interval.as_nanos()) as u64 + 1);
                monotonic += next.after;
                wall += next.after.as_millis() as i64;
            }
        }
    }
}
