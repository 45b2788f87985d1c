//! Outgoing HTTP/1.1. Redirects are returned, not followed. Grant: `http`.

use std::io::Read;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::{Failure, sys};

/// Why no answer came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// Outside the grant.
    #[error("the request is not granted to this plugin: {0}")]
    Denied(String),
    /// Not a request that can be sent.
    #[error("the request is not valid: {0}")]
    Invalid(String),
    /// No name, no route, refused.
    #[error("{0}")]
    Unreachable(String),
    /// Too slow.
    #[error("no answer in time: {0}")]
    TimedOut(String),
    /// The answer is longer than the node allows.
    #[error("the answer is too large: {0}")]
    TooLarge(String),
    /// What came was no HTTP.
    #[error("the answer is malformed: {0}")]
    Malformed(String),
    /// No trust.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// A reason that this version of the SDK does not know.
    #[error("{0}")]
    Other(String),
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        let reason = match error {
            HttpError::Denied(_) => "denied",
            HttpError::Invalid(_) => "invalid",
            HttpError::Unreachable(_) => "unreachable",
            HttpError::TimedOut(_) => "timed-out",
            HttpError::TooLarge(_) => "too-large",
            HttpError::Malformed(_) => "malformed",
            HttpError::Tls(_) => "tls",
            HttpError::Other(_) => "http",
        };
        Self::new(reason, error.to_string())
    }
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) timeout_ms: Option<u32>,
    pub(crate) secret: Option<String>,
}

impl Request {
    /// A request of any method.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout_ms: None,
            secret: None,
        }
    }

    /// A GET request.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// For all of it. The node's limit bounds it.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout_ms = Some(u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX));
        self
    }

    /// The name of a granted secret: the host adds the header; the plugin never sees it.
    #[must_use]
    pub fn secret(mut self, name: impl Into<String>) -> Self {
        self.secret = Some(name.into());
        self
    }

    /// The method.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The headers that the plugin set.
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The body, where the status is 200 to 299.
    ///
    /// # Errors
    /// `status` otherwise.
    pub fn success(&self) -> Result<&[u8], Failure> {
        if (200..300).contains(&self.status) {
            return Ok(&self.body);
        }
        let start: String = String::from_utf8_lossy(&self.body).chars().take(200).collect();
        Err(Failure::new("status", format!("the server answered {}: {start}", self.status)))
    }

    /// The body as JSON, where the status is 200 to 299.
    ///
    /// # Errors
    /// `status` otherwise, `parse` where it is not what was looked for.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(self.success()?)
            .map_err(|e| Failure::new("parse", format!("the answer is not the expected JSON: {e}")))
    }
}

/// Sends a request and waits for the answer. A status of 400 or more is an answer, not an error.
///
/// # Errors
/// Any [`HttpError`].
pub fn send(request: &Request) -> Result<Response, HttpError> {
    sys::send(request)
}

/// What one part of a [`Stream`] brings.
const PART: u64 = 256 << 10;
/// The most of an answer that is told of when it was none of success.
const SAID: u64 = 64 << 10;

/// Sends a `GET` whose answer is read as it comes: one longer than the plugin's memory, or than the node allows at once, costs the
/// memory of a part. Read it on without long breaks: a node closes what nobody reads.
///
/// ```no_run
/// use std::io::Read;
/// use picket_sdk::http::{self, Request};
/// # fn main() -> Result<(), picket_sdk::Failure> {
/// let mut dump = http::stream(&Request::get("http://127.0.0.1:6820/slurm/v0.0.42/nodes"))?;
/// let nodes: picket_sdk::serde_json::Value = picket_sdk::serde_json::from_reader(dump.by_ref())
///     .map_err(|e| dump.failure().unwrap_or_else(|| picket_sdk::Failure::new("parse", e.to_string())))?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Any [`HttpError`].
pub fn stream(request: &Request) -> Result<Stream, HttpError> {
    Stream::begin(request, send)
}

/// The body of an answer, read as it comes.
pub struct Stream {
    send: Box<dyn Fn(&Request) -> Result<Response, HttpError>>,
    request: Request,
    status: u16,
    chunk: Chunk,
    /// Where the next part begins, and what names the answer that it is of; none: all is there.
    next: Option<(u64, String)>,
    error: Option<HttpError>,
}

impl Stream {
    pub(crate) fn begin(
        request: &Request,
        send: impl Fn(&Request) -> Result<Response, HttpError> + 'static,
    ) -> Result<Self, HttpError> {
        let first = send(&part(request, 0, ""))?;
        let mut stream = Self {
            send: Box::new(send),
            request: request.clone(),
            status: first.status,
            chunk: Chunk::default(),
            next: None,
            error: None,
        };
        stream.accept(first, 0)?;
        Ok(stream)
    }

    /// 200 where the answer is one of success, however it came.
    pub fn status(&self) -> u16 {
        if self.status == 206 { 200 } else { self.status }
    }

    /// The beginning of the rest, as text: what a server says of a failure.
    pub fn said(&mut self) -> String {
        let mut said = Vec::new();
        // What can't be read is not said.
        let _ = self.by_ref().take(SAID).read_to_end(&mut said);
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Why a read failed, if one did: a parser that reads this only says that its reader failed.
    pub fn failure(&self) -> Option<Failure> {
        self.error.clone().map(Failure::from)
    }

    fn accept(&mut self, part: Response, at: u64) -> Result<(), HttpError> {
        self.next = None;
        if part.status == 206 {
            let told = part.header("content-range").and_then(range);
            let Some((first, last, total)) = told.filter(|(first, ..)| *first == at) else {
                return Err(HttpError::Malformed(format!(
                    "{}: not the part that was asked for",
                    self.request.url
                )));
            };
            let length = last.saturating_sub(first).saturating_add(1);
            if length != part.body.len() as u64 {
                return Err(HttpError::Malformed(format!("{}: a part of another length", self.request.url)));
            }
            if total.is_none_or(|total| last.saturating_add(1) < total) {
                self.next =
                    Some((last.saturating_add(1), part.header("etag").unwrap_or_default().to_owned()));
            }
        } else if at > 0 {
            let status = part.status;
            return Err(HttpError::Malformed(format!(
                "{}: status {status} for a later part",
                self.request.url
            )));
        }
        self.chunk = part.body.into();
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.chunk.is_empty() {
            let Some((at, tag)) = self.next.take() else { return Ok(0) };
            let answer = (self.send)(&part(&self.request, at, &tag));
            if let Err(error) = answer.and_then(|answer| self.accept(answer, at)) {
                let told = std::io::Error::other(error.to_string());
                self.error = Some(error);
                return Err(told);
            }
        }
        Ok(self.chunk.give(buffer))
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("request", &self.request)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

fn part(request: &Request, at: u64, tag: &str) -> Request {
    let request = request.clone().header("range", format!("bytes={at}-{}", at.saturating_add(PART - 1)));
    if tag.is_empty() { request } else { request.header("if-range", tag) }
}

/// `bytes 0-9/100`; `*` is a total that is not known yet.
fn range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((first.parse().ok()?, last.parse().ok()?, total))
}

/// Bytes that came, and how many of them were read.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    bytes: Vec<u8>,
    at: usize,
}

impl From<Vec<u8>> for Chunk {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, at: 0 }
    }
}

impl Chunk {
    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub fn give(&mut self, buffer: &mut [u8]) -> usize {
        let left = self.bytes.get(self.at..).unwrap_or_default();
        let n = left.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..n), left.get(..n)) {
            to.copy_from_slice(from);
        }
        self.at += n;
        n
    }
}

/// Sends them all at once; the answers come in the requests' order. A slow one delays this call, not the others.
pub fn send_many(requests: &[Request]) -> Vec<Result<Response, HttpError>> {
    sys::send_many(requests)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // what fails here fails the test
mod tests {
    use super::*;

    type Answer = Result<Response, HttpError>;

    fn body(length: usize) -> Vec<u8> {
        (0..length).map(|n| (n % 251) as u8).collect()
    }

    /// A host that gives a body of this length in parts, without saying the length before the last one.
    fn host(length: usize) -> impl Fn(&Request) -> Answer {
        move |request| {
            let header =
                |name: &str| request.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
            let asked = header("range").unwrap().strip_prefix("bytes=").unwrap();
            let (first, last) = asked.split_once('-').unwrap();
            let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
            assert_eq!(header("if-range"), (first > 0).then_some("t"));
            let all = body(length);
            let bytes = all.get(first..length.min(last + 1)).unwrap().to_vec();
            let end = first + bytes.len();
            let total = if end == length { length.to_string() } else { "*".to_owned() };
            let range = format!("bytes {first}-{}/{total}", end - 1);
            let headers = vec![("Content-Range".to_owned(), range), ("ETag".to_owned(), "t".to_owned())];
            Ok(Response { status: 206, headers, body: bytes })
        }
    }

    fn read(send: impl Fn(&Request) -> Answer + 'static) -> (Vec<u8>, Option<String>) {
        let mut stream = match Stream::begin(&Request::get("http://x/"), send) {
            Ok(stream) => stream,
            Err(error) => return (Vec::new(), Some(Failure::from(error).reason.into_owned())),
        };
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        assert_eq!(read.is_err(), stream.failure().is_some());
        (bytes, stream.failure().map(|f| f.reason.into_owned()))
    }

    #[test]
    fn parts_are_one_body() {
        let part = PART as usize;
        for length in [1, part - 1, part, part + 1, 3 * part, 3 * part + 7] {
            assert_eq!(read(host(length)), (body(length), None), "{length}");
        }
        let whole = |_: &Request| Ok(Response { status: 200, headers: Vec::new(), body: body(1000) });
        assert_eq!(read(whole), (body(1000), None));
    }

    #[test]
    fn what_is_no_next_part_ends_it() {
        let part = PART as usize;
        let after_the_first = |other: Answer| {
            move |request: &Request| {
                let first = request.headers.iter().any(|(n, v)| n == "range" && v.starts_with("bytes=0-"));
                if first { host(3 * part)(request) } else { other.clone() }
            }
        };
        let ranged = |range: &str, length: usize| {
            let headers = vec![("content-range".to_owned(), range.to_owned())];
            Ok(Response { status: 206, headers, body: body(length) })
        };
        for (other, reason) in [
            (Err(HttpError::TimedOut("gone".to_owned())), "timed-out"),
            (Ok(Response { status: 200, headers: Vec::new(), body: body(9) }), "malformed"),
            (ranged("bytes 0-8/9", 9), "malformed"),
            (ranged(&format!("bytes {part}-{}/*", part + 8), 8), "malformed"),
            (ranged("bytes x", 9), "malformed"),
            (ranged("bytes 1-2", 2), "malformed"),
        ] {
            let (bytes, failed) = read(after_the_first(other.clone()));
            assert_eq!((bytes.len(), failed.as_deref()), (part, Some(reason)), "{other:?}");
        }
        assert_eq!(read(move |_| ranged("bytes 5-9/10", 5)).1.as_deref(), Some("malformed"));
    }
}
