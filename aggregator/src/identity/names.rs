//! A node's name out of its certificate.

use picket_proto::model::{InvalidName, NodeId};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Before the name in the certificate's URI.
pub const URI_PREFIX: &str = "picket://node/";

/// Where a name may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// Picket's own CA: the URI alone.
    Uri,
    /// A CA of the operator's: the URI, else the one DNS name, else the common name.
    Any,
}

/// Why a certificate names no node.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    #[error("the certificate cannot be parsed: {0}")]
    Parse(String),
    #[error("the certificate names no node: it has no URI {URI_PREFIX}NAME{}", alternatives(*.rule))]
    None { rule: NameRule },
    #[error("the certificate names more than one node: {0:?} and {1:?}")]
    Several(String, String),
    #[error("the certificate's node name is not valid: {0}")]
    Invalid(#[from] InvalidName),
}

fn alternatives(rule: NameRule) -> &'static str {
    match rule {
        NameRule::Uri => "",
        NameRule::Any => ", no single DNS name, and no common name",
    }
}

/// The one node that the DER certificate names.
pub fn node_name(der: &[u8], rule: NameRule) -> Result<NodeId, NameError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|e| NameError::Parse(e.to_string()))?;
    name_in(&certificate, rule)
}

/// As [`node_name`], of a parsed certificate.
pub(super) fn name_in(certificate: &X509Certificate<'_>, rule: NameRule) -> Result<NodeId, NameError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|e| NameError::Parse(e.to_string()))?
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    let uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(URI_PREFIX),
        _ => None,
    });
    if let Some(name) = only(uris)? {
        return Ok(NodeId::new(name)?);
    }
    if rule == NameRule::Any {
        let mut dns = names.iter().filter_map(|name| match name {
            GeneralName::DNSName(dns) => Some(*dns),
            _ => None,
        });
        if let (Some(name), None) = (dns.next(), dns.next()) {
            return Ok(NodeId::new(name)?);
        }
        let common = certificate.subject().iter_common_name().filter_map(|cn| cn.as_str().ok());
        if let Some(name) = only(common)? {
            return Ok(NodeId::new(name)?);
        }
    }
    Err(NameError::None { rule })
}

fn only<'a>(mut names: impl Iterator<Item = &'a str>) -> Result<Option<&'a str>, NameError> {
    match (names.next(), names.next()) {
        (Some(a), Some(b)) => Err(NameError::Several(a.to_owned(), b.to_owned())),
        (first, _) => Ok(first),
    }
}

/// The certificate's serial number, where it has at most 128 bits.
pub fn serial_number(certificate: &X509Certificate<'_>) -> Option<u128> {
    let bytes = certificate.raw_serial();
    let bytes = bytes.strip_prefix(&[0]).unwrap_or(bytes);
    (bytes.len() <= 16).then(|| bytes.iter().fold(0, |n, byte| (n << 8) | u128::from(*byte)))
}
