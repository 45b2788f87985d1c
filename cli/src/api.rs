//! The aggregator's HTTP API, as a client sees it.

use std::error::Error as _;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use reqwest::{Certificate, Method, Response, StatusCode, Upgraded, header};
use ring::rand::SecureRandom as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::config::Connection;

const TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Talks to one aggregator. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("{} holds no CA certificate: {message}; give the aggregator's ca.pem", path.display())]
    Ca { path: PathBuf, message: String },
    #[error("cannot set up HTTPS: {0}")]
    Setup(String),
    #[error(
        "{url} does not show a certificate that is trusted here ({message}); pass --ca FILE with the aggregator's ca.pem, \
         and use a name that its certificate holds"
    )]
    Trust { url: String, message: String },
    #[error("cannot reach {url}: {message}; is the aggregator running there? Pass --url or set PICKET_URL")]
    Connect { url: String, message: String },
    #[error("{url} broke off: {message}")]
    Broken { url: String, message: String },
    #[error("{0}")]
    Refused(Refusal),
    #[error("{url} answered something else than Picket's API: {message}; is that an aggregator?")]
    Foreign { url: String, message: String },
}

/// An error that the API told.
#[derive(Debug)]
pub struct Refusal {
    pub error: String,
    pub advice: Option<String>,
    pub allowed: Vec<String>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.error)?;
        for line in &self.allowed {
            write!(f, "\n  {line}")?;
        }
        match &self.advice {
            Some(advice) => write!(f, "\n  → {advice}"),
            None => Ok(()),
        }
    }
}

#[derive(serde::Deserialize)]
struct ErrorBody {
    error: String,
    advice: Option<String>,
    #[serde(default)]
    allowed: Vec<String>,
}

impl Client {
    /// Sets up TLS; connects with the first request.
    pub fn new(connection: &Connection) -> Result<Self, ApiError> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(TIMEOUT)
            .user_agent(concat!("picket/", env!("CARGO_PKG_VERSION")))
            // The token is for this aggregator alone.
            .redirect(reqwest::redirect::Policy::none());
        if let Some((path, pem)) = &connection.ca {
            let failed = |message: String| ApiError::Ca { path: path.clone(), message };
            let list = Certificate::from_pem_bundle(pem).map_err(|e| failed(chain(&e)))?;
            if list.is_empty() {
                return Err(failed("there is no PEM certificate in it".into()));
            }
            builder = builder.tls_certs_only(list);
        }
        let http = builder.build().map_err(|e| ApiError::Setup(chain(&e)))?;
        Ok(Self { http, url: connection.url.clone(), token: connection.token.clone() })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// `GET path?query`, JSON.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T, ApiError> {
        let response = self.send(Method::GET, path, query, None::<&()>).await?;
        self.json(response).await
    }

    /// Any other method, JSON in and out.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<&impl Serialize>,
    ) -> Result<T, ApiError> {
        let response = self.send(method, path, query, body).await?;
        self.json(response).await
    }

    /// `GET path?query`, the body to be read piece by piece.
    pub async fn stream(&self, path: &str, query: &[(&str, String)]) -> Result<Response, ApiError> {
        self.send(Method::GET, path, query, None::<&()>).await
    }

    /// Why reading a body failed.
    pub fn broken(&self, error: &reqwest::Error) -> ApiError {
        ApiError::Broken { url: self.url.clone(), message: chain(error) }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<&impl Serialize>,
    ) -> Result<Response, ApiError> {
        let mut request =
            self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token).query(query);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.failed(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        Err(refusal(&self.url, path, status, &text))
    }

    /// `GET path?query`, made a WebSocket.
    pub async fn web_socket(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<WebSocketStream<Upgraded>, ApiError> {
        let mut key = [0; 16];
        ring::rand::SystemRandom::new()
            .fill(&mut key)
            .map_err(|_| ApiError::Setup("this machine gives no random numbers".to_owned()))?;
        let response = self
            .http
            .get(format!("{}{path}", self.url))
            .bearer_auth(&self.token)
            .query(query)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, base64::engine::general_purpose::STANDARD.encode(key))
            .send()
            .await
            .map_err(|error| self.failed(&error))?;
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let text = response.text().await.unwrap_or_default();
            return Err(refusal(&self.url, path, status, &text));
        }
        let upgraded = response.upgrade().await.map_err(|error| self.broken(&error))?;
        Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await)
    }

    async fn json<T: DeserializeOwned>(&self, response: Response) -> Result<T, ApiError> {
        let bytes = response.bytes().await.map_err(|error| self.broken(&error))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| ApiError::Foreign { url: self.url.clone(), message: error.to_string() })
    }

    fn failed(&self, error: &reqwest::Error) -> ApiError {
        let (url, message) = (self.url.clone(), chain(error));
        let mut source = error.source();
        while let Some(cause) = source {
            if is_certificate_error(cause) {
                return ApiError::Trust { url, message };
            }
            source = cause.source();
        }
        if error.is_connect() || error.is_timeout() {
            ApiError::Connect { url, message }
        } else {
            ApiError::Broken { url, message }
        }
    }
}

/// Looks into I/O errors, which hide what they wrap from `source`.
fn is_certificate_error(cause: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
        return matches!(tls, rustls::Error::InvalidCertificate(_));
    }
    cause
        .downcast_ref::<std::io::Error>()
        .and_then(|io| io.get_ref())
        .is_some_and(|inner| is_certificate_error(inner))
}

fn refusal(url: &str, path: &str, status: StatusCode, text: &str) -> ApiError {
    match serde_json::from_str::<ErrorBody>(text) {
        Ok(body) => {
            ApiError::Refused(Refusal { error: body.error, advice: body.advice, allowed: body.allowed })
        }
        // Loki's API says errors as plain text.
        Err(_) if path.starts_with("/loki/") && !text.trim_start().starts_with('<') => {
            let error = text.trim().chars().filter(|c| !c.is_control() || *c == '\n').collect();
            ApiError::Refused(Refusal { error, advice: None, allowed: Vec::new() })
        }
        Err(_) => {
            let start: String = text.chars().take(80).filter(|c| !c.is_control()).collect();
            ApiError::Foreign { url: url.to_owned(), message: format!("{status} {start}") }
        }
    }
}

/// The innermost causes say what happened.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut source = error.source();
    while let Some(cause) = source {
        let next = cause.to_string();
        if !text.contains(&next) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&next);
        }
        source = cause.source();
    }
    if text.is_empty() { error.to_string() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_errors_are_found_inside_io_errors() {
        let tls = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let wrapped = std::io::Error::other(std::io::Error::other(tls));
        assert!(is_certificate_error(&wrapped));
        assert!(!is_certificate_error(&std::io::Error::other("refused")));
    }

    #[test]
    fn refusals_are_told_with_what_to_do() {
        let json = r#"{"error":"the node refused","advice":"see the list","allowed":["scenario: normal"]}"#;
        let error = refusal("https://x", "/api", StatusCode::BAD_REQUEST, json).to_string();
        assert_eq!(error, "the node refused\n  scenario: normal\n  → see the list");
        for path in ["/api", "/loki/api/v1/query_range"] {
            let foreign = refusal("https://x", path, StatusCode::BAD_GATEWAY, "<html>nginx").to_string();
            assert!(foreign.contains("is that an aggregator?"), "{foreign}");
        }
        let text = "parse error at line 1, col 4: no\u{1b}\n";
        let error = refusal("https://x", "/loki/api/v1/tail", StatusCode::BAD_REQUEST, text).to_string();
        assert_eq!(error, "parse error at line 1, col 4: no");
    }
}
