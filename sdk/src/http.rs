//! Outgoing HTTP/1.1. Redirects are returned, not followed. Grant: `http`.

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

/// Sends them all at once; the answers come in the requests' order. A slow one delays this call, not the others.
pub fn send_many(requests: &[Request]) -> Vec<Result<Response, HttpError>> {
    sys::send_many(requests)
}
