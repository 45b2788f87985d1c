//! What this agent reads out of a certificate: whose it is and how long it holds.

use std::fmt::Write as _;

use picket_proto::model::NodeId;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The URI that names a node in a certificate of Picket's own authority.
const NODE_URI: &str = "picket://node/";

/// A certificate's content, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Whom it names: the URI `picket://node/NAME`, else its one DNS name, else its common name. None of them: `None`.
    pub node: Option<NodeId>,
    /// Valid from, Unix seconds.
    pub not_before: i64,
    /// Valid to, Unix seconds.
    pub not_after: i64,
    /// SubjectPublicKeyInfo, DER.
    pub(crate) public_key: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an X.509 certificate: {what}")]
pub struct CertificateReadError {
    what: String,
}

impl CertificateInfo {
    pub fn read(der: &[u8]) -> Result<Self, CertificateReadError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|e| CertificateReadError { what: e.to_string() })?;
        Ok(Self {
            node: node_of(&certificate),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            public_key: certificate.public_key().raw.to_vec(),
        })
    }
}

/// What anybody may know of the certificates in PEM form, a line each. Whatever else stands there is passed over.
pub fn facts(pem: &[u8]) -> String {
    let mut out = String::new();
    for der in CertificateDer::pem_slice_iter(pem) {
        let described = match &der {
            Ok(der) => describe(der),
            Err(error) => Err(CertificateReadError { what: error.to_string() }),
        };
        let _ = writeln!(out, "{}", described.unwrap_or_else(|error| error.to_string()));
    }
    if out.is_empty() { "no certificate\n".to_owned() } else { out }
}

fn describe(der: &[u8]) -> Result<String, CertificateReadError> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|e| CertificateReadError { what: e.to_string() })?;
    let names = certificate.subject_alternative_name().ok().flatten();
    let names: Vec<String> = names
        .map(|extension| extension.value.general_names.iter().map(ToString::to_string).collect())
        .unwrap_or_default();
    Ok(format!(
        "subject {}; issuer {}; names {}; from {} to {}; serial {}; sha256 {}",
        certificate.subject(),
        certificate.issuer(),
        names.join(", "),
        super::date(certificate.validity().not_before.timestamp()),
        super::date(certificate.validity().not_after.timestamp()),
        certificate.raw_serial_as_string(),
        super::pin::hex(&super::pin::sha256(der)),
    ))
}

/// Whom the first of the certificates in PEM form names.
pub fn node_named(pem: &[u8]) -> Option<String> {
    let leaf = CertificateDer::pem_slice_iter(pem).next()?.ok()?;
    CertificateInfo::read(&leaf).ok()?.node.map(|node| node.to_string())
}

fn node_of(certificate: &X509Certificate<'_>) -> Option<NodeId> {
    let names = certificate
        .subject_alternative_name()
        .ok()
        .flatten()
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    let by_uri = names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(NODE_URI),
        _ => None,
    });
    if let Some(name) = by_uri {
        return NodeId::new(name).ok();
    }
    let mut dns = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    match (dns.next(), dns.next()) {
        (Some(only), None) => NodeId::new(only).ok(),
        (Some(_), Some(_)) => None,
        (None, _) => certificate
            .subject()
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok())
            .and_then(|name| NodeId::new(name).ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    #[test]
    fn names() {
        let check = |uri: &[&str], dns: &[&str], common: &str, expected: Option<&str>| {
            let mut params = CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            if !common.is_empty() {
                params.distinguished_name.push(DnType::CommonName, common);
            }
            for u in uri {
                params.subject_alt_names.push(SanType::URI((*u).try_into().unwrap()));
            }
            for d in dns {
                params.subject_alt_names.push(SanType::DnsName((*d).try_into().unwrap()));
            }
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let info = CertificateInfo::read(certificate.der()).unwrap();
            assert_eq!(info.node.as_ref().map(NodeId::as_str), expected, "{uri:?} {dns:?} {common:?}");
        };
        check(&["picket://node/gpu-01"], &["other"], "third", Some("gpu-01"));
        check(&["spiffe://x/y"], &["gpu-01.example"], "third", Some("gpu-01.example"));
        check(&[], &["a", "b"], "third", None);
        check(&[], &[], "third", Some("third"));
        check(&["picket://node/a%2Fb"], &["dns"], "third", None);
        check(&[], &[], "", None);
    }

    #[test]
    fn facts_for_anybody() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["gpu-01.example".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "gpu-01");
        let pem = params.self_signed(&key).unwrap().pem() + &key.serialize_pem();
        let text = facts(pem.as_bytes());
        assert!(
            text.contains("CN=gpu-01") && text.contains("gpu-01.example") && text.lines().count() == 1,
            "{text}"
        );
        assert_eq!(node_named(pem.as_bytes()).as_deref(), Some("gpu-01.example"));
        assert_eq!(facts(b"x"), "no certificate\n");
        assert!(node_named(b"x").is_none());
    }

    #[test]
    fn garbage() {
        for bytes in [&b""[..], b"hello", &[0x30, 0x82, 0xff, 0xff], &[0u8; 100]] {
            assert!(CertificateInfo::read(bytes).is_err());
        }
    }
}
