//! What one plugin file is: a component that carries its manifest, named by its digest, vouched for by signatures that
//! lie beside it, and judged by a policy.
//!
//! The contract: a judgement is about bytes, never about a path. Whoever loads a plugin reads it once, asks
//! [`Policy::judge`] about what was read, and runs nothing else. Everything here comes from a stranger: sizes are bounded,
//! nothing is run, nothing is fetched, no clock is asked. The aggregator, the agents and the command line share this
//! crate, so that they can't differ about what is trusted.

mod digest;
mod envelope;
mod evidence;
mod keys;
mod manifest;
mod policy;
mod section;
mod sigstore;
mod untrusted;

pub mod units;

pub use digest::{Digest, InvalidDigest};
pub use envelope::{Envelope, EnvelopeError, PAYLOAD_TYPE, Statement};
pub use evidence::{Evidence, SIGNATURE_SUFFIX, SIGSTORE_SUFFIX, beside, replace};
pub use keys::{InvalidKey, KeyId, PrivateKey, PublicKey};
pub use manifest::{AskedLimits, Manifest, ManifestError, Need};
pub use policy::{Policy, PolicyError, Require, Rule, Subject, Verdict};
pub use section::{Damaged, EmbedError, SECTION, embed, manifest_bytes};
pub use sigstore::BundleError;
pub use untrusted::Untrusted;

/// The largest component that is read, in bytes.
pub const MAX_COMPONENT_BYTES: u64 = 64 << 20;
