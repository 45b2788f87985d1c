//! One request over one connection: connect to a checked address, TLS, HTTP/1.1, a bounded answer. [`speak`] does the
//! last two over any connection.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::header::{HOST, HeaderMap, HeaderValue, USER_AGENT};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::tls::{self, Tls, Wanted};
use super::{Answer, Error};

/// The most header bytes of an answer (hyper's least is 8 KiB).
const MAX_ANSWER_HEAD: usize = 64 << 10;

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

pub(super) async fn exchange(
    host: &str,
    port: u16,
    outgoing: Outgoing,
    addresses: &[SocketAddr],
    tls: Option<(&Arc<Tls>, &Wanted)>,
    body_bytes: usize,
) -> Result<Answer, Error> {
    let stream = connect(host, addresses).await?;
    let place = format!("{host}:{port}");
    let most = Most::Bytes(body_bytes);
    let (answer, _) = match tls {
        None => speak(stream, &place, outgoing, most).await?,
        Some((tls, wanted)) => {
            let stream = tls.connect(wanted, host, &place, stream).await?;
            speak(stream, &place, outgoing, most).await?
        }
    };
    Ok(answer)
}

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
    let malformed = |e: hyper::Error| {
        let text = with_causes(&e);
        // A server that wants to know who we are says so after the handshake.
        let broken = std::error::Error::source(&e).and_then(|e| e.downcast_ref::<std::io::Error>());
        if let Some(e) = broken.filter(|e| tls::cause(e).is_some()) {
            return tls::failure(place, e);
        }
        if e.is_parse() || e.is_incomplete_message() {
            Error::Malformed(format!("{place}: {text}"))
        } else {
            Error::Unreachable(format!("{place}: {text}"))
        }
    };
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_ANSWER_HEAD)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(malformed)?;
    let request = request(outgoing)?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(malformed)?;
        let (head, mut body) = answer.into_parts();
        let (mut bytes, mut cut) = (Vec::new(), false);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(malformed)?;
            if let Some(data) = frame.data_ref() {
                let (limit, may_cut) = match most {
                    Most::Bytes(limit) => (limit, false),
                    Most::Cut(limit) => (limit, true),
                };
                let room = limit.saturating_sub(bytes.len());
                if data.len() > room {
                    if !may_cut {
                        return Err(Error::TooLarge(format!(
                            "{place}: the body is longer than {limit} bytes"
                        )));
                    }
                    bytes.extend_from_slice(data.get(..room).unwrap_or_default());
                    cut = true;
                    break;
                }
                bytes.extend_from_slice(data);
            }
        }
        let headers = head
            .headers
            .iter()
            .map(|(n, v)| (n.as_str().to_owned(), String::from_utf8_lossy(v.as_bytes()).into_owned()))
            .collect();
        Ok((Answer { status: head.status.as_u16(), headers, body: bytes }, cut))
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
                Err(Error::Unreachable(_)) => Err(malformed(e)),
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
