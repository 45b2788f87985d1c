//! One question to an engine, over its socket.

use bytes::Bytes;
use http::Method;
use http::header::HeaderMap;
use serde_json::Value;

use super::Error;
use crate::http as capability;
use crate::http::wire::{self, Flow, Patience};
use crate::{ServiceLimits, socket};

/// The most of an engine's error text that is passed on.
const MAX_TEXT: usize = 300;
/// An engine answers a change with nothing, or with an error's few words.
const MAX_CHANGE_ANSWER: usize = 64 << 10;

/// A JSON answer.
pub(super) async fn json(socket: &str, target: String, limits: &ServiceLimits) -> Result<Value, Error> {
    let (body, _) = ask(socket, target, wire::Most::Bytes(limits.http_body_bytes)).await?;
    serde_json::from_slice(&body).map_err(|e| Error::Malformed(format!("{socket}: no JSON: {e}")))
}

/// The beginning of an answer, and whether there is more.
pub(super) async fn cut(
    socket: &str,
    target: String,
    most: usize,
    limits: &ServiceLimits,
) -> Result<(Vec<u8>, bool), Error> {
    ask(socket, target, wire::Most::Cut(most.min(limits.http_body_bytes))).await
}

/// An answer that comes as long as it is read.
pub(super) async fn open(socket: &str, target: String) -> Result<Flow, Error> {
    let stream = connect(socket).await?;
    let flow = wire::open(stream, socket, outgoing(Method::GET, target), Patience::ENDLESS).await;
    let mut flow = flow.map_err(failed)?;
    if (200..300).contains(&flow.status) {
        return Ok(flow);
    }
    let (body, _) = flow.take(MAX_CHANGE_ANSWER).await.map_err(failed)?;
    Err(refusal(socket, &capability::Answer { status: flow.status, headers: Vec::new(), body }))
}

/// What came next of it; none at its end.
pub(super) async fn next(flow: &mut Flow) -> Result<Option<Bytes>, Error> {
    flow.next().await.map_err(failed)
}

/// What a change of a container ended in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changed {
    Done,
    /// It was so already.
    Unchanged,
}

/// A `POST` without a body.
pub(super) async fn change(socket: &str, target: String) -> Result<Changed, Error> {
    let (answer, _) = send(Method::POST, socket, target, wire::Most::Bytes(MAX_CHANGE_ANSWER)).await?;
    match answer.status {
        200..300 => Ok(Changed::Done),
        304 => Ok(Changed::Unchanged),
        _ => Err(refusal(socket, &answer)),
    }
}

async fn ask(socket: &str, target: String, most: wire::Most) -> Result<(Vec<u8>, bool), Error> {
    let (answer, cut) = send(Method::GET, socket, target, most).await?;
    match answer.status {
        200..300 => Ok((answer.body, cut)),
        _ => Err(refusal(socket, &answer)),
    }
}

fn refusal(socket: &str, answer: &capability::Answer) -> Error {
    match answer.status {
        404 => Error::NotFound(message(&answer.body)),
        status => Error::Refused(format!("{socket}: status {status}: {}", message(&answer.body))),
    }
}

async fn send(
    method: Method,
    socket: &str,
    target: String,
    most: wire::Most,
) -> Result<(capability::Answer, bool), Error> {
    let stream = connect(socket).await?;
    wire::speak(stream, socket, outgoing(method, target), most).await.map_err(failed)
}

async fn connect(socket: &str) -> Result<tokio::net::UnixStream, Error> {
    socket::connect(socket).await.map_err(|e| match e {
        socket::Error::Absent(_) => Error::Absent(e.to_string()),
        socket::Error::Refused { .. } => Error::Denied(e.to_string()),
        socket::Error::Unreachable { .. } => Error::Unreachable(e.to_string()),
    })
}

fn outgoing(method: Method, target: String) -> wire::Outgoing {
    let host = "localhost".to_owned();
    wire::Outgoing { method, host, target, headers: HeaderMap::new(), body: Vec::new() }
}

fn failed(e: capability::Error) -> Error {
    match e {
        capability::Error::TooLarge(text) => Error::TooLarge(text),
        capability::Error::Malformed(text) => Error::Malformed(text),
        capability::Error::Unreachable(text) => Error::Unreachable(text),
        e => Error::Other(e.to_string()),
    }
}

/// Docker's and Podman's error bodies are `{"message": …}`.
fn message(body: &[u8]) -> String {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let text = parsed.as_ref().and_then(|v| v.get("message")).and_then(Value::as_str);
    let text = text.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    text.chars().take(MAX_TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
