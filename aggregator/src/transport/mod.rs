//! The aggregator's two ports: TCP → TLS → HTTP, for whom it may be.
//!
//! Nobody who has not shown who they are can keep others out. A connection is *pending* until it is trusted (a
//! verified client certificate, or a request with a good token). Pending connections have a deadline and a bounded
//! number, and when there are too many the oldest goes, so a crowd of stallers costs bounded memory and a newcomer
//! always gets its turn. Handshakes run beside each other, each in its own task.

mod gate;
mod tickets;
mod tls;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

pub use gate::{Entry, Gate, GateOptions};
pub use tickets::{TicketError, TicketKeys};
pub use tls::{OwnFiles, ServerCertificate, ServerTls, TlsError, TlsOptions};

/// A TLS handshake has to be over in this time.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A connection has to earn trust in this time, handshake included.
const TRUST: Duration = Duration::from_secs(30);
/// HTTP/2 pings find dead peers: one each 20 s, answered within 10 s.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// After an error of `accept` that is not the peer's (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who is at the other end of a connection; an extension of each of its requests.
#[derive(Clone)]
pub struct PeerInfo {
    pub address: SocketAddr,
    /// The client's verified chain, leaf first; `None` where it showed none.
    pub certificates: Option<Arc<[CertificateDer<'static>]>>,
    entry: Arc<Entry>,
}

impl PeerInfo {
    /// This connection has shown who it is: it is no longer pending. `false` where there is no room for it.
    pub fn trust(&self) -> bool {
        self.entry.trust(None)
    }
}

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 alone, windows sized for streams of many agents.
    Grpc,
    /// HTTP/1.1 and HTTP/2.
    Http,
}

impl Protocol {
    /// The name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "uplink",
            Self::Http => "http",
        }
    }

    /// What TLS negotiates.
    pub fn alpn(self) -> &'static [&'static [u8]] {
        match self {
            Self::Grpc => &[b"h2"],
            Self::Http => &[b"h2", b"http/1.1"],
        }
    }
}

/// A port, ready to serve.
pub struct Port {
    pub listener: TcpListener,
    pub protocol: Protocol,
    /// `None`: plain TCP.
    pub tls: Option<Arc<ServerTls>>,
    pub gate: Arc<Gate>,
    pub router: Router,
}

impl Port {
    /// Serves until `drain` is cancelled. Connections run in `tasks`; on the drain they finish the requests that they
    /// have and end.
    pub async fn serve(self, drain: CancellationToken, tasks: TaskTracker) {
        let connection = Arc::new(Connection {
            protocol: self.protocol,
            tls: self.tls,
            gate: self.gate,
            router: self.router,
            drain: drain.clone(),
        });
        loop {
            let accepted = tokio::select! {
                () = drain.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((tcp, address)) => {
                    let connection = Arc::clone(&connection);
                    let entry = connection.gate.enter();
                    tasks.spawn(async move { connection.run(tcp, address, entry).await });
                }
                Err(error) if is_peers_fault(&error) => {}
                Err(error) => {
                    tracing::error!(port = self.protocol.name(), %error, "cannot accept connections; raise the limit of open files if that is it");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// What all connections of a port share.
struct Connection {
    protocol: Protocol,
    tls: Option<Arc<ServerTls>>,
    gate: Arc<Gate>,
    router: Router,
    drain: CancellationToken,
}

/// How a connection ended before its time.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the TLS handshake failed: {0}")]
    Handshake(io::Error),
    #[error("the TLS handshake took longer than {HANDSHAKE:?}")]
    HandshakeTimeout,
    #[error("gave way to newer connections before it showed who it is")]
    Evicted,
    #[error("did not show who it is within {TRUST:?}")]
    Untrusted,
    #[error("no room for one more connection")]
    Full,
    #[error("{0}")]
    Protocol(Box<dyn std::error::Error + Send + Sync>),
}

impl Ended {
    fn reason(&self) -> &'static str {
        match self {
            Self::Handshake(_) => "handshake",
            Self::HandshakeTimeout => "handshake-timeout",
            Self::Evicted => "evicted",
            Self::Untrusted => "untrusted",
            Self::Full => "full",
            Self::Protocol(_) => "protocol",
        }
    }
}

impl Connection {
    async fn run(&self, tcp: TcpStream, address: SocketAddr, entry: Arc<Entry>) {
        metrics::counter!("picket_aggregator_connections_total", "port" => self.protocol.name()).increment(1);
        if let Err(ended) = self.serve(tcp, address, entry).await {
            let port = self.protocol.name();
            metrics::counter!("picket_aggregator_connections_refused_total", "port" => port, "reason" => ended.reason())
                .increment(1);
            tracing::debug!(port, %address, error = %ended, "a connection ended early");
        }
    }

    async fn serve(&self, tcp: TcpStream, address: SocketAddr, entry: Arc<Entry>) -> Result<(), Ended> {
        // Without it small frames wait for the acknowledgement of the ones before.
        let _ = tcp.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return self.speak(tcp, PeerInfo { address, certificates: None, entry }).await;
        };
        // Boxed: the handshake's state would otherwise be part of the task for as long as the connection lasts. So would the
        // stream be, had it not left the block before the connection is waited for.
        let handshake = Box::pin(tls.acceptor().accept(tcp));
        let serving = {
            let stream = tokio::select! {
                result = tokio::time::timeout(HANDSHAKE, handshake) => {
                    result.map_err(|_| Ended::HandshakeTimeout)?.map_err(Ended::Handshake)?
                }
                () = entry.evicted() => return Err(Ended::Evicted),
                () = self.drain.cancelled() => return Ok(()),
            };
            let certificates: Option<Arc<[CertificateDer<'static>]>> = stream
                .get_ref()
                .1
                .peer_certificates()
                .map(|chain| chain.iter().map(|c| c.clone().into_owned()).collect());
            if let Some(leaf) = certificates.as_deref().and_then(<[_]>::first)
                && !entry.trust(Some(leaf))
            {
                return Err(Ended::Full);
            }
            self.speak(stream, PeerInfo { address, certificates, entry })
        };
        serving.await
    }

    /// Not async, and the connection is boxed: an async function would keep a place for `io` beside the connection that it
    /// became part of, and one for each protocol.
    fn speak<I>(&self, io: I, peer: PeerInfo) -> Pin<Box<dyn Future<Output = Result<(), Ended>> + Send + '_>>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let entry = Arc::clone(&peer.entry);
        let router = self.router.clone();
        let service = service_fn(move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            answer(router.clone(), request)
        });
        match self.protocol {
            Protocol::Grpc => {
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .keep_alive_interval(PING_INTERVAL)
                    .keep_alive_timeout(PING_TIMEOUT)
                    .initial_stream_window_size(512 * 1024)
                    .initial_connection_window_size(1024 * 1024)
                    .max_concurrent_streams(8)
                    .max_header_list_size(8 * 1024)
                    .max_send_buf_size(64 * 1024)
                    .serve_connection(TokioIo::new(io), service);
                Box::pin(self.drive(Box::pin(connection), |c| c.graceful_shutdown(), entry))
            }
            Protocol::Http => {
                let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                builder
                    .http1()
                    .timer(TokioTimer::new())
                    .header_read_timeout(TRUST)
                    .max_buf_size(64 * 1024)
                    .http2()
                    .timer(TokioTimer::new())
                    .keep_alive_interval(PING_INTERVAL)
                    .keep_alive_timeout(PING_TIMEOUT)
                    .max_concurrent_streams(32)
                    .max_header_list_size(16 * 1024)
                    .max_send_buf_size(256 * 1024);
                // With upgrades: a live tail of logs is a WebSocket.
                let connection =
                    builder.serve_connection_with_upgrades(TokioIo::new(io), service).into_owned();
                Box::pin(self.drive(Box::pin(connection), |c| c.graceful_shutdown(), entry))
            }
        }
    }

    /// Runs an HTTP connection to its end, its eviction, its deadline without trust, or the drain.
    async fn drive<C, E>(
        &self,
        mut connection: Pin<Box<C>>,
        shut_down: impl Fn(Pin<&mut C>),
        entry: Arc<Entry>,
    ) -> Result<(), Ended>
    where
        C: Future<Output = Result<(), E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if !entry.is_trusted() {
            let deadline = Box::pin(tokio::time::sleep(TRUST));
            tokio::select! {
                result = connection.as_mut() => return result.map_err(|error| Ended::Protocol(error.into())),
                () = entry.evicted() => return Err(Ended::Evicted),
                () = self.drain.cancelled() => {}
                () = deadline => {
                    if !entry.is_trusted() {
                        return Err(Ended::Untrusted);
                    }
                }
            }
        }
        tokio::select! {
            result = connection.as_mut() => return result.map_err(|error| Ended::Protocol(error.into())),
            () = self.drain.cancelled() => shut_down(connection.as_mut()),
        }
        connection.await.map_err(|error| Ended::Protocol(error.into()))
    }
}

async fn answer(router: Router, request: http::Request<Incoming>) -> Result<Response, Infallible> {
    router.oneshot(request.map(Body::new)).await
}

/// Errors of `accept` that say something of one connection, not of the listener.
fn is_peers_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
