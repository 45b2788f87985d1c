//! Sigstore bundles (github.com/sigstore/protobuf-specs), verified offline: of a key that the policy names, or of an identity
//! that a certificate authority of the policy's trusted root has certified and whose signing a transparency log of that root
//! has promised to show.
//!
//! Read are bundles of the versions 0.1 to 0.3 with a signature of the file itself (`cosign sign-blob --bundle`), and the
//! older form of cosign's own. What is not read is said: attestations (DSSE), logs of Rekor's second version, whose times come
//! from a timestamp authority. Not checked is the certificate transparency of the certificate.

mod identity;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::digest::Digest;
use crate::keys::PublicKey;

pub(crate) use identity::{Identity, TrustedRoot};

/// The longest bundle, in bytes.
pub(crate) const MAX_BYTES: usize = 256 << 10;

/// Why a bundle, or the root that it is held against, can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    #[error("it is {len} bytes long, {MAX_BYTES} are allowed")]
    TooLong { len: usize },
    #[error("it is no sigstore bundle: {0}")]
    Syntax(String),
    #[error(
        "it is {0}, which is not supported; a signature of the file itself is, as `cosign sign-blob --bundle` makes it"
    )]
    Unsupported(&'static str),
    #[error("it is of another file: its digest is {0}")]
    OtherFile(String),
    #[error("its certificate {0}")]
    Certificate(String),
    #[error("its entry in the transparency log {0}")]
    Log(String),
    #[error("the trusted root {0}")]
    Root(String),
    #[error("an identity {0}")]
    Identity(&'static str),
}

/// A signature of a file, and who is said to have made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bundle {
    signature: Vec<u8>,
    /// The file's SHA-256 as the bundle gives it, where it does.
    digest: Option<Vec<u8>>,
    /// The signer's certificate, DER; none: a key signed.
    certificate: Option<Vec<u8>>,
    entries: Vec<Entry>,
}

/// A line of a transparency log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// SHA-256 of the log's key.
    pub log: Vec<u8>,
    pub index: i64,
    /// Unix seconds.
    pub time: i64,
    /// What was logged, JSON.
    pub body: Vec<u8>,
    /// The log's promise (SET); none: an inclusion proof alone.
    pub promise: Option<Vec<u8>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    media_type: String,
    verification_material: Material,
    message_signature: Option<MessageSignature>,
    dsse_envelope: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    certificate: Option<Raw>,
    x509_certificate_chain: Option<Chain>,
    #[serde(default)]
    tlog_entries: Vec<WrittenEntry>,
}

#[derive(Deserialize)]
struct Chain {
    certificates: Vec<Raw>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    raw_bytes: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageSignature {
    message_digest: Option<MessageDigest>,
    signature: String,
}

#[derive(Deserialize)]
struct MessageDigest {
    algorithm: String,
    digest: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenEntry {
    log_index: Option<Number>,
    log_id: Option<LogId>,
    integrated_time: Option<Number>,
    inclusion_promise: Option<Promise>,
    canonicalized_body: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogId {
    key_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Promise {
    signed_entry_timestamp: String,
}

/// 64-bit numbers are texts in the JSON form of protobuf, and may be numbers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(i64),
    Text(String),
}

impl Number {
    fn value(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

/// What cosign wrote before it knew bundles.
#[derive(Deserialize)]
struct Older {
    #[serde(rename = "base64Signature")]
    signature: String,
    /// PEM, in base64 once more.
    #[serde(default)]
    cert: String,
    #[serde(rename = "rekorBundle")]
    rekor: Option<OlderEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OlderEntry {
    signed_entry_timestamp: String,
    payload: OlderPayload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OlderPayload {
    body: String,
    integrated_time: i64,
    log_index: i64,
    #[serde(rename = "logID")]
    log_id: String,
}

fn syntax(why: impl std::fmt::Display) -> BundleError {
    BundleError::Syntax(why.to_string().chars().take(200).collect())
}

fn decode(text: &str) -> Result<Vec<u8>, BundleError> {
    STANDARD.decode(text).map_err(syntax)
}

impl Bundle {
    /// # Errors
    /// [`BundleError`]
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        if bytes.len() > MAX_BYTES {
            return Err(BundleError::TooLong { len: bytes.len() });
        }
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(syntax)?;
        if value.get("base64Signature").is_some() {
            return serde_json::from_value::<Older>(value).map_err(syntax)?.read();
        }
        serde_json::from_value::<Written>(value).map_err(syntax)?.read()
    }

    /// # Errors
    /// [`BundleError::OtherFile`]
    pub fn check_digest(&self, digest: &Digest) -> Result<(), BundleError> {
        match &self.digest {
            Some(said) if said.as_slice() != digest.bytes() => {
                Err(BundleError::OtherFile(said.iter().take(32).map(|b| format!("{b:02x}")).collect()))
            }
            _ => Ok(()),
        }
    }

    /// Whether this key signed the file. A certificate's signature is never a key's.
    pub fn signed_by(&self, key: &PublicKey, file: &[u8]) -> bool {
        self.certificate.is_none() && key.verifies(file, &self.signature)
    }

    /// Whether this identity signed the file. False: another one did, or a key.
    ///
    /// # Errors
    /// [`BundleError`]: the certificate names the identity, and something about it is wrong.
    pub fn signed_as(&self, identity: &Identity, file: &[u8], digest: &Digest) -> Result<bool, BundleError> {
        match &self.certificate {
            Some(certificate) => identity.signed(certificate, &self.entries, &self.signature, file, digest),
            None => Ok(false),
        }
    }
}

impl Written {
    fn read(self) -> Result<Bundle, BundleError> {
        if !self.media_type.starts_with("application/vnd.dev.sigstore.bundle") {
            return Err(syntax(format!("its media type is {:?}", self.media_type)));
        }
        if self.dsse_envelope.is_some() {
            return Err(BundleError::Unsupported("an attestation"));
        }
        let signature = self.message_signature.ok_or(BundleError::Unsupported("without a signature"))?;
        let digest = match signature.message_digest {
            Some(digest) if digest.algorithm == "SHA2_256" => Some(decode(&digest.digest)?),
            Some(_) => return Err(BundleError::Unsupported("a signature of another digest than SHA-256")),
            None => None,
        };
        let material = self.verification_material;
        let certificate = material
            .certificate
            .or_else(|| material.x509_certificate_chain.and_then(|c| c.certificates.into_iter().next()))
            .map(|raw| decode(&raw.raw_bytes))
            .transpose()?;
        let entries = material.tlog_entries.into_iter().map(WrittenEntry::read).collect::<Result<_, _>>()?;
        Ok(Bundle { signature: decode(&signature.signature)?, digest, certificate, entries })
    }
}

impl WrittenEntry {
    fn read(self) -> Result<Entry, BundleError> {
        let number = |number: &Option<Number>| number.as_ref().and_then(Number::value).unwrap_or(0);
        Ok(Entry {
            log: self.log_id.as_ref().map(|id| decode(&id.key_id)).transpose()?.unwrap_or_default(),
            index: number(&self.log_index),
            time: number(&self.integrated_time),
            body: self.canonicalized_body.as_deref().map(decode).transpose()?.unwrap_or_default(),
            promise: self.inclusion_promise.map(|p| decode(&p.signed_entry_timestamp)).transpose()?,
        })
    }
}

impl Older {
    fn read(self) -> Result<Bundle, BundleError> {
        use rustls_pki_types::CertificateDer;
        use rustls_pki_types::pem::PemObject;
        let certificate = if self.cert.is_empty() {
            None
        } else {
            let pem = decode(&self.cert)?;
            // A public key stands there too.
            CertificateDer::from_pem_slice(&pem).ok().map(|c| c.to_vec())
        };
        let entries = match self.rekor {
            Some(entry) => {
                let digit = |d: u8| char::from(d).to_digit(16).and_then(|v| u8::try_from(v).ok());
                let log = entry
                    .payload
                    .log_id
                    .as_bytes()
                    .chunks(2)
                    .map(|pair| match pair {
                        [high, low] => digit(*high).zip(digit(*low)).map(|(h, l)| h << 4 | l),
                        _ => None,
                    })
                    .collect::<Option<Vec<u8>>>()
                    .ok_or_else(|| syntax("logID is not hexadecimal"))?;
                vec![Entry {
                    log,
                    index: entry.payload.log_index,
                    time: entry.payload.integrated_time,
                    body: decode(&entry.payload.body)?,
                    promise: Some(decode(&entry.signed_entry_timestamp)?),
                }]
            }
            None => Vec::new(),
        };
        Ok(Bundle { signature: decode(&self.signature)?, digest: None, certificate, entries })
    }
}

#[cfg(test)]
mod tests;
