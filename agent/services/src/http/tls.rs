//! TLS of outgoing requests: whom a rule trusts, and who the agent is for it.
//!
//! The files are the operator's, named in a grant; no plugin sees them or chooses among them. They are read again when they
//! change, so that a renewed certificate needs no restart. A configuration is kept for each set of files, because sessions
//! are resumed within one.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::CertificateError;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Error;
use crate::ServicesError;
use crate::grants::UrlRule;

/// What a rule says of TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    files: Files,
    /// Whose certificate it must be, where that is not the host of the URL.
    name: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Files {
    authorities: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl From<&UrlRule> for Wanted {
    fn from(rule: &UrlRule) -> Self {
        let files = Files {
            authorities: rule.ca.clone(),
            certificate: rule.client_certificate.clone(),
            key: rule.client_key.clone(),
        };
        Self { files, name: rule.server_name.clone() }
    }
}

/// The configurations that were needed so far.
#[derive(Debug)]
pub(super) struct Tls {
    extra: Vec<CertificateDer<'static>>,
    kept: Mutex<HashMap<Files, Kept>>,
}

#[derive(Clone)]
struct Kept {
    stamps: Vec<Stamp>,
    connector: TlsConnector,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("stamps", &self.stamps).finish_non_exhaustive()
    }
}

/// Tells one version of a file from another; none where it can't be looked at.
type Stamp = Option<(u64, u64, i64, i64)>;

impl Tls {
    /// `extra` are trusted beside the system's, where a rule names none of its own.
    pub fn new(extra: Option<PathBuf>) -> Result<Self, ServicesError> {
        let read = |path: PathBuf| authorities(&path).map_err(|why| ServicesError::Authorities { path, why });
        Ok(Self { extra: extra.map(read).transpose()?.unwrap_or_default(), kept: Mutex::default() })
    }

    /// Speaks TLS with `host` over a stream that leads there.
    pub async fn connect(
        self: &Arc<Self>,
        wanted: &Wanted,
        host: &str,
        place: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Error> {
        let name = wanted.name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned())
            .map_err(|e| Error::Tls(format!("{name} is no name for a certificate: {e}")))?;
        let connector = self.connector(&wanted.files).await?;
        connector.connect(name, stream).await.map_err(|e| failure(place, &e))
    }

    async fn connector(self: &Arc<Self>, files: &Files) -> Result<TlsConnector, Error> {
        // The system's authorities are a good megabyte, read once, when they are first needed.
        if *files == Files::default()
            && let Some(kept) = self.kept(files)
        {
            return Ok(kept.connector);
        }
        let (this, files) = (Arc::clone(self), files.clone());
        tokio::task::spawn_blocking(move || this.make(files))
            .await
            .unwrap_or_else(|e| Err(Error::Tls(format!("the certificates were not read: {e}"))))
    }

    fn kept(&self, files: &Files) -> Option<Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(files).cloned()
    }

    fn make(&self, files: Files) -> Result<TlsConnector, Error> {
        let stamps = files.stamps();
        if let Some(kept) = self.kept(&files).filter(|kept| kept.stamps == stamps) {
            return Ok(kept.connector);
        }
        let connector = TlsConnector::from(Arc::new(self.config(&files).map_err(Error::Tls)?));
        let kept = Kept { stamps, connector: connector.clone() };
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(files, kept);
        Ok(connector)
    }

    fn config(&self, files: &Files) -> Result<rustls::ClientConfig, String> {
        let mut roots = rustls::RootCertStore::empty();
        match &files.authorities {
            Some(path) => {
                let list = authorities(path).map_err(|why| format!("ca {}: {why}", path.display()))?;
                if let (0, _) = roots.add_parsable_certificates(list) {
                    return Err(format!("ca {}: it holds no certificate of an authority", path.display()));
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                roots.add_parsable_certificates(self.extra.iter().cloned());
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots);
        let (Some(certificate), Some(key)) = (&files.certificate, &files.key) else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = authorities(certificate)
            .map_err(|why| format!("client_certificate {}: {why}", certificate.display()))?;
        let secret = PrivateKeyDer::from_pem_file(key)
            .map_err(|e| format!("client_key {}: {}", key.display(), pem_error(&e)))?;
        builder.with_client_auth_cert(chain, secret).map_err(|e| {
            format!("client_certificate {} with client_key {}: {e}", certificate.display(), key.display())
        })
    }
}

impl Files {
    fn stamps(&self) -> Vec<Stamp> {
        let stamp = |m: Metadata| (m.ino(), m.len(), m.mtime(), m.mtime_nsec());
        let all = [&self.authorities, &self.certificate, &self.key];
        all.into_iter().flatten().map(|path| std::fs::metadata(path).ok().map(stamp)).collect()
    }
}

/// All certificates of a PEM file; one at least.
fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let list: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|e| pem_error(&e))?;
    if list.is_empty() { Err("it holds no certificate in PEM".to_owned()) } else { Ok(list) }
}

fn pem_error(e: &rustls::pki_types::pem::Error) -> String {
    match e {
        rustls::pki_types::pem::Error::Io(e) => format!("it cannot be read: {e}"),
        e => format!("it is not PEM as it should be: {e}"),
    }
}

/// What went wrong in TLS, and what to do; a connection that broke is that and no more.
pub(super) fn failure(place: &str, e: &io::Error) -> Error {
    let Some(cause) = cause(e) else {
        return Error::Unreachable(format!("{place}: in the TLS handshake: {e}"));
    };
    let advice = match cause {
        rustls::Error::InvalidCertificate(why) => match why {
            CertificateError::UnknownIssuer => {
                "its certificate is of an authority that is not trusted here: `ca` in the grant names a file with those to trust"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for other names: `server_name` in the grant says whose it must be"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet"
            }
            _ => "its certificate is refused",
        },
        rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired) => {
            "it asks who we are: `client_certificate` and `client_key` in the grant"
        }
        rustls::Error::AlertReceived(_) => "it refused us",
        rustls::Error::InvalidMessage(_) => "it does not speak TLS",
        _ => "TLS failed",
    };
    Error::Tls(format!("{place}: {advice} ({cause})"))
}

/// The error of TLS behind one of reading or writing.
pub(super) fn cause(e: &io::Error) -> Option<&rustls::Error> {
    e.get_ref()?.downcast_ref()
}

#[cfg(test)]
mod tests;
