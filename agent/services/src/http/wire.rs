//! One request over one connection: connect to a checked address, TLS, HTTP/1.1, a bounded answer.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{HOST, HeaderValue, USER_AGENT};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Answer, Checked, Error};

/// The most header bytes of an answer (hyper's least is 8 KiB).
const MAX_ANSWER_HEAD: usize = 64 << 10;

pub(super) async fn exchange(
    checked: Checked,
    addresses: &[SocketAddr],
    tls: Option<TlsConnector>,
    body_bytes: usize,
) -> Result<Answer, Error> {
    let stream = connect(&checked.host, addresses).await?;
    match tls {
        None => speak(stream, checked, body_bytes).await,
        Some(tls) => {
            let name = ServerName::try_from(checked.host.clone())
                .map_err(|e| Error::Tls(format!("{} is no name for a certificate: {e}", checked.host)))?;
            let stream = tls
                .connect(name, stream)
                .await
                .map_err(|e| Error::Tls(format!("{}:{}: {e}", checked.host, checked.port)))?;
            speak(stream, checked, body_bytes).await
        }
    }
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

async fn speak<S>(stream: S, checked: Checked, body_bytes: usize) -> Result<Answer, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let place = format!("{}:{}", checked.host, checked.port);
    let malformed = |e: hyper::Error| {
        let text = with_causes(&e);
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
    let request = request(checked)?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(malformed)?;
        let (head, mut body) = answer.into_parts();
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(malformed)?;
            if let Some(data) = frame.data_ref() {
                if bytes.len() + data.len() > body_bytes {
                    return Err(Error::TooLarge(format!(
                        "{place}: the body is longer than {body_bytes} bytes"
                    )));
                }
                bytes.extend_from_slice(data);
            }
        }
        let headers = head
            .headers
            .iter()
            .map(|(n, v)| (n.as_str().to_owned(), String::from_utf8_lossy(v.as_bytes()).into_owned()))
            .collect();
        Ok(Answer { status: head.status.as_u16(), headers, body: bytes })
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

fn request(checked: Checked) -> Result<http::Request<Full<Bytes>>, Error> {
    let default = if checked.https { 443 } else { 80 };
    let name = if checked.host.contains(':') { format!("[{}]", checked.host) } else { checked.host };
    let host = if checked.port == default { name } else { format!("{name}:{}", checked.port) };
    let mut request = http::Request::builder()
        .method(checked.method)
        .uri(checked.target)
        .body(Full::new(Bytes::from(checked.body)))
        .map_err(|e| Error::Invalid(e.to_string()))?;
    let headers = request.headers_mut();
    *headers = checked.headers;
    headers.insert(HOST, HeaderValue::from_str(&host).map_err(|e| Error::Invalid(e.to_string()))?);
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
