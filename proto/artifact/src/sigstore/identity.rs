//! Signatures of identities: who somebody is stands in a certificate that was good for minutes, and that it was then that
//! they signed is a transparency log's word.
//!
//! Checked, offline and against a trusted root that the policy names: the certificate leads to an authority of the root and
//! was good at the time of the log's entry; the entry's time, place and content are what the log promised (its signed entry
//! timestamp); the entry is of this file, this signature and this certificate; the certificate's subject and issuer are those
//! that the policy asks for; and the certificate's key made the signature.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use serde::Deserialize;
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use super::{BundleError, Entry, decode};
use crate::digest::Digest;
use crate::keys::PublicKey;

/// id-kp-codeSigning, 1.3.6.1.5.5.7.3.3.
const CODE_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03];
/// Fulcio's extensions for the OIDC issuer: a DER text, and in the older one the plain text.
const ISSUER: &str = "1.3.6.1.4.1.57264.1.8";
const ISSUER_OLDER: &str = "1.3.6.1.4.1.57264.1.1";
const MAX_ENTRIES: usize = 16;

/// Authorities and logs, of a `trusted_root.json`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TrustedRoot {
    authorities: Vec<Authority>,
    logs: Vec<Log>,
}

#[derive(Debug, Clone, PartialEq)]
struct Authority {
    /// The leaf's issuer first, the root last.
    chain: Vec<Vec<u8>>,
    valid: Validity,
}

#[derive(Debug, Clone, PartialEq)]
struct Log {
    id: Vec<u8>,
    key: PublicKey,
    valid: Validity,
}

/// Unix seconds, both ends within.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Validity {
    start: i64,
    end: Option<i64>,
}

/// Whom the policy asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Identity {
    issuer: String,
    /// `*` at its end: whatever begins so.
    subject: String,
    root: TrustedRoot,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    media_type: String,
    #[serde(default)]
    tlogs: Vec<WrittenLog>,
    #[serde(default)]
    certificate_authorities: Vec<WrittenAuthority>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenLog {
    public_key: WrittenKey,
    log_id: super::LogId,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenKey {
    raw_bytes: String,
    valid_for: Option<WrittenValidity>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenAuthority {
    cert_chain: super::Chain,
    valid_for: Option<WrittenValidity>,
}

#[derive(Deserialize)]
struct WrittenValidity {
    start: Option<String>,
    end: Option<String>,
}

/// What Rekor logs of a signature (`hashedrekord` 0.0.1).
#[derive(Deserialize)]
struct Body {
    kind: String,
    spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    data: Data,
    signature: LoggedSignature,
}

#[derive(Deserialize)]
struct Data {
    hash: Hash,
}

#[derive(Deserialize)]
struct Hash {
    algorithm: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LoggedSignature {
    content: String,
    public_key: LoggedKey,
}

#[derive(Deserialize)]
struct LoggedKey {
    content: String,
}

impl TrustedRoot {
    /// # Errors
    /// [`BundleError::Root`]
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        let root = |why: String| BundleError::Root(format!("is not valid: {why}"));
        let written: Written = serde_json::from_slice(bytes).map_err(|e| root(e.to_string()))?;
        if !written.media_type.starts_with("application/vnd.dev.sigstore.trustedroot") {
            return Err(root(format!("its media type is {:?}", written.media_type)));
        }
        let raw = |text: &str| decode(text).map_err(|e| root(e.to_string()));
        let mut logs = Vec::new();
        for log in written.tlogs {
            // Logs of a kind that is not known here can promise nothing here.
            let Ok(key) = PublicKey::from_spki(&raw(&log.public_key.raw_bytes)?) else { continue };
            let valid = validity(log.public_key.valid_for.as_ref()).map_err(root)?;
            logs.push(Log { id: raw(&log.log_id.key_id)?, key, valid });
        }
        let mut authorities = Vec::new();
        for authority in written.certificate_authorities {
            let chain: Vec<Vec<u8>> = authority
                .cert_chain
                .certificates
                .iter()
                .map(|c| raw(&c.raw_bytes))
                .collect::<Result<_, _>>()?;
            let valid = validity(authority.valid_for.as_ref()).map_err(root)?;
            authorities.push(Authority { chain, valid });
        }
        if logs.is_empty() || authorities.is_empty() {
            return Err(BundleError::Root(
                "names no certificate authority, or no transparency log with a key of ECDSA P-256 or ed25519"
                    .to_owned(),
            ));
        }
        Ok(Self { authorities, logs })
    }
}

fn validity(written: Option<&WrittenValidity>) -> Result<Validity, String> {
    let time = |text: &Option<String>| {
        text.as_deref()
            .map(|text| {
                time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339)
                    .map(time::OffsetDateTime::unix_timestamp)
                    .map_err(|e| format!("validFor {text:?}: {e}"))
            })
            .transpose()
    };
    let Some(written) = written else { return Err("an entry has no validFor".to_owned()) };
    let start = time(&written.start)?.ok_or("a validFor has no start")?;
    Ok(Validity { start, end: time(&written.end)? })
}

impl Validity {
    fn holds(self, at: i64) -> bool {
        at >= self.start && self.end.is_none_or(|end| at <= end)
    }
}

impl Identity {
    /// # Errors
    /// [`BundleError::Identity`]
    pub fn new(issuer: &str, subject: &str, root: TrustedRoot) -> Result<Self, BundleError> {
        if issuer.is_empty() {
            return Err(BundleError::Identity("must have an issuer"));
        }
        let fixed = subject.strip_suffix('*').unwrap_or(subject);
        if fixed.is_empty() || fixed.contains('*') {
            return Err(BundleError::Identity(
                "must have a subject; one * may stand at its end, after something",
            ));
        }
        Ok(Self { issuer: issuer.to_owned(), subject: subject.to_owned(), root })
    }

    pub(super) fn signed(
        &self,
        certificate: &[u8],
        entries: &[Entry],
        signature: &[u8],
        file: &[u8],
        digest: &Digest,
    ) -> Result<bool, BundleError> {
        let bad = |why: String| BundleError::Certificate(why);
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|e| bad(format!("can't be read: {e}")))?;
        if !self.names(&parsed) {
            return Ok(false);
        }
        let Some(entry) = entries.iter().take(MAX_ENTRIES).find(|e| e.promise.is_some()) else {
            return Err(BundleError::Log(
                "with the log's promise (a signed entry timestamp) is missing; a proof alone is not enough"
                    .to_owned(),
            ));
        };
        self.check_promise(entry)?;
        check_body(entry, certificate, signature, digest)?;
        self.check_chain(certificate, entry.time)?;
        let key =
            PublicKey::from_spki(parsed.public_key().raw).map_err(|e| bad(format!("has a key that: {e}")))?;
        if !key.verifies(file, signature) {
            return Err(bad("has not made the signature".to_owned()));
        }
        Ok(true)
    }

    /// Whether the certificate is of whom the policy asks for.
    fn names(&self, certificate: &X509Certificate<'_>) -> bool {
        let issuer = certificate.extensions().iter().find_map(|e| match e.oid.to_id_string().as_str() {
            // A DER UTF8String, short enough for a length of one byte or of two.
            ISSUER => match e.value {
                [0x0c, len, text @ ..] if usize::from(*len) == text.len() && *len < 0x80 => {
                    std::str::from_utf8(text).ok()
                }
                [0x0c, 0x81, len, text @ ..] if usize::from(*len) == text.len() => {
                    std::str::from_utf8(text).ok()
                }
                _ => None,
            },
            ISSUER_OLDER => std::str::from_utf8(e.value).ok(),
            _ => None,
        });
        if issuer != Some(self.issuer.as_str()) {
            return false;
        }
        let fits = |subject: &str| match self.subject.strip_suffix('*') {
            Some(start) => subject.starts_with(start),
            None => subject == self.subject,
        };
        certificate.extensions().iter().any(|e| match e.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => {
                names.general_names.iter().any(|name| match name {
                    GeneralName::RFC822Name(text) | GeneralName::URI(text) => fits(text),
                    _ => false,
                })
            }
            _ => false,
        })
    }

    fn check_promise(&self, entry: &Entry) -> Result<(), BundleError> {
        let bad = |why: &str| BundleError::Log(why.to_owned());
        let promise = entry.promise.as_deref().unwrap_or_default();
        let log = self
            .root
            .logs
            .iter()
            .find(|log| log.id == entry.log && log.valid.holds(entry.time))
            .ok_or_else(|| bad("is of a log that the trusted root does not name for that time"))?;
        let id: String = entry.log.iter().map(|b| format!("{b:02x}")).collect();
        // Canonical JSON (RFC 8785) of four members that need no escapes.
        let said = format!(
            r#"{{"body":"{}","integratedTime":{},"logID":"{id}","logIndex":{}}}"#,
            STANDARD.encode(&entry.body),
            entry.time,
            entry.index
        );
        if log.key.verifies(said.as_bytes(), promise) {
            Ok(())
        } else {
            Err(bad("is not what the log promised"))
        }
    }

    fn check_chain(&self, certificate: &[u8], at: i64) -> Result<(), BundleError> {
        let bad = |why: String| BundleError::Certificate(why);
        let der = CertificateDer::from(certificate);
        let leaf = EndEntityCert::try_from(&der).map_err(|e| bad(format!("can't be used: {e}")))?;
        let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at).unwrap_or(0)));
        let algorithms = &[
            webpki::ring::ECDSA_P256_SHA256,
            webpki::ring::ECDSA_P256_SHA384,
            webpki::ring::ECDSA_P384_SHA256,
            webpki::ring::ECDSA_P384_SHA384,
            webpki::ring::ED25519,
        ];
        let mut why = "was not made by an authority that the trusted root names for that time".to_owned();
        for authority in self.root.authorities.iter().filter(|a| a.valid.holds(at)) {
            let Some((root, between)) = authority.chain.split_last() else { continue };
            let root = CertificateDer::from(root.as_slice());
            let anchor: TrustAnchor<'_> = match webpki::anchor_from_trusted_cert(&root) {
                Ok(anchor) => anchor,
                Err(e) => {
                    why = format!("can't be held against an authority: {e}");
                    continue;
                }
            };
            let between: Vec<CertificateDer<'_>> =
                between.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
            match leaf.verify_for_usage(
                algorithms,
                &[anchor],
                &between,
                time,
                KeyUsage::required(CODE_SIGNING),
                None,
                None,
            ) {
                Ok(_) => return Ok(()),
                Err(e) => why = format!("does not lead to an authority of the trusted root: {e}"),
            }
        }
        Err(bad(why))
    }
}

/// The entry is of this file, this signature and this certificate: else anybody's entry could stand here.
fn check_body(
    entry: &Entry,
    certificate: &[u8],
    signature: &[u8],
    digest: &Digest,
) -> Result<(), BundleError> {
    let bad = |why: &str| BundleError::Log(why.to_owned());
    let body: Body =
        serde_json::from_slice(&entry.body).map_err(|e| BundleError::Log(format!("can't be read: {e}")))?;
    if body.kind != "hashedrekord" {
        return Err(bad("is not of a signature of a file (hashedrekord)"));
    }
    if body.spec.data.hash.algorithm != "sha256" || body.spec.data.hash.value != digest.to_string() {
        return Err(bad("is of another file"));
    }
    if STANDARD.decode(&body.spec.signature.content).ok().as_deref() != Some(signature) {
        return Err(bad("is of another signature"));
    }
    let logged = STANDARD
        .decode(&body.spec.signature.public_key.content)
        .ok()
        .and_then(|pem| CertificateDer::from_pem_slice(&pem).ok());
    if logged.as_deref() != Some(certificate) {
        return Err(bad("is of another certificate"));
    }
    Ok(())
}
