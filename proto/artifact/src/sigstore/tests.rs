//! A certificate authority, a log and a signer of our own, made by rcgen and ring, so that each part can be spoiled alone.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair as CertifiedKey, SanType, date_time_ymd,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::*;
use crate::policy::{Policy, Subject};
use crate::{Evidence, PrivateKey};

const FILE: &[u8] = b"\0asm\x0d\0\x01\0";
/// 2025-06-01T12:00:00Z, within the certificate's day.
const SIGNED_AT: i64 = 1_748_779_200;
const SUBJECT: &str = "https://example.org/release.yml@refs/tags/v1";
const OIDC: &str = "https://issuer.example.org";

struct Ecdsa(EcdsaKeyPair);

impl Ecdsa {
    fn new() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).unwrap())
    }

    fn spki(&self) -> Vec<u8> {
        let mut spki = vec![
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
            0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ];
        spki.extend_from_slice(self.0.public_key().as_ref());
        spki
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }
}

fn b64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// A signed file and all that vouches for it.
struct World {
    log: Ecdsa,
    root: CertifiedKey,
    bundle: Value,
    trusted: Value,
}

fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "an authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

impl World {
    fn new(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (log, root) = (Ecdsa::new(), CertifiedKey::generate().unwrap());
        let root_certificate = authority().self_signed(&root).unwrap();
        let signer = CertifiedKey::generate().unwrap();
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(2025, 6, 1);
        params.not_after = date_time_ymd(2025, 6, 2);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        params.subject_alt_names = vec![SanType::URI(SUBJECT.try_into().unwrap())];
        let mut issuer = vec![0x0c, u8::try_from(OIDC.len()).unwrap()];
        issuer.extend_from_slice(OIDC.as_bytes());
        params.custom_extensions =
            vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 57264, 1, 8], issuer)];
        change(&mut params);
        let leaf = params.signed_by(&signer, &Issuer::from_params(&authority(), &root)).unwrap();
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &signer.serialize_der(), &random)
            .unwrap();
        let signature = key.sign(&random, FILE).unwrap().as_ref().to_vec();
        let digest = Digest::of(FILE);
        let body = json!({
            "apiVersion": "0.0.1", "kind": "hashedrekord",
            "spec": {
                "data": { "hash": { "algorithm": "sha256", "value": digest.to_string() } },
                "signature": { "content": b64(&signature), "publicKey": { "content": b64(leaf.pem().as_bytes()) } },
            },
        });
        let bundle = json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": { "rawBytes": b64(leaf.der()) },
                "tlogEntries": [{
                    "logIndex": "7", "logId": { "keyId": b64(Digest::of(&log.spki()).bytes()) },
                    "integratedTime": SIGNED_AT.to_string(), "inclusionPromise": {},
                    "canonicalizedBody": b64(body.to_string().as_bytes()),
                }],
            },
            "messageSignature": {
                "messageDigest": { "algorithm": "SHA2_256", "digest": b64(digest.bytes()) },
                "signature": b64(&signature),
            },
        });
        let trusted = json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [{
                "publicKey": { "rawBytes": b64(&log.spki()), "validFor": { "start": "2025-01-01T00:00:00Z" } },
                "logId": { "keyId": b64(Digest::of(&log.spki()).bytes()) },
            }],
            "certificateAuthorities": [{
                "certChain": { "certificates": [{ "rawBytes": b64(root_certificate.der()) }] },
                "validFor": { "start": "2025-01-01T00:00:00Z", "end": "2026-01-01T00:00:00Z" },
            }],
        });
        let mut world = Self { log, root, bundle, trusted };
        world.promise();
        world
    }

    fn entry(&mut self) -> &mut Value {
        &mut self.bundle["verificationMaterial"]["tlogEntries"][0]
    }

    /// The log signs the entry as it is now.
    fn promise(&mut self) {
        let entry = self.entry().clone();
        let id = STANDARD.decode(entry["logId"]["keyId"].as_str().unwrap()).unwrap();
        let said = format!(
            r#"{{"body":"{}","integratedTime":{},"logID":"{}","logIndex":{}}}"#,
            entry["canonicalizedBody"].as_str().unwrap(),
            entry["integratedTime"].as_str().unwrap(),
            Digest::from_bytes(&id).unwrap(),
            entry["logIndex"].as_str().unwrap(),
        );
        let promise = b64(&self.log.sign(said.as_bytes()));
        self.entry()["inclusionPromise"] = json!({ "signedEntryTimestamp": promise });
    }

    fn judged(&self, subject: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("root.json"), self.trusted.to_string()).unwrap();
        let policy = dir.path().join("policy.toml");
        std::fs::write(
            &policy,
            format!(
                "policy = 1\n[identities.ci]\nissuer = \"{OIDC}\"\nsubject = \"{subject}\"\ntrusted_root = \"root.json\"\n"
            ),
        )
        .unwrap();
        let evidence = Evidence { signature: None, bundle: Some(self.bundle.to_string().into_bytes()) };
        let policy = match Policy::load(&policy) {
            Ok(policy) => policy,
            Err(e) => return e.to_string(),
        };
        match policy.judge(Subject { configured: None, bytes: FILE, evidence: &evidence }) {
            Ok(verdict) => format!("by {}", verdict.signed_by()),
            Err(untrusted) => untrusted.to_string(),
        }
    }
}

#[test]
fn an_identity_is_believed() {
    let world = World::new(|_| ());
    assert_eq!(world.judged(SUBJECT), "by ci");
    assert_eq!(world.judged("https://example.org/release.yml@refs/tags/*"), "by ci");
    // The older place of the issuer.
    let older = World::new(|params| {
        params.custom_extensions = vec![CustomExtension::from_oid_content(
            &[1, 3, 6, 1, 4, 1, 57264, 1, 1],
            OIDC.as_bytes().to_vec(),
        )];
    });
    assert_eq!(older.judged(SUBJECT), "by ci");
}

#[test]
fn each_link_of_the_chain_is_needed() {
    type Spoil = fn(&mut World);
    let cases: &[(Spoil, &str)] = &[
        (|w| w.entry()["integratedTime"] = json!("1748779201"), "not what the log promised"),
        (|w| w.entry()["logIndex"] = json!("8"), "not what the log promised"),
        (
            |w| w.entry()["inclusionPromise"] = json!({ "signedEntryTimestamp": b64(b"x") }),
            "not what the log promised",
        ),
        (
            |w| w.bundle["verificationMaterial"]["tlogEntries"][0]["inclusionPromise"] = Value::Null,
            "a proof alone",
        ),
        (|w| w.bundle["verificationMaterial"]["tlogEntries"] = json!([]), "missing"),
        (|w| w.entry()["logId"]["keyId"] = json!(b64(&[0; 32])), "a log that the trusted root does not name"),
        // Logged on another day: the certificate was not good then.
        (
            |w| {
                w.entry()["integratedTime"] = json!("1749000000");
                w.promise()
            },
            "does not lead to",
        ),
        (
            |w| {
                w.entry()["integratedTime"] = json!("1800000000");
                w.promise()
            },
            "names for that time",
        ),
        (
            |w| {
                w.entry()["integratedTime"] = json!("1700000000");
                w.promise()
            },
            "for that time",
        ),
        (|w| w.bundle["messageSignature"]["signature"] = json!(b64(b"sig")), "of another signature"),
        (
            |w| w.bundle["messageSignature"]["messageDigest"]["digest"] = json!(b64(&[1; 32])),
            "of another file",
        ),
        (
            |w| {
                w.trusted["certificateAuthorities"][0]["certChain"]["certificates"][0]["rawBytes"] =
                    json!(b64(authority().self_signed(&CertifiedKey::generate().unwrap()).unwrap().der()))
            },
            "does not lead to",
        ),
        (
            |w| w.trusted["tlogs"][0]["publicKey"]["rawBytes"] = json!(b64(&Ecdsa::new().spki())),
            "not what the log promised",
        ),
        (|w| w.trusted["tlogs"] = json!([]), "no certificate authority, or no transparency log"),
        (|w| w.trusted["tlogs"][0]["publicKey"]["validFor"] = Value::Null, "no validFor"),
        (|w| w.trusted["mediaType"] = json!("x"), "media type"),
    ];
    for (i, (spoil, word)) in cases.iter().enumerate() {
        let mut world = World::new(|_| ());
        spoil(&mut world);
        let said = world.judged(SUBJECT);
        assert!(said.contains(word), "{i}: {said}, not {word}");
    }
}

#[test]
fn another_files_entry_vouches_for_nothing() {
    for (member, value, word) in [
        ("/spec/data/hash/value", json!(Digest::of(b"x").to_string()), "of another file"),
        ("/spec/signature/content", json!(b64(b"x")), "of another signature"),
        ("/spec/signature/publicKey/content", json!(b64(b"x")), "of another certificate"),
        ("/kind", json!("dsse"), "not of a signature of a file"),
    ] {
        let mut world = World::new(|_| ());
        let body = STANDARD.decode(world.entry()["canonicalizedBody"].as_str().unwrap()).unwrap();
        let mut body: Value = serde_json::from_slice(&body).unwrap();
        *body.pointer_mut(member).unwrap() = value;
        world.entry()["canonicalizedBody"] = json!(b64(body.to_string().as_bytes()));
        world.promise();
        let said = world.judged(SUBJECT);
        assert!(said.contains(word), "{member}: {said}");
    }
}

#[test]
fn other_identities_and_other_certificates() {
    let world = World::new(|_| ());
    for subject in
        ["https://example.org/other.yml@refs/tags/v1", "https://example.org/release.yml@refs/tags/v"]
    {
        assert!(world.judged(subject).contains("signed by none of them"), "{}", world.judged(subject));
    }
    assert!(world.judged("*").contains("must have a subject"));
    let no_issuer = World::new(|params| params.custom_extensions.clear());
    assert!(no_issuer.judged(SUBJECT).contains("signed by none of them"));
    // A certificate for a server is none for signing.
    let server = World::new(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    assert!(server.judged(SUBJECT).contains("does not lead to"), "{}", server.judged(SUBJECT));
    // An authority's own key, whose certificate stands for an identity, does not sign for another one.
    assert!(!world.root.serialize_der().is_empty());
}

#[test]
fn bundles_of_a_key() {
    let key = Ecdsa::new();
    let public = PublicKey::from_spki(&key.spki()).unwrap();
    let ours = PrivateKey::generate().unwrap();
    let new = |signature: &[u8]| {
        json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": { "publicKey": { "hint": "x" }, "tlogEntries": [] },
            "messageSignature": {
                "messageDigest": { "algorithm": "SHA2_256", "digest": b64(Digest::of(FILE).bytes()) },
                "signature": b64(signature),
            },
        })
    };
    let older = |signature: &[u8]| json!({ "base64Signature": b64(signature) });
    for (bundle, key, wanted) in [
        (new(&key.sign(FILE)), &public, "by k"),
        (older(&key.sign(FILE)), &public, "by k"),
        (new(&ours.sign(FILE)), &ours.public(), "by k"),
        (new(&key.sign(b"other")), &public, "signed by none of them"),
        (new(&ours.sign(FILE)), &public, "signed by none of them"),
        (json!({}), &public, "no sigstore bundle"),
    ] {
        let evidence = Evidence { signature: None, bundle: Some(bundle.to_string().into_bytes()) };
        let policy = Policy::of_key("k", key.clone());
        let said = match policy.judge(Subject { configured: None, bytes: FILE, evidence: &evidence }) {
            Ok(verdict) => format!("by {}", verdict.signed_by()),
            Err(untrusted) => untrusted.to_string(),
        };
        assert!(said.contains(wanted), "{bundle}: {said}");
    }
    let mut attestation = new(b"x");
    attestation["dsseEnvelope"] = json!({});
    let error = Bundle::parse(attestation.to_string().as_bytes()).unwrap_err();
    assert_eq!(error, BundleError::Unsupported("an attestation"));
    assert!(matches!(Bundle::parse(&vec![b' '; MAX_BYTES + 1]), Err(BundleError::TooLong { .. })));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let _ = Bundle::parse(&bytes);
        let _ = TrustedRoot::parse(&bytes);
    }
}
