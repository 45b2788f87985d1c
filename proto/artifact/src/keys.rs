//! Keys of signatures: ed25519, made and used here; ECDSA over P-256, which cosign makes, for verifying alone.
//!
//! The files are those of every other tool: a private key is PKCS#8, a public key SubjectPublicKeyInfo (RFC 5280), both in
//! PEM. A key's id is the SHA-256 of its public key's DER form.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::digest::{Digest, InvalidDigest};

/// RFC 8410: what stands before the 32 bytes of an ed25519 public key and of a private one.
const ED25519_PUBLIC: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const ED25519_PRIVATE: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// RFC 5480: what stands before the 65 bytes of an uncompressed point on P-256.
const P256_PUBLIC: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The SHA-256 of a public key's SubjectPublicKeyInfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Digest);

/// Why a key can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    #[error("it holds no PEM block `{wanted}`: {why}")]
    Pem { wanted: &'static str, why: String },
    #[error("it is a key of another kind; {wanted} can be used")]
    Kind { wanted: &'static str },
    #[error("it is damaged: {0}")]
    Damaged(String),
    #[error("this machine gives no random numbers")]
    Random,
}

/// Verifies.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    kind: Kind,
    /// The whole SubjectPublicKeyInfo.
    spki: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ed25519,
    P256,
}

impl PublicKey {
    /// Of a PEM file.
    ///
    /// # Errors
    /// [`InvalidKey`]
    pub fn from_pem(pem: &[u8]) -> Result<Self, InvalidKey> {
        let spki = SubjectPublicKeyInfoDer::from_pem_slice(pem)
            .map_err(|e| InvalidKey::Pem { wanted: "PUBLIC KEY", why: e.to_string() })?;
        Self::from_spki(&spki)
    }

    /// Of the DER form.
    ///
    /// # Errors
    /// [`InvalidKey`]
    pub fn from_spki(spki: &[u8]) -> Result<Self, InvalidKey> {
        let key = if spki.strip_prefix(&ED25519_PUBLIC).is_some_and(|k| k.len() == 32) {
            Kind::Ed25519
        } else if spki.strip_prefix(&P256_PUBLIC).is_some_and(|k| k.len() == 65 && k.first() == Some(&4)) {
            Kind::P256
        } else {
            return Err(InvalidKey::Kind { wanted: "ed25519, and ECDSA over P-256," });
        };
        Ok(Self { kind: key, spki: spki.to_vec() })
    }

    pub fn id(&self) -> KeyId {
        KeyId(Digest::of(&self.spki))
    }

    /// The kind, in a word.
    pub const fn algorithm(&self) -> &'static str {
        match self.kind {
            Kind::Ed25519 => "ed25519",
            Kind::P256 => "ecdsa-p256",
        }
    }

    pub fn to_pem(&self) -> String {
        pem("PUBLIC KEY", &self.spki)
    }

    /// Whether this key made that signature of that message. An ECDSA signature is of the message's SHA-256, in DER.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let (algorithm, prefix): (&dyn ring::signature::VerificationAlgorithm, usize) = match self.kind {
            Kind::Ed25519 => (&ED25519, ED25519_PUBLIC.len()),
            Kind::P256 => (&ECDSA_P256_SHA256_ASN1, P256_PUBLIC.len()),
        };
        let key = self.spki.get(prefix..).unwrap_or_default();
        UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm(), self.id())
    }
}

/// Signs, with ed25519.
pub struct PrivateKey {
    pair: Ed25519KeyPair,
    /// PKCS#8; none: the file's own form is not known any more.
    pkcs8: Vec<u8>,
}

impl PrivateKey {
    /// A new one.
    ///
    /// # Errors
    /// [`InvalidKey::Random`]
    pub fn generate() -> Result<Self, InvalidKey> {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| InvalidKey::Random)?;
        let pair =
            Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|e| InvalidKey::Damaged(e.to_string()))?;
        // The first version of the format, without the public key: every tool reads it.
        let pkcs8 = [ED25519_PRIVATE.as_slice(), &seed].concat();
        Ok(Self { pair, pkcs8 })
    }

    /// Of a PEM file.
    ///
    /// # Errors
    /// [`InvalidKey`]
    pub fn from_pem(pem: &[u8]) -> Result<Self, InvalidKey> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem)
            .map_err(|e| InvalidKey::Pem { wanted: "PRIVATE KEY", why: e.to_string() })?;
        let pkcs8 = der.secret_pkcs8_der().to_vec();
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8)
            .map_err(|_| InvalidKey::Kind { wanted: "an ed25519 private key (PKCS#8, not encrypted)" })?;
        Ok(Self { pair, pkcs8 })
    }

    pub fn public(&self) -> PublicKey {
        let spki = [ED25519_PUBLIC.as_slice(), self.pair.public_key().as_ref()].concat();
        PublicKey { kind: Kind::Ed25519, spki }
    }

    /// A secret: for a file that its owner alone may read.
    pub fn to_pem(&self) -> String {
        pem("PRIVATE KEY", &self.pkcs8)
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the private key of {:?}", self.public())
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let mut out = format!("-----BEGIN {label}-----\n");
    for (i, c) in STANDARD.encode(der).chars().enumerate() {
        if i > 0 && i % 64 == 0 {
            out.push('\n');
        }
        out.push(c);
    }
    out.push_str(&format!("\n-----END {label}-----\n"));
    out
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.tagged())
    }
}

impl FromStr for KeyId {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        text.parse().map(Self)
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_through_the_files() {
        let key = PrivateKey::generate().unwrap();
        let again = PrivateKey::from_pem(key.to_pem().as_bytes()).unwrap();
        assert_eq!(key.public(), again.public());
        let public = PublicKey::from_pem(key.public().to_pem().as_bytes()).unwrap();
        assert_eq!((public.id(), public.algorithm()), (key.public().id(), "ed25519"));
        assert_eq!(public.id().to_string().parse(), Ok(public.id()));
        assert!(key.to_pem().lines().all(|line| line.len() <= 64));
        let signature = again.sign(b"message");
        assert!(public.verifies(b"message", &signature));
        assert!(!public.verifies(b"massage", &signature));
        assert!(!public.verifies(b"message", &signature[1..]));
        assert!(!public.verifies(b"message", b""));
        assert!(!PrivateKey::generate().unwrap().public().verifies(b"message", &signature));
        assert!(!format!("{again:?}").contains(key.to_pem().lines().nth(1).unwrap()));
    }

    #[test]
    fn what_is_no_key() {
        let key = PrivateKey::generate().unwrap();
        for bytes in [&b""[..], b"text", key.to_pem().as_bytes()] {
            assert!(matches!(PublicKey::from_pem(bytes), Err(InvalidKey::Pem { .. })), "{bytes:?}");
        }
        for spki in [&b""[..], &ED25519_PUBLIC, &P256_PUBLIC, &[&ED25519_PUBLIC[..], &[0; 33]].concat()] {
            assert!(matches!(PublicKey::from_spki(spki), Err(InvalidKey::Kind { .. })));
        }
        assert!(matches!(
            PrivateKey::from_pem(key.public().to_pem().as_bytes()),
            Err(InvalidKey::Pem { .. })
        ));
        let damaged = pem("PRIVATE KEY", &ED25519_PRIVATE);
        assert!(matches!(PrivateKey::from_pem(damaged.as_bytes()), Err(InvalidKey::Kind { .. })));
    }
}
