//! `NAME.wasm.sig`: signatures that lie beside a component.
//!
//! The form is DSSE (secure-systems-lab/dsse, version 1): a JSON object with `payloadType`, `payload` (base64) and
//! `signatures`, each with a `keyid` and a `sig` (base64). What is signed is the pre-authentication encoding of type and
//! payload, so no byte of either can be taken for the other. The payload is a [`Statement`]: digest, id and version. The
//! digest covers the manifest too, as it lies in the component; id and version stand beside it so that a signature tells
//! what it is of without the file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::keys::{KeyId, PrivateKey, PublicKey};

/// The payload's type, which is signed with it.
pub const PAYLOAD_TYPE: &str = "application/vnd.picket.plugin.v1+json";
/// The longest file of signatures, in bytes.
pub(crate) const MAX_BYTES: usize = 64 << 10;
/// The most signatures in one file.
const MAX_SIGNATURES: usize = 32;

/// What a signature says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    pub digest: Digest,
    /// The manifest's; empty where the component has none.
    pub id: String,
    pub version: String,
}

/// Why a file of signatures can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error("it is {len} bytes long, {MAX_BYTES} are allowed")]
    TooLong { len: usize },
    #[error("it is no signature file: {0}")]
    Syntax(String),
    #[error("its payload is of the type {0:?}, not {PAYLOAD_TYPE}")]
    Type(String),
    #[error("it has {0} signatures, 1 to {MAX_SIGNATURES} are allowed")]
    Count(usize),
}

/// A statement with signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    statement: Statement,
    /// The very bytes that were signed.
    payload: Vec<u8>,
    signatures: Vec<Signature>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Signature {
    key: KeyId,
    bytes: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    payload_type: String,
    payload: String,
    signatures: Vec<WrittenSignature>,
}

#[derive(Serialize, Deserialize)]
struct WrittenSignature {
    keyid: String,
    sig: String,
}

impl Envelope {
    /// Without a signature yet.
    pub fn new(statement: Statement) -> Self {
        let payload = serde_json::to_vec(&statement).unwrap_or_default();
        Self { statement, payload, signatures: Vec::new() }
    }

    /// # Errors
    /// [`EnvelopeError`]
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let syntax = |why: String| EnvelopeError::Syntax(why.chars().take(200).collect());
        if bytes.len() > MAX_BYTES {
            return Err(EnvelopeError::TooLong { len: bytes.len() });
        }
        let written: Written = serde_json::from_slice(bytes).map_err(|e| syntax(e.to_string()))?;
        if written.payload_type != PAYLOAD_TYPE {
            return Err(EnvelopeError::Type(written.payload_type.chars().take(80).collect()));
        }
        if !(1..=MAX_SIGNATURES).contains(&written.signatures.len()) {
            return Err(EnvelopeError::Count(written.signatures.len()));
        }
        let payload = STANDARD.decode(&written.payload).map_err(|e| syntax(format!("payload: {e}")))?;
        let statement = serde_json::from_slice(&payload).map_err(|e| syntax(format!("payload: {e}")))?;
        let signatures = written
            .signatures
            .iter()
            .map(|written| {
                let key = written.keyid.parse().map_err(|e| syntax(format!("keyid: {e}")))?;
                let bytes = STANDARD.decode(&written.sig).map_err(|e| syntax(format!("sig: {e}")))?;
                Ok(Signature { key, bytes })
            })
            .collect::<Result<_, EnvelopeError>>()?;
        Ok(Self { statement, payload, signatures })
    }

    pub const fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The ids of the keys that are said to have signed it.
    pub fn keys(&self) -> impl Iterator<Item = KeyId> {
        self.signatures.iter().map(|s| s.key)
    }

    /// Adds a signature; a key signs once.
    pub fn sign(&mut self, key: &PrivateKey) {
        let id = key.public().id();
        self.signatures.retain(|s| s.key != id);
        let bytes = key.sign(&encoded(&self.payload));
        self.signatures.push(Signature { key: id, bytes });
    }

    /// Whether this key signed the statement. None: it is not said to have.
    pub fn signed_by(&self, key: &PublicKey) -> Option<bool> {
        let id = key.id();
        let said = || self.signatures.iter().filter(|s| s.key == id);
        said().next()?;
        let message = encoded(&self.payload);
        Some(said().any(|s| key.verifies(&message, &s.bytes)))
    }

    /// The file's content.
    pub fn to_json(&self) -> String {
        let written = Written {
            payload_type: PAYLOAD_TYPE.to_owned(),
            payload: STANDARD.encode(&self.payload),
            signatures: self
                .signatures
                .iter()
                .map(|s| WrittenSignature { keyid: s.key.to_string(), sig: STANDARD.encode(&s.bytes) })
                .collect(),
        };
        let mut text = serde_json::to_string_pretty(&written).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// The pre-authentication encoding: `DSSEv1`, and type and payload each with its length, one space between them.
fn encoded(payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn statement() -> Statement {
        Statement { digest: Digest::of(b"component"), id: "node".to_owned(), version: "0.1.0".to_owned() }
    }

    #[test]
    fn a_round_through_the_file() {
        let (a, b) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let mut envelope = Envelope::new(statement());
        envelope.sign(&a);
        envelope.sign(&a);
        assert_eq!(envelope.keys().count(), 1);
        envelope.sign(&b);
        let read = Envelope::parse(envelope.to_json().as_bytes()).unwrap();
        assert_eq!(read, envelope);
        assert_eq!(*read.statement(), statement());
        assert_eq!([read.signed_by(&a.public()), read.signed_by(&b.public())], [Some(true); 2]);
        assert_eq!(read.signed_by(&PrivateKey::generate().unwrap().public()), None);
    }

    #[test]
    fn a_signature_moved_to_another_statement_or_key_is_none() {
        let (a, b) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let mut good = Envelope::new(statement());
        good.sign(&a);
        let mut moved = Envelope::new(Statement { version: "0.2.0".to_owned(), ..statement() });
        moved.signatures = good.signatures.clone();
        assert_eq!(moved.signed_by(&a.public()), Some(false));
        let mut renamed = good.clone();
        renamed.signatures[0].key = b.public().id();
        assert_eq!((renamed.signed_by(&b.public()), renamed.signed_by(&a.public())), (Some(false), None));
        // The key's own signature counts, whatever stands before it under its name.
        let mut both = good.clone();
        both.signatures.insert(0, Signature { key: a.public().id(), bytes: vec![0; 64] });
        assert_eq!(both.signed_by(&a.public()), Some(true));
    }

    #[test]
    fn what_is_no_envelope() {
        let mut envelope = Envelope::new(statement());
        let key = PrivateKey::generate().unwrap();
        assert!(matches!(Envelope::parse(envelope.to_json().as_bytes()), Err(EnvelopeError::Count(0))));
        envelope.sign(&key);
        let text = envelope.to_json();
        for (from, to) in [
            ("v1+json", "v2+json"),
            ("\"payload\": \"", "\"payload\": \"!"),
            ("\"sig\": \"", "\"sig\": \"!"),
            ("sha256:", "sha512:"),
            ("signatures", "signature"),
        ] {
            assert!(Envelope::parse(text.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
        }
        assert!(matches!(Envelope::parse(&vec![b' '; MAX_BYTES + 1]), Err(EnvelopeError::TooLong { .. })));
        envelope.signatures = vec![envelope.signatures[0].clone(); MAX_SIGNATURES + 1];
        assert!(matches!(Envelope::parse(envelope.to_json().as_bytes()), Err(EnvelopeError::Count(33))));
        // What a later version might add to a statement is not passed over.
        let payload = br#"{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","id":"a","version":"1","until":1}"#;
        assert!(serde_json::from_slice::<Statement>(payload).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Envelope::parse(&bytes);
        }

        #[test]
        fn no_flipped_bit_goes_unnoticed(at in 0usize..10_000, bit in 0u8..8) {
            let key = PrivateKey::generate().unwrap();
            let mut envelope = Envelope::new(statement());
            envelope.sign(&key);
            let mut payload = envelope.payload.clone();
            let at = at % payload.len();
            payload[at] ^= 1 << bit;
            envelope.payload = payload;
            prop_assert_eq!(envelope.signed_by(&key.public()), Some(false));
        }
    }
}
