//! Enrolment: from a one-time token to an identity on disk.
//!
//! The key is made here and stays here; what goes to the aggregator is a certificate request and the token's secret, over
//! a connection whose peer is known by the token's pin. Whatever comes back is checked before it is kept. An
//! identity that is there already is replaced only by one that works.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use picket_proto::model::{NodeId, NodePattern};
use picket_proto::v1;
use picket_proto::v1::enrolment_client::EnrolmentClient;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData as _};
use rustls::ClientConfig;

use super::pin::PinVerifier;
use super::store::NewIdentity;
use super::{
    Address, AddressError, CertificateInfo, ConnectError, IdentityError, Meter, Store, Token, TokenError,
};
use super::{channel, connect, unix_now};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(10));

/// What enrolment needs.
pub struct EnrollOptions {
    /// The token's text.
    pub token: String,
    /// `host:port`, where the aggregator is reached from here, instead of the token's addresses.
    pub aggregator: Option<String>,
    /// The name to take, where the token leaves it open; the machine's own where this is none.
    pub node: Option<String>,
    pub state_dir: PathBuf,
}

/// Why enrolment failed. The identity that was there before, if any, is untouched.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("this token is for {pattern}, and this node would be {name:?}: {advice}")]
    Name { pattern: NodePattern, name: String, advice: &'static str },
    #[error("no enrolment: {0}")]
    Connect(#[source] ConnectError),
    #[error("{address} refused to enrol this node: {reason}")]
    Refused { address: Address, reason: String },
    #[error("{address} failed to enrol this node, try again: {reason}")]
    Failed { address: Address, reason: String },
    #[error("what {address} issued is not usable: {why}")]
    Answer { address: Address, why: String },
    #[error("a key pair could not be made: {0}")]
    Key(#[source] rcgen::Error),
    #[error("TLS cannot be set up: {0}")]
    Tls(#[source] rustls::Error),
    #[error("the identity could not be stored: {0}")]
    Store(#[from] IdentityError),
}

/// Enrols this node and stores its identity in `state_dir`. Returns the name that its certificate carries.
pub async fn enroll(options: EnrollOptions) -> Result<NodeId, EnrollError> {
    let token: Token = options.token.parse()?;
    let addresses = match &options.aggregator {
        Some(text) => vec![text.parse::<Address>()?],
        None => token.aggregators.clone(),
    };
    let name = name(&token.nodes, options.node)?;
    let (key, csr) = key_and_request().map_err(EnrollError::Key)?;

    let (address, answer) = ask(&addresses, &token, &name, csr).await?;
    let unusable = |why: String| EnrollError::Answer { address: address.clone(), why };
    let node = NodeId::new(&answer.node).map_err(|e| unusable(e.to_string()))?;
    check_issued(&answer.certificates, &key, &node, unix_now()).map_err(unusable)?;
    let store = Store::new(&options.state_dir);
    // The address that worked comes first; the others stay, in case it is not the one that lasts.
    let mut aggregators = vec![address.clone()];
    if options.aggregator.is_none() {
        aggregators.extend(addresses.into_iter().filter(|other| *other != address));
    }
    let stored = tokio::task::spawn_blocking({
        let node = node.clone();
        move || {
            store.install(&NewIdentity {
                key_pem: &key.serialize_pem(),
                chain: &answer.certificates,
                authorities: &answer.authorities,
                node: &node,
                aggregators: &aggregators,
            })
        }
    });
    match stored.await {
        Ok(stored) => stored?,
        Err(stopped) => {
            let source = std::io::Error::other(stopped.to_string());
            return Err(IdentityError::Write { path: options.state_dir, source }.into());
        }
    };
    Ok(node)
}

/// The name to ask for: the token's, else the operator's, else the machine's.
fn name(pattern: &NodePattern, wish: Option<String>) -> Result<NodeId, EnrollError> {
    let open = pattern.name().is_none();
    let advice = match (&wish, open) {
        (_, false) => "leave out --node, or ask for a token of that name",
        (Some(_), true) => "pass a --node that the token allows",
        (None, true) => "pass the name that it shall have by --node NAME",
    };
    let name = match (wish, pattern.name()) {
        (Some(wish), _) => wish,
        (None, Some(node)) => return Ok(node),
        (None, None) => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    let node = NodeId::new(&name).ok().filter(|node| pattern.matches(node));
    node.ok_or_else(|| EnrollError::Name { pattern: pattern.clone(), name, advice })
}

/// Tries the addresses in turn until one answers. An answer, a refusal too, is final: the token may be used up.
async fn ask(
    addresses: &[Address],
    token: &Token,
    node: &NodeId,
    csr: Vec<u8>,
) -> Result<(Address, v1::EnrolResponse), EnrollError> {
    let config = pinned_config(token.pin).map_err(EnrollError::Tls)?;
    let mut last = None;
    for address in addresses {
        let opened =
            match connect(address, Arc::clone(&config), None, Arc::new(Meter::default()), CONNECT_TIMEOUT)
                .await
            {
                Ok(connected) => channel(connected, PING).await,
                Err(error) => Err(error),
            };
        let (channel, watch) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                // The first address is the one that the operator thinks of.
                last.get_or_insert(error);
                continue;
            }
        };
        let request = v1::EnrolRequest { secret: token.secret.clone(), node: node.to_string(), csr };
        let mut client = EnrolmentClient::new(channel);
        let answered = tokio::time::timeout(CALL_TIMEOUT, client.enrol(request)).await;
        return match answered {
            Ok(Ok(response)) => Ok((address.clone(), response.into_inner())),
            Ok(Err(status)) => Err(refusal(address, &status, watch.explain())),
            Err(_) => Err(EnrollError::Connect(ConnectError::Timeout {
                address: address.clone(),
                what: "answer the enrolment",
                after: CALL_TIMEOUT,
            })),
        };
    }
    Err(EnrollError::Connect(last.unwrap_or_else(|| ConnectError::Resolve {
        host: String::new(),
        source: std::io::Error::other("there is no address to try"),
    })))
}

fn refusal(address: &Address, status: &tonic::Status, broken: Option<ConnectError>) -> EnrollError {
    use tonic::Code;
    let address = address.clone();
    let reason = status.message().chars().take(1000).collect::<String>();
    match status.code() {
        Code::Unauthenticated
        | Code::PermissionDenied
        | Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::AlreadyExists
        | Code::NotFound => EnrollError::Refused { address, reason },
        Code::Unimplemented => EnrollError::Connect(ConnectError::NotPicket {
            address,
            what: format!(
                "it offers no enrolment (is this the port of the aggregator's [uplink] section?): {reason}"
            ),
        }),
        _ => match broken {
            Some(error) => EnrollError::Connect(error),
            None => EnrollError::Failed { address, reason },
        },
    }
}

fn pinned_config(pin: [u8; 32]) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinVerifier::new(pin, provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// A new ECDSA P-256 key and a certificate request (DER) for it. The request names nobody: the aggregator decides.
pub(super) fn key_and_request() -> Result<(KeyPair, Vec<u8>), rcgen::Error> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(&key)?.der().to_vec();
    Ok((key, csr))
}

/// What was issued must be for this key and this node, and must hold now.
pub(super) fn check_issued(
    chain: &[Vec<u8>],
    key: &KeyPair,
    node: &NodeId,
    now: i64,
) -> Result<CertificateInfo, String> {
    let leaf = chain.first().ok_or("it holds no certificate")?;
    let info = CertificateInfo::read(leaf).map_err(|e| e.to_string())?;
    if info.public_key != key.subject_public_key_info() {
        return Err("the certificate is for another key than the one asked for".to_owned());
    }
    if info.node.as_ref() != Some(node) {
        let named = info.node.map_or_else(|| "nobody".to_owned(), |n| n.to_string());
        return Err(format!("the certificate names {named}, not {node}"));
    }
    if info.not_after <= now {
        let (end, now) = (super::date(info.not_after), super::date(now));
        return Err(format!(
            "the certificate ended at {end}, and this node's clock says {now}: check the clocks"
        ));
    }
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_tokens_the_operators_or_the_machines() {
        let name = |pattern: &str, wish: Option<&str>| {
            name(&NodePattern::new(pattern).unwrap(), wish.map(str::to_owned))
                .map(|node| node.to_string())
                .map_err(|error| error.to_string())
        };
        assert_eq!(name("gpu-1", None), Ok("gpu-1".to_owned()));
        assert_eq!(name("gpu-1", Some("gpu-1")), Ok("gpu-1".to_owned()));
        assert!(name("gpu-1", Some("gpu-2")).unwrap_err().contains("leave out --node"));
        assert_eq!(name("gpu-*", Some("gpu-7")), Ok("gpu-7".to_owned()));
        assert!(name("gpu-*", Some("cpu-7")).unwrap_err().contains("a --node that the token allows"));
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        assert_eq!(name("*", None), Ok(host));
        assert!(name("no-machine-has-this-*", None).unwrap_err().contains("by --node NAME"));
    }
}
