//! `POST /loki/api/v1/push`: 204 when all of it is durable.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::super::{App, Caller};
use super::LokiError;
use crate::logs::push::{Format, PushError, PushedStream, decode, unpack};
use crate::logs::{Digest, RecordError, Refusal};

/// The largest body, as it comes and unpacked.
const MAX_BODY: usize = 16 << 20;
const MAX_UNPACKED: usize = 32 << 20;
/// How long a push waits for its turn, and for the disk.
const WAIT: Duration = Duration::from_secs(15);

pub async fn push(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, LokiError> {
    let late =
        |what: &str| LokiError::new(StatusCode::SERVICE_UNAVAILABLE, format!("{what}; send it again later"));
    let turn = tokio::time::timeout(WAIT, Arc::clone(&app.logs.pushes).acquire_owned()).await;
    let Ok(Ok(_permit)) = turn else { return Err(late("too many pushes at this time")) };
    let (head, body) = request.into_parts();
    let text = |name| header_text(&head.headers, name);
    let format = Format::of(text(header::CONTENT_TYPE)?.as_deref())?;
    let encoding = text(header::CONTENT_ENCODING)?;
    let body = axum::body::to_bytes(body, MAX_BODY).await.map_err(|_| {
        LokiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than {MAX_BODY} bytes, or it broke off"),
        )
    })?;
    let token = Arc::clone(&caller.name);
    let read = tokio::task::spawn_blocking(move || -> Result<(Digest, Vec<PushedStream>), PushError> {
        let body = unpack(body.into(), encoding.as_deref(), format, MAX_UNPACKED)?;
        Ok((digest(&token, &body), decode(&body, format)?))
    });
    let (digest, streams) = read.await.map_err(|error| {
        tracing::error!(%error, "reading a push failed");
        LokiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the aggregator failed to read it; its log says why",
        )
    })??;
    let kept = tokio::time::timeout(WAIT, app.logs.store.push(&caller.name, digest, streams)).await;
    let refused = kept.map_err(|_| late("the disk does not take log lines at this time"))??;
    match refused.first() {
        None => Ok(StatusCode::NO_CONTENT.into_response()),
        Some(first) => {
            let status = match first {
                Refusal::Streams { .. } => StatusCode::TOO_MANY_REQUESTS,
                _ => StatusCode::BAD_REQUEST,
            };
            let lines: Vec<String> = refused.iter().map(ToString::to_string).collect();
            Err(LokiError::new(status, lines.join("\n")))
        }
    }
}

fn header_text(headers: &HeaderMap, name: header::HeaderName) -> Result<Option<String>, LokiError> {
    headers
        .get(&name)
        .map(|value| {
            value
                .to_str()
                .map(str::to_owned)
                .map_err(|_| LokiError::bad(format!("the header {name} is no text")))
        })
        .transpose()
}

/// What names a push: who, and what. The same again is the same push.
fn digest(token: &str, body: &[u8]) -> Digest {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(&(token.len() as u64).to_le_bytes());
    context.update(token.as_bytes());
    context.update(body);
    let mut out = Digest::default();
    out.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    out
}

impl From<PushError> for LokiError {
    fn from(error: PushError) -> Self {
        let status = match error {
            PushError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            PushError::Encoding(_) | PushError::ContentType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            PushError::Malformed(_) | PushError::Labels { .. } => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }
}

impl From<RecordError> for LokiError {
    fn from(error: RecordError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}
