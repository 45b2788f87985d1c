//! Renewal over the open stream: a new key, a certificate for it, both in place at once. The stream goes on with the
//! certificate that it began with; the next connection uses the new one.

use std::time::Duration;

use rcgen::KeyPair;

use super::enrol::{check_issued, key_and_request};
use super::store::NewIdentity;
use super::{Identity, IdentityError, Store, unix_now};

/// How long the aggregator may take to answer before it counts as refused.
pub const RENEWAL_TIMEOUT: Duration = Duration::from_secs(60);
/// The bounds of the wait after a refusal.
const RETRY: std::ops::RangeInclusive<i64> = 15..=3600;

/// Why a renewal came to nothing. The identity in use is untouched.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    #[error("a key pair could not be made: {0}")]
    Key(#[source] rcgen::Error),
    #[error("the aggregator refused to renew this node's certificate: {0}")]
    Refused(String),
    #[error("the aggregator did not answer the renewal within {} s", RENEWAL_TIMEOUT.as_secs())]
    Timeout,
    #[error("what the aggregator issued is not usable: {0}")]
    Answer(String),
    #[error("the renewed identity could not be stored: {0}")]
    Store(#[from] IdentityError),
}

/// A renewal that waits for its answer: the key that the new certificate is for.
pub struct RenewalRequest {
    key: KeyPair,
}

impl RenewalRequest {
    /// A new key and the certificate request (DER) to send.
    pub fn new() -> Result<(Self, Vec<u8>), RenewError> {
        let (key, csr) = key_and_request().map_err(RenewError::Key)?;
        Ok((Self { key }, csr))
    }

    /// Checks the answer and puts the new identity in place of `current`. Blocks on the disk.
    pub fn accept(
        self,
        store: &Store,
        current: &Identity,
        answer: picket_proto::v1::RenewResponse,
    ) -> Result<Identity, RenewError> {
        if !answer.refused.is_empty() {
            return Err(RenewError::Refused(answer.refused.chars().take(1000).collect()));
        }
        let node = current
            .info
            .node
            .as_ref()
            .ok_or_else(|| RenewError::Answer("the certificate in use names no node".to_owned()))?;
        check_issued(&answer.certificates, &self.key, node, unix_now()).map_err(RenewError::Answer)?;
        if answer.authorities.is_empty() {
            return Err(RenewError::Answer("it names no certificate authorities".to_owned()));
        }
        Ok(store.install(&NewIdentity {
            key_pem: &self.key.serialize_pem(),
            chain: &answer.certificates,
            authorities: &answer.authorities,
            node,
            aggregators: &current.aggregators,
        })?)
    }
}

/// How long to wait, in seconds from `now`, until a certificate is renewed: at two thirds of its life, and up to a
/// tenth of its life later, so that a fleet enrolled at once does not renew at once. `unit`: jitter, 0..1.
pub fn renewal_due(not_before: i64, not_after: i64, now: i64, unit: f64) -> Duration {
    let life = not_after.saturating_sub(not_before).max(0);
    let jitter = (life as f64 * 0.1 * unit) as i64;
    let due = not_before.saturating_add(life / 3 * 2).saturating_add(jitter);
    seconds(due.saturating_sub(now))
}

/// How long to wait after a refused renewal: an eighth of what is left, within bounds, half of it jitter.
pub fn retry_after(not_after: i64, now: i64, unit: f64) -> Duration {
    let base = (not_after.saturating_sub(now) / 8).clamp(*RETRY.start(), *RETRY.end());
    seconds(base).mul_f64(0.5 + unit.clamp(0.0, 1.0))
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_at_two_thirds_of_life() {
        let day = 86_400;
        let check = |now, unit, expected: u64| {
            assert_eq!(renewal_due(0, day, now, unit).as_secs(), expected, "{now} {unit}");
        };
        check(0, 0.0, 57_600);
        check(0, 1.0, 57_600 + 8_640);
        check(57_599, 0.0, 1);
        check(57_600, 0.0, 0);
        check(2 * day, 0.5, 0);
        // A clock that stands before the certificate's life, and one that makes no sense at all.
        assert_eq!(renewal_due(1000, 4000, 0, 0.0).as_secs(), 3000);
        assert_eq!(renewal_due(5, 0, 0, 1.0).as_secs(), 5);
        renewal_due(i64::MIN, i64::MAX, i64::MIN, 1.0);
    }

    #[test]
    fn retries_come_closer_and_stay_bounded() {
        assert_eq!(retry_after(8 * 3600, 0, 0.5).as_secs(), 3600);
        assert_eq!(retry_after(8000, 0, 0.5).as_secs(), 1000);
        assert_eq!(retry_after(0, 100, 0.5).as_secs(), 15);
        assert!(retry_after(8000, 0, 0.0) < retry_after(8000, 0, 0.9));
    }
}
