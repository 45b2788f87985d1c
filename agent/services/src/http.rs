//! Outgoing HTTP/1.1 within the granted rules.
//!
//! The order is what makes it safe: the request is checked against the rules, the name is resolved **once**, each
//! address is checked, and the connection goes to an address that was checked. A redirect is an answer like any other,
//! so that the plugin's next request is checked like its first. A secret is read by the host when it is needed and put
//! into its header after the plugin's own headers were checked; neither the request nor the answer's caller sees it.
//!
//! What goes over the wire ([`wire`]) and what a request must look like ([`parse`], [`headers`]) serves Unix sockets too.

pub(crate) mod parts;
mod tls;
pub(crate) mod wire;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri};
use picket_proto::model::PluginId;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::grants::{AddressRule, RuleSet, SecretRule};
use crate::{ServiceLimits, ServicesError};
use parts::{Asked, Parts};
use tls::{Tls, Wanted};

/// The most headers of a request, and the most bytes of them.
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 16 << 10;
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;

/// Headers that are the connection's: a plugin that could set them could make two requests of one, or speak to
/// another host than the one that was checked.
const RESERVED: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    #[serde(with = "crate::octets")]
    pub body: Vec<u8>,
    /// Milliseconds; none: the node's limit, which also bounds it.
    pub timeout: Option<u32>,
    /// The name of a granted secret.
    pub secret: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    #[serde(with = "crate::octets")]
    pub body: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    #[error("denied: {0}")]
    Denied(String),
    #[error("invalid: {0}")]
    Invalid(String),
    #[error("unreachable: {0}")]
    Unreachable(String),
    #[error("timed out: {0}")]
    TimedOut(String),
    #[error("too large: {0}")]
    TooLarge(String),
    #[error("malformed: {0}")]
    Malformed(String),
    #[error("TLS: {0}")]
    Tls(String),
}

/// A request that passed the rules.
#[derive(Debug)]
struct Checked {
    /// None: plain HTTP.
    tls: Option<Wanted>,
    host: String,
    port: u16,
    outgoing: wire::Outgoing,
    part: Option<Asked>,
    timeout: Duration,
    addresses: AddressRule,
    secret: Option<SecretRule>,
}

#[derive(Debug)]
pub(crate) struct Client {
    tls: Arc<Tls>,
    requests: usize,
    time: Duration,
    body_bytes: usize,
    parts: Parts,
}

impl Client {
    pub(crate) fn new(extra: Option<PathBuf>, limits: &ServiceLimits) -> Result<Self, ServicesError> {
        Ok(Self {
            tls: Arc::new(Tls::new(extra)?),
            requests: limits.http_requests,
            time: limits.http_time,
            body_bytes: limits.http_body_bytes,
            parts: Parts::default(),
        })
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Sends all at once; the answers come in the order of the requests.
    pub(crate) async fn send_many(
        self: &Arc<Self>,
        plugin: &PluginId,
        rules: &RuleSet,
        requests: Vec<Request>,
    ) -> Vec<Result<Answer, Error>> {
        let count = requests.len();
        let mut answers: Vec<Result<Answer, Error>> =
            (0..count).map(|_| Err(Error::Unreachable("the request was lost".to_owned()))).collect();
        // Dropping the set ends the requests: a plugin that is stopped leaves none behind.
        let mut running = JoinSet::new();
        for (i, request) in requests.into_iter().enumerate() {
            let checked = if i < self.requests {
                check(rules, request, self.time)
            } else {
                Err(Error::TooLarge(format!("{count} requests in one call, {} are allowed", self.requests)))
            };
            match checked {
                Ok(checked) => {
                    let (client, plugin) = (self.clone(), plugin.clone());
                    running.spawn(async move { (i, client.send(&plugin, checked).await) });
                }
                Err(e) => {
                    if let Some(slot) = answers.get_mut(i) {
                        *slot = Err(e);
                    }
                }
            }
        }
        while let Some(done) = running.join_next().await {
            if let Ok((i, answer)) = done
                && let Some(slot) = answers.get_mut(i)
            {
                *slot = answer;
            }
        }
        answers
    }

    async fn send(&self, plugin: &PluginId, checked: Checked) -> Result<Answer, Error> {
        let limit = checked.timeout;
        let place = format!("{}:{}", checked.host, checked.port);
        let most = self.body_bytes;
        let work = async {
            let Some(part) = checked.part.clone() else {
                let (stream, outgoing) = self.connect(checked).await?;
                let most = wire::Most::Bytes(most);
                return wire::speak(stream, &place, outgoing, most).await.map(|(answer, _)| answer);
            };
            let from = format!("{place}{}", checked.outgoing.target);
            let open = async {
                let (stream, outgoing) = self.connect(checked).await?;
                wire::open(stream, &place, outgoing, wire::Patience::SHORT).await
            };
            self.parts.answer(plugin, &from, &part, most, open).await
        };
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
            Err(Error::TimedOut(format!("{place}: no whole answer within {} ms", limit.as_millis())))
        })
    }

    /// The connection, and what goes over it, its secret included.
    async fn connect(&self, mut checked: Checked) -> Result<(Box<dyn wire::Duplex>, wire::Outgoing), Error> {
        if let Some(secret) = checked.secret.take() {
            let (name, value) = read_secret(&secret).await?;
            checked.outgoing.headers.insert(name, value);
        }
        let addresses = resolve(&checked).await?;
        let Checked { host, port, outgoing, tls, .. } = checked;
        let tls = tls.as_ref().map(|wanted| (&self.tls, wanted));
        Ok((wire::reach(&host, port, &addresses, tls).await?, outgoing))
    }
}

/// What a request's words say, before any rule was asked.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub scheme: String,
    /// Without brackets, in lower case.
    pub host: String,
    pub port: u16,
    pub path: String,
    /// The path with its query, as it goes on the wire.
    pub target: String,
    pub method: Method,
}

impl Parsed {
    /// What goes over the wire.
    pub fn outgoing(self, headers: HeaderMap, body: Vec<u8>) -> wire::Outgoing {
        let host = self.host_header();
        wire::Outgoing { host, method: self.method, target: self.target, headers, body }
    }

    /// What the header `Host` says.
    fn host_header(&self) -> String {
        let name = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == crate::grants::default_port(&self.scheme) {
            name
        } else {
            format!("{name}:{}", self.port)
        }
    }
}

pub(crate) fn parse(request: &Request) -> Result<Parsed, Error> {
    let invalid = |what: String| Error::Invalid(what);
    let shown: String = request.url.chars().take(256).collect();
    let uri: Uri = request.url.parse().map_err(|e| invalid(format!("the URL {shown:?}: {e}")))?;
    let scheme = uri.scheme_str().unwrap_or_default().to_ascii_lowercase();
    let authority = uri.authority().ok_or_else(|| invalid(format!("the URL {shown:?} has no host")))?;
    if authority.as_str().contains('@') {
        return Err(invalid("a URL with a user's name in it: use a granted secret".to_owned()));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    let host = host.to_ascii_lowercase();
    if host.is_empty() {
        return Err(invalid(format!("the URL {shown:?} has no host")));
    }
    let port = match (authority.port(), authority.as_str().rsplit_once(':')) {
        (Some(port), _) => port.as_u16(),
        // `host:99999` and `host:`: the parser leaves them without a port.
        (None, Some((_, rest))) if !rest.ends_with(']') => {
            return Err(invalid(format!("the URL {shown:?} has a port that is none")));
        }
        (None, _) => crate::grants::default_port(&scheme),
    };
    let method = Method::from_bytes(request.method.as_bytes()).map_err(|_| {
        invalid(format!("the method {:?}", request.method.chars().take(32).collect::<String>()))
    })?;
    let target = uri.path_and_query().map_or_else(|| "/".to_owned(), |p| p.as_str().to_owned());
    Ok(Parsed { scheme, host, port, path: uri.path().to_owned(), target, method })
}

fn check(rules: &RuleSet, request: Request, node_limit: Duration) -> Result<Checked, Error> {
    let parsed = parse(&request)?;
    let asked = crate::grants::Asked {
        scheme: &parsed.scheme,
        host: &parsed.host,
        port: parsed.port,
        path: &parsed.path,
        method: parsed.method.as_str(),
        secret: request.secret.as_deref(),
    };
    let (rule, addresses) = rules.find(asked).map_err(|e| Error::Denied(e.to_string()))?;
    let secret = request.secret.as_ref().and(rule.secret.clone());
    let headers = headers(&request.headers, secret.as_ref())?;
    let part = Asked::of(&request);
    let timeout = timeout(&request, part.as_ref(), node_limit);
    let tls = (parsed.scheme == "https").then(|| Wanted::from(rule));
    let (host, port) = (parsed.host.clone(), parsed.port);
    let outgoing = parsed.outgoing(headers, request.body);
    Ok(Checked { tls, host, port, outgoing, part, timeout, addresses, secret })
}

/// What a request asks for, within what the node allows: more for a part, since a server may write all of a long answer before it
/// sends the first byte.
pub(crate) fn timeout(request: &Request, part: Option<&Asked>, node_limit: Duration) -> Duration {
    let most = if part.is_some() { node_limit.max(parts::LONGEST_PART) } else { node_limit };
    request.timeout.map_or(node_limit, |ms| Duration::from_millis(u64::from(ms))).min(most)
}

pub(crate) fn headers(list: &[(String, String)], secret: Option<&SecretRule>) -> Result<HeaderMap, Error> {
    let bytes: usize = list.iter().map(|(n, v)| n.len() + v.len()).sum();
    if list.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
        return Err(Error::Invalid(format!(
            "{} headers of {bytes} bytes; {MAX_HEADERS} of {MAX_HEADER_BYTES} bytes are allowed",
            list.len()
        )));
    }
    let mut map = HeaderMap::new();
    for (name, value) in list {
        let shown: String = name.chars().take(64).collect();
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| Error::Invalid(format!("the header name {shown:?}")))?;
        if RESERVED.contains(&parsed.as_str()) {
            return Err(Error::Denied(format!("the header {parsed} is the host's to write")));
        }
        if secret.is_some_and(|s| s.header.eq_ignore_ascii_case(parsed.as_str())) {
            return Err(Error::Denied(format!("the header {parsed} carries the secret")));
        }
        let value = HeaderValue::from_str(value)
            .map_err(|_| Error::Invalid(format!("the value of the header {parsed}")))?;
        map.append(parsed, value);
    }
    Ok(map)
}

pub(crate) async fn read_secret(rule: &SecretRule) -> Result<(HeaderName, HeaderValue), Error> {
    let failed = |why: String| Error::Invalid(format!("the secret {:?} {why}", rule.name));
    let file = rule.file.as_ref().ok_or_else(|| failed("has no file".to_owned()))?;
    let text = tokio::fs::read_to_string(file).await.map_err(|e| failed(format!("cannot be read: {e}")))?;
    let value = format!("{}{}", rule.prefix, text.trim_end_matches(['\n', '\r']));
    let name = HeaderName::from_bytes(rule.header.as_bytes())
        .map_err(|_| failed("has no valid header".to_owned()))?;
    let mut value = HeaderValue::from_str(&value)
        .map_err(|_| failed("holds characters that no header may have".to_owned()))?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// The addresses of the host that the rule allows.
async fn resolve(checked: &Checked) -> Result<Vec<SocketAddr>, Error> {
    let host = &checked.host;
    let all: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, checked.port)],
        Err(_) => tokio::net::lookup_host((host.as_str(), checked.port))
            .await
            .map_err(|e| Error::Unreachable(format!("{host} cannot be resolved: {e}")))?
            .collect(),
    };
    let Some(first) = all.first().copied() else {
        return Err(Error::Unreachable(format!("{host} has no address")));
    };
    let allowed: Vec<SocketAddr> =
        all.into_iter().filter(|a| checked.addresses.allows(a.ip())).take(MAX_ADDRESSES).collect();
    if allowed.is_empty() {
        let why = match checked.addresses {
            AddressRule::Public => "not public: grant the address itself, or allow_private = true",
            AddressRule::Private => "link-local, where clouds keep their metadata: grant the address itself",
            AddressRule::Literal(_) => "not the granted one",
            AddressRule::Network(..) => "not in the granted network",
        };
        return Err(Error::Denied(format!("{host} leads to {}, which is {why}", first.ip())));
    }
    Ok(allowed)
}

#[cfg(test)]
mod tests;
