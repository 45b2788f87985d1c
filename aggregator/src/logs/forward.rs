//! Sends what is kept on to another Loki: in the order in which it came, by its push API, with a cursor on disk.
//!
//! The queue is the store itself: what the other one has not taken is read again, after a restart too, so memory holds one
//! request. At least once: after a crash the last request may be sent again, and what was packed meanwhile is sent from the
//! segment's beginning; Loki drops lines that are exactly alike. A request that the other one refuses for good (4xx but 429) is counted
//! and skipped. When retention is faster than the other one, segments are missed, and counted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use picket_proto::model::Labels;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use tokio_util::sync::CancellationToken;

use super::follow::Next;
use super::{LogStore, Piece, Position, labels, push, telemetry};

/// Bytes of lines in one request, about.
const REQUEST_BYTES: usize = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(30);
const BACK_OFF: Duration = Duration::from_millis(500);
const MAX_BACK_OFF: Duration = Duration::from_secs(60);
const CURSOR: &str = "forward.cursor";
/// The answer of another Loki that goes to our log.
const TOLD: usize = 300;

/// Where to, and as whom.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// `https://loki:3100` or with the whole path `/loki/api/v1/push`.
    pub url: String,
    /// For a Loki with many tenants: `X-Scope-OrgID`.
    pub tenant: Option<String>,
    pub bearer_file: Option<PathBuf>,
    pub username: Option<String>,
    pub password_file: Option<PathBuf>,
    /// Its CA, PEM; without one, the system's.
    pub authorities: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("logs.forward.url {url:?} is no http or https address: {message}")]
    Url { url: String, message: String },
    #[error("cannot read {} ({key}): {source}", path.display())]
    Secret { key: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{} (logs.forward.authorities) holds no PEM certificate: {message}", path.display())]
    Authorities { path: PathBuf, message: String },
    #[error("logs.forward: {0}")]
    Setup(String),
}

/// Forwards until it is stopped.
pub struct Forwarder {
    store: Arc<LogStore>,
    target: Target,
    url: reqwest::Url,
    http: reqwest::Client,
    cursor: PathBuf,
}

/// Lines on their way, by label set.
#[derive(Default)]
struct Request {
    streams: BTreeMap<String, Vec<(i64, String)>>,
    bytes: usize,
    lines: u64,
}

impl Request {
    fn add(&mut self, piece: Piece) {
        for (labels, lines) in piece.streams {
            self.bytes += lines.iter().map(|(_, line)| line.len() + 16).sum::<usize>();
            self.lines += lines.len() as u64;
            self.streams.entry(text(&labels)).or_default().extend(lines);
        }
    }
}

fn text(labels: &Labels) -> String {
    labels::text(labels.iter())
}

/// What became of a request.
enum Outcome {
    Taken,
    Refused(String),
    Again { reason: &'static str, message: String, after: Option<Duration> },
}

impl Forwarder {
    /// Checks the target. `dir` is where the cursor is kept.
    pub fn new(store: Arc<LogStore>, target: Target, dir: &Path) -> Result<Self, ForwardError> {
        let bad = |message: String| ForwardError::Url { url: target.url.clone(), message };
        let mut url = reqwest::Url::parse(&target.url).map_err(|error| bad(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad(format!("its scheme is {}", url.scheme())));
        }
        if matches!(url.path(), "" | "/") {
            url.set_path("/loki/api/v1/push");
        }
        let mut builder = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .user_agent(concat!("picket-aggregator/", env!("CARGO_PKG_VERSION")))
            // The secret is for this address alone.
            .redirect(reqwest::redirect::Policy::none());
        if let Some(path) = &target.authorities {
            let pem = read("logs.forward.authorities", path)?;
            let failed = |message: String| ForwardError::Authorities { path: path.clone(), message };
            let list = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| failed(e.to_string()))?;
            if list.is_empty() {
                return Err(failed("there is none in it".to_owned()));
            }
            builder = builder.tls_certs_only(list);
        }
        let http = builder.build().map_err(|error| ForwardError::Setup(error.to_string()))?;
        let this = Self { store, target, url, http, cursor: dir.join(CURSOR) };
        this.authorization()?;
        Ok(this)
    }

    /// Forwards until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let mut grown = self.store.grown();
        let from = self.load();
        self.store.forwarding(from.segment);
        let mut follower = self.store.follow(from);
        loop {
            grown.borrow_and_update();
            let gathered = tokio::task::spawn_blocking(move || {
                let request = gather(&mut follower);
                (follower, request)
            });
            let Ok((back, request)) = gathered.await else { return };
            follower = back;
            let Some(request) = request else {
                tokio::select! {
                    () = stop.cancelled() => return,
                    changed = grown.changed() => if changed.is_err() { return },
                }
                continue;
            };
            let lines = request.lines;
            let body = tokio::task::spawn_blocking(move || {
                push::encode(request.streams.iter().map(|(labels, lines)| (labels.clone(), lines.as_slice())))
            });
            let Ok(body) = body.await else { return };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.deliver(&body, lines) => {}
            }
            self.store.forwarding(follower.position().segment);
            self.save(follower.position());
        }
    }

    /// Sends one request until it is taken or refused for good.
    async fn deliver(&self, body: &[u8], lines: u64) {
        let mut wait = BACK_OFF;
        let mut told = false;
        loop {
            match self.send(body.to_vec()).await {
                Outcome::Taken => {
                    metrics::counter!(telemetry::FORWARDED).increment(lines);
                    if told {
                        tracing::info!(url = %self.url, "forwarding of logs goes on");
                    }
                    return;
                }
                Outcome::Refused(message) => {
                    metrics::counter!(telemetry::FORWARD_SKIPPED, "reason" => "refused").increment(lines);
                    tracing::warn!(url = %self.url, lines, message, "the other Loki refused log lines; they are skipped");
                    return;
                }
                Outcome::Again { reason, message, after } => {
                    metrics::counter!(telemetry::FORWARD_ERRORS, "reason" => reason).increment(1);
                    if !told {
                        tracing::warn!(url = %self.url, reason, message, "logs can't be forwarded; trying again");
                        told = true;
                    }
                    tokio::time::sleep(after.map_or(wait, |after| after.min(MAX_BACK_OFF))).await;
                    wait = (wait * 2).min(MAX_BACK_OFF);
                }
            }
        }
    }

    async fn send(&self, body: Vec<u8>) -> Outcome {
        let authorization = match self.authorization() {
            Ok(authorization) => authorization,
            Err(error) => {
                return Outcome::Again { reason: "secret", message: error.to_string(), after: None };
            }
        };
        let mut request =
            self.http.post(self.url.clone()).header(CONTENT_TYPE, "application/x-protobuf").body(body);
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(tenant) = &self.target.tenant {
            request = request.header(HeaderName::from_static("x-scope-orgid"), tenant);
        }
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => {
                let reason = if error.is_timeout() { "timeout" } else { "unreachable" };
                return Outcome::Again { reason, message: error.to_string(), after: None };
            }
        };
        let status = answer.status();
        if status.is_success() {
            return Outcome::Taken;
        }
        let after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let message = format!("{status} {}", said(answer).await);
        match status.as_u16() {
            429 => Outcome::Again { reason: "busy", message, after: after.map(Duration::from_secs) },
            // Who we are can be mended: nothing is lost for that.
            401 | 403 => Outcome::Again { reason: "unauthorized", message, after: Some(MAX_BACK_OFF / 6) },
            400..500 => Outcome::Refused(message),
            _ => Outcome::Again { reason: "server_error", message, after: after.map(Duration::from_secs) },
        }
    }

    /// The secret is read for each request, so that it can be changed.
    fn authorization(&self) -> Result<Option<HeaderValue>, ForwardError> {
        let secret =
            |key, path: &Path| read(key, path).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        let text = match (&self.target.bearer_file, &self.target.username) {
            (Some(path), _) => format!("Bearer {}", secret("logs.forward.bearer_file", path)?),
            (None, Some(user)) => {
                let password = match &self.target.password_file {
                    Some(path) => secret("logs.forward.password_file", path)?,
                    None => String::new(),
                };
                let pair = format!("{user}:{password}");
                format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
            }
            (None, None) => return Ok(None),
        };
        let mut value = HeaderValue::from_str(&text).map_err(|_| {
            ForwardError::Setup("the secret holds characters that no HTTP header can have".to_owned())
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Where the last run came to. The first time: now, so that a new target isn't given a week at once.
    fn load(&self) -> Position {
        let text = match std::fs::read(&self.cursor) {
            Ok(text) => text,
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound {
                    tracing::error!(file = %self.cursor.display(), %error, "cannot read how far logs were forwarded; forwarding begins with what comes now");
                }
                let end = self.store.end();
                self.save(end);
                return end;
            }
        };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::error!(file = %self.cursor.display(), %error, "cannot understand how far logs were forwarded; forwarding begins with the oldest");
            Position { segment: 0, offset: 0 }
        })
    }

    fn save(&self, position: Position) {
        let new = self.cursor.with_extension("new");
        let saved = serde_json::to_vec(&position)
            .map_err(std::io::Error::other)
            .and_then(|text| std::fs::write(&new, text))
            .and_then(|()| std::fs::rename(&new, &self.cursor));
        if let Err(error) = saved {
            tracing::warn!(file = %self.cursor.display(), %error, "cannot note how far logs are forwarded; some may be sent again after a restart");
        }
    }
}

/// Reads one request's worth. `None`: there is nothing.
fn gather(follower: &mut super::Follower) -> Option<Request> {
    let mut request = Request::default();
    while request.bytes < REQUEST_BYTES {
        match follower.read() {
            Next::Piece(piece) | Next::Packed(piece) => request.add(piece),
            Next::Gone { segments } => {
                metrics::counter!(telemetry::FORWARD_SKIPPED, "reason" => "retention").increment(segments);
                tracing::warn!(segments, "segments of the log store were dropped before they were forwarded");
            }
            Next::End => break,
        }
    }
    (request.lines > 0).then_some(request)
}

async fn said(answer: reqwest::Response) -> String {
    let text = answer.text().await.unwrap_or_default();
    text.chars().filter(|c| !c.is_control()).take(TOLD).collect()
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, ForwardError> {
    std::fs::read(path).map_err(|source| ForwardError::Secret { key, path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
