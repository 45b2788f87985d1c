//! Exponential back-off with full jitter: after an outage a fleet comes back spread over the whole wait, not in step.

use std::time::Duration;

#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    attempt: u32,
}

impl Backoff {
    pub fn new(min: Duration, max: Duration) -> Self {
        let min = min.max(Duration::from_millis(1));
        Self { min, max: max.max(min), attempt: 0 }
    }

    /// The next wait. `unit`: chance, 0..1.
    pub fn next(&mut self, unit: f64) -> Duration {
        let factor = 1u32.checked_shl(self.attempt.min(30)).unwrap_or(u32::MAX);
        let ceiling = self.min.checked_mul(factor).unwrap_or(self.max).min(self.max);
        self.attempt = self.attempt.saturating_add(1);
        ceiling.mul_f64(unit.clamp(0.0, 1.0))
    }

    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_its_bound_and_begins_anew() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(1), seconds(60));
        let waits: Vec<u64> = (0..9).map(|_| backoff.next(1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        for _ in 0..100 {
            assert!(backoff.next(0.999) <= seconds(60));
        }
        backoff.reset();
        assert_eq!(backoff.next(0.5), Duration::from_millis(500));
        assert_eq!(Backoff::new(seconds(9), seconds(1)).next(1.0), seconds(9));
    }
}
