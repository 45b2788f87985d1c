//! Picket's own certificate authority: ECDSA P-256, made by `picket-aggregator init`, kept in the state folder as
//! `ca.pem` and `ca.key` (0600).
//!
//! It signs two kinds of leaf: a node's (client authentication, the node's name as the only URI) and the server's
//! own. Neither can stand for the other, because their key usages differ. Of a certificate request nothing is
//! taken but the public key, whose possession the request's signature proves.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use picket_proto::model::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use time::OffsetDateTime;

use super::names::URI_PREFIX;
use super::registry::IssueNumber;
use super::secret;
use crate::clock::Clock;

/// The largest certificate request that is looked at, in bytes.
const MAX_REQUEST: usize = 16 * 1024;
/// Certificates begin this much in the past, for nodes whose clock is behind.
const BACKDATE: Duration = Duration::from_secs(300);
const CA_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

/// The CA: its certificate and its key. The key never leaves this value and its file.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    clock: Clock,
}

/// What can go wrong with the CA and its certificates.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("{} is there already: this aggregator has a CA. Nothing was changed.", .0.display())]
    Exists(PathBuf),
    #[error("there is no CA in {}: run `picket-aggregator init` first, or configure one of your own under [identity]", .0.display())]
    Missing(PathBuf),
    #[error("{what} {}: {source}", path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{} does not hold {wanted}: {message}", path.display())]
    Content { path: PathBuf, wanted: &'static str, message: String },
    #[error("the certificate request is {0} bytes long, at most {MAX_REQUEST} are read")]
    RequestSize(usize),
    #[error("the certificate request was refused: {0}")]
    Request(rcgen::Error),
    #[error(
        "the certificate request's key is of a kind that is not issued to; use ECDSA P-256, P-384 or Ed25519"
    )]
    KeyKind,
    #[error("{name:?} cannot stand in a certificate: {source}")]
    Name { name: String, source: rcgen::Error },
    #[error("signing failed: {0}")]
    Sign(#[from] rcgen::Error),
    #[error("the new server key cannot be used: {0}")]
    Key(#[from] rustls::Error),
    #[error(transparent)]
    Randomness(#[from] secret::NoRandomness),
}

impl Authority {
    /// Makes a new CA in `dir`, which is made too (0700). Refuses where one is.
    pub fn create(dir: &Path, clock: Clock) -> Result<Self, AuthorityError> {
        let (certificate_path, key_path) = paths(dir);
        for path in [&certificate_path, &key_path] {
            if path.exists() {
                return Err(AuthorityError::Exists(path.clone()));
            }
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| AuthorityError::File { what: "cannot create", path: dir.to_owned(), source })?;
        let key = KeyPair::generate()?;
        let now = now(&clock);
        let mut params = CertificateParams::default();
        params.not_before = now - BACKDATE;
        params.not_after = now + CA_LIFE;
        params.serial_number = Some(SerialNumber::from_slice(&positive(secret::random()?)));
        params.distinguished_name = common_name(&format!("Picket CA {}", secret::generate_id()?));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        // The key first: a certificate without its key would look like a finished CA.
        write_new(&key_path, 0o600, key.serialize_pem().as_bytes())?;
        write_new(&certificate_path, 0o644, certificate.pem().as_bytes())?;
        sync_dir(dir)?;
        Self::load(dir, clock)
    }

    /// Loads the CA of `dir`.
    pub fn load(dir: &Path, clock: Clock) -> Result<Self, AuthorityError> {
        let (certificate_path, key_path) = paths(dir);
        let pem = match fs::read(&certificate_path) {
            Ok(pem) => pem,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(AuthorityError::Missing(dir.to_owned()));
            }
            Err(source) => {
                return Err(AuthorityError::File { what: "cannot read", path: certificate_path, source });
            }
        };
        let certificate = CertificateDer::from_pem_slice(&pem).map_err(|e| AuthorityError::Content {
            path: certificate_path.clone(),
            wanted: "a PEM certificate",
            message: e.to_string(),
        })?;
        let key = fs::read_to_string(&key_path).map_err(|source| AuthorityError::File {
            what: "cannot read",
            path: key_path.clone(),
            source,
        })?;
        let key = KeyPair::from_pem(&key).map_err(|e| AuthorityError::Content {
            path: key_path,
            wanted: "a PEM private key",
            message: e.to_string(),
        })?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|e| AuthorityError::Content {
            path: certificate_path,
            wanted: "a CA certificate",
            message: e.to_string(),
        })?;
        Ok(Self { issuer, certificate, clock })
    }

    /// Whether `dir` holds a CA.
    pub fn exists(dir: &Path) -> bool {
        let (certificate, key) = paths(dir);
        certificate.exists() || key.exists()
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// SHA-256 of the certificate, hex: what an enrolment token pins.
    pub fn fingerprint(&self) -> String {
        secret::hex(&secret::sha256(&self.certificate))
    }

    /// Checks a PKCS#10 request: its size, its signature, the kind of its key.
    pub fn check_request(&self, csr: &[u8]) -> Result<Request, AuthorityError> {
        if csr.len() > MAX_REQUEST {
            return Err(AuthorityError::RequestSize(csr.len()));
        }
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))
            .map_err(AuthorityError::Request)?;
        let kinds = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
        if !kinds.iter().any(|kind| **kind == *request.public_key.algorithm()) {
            return Err(AuthorityError::KeyKind);
        }
        Ok(Request(request))
    }

    /// A certificate for `node`, good for `life` from now.
    pub fn issue_node(
        &self,
        request: &Request,
        node: &NodeId,
        number: IssueNumber,
        life: Duration,
    ) -> Result<Leaf, AuthorityError> {
        let mut params = self.leaf(life);
        let serial = number.serial(secret::random()?);
        params.serial_number = Some(SerialNumber::from_slice(&minimal(serial)));
        // X.520 bounds a common name to 64 characters; the URI is what counts.
        if node.as_str().len() <= 64 {
            params.distinguished_name = common_name(node.as_str());
        }
        let uri = format!("{URI_PREFIX}{node}");
        let uri = uri.clone().try_into().map_err(|source| AuthorityError::Name { name: uri, source })?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let not_after_ms = params.not_after.unix_timestamp().saturating_mul(1000);
        let certificate = params.signed_by(&request.0.public_key, &self.issuer)?;
        Ok(Leaf { certificate: certificate.into(), serial, not_after_ms })
    }

    /// A fresh key and certificate for the aggregator's own ports; the chain ends with the CA, so that a client
    /// that knows only the CA's hash can check it.
    pub fn issue_server(
        &self,
        names: &[String],
        life: Duration,
    ) -> Result<Arc<CertifiedKey>, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = self.leaf(life);
        params.serial_number = Some(SerialNumber::from_slice(&positive(secret::random()?)));
        params.distinguished_name = common_name("picket-aggregator");
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.parse() {
                Ok(ip) => Ok(SanType::IpAddress(ip)),
                Err(_) => name
                    .clone()
                    .try_into()
                    .map(SanType::DnsName)
                    .map_err(|source| AuthorityError::Name { name: name.clone(), source }),
            })
            .collect::<Result<_, _>>()?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::from(key);
        let key = rustls::crypto::ring::sign::any_supported_type(&key)?;
        Ok(Arc::new(CertifiedKey::new(vec![certificate.into(), self.certificate.clone()], key)))
    }

    fn leaf(&self, life: Duration) -> CertificateParams {
        let now = now(&self.clock);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.not_before = now - BACKDATE;
        params.not_after = now + life;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params
    }
}

/// A certificate request whose signature is good.
pub struct Request(CertificateSigningRequestParams);

/// A node's certificate, fresh.
#[derive(Debug, Clone)]
pub struct Leaf {
    pub certificate: CertificateDer<'static>,
    pub serial: u128,
    pub not_after_ms: i64,
}

fn paths(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join("ca.pem"), dir.join("ca.key"))
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// DER allows no needless zero byte in front.
fn minimal(serial: u128) -> Vec<u8> {
    serial.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect()
}

/// DER integers are signed: without the top bit, no byte has to be added.
fn positive(mut bytes: [u8; 16]) -> [u8; 16] {
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    bytes
}

fn now(clock: &Clock) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(clock.now_ms().div_euclid(1000)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Writes a file that must not be there yet, and makes it durable.
pub fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), AuthorityError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => AuthorityError::Exists(path.to_owned()),
        _ => AuthorityError::File { what: "cannot write", path: path.to_owned(), source },
    };
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)
}

fn sync_dir(dir: &Path) -> Result<(), AuthorityError> {
    fs::File::open(dir).and_then(|d| d.sync_all()).map_err(|source| AuthorityError::File {
        what: "cannot sync",
        path: dir.to_owned(),
        source,
    })
}
