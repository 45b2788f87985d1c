//! TLS on both ports, ring alone. The server's certificate and the authorities of clients may be exchanged while
//! connections are open; tickets of before a change of authorities are void.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::ring::cipher_suite;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SupportedCipherSuite};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::tickets::{TicketKeys, Tickets};
use crate::config::OwnCertificates;
use crate::identity::secret::sha256;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} does not hold {wanted} in PEM: {message}", path.display())]
    Pem { path: PathBuf, wanted: &'static str, message: String },
    #[error("the key {} does not belong to the certificate {}", key.display(), certificate.display())]
    Mismatch { key: PathBuf, certificate: PathBuf },
    #[error("the client authorities cannot be used: {0}")]
    Authorities(String),
    #[error("TLS cannot be set up: {0}")]
    Rustls(#[from] rustls::Error),
}

/// The server's certificate, shared by all ports, exchangeable at any time.
#[derive(Debug)]
pub struct ServerCertificate(ArcSwap<CertifiedKey>);

impl ServerCertificate {
    pub fn new(certified: Arc<CertifiedKey>) -> Arc<Self> {
        Arc::new(Self(ArcSwap::new(certified)))
    }

    /// Handshakes from now on show this one.
    pub fn replace(&self, certified: Arc<CertifiedKey>) {
        self.0.store(certified);
    }

    /// When it ends, Unix seconds.
    pub fn expires(&self) -> Option<i64> {
        use x509_parser::prelude::{FromDer, X509Certificate};
        let certified = self.0.load();
        let (_, leaf) = X509Certificate::from_der(certified.cert.first()?).ok()?;
        Some(leaf.validity().not_after.timestamp())
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// For agents, in the order in which they are taken, whatever the client likes best. A connection of theirs is a handshake
/// and then little data, so what counts is the hash of the key schedule: processors have instructions for SHA-256, and
/// none for the SHA-384 of the usual first choice. The key is as long as there.
const UPLINK_SUITES: [SupportedCipherSuite; 3] = [
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_AES_128_GCM_SHA256,
];

/// What a port's TLS is made of.
#[derive(Clone)]
pub struct TlsOptions {
    pub certificate: Arc<ServerCertificate>,
    pub alpn: &'static [&'static [u8]],
    /// Whose clients are known: a client may then show a certificate, and one that does is verified. `None`: clients
    /// are not asked.
    pub clients: Option<Vec<CertificateDer<'static>>>,
    pub tickets: Arc<TicketKeys>,
}

/// The TLS of one port.
pub struct ServerTls {
    options: TlsOptions,
    config: ArcSwap<ServerConfig>,
}

impl ServerTls {
    pub fn new(options: TlsOptions) -> Result<Arc<Self>, TlsError> {
        let config = config(&options, options.clients.as_deref())?;
        Ok(Arc::new(Self { options, config: ArcSwap::new(config) }))
    }

    /// Handshakes from now on verify against these.
    pub fn set_clients(&self, clients: &[CertificateDer<'static>]) -> Result<(), TlsError> {
        self.config.store(config(&self.options, Some(clients))?);
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.load_full())
    }
}

fn config(
    options: &TlsOptions,
    clients: Option<&[CertificateDer<'static>]>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut provider = rustls::crypto::ring::default_provider();
    if clients.is_some() {
        provider.cipher_suites = UPLINK_SUITES.to_vec();
    }
    let provider = Arc::new(provider);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let mut context = Vec::new();
    let builder = match clients {
        None => builder.with_safe_default_protocol_versions()?.with_no_client_auth(),
        Some(authorities) => {
            let mut roots = RootCertStore::empty();
            for authority in authorities {
                roots.add(authority.clone()).map_err(|e| TlsError::Authorities(e.to_string()))?;
                context.extend_from_slice(&sha256(authority));
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|e| TlsError::Authorities(e.to_string()))?;
            // Agents are all ours: nothing older is needed.
            builder.with_protocol_versions(&[&rustls::version::TLS13])?.with_client_cert_verifier(verifier)
        }
    };
    let resolver: Arc<dyn ResolvesServerCert> = options.certificate.clone();
    let mut config = builder.with_cert_resolver(resolver);
    config.alpn_protocols = options.alpn.iter().map(|name| name.to_vec()).collect();
    config.ignore_client_order = clients.is_some();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // Resumption spares both sides the signatures when ten thousand agents come back at once.
    config.ticketer = Arc::new(Tickets::new(Arc::clone(&options.tickets), sha256(&context)));
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// The files of a CA of the operator's own, read.
pub struct OwnFiles {
    pub certificate: Arc<CertifiedKey>,
    pub clients: Vec<CertificateDer<'static>>,
    /// Changes when any of the files does.
    pub digest: [u8; 32],
}

impl OwnFiles {
    pub fn load(paths: &OwnCertificates) -> Result<Self, TlsError> {
        let certificate_pem = read(&paths.certificate)?;
        let key_pem = read(&paths.key)?;
        let clients_pem = read(&paths.client_authorities)?;
        let chain = certificates(&paths.certificate, &certificate_pem)?;
        let key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|e| TlsError::Pem {
            path: paths.key.clone(),
            wanted: "a private key",
            message: e.to_string(),
        })?;
        let key = rustls::crypto::ring::sign::any_supported_type(&key)?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err(TlsError::Mismatch {
                    key: paths.key.clone(),
                    certificate: paths.certificate.clone(),
                });
            }
            Err(error) => return Err(error.into()),
        }
        let mut all = Vec::new();
        for pem in [&certificate_pem, &key_pem, &clients_pem] {
            all.extend_from_slice(&sha256(pem));
        }
        Ok(Self {
            certificate: Arc::new(certified),
            clients: certificates(&paths.client_authorities, &clients_pem)?,
            digest: sha256(&all),
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::File { path: path.to_owned(), source })
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |message: String| TlsError::Pem { path: path.to_owned(), wanted: "certificates", message };
    let list: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|e| failed(e.to_string()))?;
    if list.is_empty() { Err(failed("there is none".into())) } else { Ok(list) }
}
