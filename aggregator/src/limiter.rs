//! Slows down whoever guesses: counts failed logins by address. A right secret always gets through, whatever the
//! count says, so nobody is locked out by a neighbour behind the same address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, millis};

/// Failures that an address may have at once.
const BURST: u32 = 20;
/// One failure is forgiven in this time.
const FORGIVE: Duration = Duration::from_secs(3);
/// Addresses remembered.
const MAX_ADDRESSES: usize = 10_000;

/// Failed attempts, by address.
pub struct FailureLimiter {
    clock: Clock,
    /// When each address will have been forgiven everything, Unix ms.
    clean_at: Mutex<HashMap<IpAddr, i64>>,
}

impl FailureLimiter {
    pub fn new(clock: Clock) -> Self {
        Self { clock, clean_at: Mutex::new(HashMap::new()) }
    }

    /// Counts a failure; `Some` says how long to wait before the next is answered in substance.
    pub fn failed(&self, address: IpAddr) -> Option<Duration> {
        let now = self.clock.now_ms();
        let step = millis(FORGIVE);
        let address = network(address);
        let mut map = self.clean_at.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= MAX_ADDRESSES && !map.contains_key(&address) {
            map.retain(|_, clean| *clean > now);
            if map.len() >= MAX_ADDRESSES {
                // Everyone at once: forget all rather than grow.
                map.clear();
            }
        }
        let clean = map.entry(address).or_insert(now);
        let limit = now + step * i64::from(BURST);
        let next = (*clean).max(now) + step;
        // Past the limit a further failure adds nothing, or the wait would never end.
        *clean = next.min(limit + step);
        (next > limit).then(|| Duration::from_millis((next - limit).unsigned_abs()))
    }
}

/// IPv6 hosts own a /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slows_after_the_burst_and_forgives() {
        let clock = Clock::manual(1_000_000);
        let limiter = FailureLimiter::new(clock.clone());
        let address: IpAddr = "2001:db8::1".parse().unwrap();
        for i in 0..BURST {
            assert_eq!(limiter.failed(address), None, "failure {i}");
        }
        assert!(limiter.failed(address).is_some());
        assert!(limiter.failed("2001:db8::2".parse().unwrap()).is_some(), "the same /64");
        assert_eq!(limiter.failed("192.0.2.1".parse().unwrap()), None, "another address");
        clock.advance(FORGIVE * 3);
        assert_eq!(limiter.failed(address), None);
    }

    #[test]
    fn memory_is_bounded() {
        let limiter = FailureLimiter::new(Clock::manual(0));
        for i in 0..(MAX_ADDRESSES as u32 * 2) {
            limiter.failed(IpAddr::V4(i.into()));
        }
        assert!(limiter.clean_at.lock().unwrap().len() <= MAX_ADDRESSES);
    }
}
