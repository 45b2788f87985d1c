//! Who this node is: a key that never leaves it, a short-lived certificate that names it, and the certificate
//! authorities it trusts.
//!
//! Two sources, never mixed: an *enrolled* identity in `<state_dir>/identity`, which Picket's own certificate authority
//! issued and which is renewed over the uplink; or *files* that the operator's own tooling issues and replaces.
//! Either way a connection is made from one consistent set of key, certificate and authorities, read afresh for each
//! new connection: what changed on disk is used by the next one, and a set that is half replaced is not used at all.
//!
//! The node's name is read from the certificate alone. Nothing here decides what a node may do.

mod address;
mod certificate;
mod connect;
mod enrol;
mod owner;
mod pin;
mod renew;
mod store;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod token;

pub use address::{Address, AddressError};
pub use certificate::{CertificateInfo, CertificateReadError, facts, node_named};
pub(crate) use connect::chain;
pub use connect::{ConnectError, Meter, Watch, channel, connect};
pub use enrol::{EnrollError, EnrollOptions, enroll};
pub use owner::{Owner, OwnerError};
pub use renew::{RENEWAL_TIMEOUT, RenewError, RenewalRequest, renewal_due, retry_after};
pub use store::{Identity, IdentityError, Source, Store};
pub use token::{Token, TokenError};

/// Whether `state_dir` holds an enrolled identity. Says nothing of whether it is still valid.
pub fn enrolled(state_dir: &std::path::Path) -> bool {
    Store::new(state_dir).exists()
}

/// The name under which this node is enrolled, if its certificate can be used and holds now.
pub fn holding(state_dir: &std::path::Path) -> Option<picket_proto::model::NodeId> {
    let info = Store::new(state_dir).load().ok()?.info;
    if info.not_after <= unix_now() {
        return None;
    }
    info.node
}

/// Seconds since the Unix epoch by this node's clock; 0 before 1970.
pub(crate) fn unix_now() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

/// A Unix time as a person reads it.
pub(crate) fn date(unix_seconds: i64) -> String {
    use time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::from_unix_timestamp(unix_seconds)
        .ok()
        .and_then(|t| t.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("Unix time {unix_seconds}"))
}

/// A number in 0..1 from the system's randomness, for jitter.
pub(crate) fn random_unit() -> f64 {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0u8; 4];
    // No randomness (a chroot without it, early boot): half way is as good a jitter as one node needs.
    if ring::rand::SystemRandom::new().fill(&mut bytes).is_err() {
        return 0.5;
    }
    f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}
