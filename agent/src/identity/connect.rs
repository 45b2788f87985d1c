//! One TLS connection to an aggregator and the gRPC channel on it.
//!
//! The connection is made here, not inside tonic, for three reasons: its errors stay typed; what TLS says *after* the
//! handshake (with TLS 1.3 a server refuses a client certificate only then) is kept, where HTTP/2 reduces it to
//! "broken pipe"; and the bytes are counted as they go on the wire.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::{AlertDescription, CertificateError, ClientConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

use super::pin::PinMismatch;
use super::{Address, date, unix_now};

/// One of several addresses of a name may be a black hole: it may not use up the whole time.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(4);

/// Why there is no working connection, in words a person can act on.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the aggregator's name {host:?} cannot be resolved: {source}")]
    Resolve { host: String, source: io::Error },
    #[error(
        "nothing listens at {address}: is picket-aggregator running, and is this the port of its [uplink] section?"
    )]
    Refused { address: Address },
    #[error("{address} cannot be reached: {source}")]
    Unreachable { address: Address, source: io::Error },
    #[error("{address} did not {what} within {} s: a firewall that drops packets, or a host that is down or overloaded", .after.as_secs())]
    Timeout { address: Address, what: &'static str, after: Duration },
    #[error("{address} is not a Picket aggregator: {what}")]
    NotPicket { address: Address, what: String },
    #[error(
        "the certificate of {address} is not from a certificate authority that this node trusts: another aggregator answers there, or the aggregator was set up anew (then enrol this node again)"
    )]
    UnknownAuthority { address: Address },
    #[error(
        "{address} did not present the certificate authority that the token pins (it presented {}): the token is of another aggregator, or something between intercepts TLS",
        if .presented.is_empty() { "none".to_owned() } else { .presented.join(", ") }
    )]
    PinMismatch { address: Address, presented: Vec<String> },
    #[error(
        "the certificate of {address} ended at {}, and this node's clock says {}: if the clock is right, renew the aggregator's certificate", date(*.not_after), date(*.now)
    )]
    ServerExpired { address: Address, not_after: i64, now: i64 },
    #[error(
        "the certificate of {address} begins at {}, but this node's clock says {}: this node's clock is probably behind, check it", date(*.not_before), date(*.now)
    )]
    ServerNotYetValid { address: Address, not_before: i64, now: i64 },
    #[error(
        "the certificate of {address} is valid for {} only: connect by one of these names, or add {:?} to `names` in the aggregator's [uplink] section",
        if .presented.is_empty() { "other names".to_owned() } else { .presented.join(", ") }, .address.host()
    )]
    Name { address: Address, presented: Vec<String> },
    #[error("{address} wants a client certificate: enrol this node with `picket-agent enroll --token TOKEN`")]
    NoCertificate { address: Address },
    #[error("this node's certificate ended at {}: enrol it again with a new token, `picket-agent enroll --token TOKEN`", date(*.not_after))]
    Expired { not_after: i64 },
    #[error(
        "{address} says that this node's certificate has expired, but by this node's clock ({}) it holds until {}: one of the two clocks is wrong", date(*.now), date(*.not_after)
    )]
    ClockSkew { address: Address, now: i64, not_after: i64 },
    #[error(
        "{address} does not know the authority of this node's certificate: the node is enrolled with another aggregator; enrol it again with a token of this one"
    )]
    CertificateUnknown { address: Address },
    #[error(
        "{address} says that this node's certificate is revoked: enrol it again with a new token if it should come back"
    )]
    Revoked { address: Address },
    #[error("TLS with {address} failed: {source}")]
    Tls { address: Address, source: rustls::Error },
    #[error("the connection to {address} broke: {source}")]
    Broken { address: Address, source: io::Error },
}

impl ConnectError {
    /// Trying again soon cannot help: somebody has to do something first.
    pub fn needs_a_person(&self) -> bool {
        matches!(self, Self::Expired { .. } | Self::Revoked { .. } | Self::CertificateUnknown { .. })
    }

    /// What a TLS error says. `own_not_after`: the end of the certificate that this node presents.
    fn of_tls(address: &Address, error: &rustls::Error, own_not_after: Option<i64>, now: i64) -> Self {
        let address = address.clone();
        let not_picket = |what: &str| Self::NotPicket { address: address.clone(), what: what.to_owned() };
        let seconds = |time: &rustls_pki_types::UnixTime| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        match error {
            rustls::Error::InvalidMessage(_)
            | rustls::Error::InappropriateMessage { .. }
            | rustls::Error::InappropriateHandshakeMessage { .. } => not_picket("it does not speak TLS"),
            rustls::Error::NoApplicationProtocol
            | rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
                not_picket("it speaks TLS, but not HTTP/2")
            }
            rustls::Error::InvalidCertificate(fault) => match fault {
                CertificateError::UnknownIssuer => Self::UnknownAuthority { address },
                // The same authority name with another key: an aggregator that was set up anew.
                CertificateError::BadSignature => Self::UnknownAuthority { address },
                CertificateError::ExpiredContext { time, not_after } => {
                    Self::ServerExpired { address, not_after: seconds(not_after), now: seconds(time) }
                }
                CertificateError::NotValidYetContext { time, not_before } => {
                    Self::ServerNotYetValid { address, not_before: seconds(not_before), now: seconds(time) }
                }
                CertificateError::NotValidForName => Self::Name { address, presented: Vec::new() },
                CertificateError::NotValidForNameContext { presented, .. } => {
                    let presented = presented.iter().map(|name| readable_name(name)).collect();
                    Self::Name { address, presented }
                }
                CertificateError::Other(other) => match other.0.downcast_ref::<PinMismatch>() {
                    Some(mismatch) => Self::PinMismatch { address, presented: mismatch.presented.clone() },
                    None => Self::Tls { address, source: error.clone() },
                },
                _ => Self::Tls { address, source: error.clone() },
            },
            rustls::Error::AlertReceived(alert) => match (alert, own_not_after) {
                (AlertDescription::CertificateExpired, Some(not_after)) if not_after <= now => {
                    Self::Expired { not_after }
                }
                (AlertDescription::CertificateExpired, Some(not_after)) => {
                    Self::ClockSkew { address, now, not_after }
                }
                (AlertDescription::CertificateRequired, _) => Self::NoCertificate { address },
                (AlertDescription::CertificateRevoked | AlertDescription::AccessDenied, _) => {
                    Self::Revoked { address }
                }
                (AlertDescription::UnknownCA, Some(_)) => Self::CertificateUnknown { address },
                _ => Self::Tls { address, source: error.clone() },
            },
            _ => Self::Tls { address, source: error.clone() },
        }
    }

    fn of_io(address: &Address, error: io::Error, own_not_after: Option<i64>) -> Self {
        match tls_error(&error) {
            Some(tls) => Self::of_tls(address, tls, own_not_after, unix_now()),
            None if error.kind() == io::ErrorKind::ConnectionRefused => {
                Self::Refused { address: address.clone() }
            }
            None => Self::Unreachable { address: address.clone(), source: error },
        }
    }
}

/// rustls gives names as `DnsName("x")` and the like: what a person wants is between the quotes.
fn readable_name(name: &str) -> String {
    name.split('"').nth(1).unwrap_or(name).to_owned()
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
}

/// Bytes as they went over the network, TLS included; running totals.
#[derive(Debug, Default)]
pub struct Meter {
    pub sent: AtomicU64,
    pub received: AtomicU64,
    /// Connections that resumed an earlier TLS session.
    pub resumed: AtomicU64,
}

/// An open TLS connection.
pub struct Connected {
    wire: Wire,
    watch: Watch,
}

/// What went wrong with a connection after it was made.
#[derive(Clone)]
pub struct Watch {
    address: Address,
    own_not_after: Option<i64>,
    fault: Arc<Mutex<Option<Fault>>>,
}

enum Fault {
    Tls(rustls::Error),
    Io(io::ErrorKind, String),
}

impl Watch {
    /// The reason why the connection broke, if it did.
    pub fn explain(&self) -> Option<ConnectError> {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        Some(match fault.as_ref()? {
            Fault::Tls(error) => ConnectError::of_tls(&self.address, error, self.own_not_after, unix_now()),
            Fault::Io(kind, text) => ConnectError::Broken {
                address: self.address.clone(),
                source: io::Error::new(*kind, text.clone()),
            },
        })
    }

    fn note(&self, error: &io::Error) {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        // The first word of TLS is the reason; what follows is its echo.
        match (&*fault, tls_error(error)) {
            (Some(Fault::Tls(_)), _) => {}
            (_, Some(tls)) => *fault = Some(Fault::Tls(tls.clone())),
            (Some(Fault::Io(..)), None) => {}
            (None, None) => *fault = Some(Fault::Io(error.kind(), error.to_string())),
        }
    }
}

/// Connects and makes the TLS handshake, in `timeout` at most for each of the two.
pub async fn connect(
    address: &Address,
    config: Arc<ClientConfig>,
    own_not_after: Option<i64>,
    meter: Arc<Meter>,
    timeout: Duration,
) -> Result<Connected, ConnectError> {
    let late = |what| ConnectError::Timeout { address: address.clone(), what, after: timeout };
    let tcp = tokio::time::timeout(timeout, dial(address)).await.map_err(|_| late("answer"))??;
    let server = address
        .server_name()
        .ok_or_else(|| ConnectError::Name { address: address.clone(), presented: Vec::new() })?;
    let handshake = tokio_rustls::TlsConnector::from(config)
        .connect(server, Metered { inner: tcp, meter: Arc::clone(&meter) });
    let tls = tokio::time::timeout(timeout, handshake)
        .await
        .map_err(|_| late("finish the TLS handshake"))?
        .map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset if tls_error(&e).is_none() => {
            ConnectError::NotPicket {
                address: address.clone(),
                what: "it closes the connection instead of speaking TLS".to_owned(),
            }
        }
        _ => ConnectError::of_io(address, e, own_not_after),
    })?;
    if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(ConnectError::NotPicket {
            address: address.clone(),
            what: "it speaks TLS, but not HTTP/2".to_owned(),
        });
    }
    if tls.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
        meter.resumed.fetch_add(1, Ordering::Relaxed);
    }
    let watch = Watch { address: address.clone(), own_not_after, fault: Arc::default() };
    Ok(Connected { wire: Wire { inner: tls, watch: watch.clone() }, watch })
}

async fn dial(address: &Address) -> Result<TcpStream, ConnectError> {
    let resolved = tokio::net::lookup_host((address.host(), address.port()))
        .await
        .map_err(|source| ConnectError::Resolve { host: address.host().to_owned(), source })?;
    let mut last = None;
    for candidate in resolved {
        match tokio::time::timeout(ADDRESS_TIMEOUT, TcpStream::connect(candidate)).await {
            Ok(Ok(stream)) => {
                // Batches are written whole; waiting for more would only delay them.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = Some(error),
            Err(_) => last = Some(io::Error::from(io::ErrorKind::TimedOut)),
        }
    }
    let error = last.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    Err(ConnectError::of_io(address, error, None))
}

/// A gRPC channel over one connection. It never connects again by itself. `ping`: how often a silent peer is probed, and
/// how long its answer may take.
pub async fn channel(
    connected: Connected,
    ping: (Duration, Duration),
) -> Result<(Channel, Watch), ConnectError> {
    let Connected { wire, watch } = connected;
    let not_picket = |what: String| ConnectError::NotPicket { address: watch.address.clone(), what };
    let uri = |scheme: &str| {
        format!("{scheme}://{}", watch.address).parse::<http::Uri>().map_err(|e| not_picket(e.to_string()))
    };
    // The scheme is http because TLS is done already; what the peer sees is the origin.
    let endpoint = Endpoint::from_shared(uri("http")?.to_string())
        .map_err(|e| not_picket(e.to_string()))?
        .origin(uri("https")?)
        .http2_keep_alive_interval(ping.0)
        .keep_alive_timeout(ping.1)
        .keep_alive_while_idle(true)
        .buffer_size(4);
    let mut once = Some(TokioIo::new(wire));
    let connector = tower::service_fn(move |_: http::Uri| {
        let io = once.take();
        async move { io.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the connection has ended")) }
    });
    match endpoint.connect_with_connector(connector).await {
        Ok(channel) => Ok((channel, watch)),
        Err(error) => Err(watch.explain().unwrap_or_else(|| not_picket(chain(&error)))),
    }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = next.source();
    }
    text
}

/// Keeps the error that ended the connection.
struct Wire {
    inner: tokio_rustls::client::TlsStream<Metered>,
    watch: Watch,
}

impl Wire {
    fn noted<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &result {
            self.watch.note(error);
        }
        result
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.noted(result)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.noted(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.noted(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        self.noted(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Counts bytes below TLS.
struct Metered {
    inner: TcpStream,
    meter: Arc<Meter>,
}

impl Metered {
    fn counted(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(n)) = &result {
            self.meter.sent.fetch_add(*n as u64, Ordering::Relaxed);
        }
        result
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        let read = buf.filled().len().saturating_sub(before);
        self.meter.received.fetch_add(read as u64, Ordering::Relaxed);
        result
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.counted(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.counted(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::UnixTime;

    #[test]
    fn what_tls_says_becomes_advice() {
        let address: Address = "agg.example:9470".parse().unwrap();
        let now = 1_700_000_000;
        let alert = rustls::Error::AlertReceived;
        let certificate = rustls::Error::InvalidCertificate;
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let (past, future) = (Some(now - 10), Some(now + 10));
        let cases = [
            (alert(AlertDescription::CertificateExpired), past, "enrol it again", true),
            (alert(AlertDescription::CertificateExpired), future, "one of the two clocks is wrong", false),
            (alert(AlertDescription::CertificateRevoked), future, "is revoked", true),
            (alert(AlertDescription::UnknownCA), future, "enrolled with another aggregator", true),
            (alert(AlertDescription::CertificateRequired), None, "wants a client certificate", false),
            (alert(AlertDescription::HandshakeFailure), None, "failed", false),
            (certificate(CertificateError::UnknownIssuer), future, "another aggregator answers there", false),
            (certificate(CertificateError::NotValidForName), future, "to `names`", false),
            (
                certificate(CertificateError::ExpiredContext {
                    time: at(1_700_000_000),
                    not_after: at(1_600_000_000),
                }),
                future,
                "ended at 2020-09-13T12:26:40Z, and this node's clock says 2023-11-14T22:13:20Z",
                false,
            ),
            (rustls::Error::DecryptError, future, "failed", false),
        ];
        for (error, own, expected, person) in cases {
            let said = ConnectError::of_tls(&address, &error, own, now);
            assert!(said.to_string().contains(expected), "{error:?}: {said}");
            assert_eq!(said.needs_a_person(), person, "{said}");
        }
    }
}
