//! One request over one connection: connect to a checked address, TLS, HTTP/1.1, a bounded answer. [`speak`] does the
//! last two over any connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::{HOST, HeaderMap, HeaderValue, USER_AGENT};
use http::response::Parts;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::tls::{self, Tls, Wanted};
use super::{Answer, Error};

/// The most header bytes of an answer (hyper's least is 8 KiB).
const MAX_ANSWER_HEAD: usize = 64 << 10;
/// Frames of an open answer between its connection and its reader; hyper reads some 400 KiB at once at the most.
const FRAMES: usize = 1;

/// How long an open answer waits for its reader, and how long it may take in all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    idle: Duration,
    longest: Duration,
}

impl Patience {
    /// For what somebody reads on at once.
    pub const SHORT: Self = Self { idle: Duration::from_secs(15), longest: Duration::from_secs(120) };
    /// For what is followed.
    pub const ENDLESS: Self = Self { idle: Duration::MAX, longest: Duration::MAX };
}

/// What goes out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub method: Method,
    /// The header `Host`.
    pub host: String,
    /// The path with its query.
    pub target: String,
    /// All others.
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// How much of an answer's body is read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Most {
    /// More bytes are an error.
    Bytes(usize),
    /// More bytes are left unread.
    Cut(usize),
}

/// A connection to one of these addresses, with TLS where it is wanted.
pub(super) async fn reach(
    host: &str,
    port: u16,
    addresses: &[SocketAddr],
    tls: Option<(&Arc<Tls>, &Wanted)>,
) -> Result<Box<dyn Duplex>, Error> {
    let stream = connect(host, addresses).await?;
    Ok(match tls {
        None => Box::new(stream),
        Some((tls, wanted)) => Box::new(tls.connect(wanted, host, &format!("{host}:{port}"), stream).await?),
    })
}

pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

async fn connect(host: &str, addresses: &[SocketAddr]) -> Result<TcpStream, Error> {
    let mut last = Error::Unreachable(format!("{host} has no address"));
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // A small request should not wait for more to come.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(e) => last = Error::Unreachable(format!("{host} ({address}): {e}")),
        }
    }
    Err(last)
}

/// One request and its answer; `place` stands in errors. Also says whether the body was cut.
pub(crate) async fn speak<S>(
    stream: S,
    place: &str,
    outgoing: Outgoing,
    most: Most,
) -> Result<(Answer, bool), Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let read = async |head: Parts, mut body: Incoming| {
        let (mut bytes, mut cut) = (Vec::new(), false);
        while let Some(data) = next(&mut body, place).await? {
            let (limit, may_cut) = match most {
                Most::Bytes(limit) => (limit, false),
                Most::Cut(limit) => (limit, true),
            };
            let room = limit.saturating_sub(bytes.len());
            if data.len() > room {
                if !may_cut {
                    return Err(too_large(place, limit));
                }
                bytes.extend_from_slice(data.get(..room).unwrap_or_default());
                cut = true;
                break;
            }
            bytes.extend_from_slice(&data);
        }
        Ok((Answer { status: head.status.as_u16(), headers: headers(&head), body: bytes }, cut))
    };
    converse(stream, place, outgoing, read).await
}

/// One request whose answer's body comes as it is read; see [`Flow`].
pub(crate) async fn open<S>(
    stream: S,
    place: &str,
    outgoing: Outgoing,
    patience: Patience,
) -> Result<Flow, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (head_sender, head) = oneshot::channel();
    let (frames, receiver) = mpsc::channel(FRAMES);
    let place = place.to_owned();
    let shown = place.clone();
    let Patience { idle, longest } = patience;
    let task = tokio::spawn(async move {
        let failed = frames.clone();
        let read = async |head: Parts, mut body: Incoming| {
            if head_sender.send((head.status.as_u16(), headers(&head))).is_err() {
                return Ok(());
            }
            loop {
                let data = next(&mut body, &place).await?;
                let ended = data.is_none();
                match tokio::time::timeout(idle, frames.send(Ok(data))).await {
                    Ok(Ok(())) if !ended => {}
                    // The end; or nobody reads on.
                    _ => return Ok(()),
                }
            }
        };
        let spoken = tokio::time::timeout(longest, converse(stream, &place, outgoing, read)).await;
        let error = match spoken {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => Error::TimedOut(format!("{place}: no whole answer within {} s", longest.as_secs())),
        };
        let _ = tokio::time::timeout(idle, failed.send(Err(error))).await;
    });
    let mut flow =
        Flow { status: 0, headers: Vec::new(), place: shown, frames: receiver, held: Bytes::new(), task };
    match head.await {
        Ok((status, headers)) => {
            (flow.status, flow.headers) = (status, headers);
            Ok(flow)
        }
        Err(_) => match flow.frames.recv().await {
            Some(Err(error)) => Err(error),
            _ => Err(Error::Unreachable(format!("{}: the answer was lost", flow.place))),
        },
    }
}

/// An answer under way. What is not taken waits with the server, but for a few frames; dropped, the connection ends.
#[derive(Debug)]
pub(crate) struct Flow {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    place: String,
    /// `None` is the end of the body.
    frames: mpsc::Receiver<Result<Option<Bytes>, Error>>,
    held: Bytes,
    task: JoinHandle<()>,
}

impl Flow {
    /// The next bytes of the body, `most` of them unless it ends, and whether it has ended.
    pub async fn take(&mut self, most: usize) -> Result<(Vec<u8>, bool), Error> {
        let mut bytes = Vec::new();
        loop {
            let room = most.saturating_sub(bytes.len()).min(self.held.len());
            bytes.extend_from_slice(&self.held.split_to(room));
            if !self.held.is_empty() {
                return Ok((bytes, false));
            }
            // Also where there is no room: whether more is to come is part of the answer.
            match self.next().await? {
                Some(data) => self.held = data,
                None => return Ok((bytes, true)),
            }
        }
    }

    /// What came next; none at the end of the body.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        match self.frames.recv().await {
            Some(next) => next,
            None => Err(Error::TimedOut(format!("{}: the answer was not read on in time", self.place))),
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) fn too_large(place: &str, limit: usize) -> Error {
    Error::TooLarge(format!("{place}: the body is longer than {limit} bytes"))
}

/// The next bytes of a body; none at its end.
async fn next(body: &mut Incoming, place: &str) -> Result<Option<Bytes>, Error> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|e| failure(place, &e))?.into_data()
            && !data.is_empty()
        {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

fn headers(head: &Parts) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    head.headers.iter().map(|(n, v)| (n.as_str().to_owned(), text(v))).collect()
}

fn failure(place: &str, e: &hyper::Error) -> Error {
    let text = with_causes(e);
    // A server that wants to know who we are says so after the handshake: as the request's failure, or behind the connection's.
    let causes = std::iter::successors(std::error::Error::source(e), |e| e.source());
    let mut broken = causes.filter_map(|e| e.downcast_ref::<std::io::Error>());
    if let Some(e) = broken.find(|e| tls::cause(e).is_some()) {
        return tls::failure(place, e);
    }
    if e.is_parse() || e.is_incomplete_message() {
        Error::Malformed(format!("{place}: {text}"))
    } else {
        Error::Unreachable(format!("{place}: {text}"))
    }
}

/// One request; `read` takes its answer, and the connection ends with it.
async fn converse<S, T>(
    stream: S,
    place: &str,
    outgoing: Outgoing,
    read: impl AsyncFnOnce(Parts, Incoming) -> Result<T, Error>,
) -> Result<T, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |e: hyper::Error| failure(place, &e);
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_ANSWER_HEAD)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let request = request(outgoing)?;
    let answer = async {
        let (head, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
        read(head, body).await
    };
    // Both in this task, so that the connection ends with the request.
    tokio::pin!(answer);
    tokio::pin!(connection);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            // What the request itself says of the failure is the better word, if it has one.
            Err(e) => match answer.await {
                Err(Error::Unreachable(_)) => Err(failed(e)),
                other => other,
            },
        },
    }
}

fn request(outgoing: Outgoing) -> Result<http::Request<Full<Bytes>>, Error> {
    let mut request = http::Request::builder()
        .method(outgoing.method)
        .uri(outgoing.target)
        .body(Full::new(Bytes::from(outgoing.body)))
        .map_err(|e| Error::Invalid(e.to_string()))?;
    let headers = request.headers_mut();
    *headers = outgoing.headers;
    headers.insert(HOST, HeaderValue::from_str(&outgoing.host).map_err(|e| Error::Invalid(e.to_string()))?);
    headers
        .entry(USER_AGENT)
        .or_insert(HeaderValue::from_static(concat!("picket-agent/", env!("CARGO_PKG_VERSION"))));
    Ok(request)
}

fn with_causes(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(c) = cause {
        text.push_str(": ");
        text.push_str(&c.to_string());
        cause = c.source();
    }
    text
}
