//! Why a plugin is not trusted.

use crate::digest::Digest;
use crate::envelope::EnvelopeError;
use crate::keys::KeyId;
use crate::manifest::ManifestError;
use crate::section::Damaged;
use crate::sigstore::BundleError;

/// What a policy has against a plugin, for whoever operates the node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    #[error("it is not signed: no signature lies beside it")]
    Unsigned,
    #[error(
        "the signature beside it is of another file: it vouches for {} {} (sha256 {}…), this is {} {} (sha256 {}…)",
        named(.signed.0.as_str()), .signed.1, .signed.2.short(), named(.is.0.as_str()), .is.1, .is.2.short()
    )]
    OtherFile {
        /// Id, version and digest.
        signed: Box<(String, String, Digest)>,
        is: Box<(String, String, Digest)>,
    },
    #[error("{}", not_enough(.wanted, .by, .unknown, .all))]
    NotEnough {
        /// The signers that are asked for.
        wanted: Vec<String>,
        /// Those of them that signed it.
        by: Vec<String>,
        /// The keys that signed it and that the policy does not know.
        unknown: Vec<KeyId>,
        /// All of them must sign, not any.
        all: bool,
    },
    #[error("the signature said to be of {signer} is not of that key")]
    BadSignature { signer: String },
    #[error("its digest is revoked by the policy")]
    Revoked,
    #[error("it is signed by {key} alone, which the policy revokes")]
    RevokedKey { key: String },
    #[error("its version is {version}, the policy asks for {minimum} or later")]
    TooOld { version: String, minimum: String },
    #[error("the signature beside it can't be read: {0}")]
    Envelope(#[from] EnvelopeError),
    #[error("the sigstore bundle beside it can't be used: {0}")]
    Bundle(#[from] BundleError),
    #[error("{0}")]
    Damaged(#[from] Damaged),
    #[error("the manifest is not valid: {0}")]
    Manifest(#[from] ManifestError),
}

impl Untrusted {
    /// The code with a page in the documentation.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unsigned => "PKT-0011",
            Self::OtherFile { .. } => "PKT-0012",
            Self::NotEnough { .. } => "PKT-0013",
            Self::BadSignature { .. } | Self::Envelope(_) | Self::Bundle(_) => "PKT-0014",
            Self::Revoked | Self::RevokedKey { .. } => "PKT-0015",
            Self::TooOld { .. } => "PKT-0016",
            Self::Damaged(_) => "PKT-0004",
            Self::Manifest(_) => "PKT-0020",
        }
    }

    /// What to do about it.
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::Unsigned => {
                "Sign it (`picket plugin sign`) with a key that the policy names, or copy the .sig file that came with it"
            }
            Self::OtherFile { .. } => "Copy the plugin and its signature again, both of one release",
            Self::NotEnough { .. } => {
                "If you trust who signed it, add the key to the policy; else get it from where you trust"
            }
            Self::BadSignature { .. } | Self::Envelope(_) | Self::Bundle(_) => {
                "Get the plugin and its signature anew, and ask who made it if that does not help"
            }
            Self::Revoked | Self::RevokedKey { .. } => "Install a release that is not revoked",
            Self::TooOld { .. } => "Install a later version, or lower minimum_version in the policy",
            Self::Damaged(_) => "Copy the component again and compare its checksum",
            Self::Manifest(_) => "Mend plugin.toml and build the component again",
        }
    }
}

fn named(id: &str) -> &str {
    if id.is_empty() { "a plugin without a manifest" } else { id }
}

fn not_enough(wanted: &[String], by: &[String], unknown: &[KeyId], all: &bool) -> String {
    let mut text = if wanted.is_empty() {
        "the policy names no signer for it, so that nobody's signature is enough".to_owned()
    } else {
        let of = if *all { "all of" } else { "any of" };
        let signed = if by.is_empty() { "none of them".to_owned() } else { by.join(", ") };
        format!("the policy asks for the signature of {of} {}; it is signed by {signed}", wanted.join(", "))
    };
    if !unknown.is_empty() {
        let list: Vec<String> = unknown.iter().take(4).map(ToString::to_string).collect();
        text.push_str(&format!("; it is signed by keys that the policy does not know: {}", list.join(", ")));
    }
    text
}
