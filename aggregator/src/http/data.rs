//! Samples and events: `/metrics`, `/api/v1/series`, `/api/v1/events`, `/api/v1/export`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use picket_proto::model::Severity;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::App;
use super::body::{Params, node_id};
use super::error::{ApiError, blocking};
use crate::events::{EventQuery, severity_word};
use crate::log::{ExportFilter, Row};
use crate::store::{Format, Selector};

const MAX_SERIES: u32 = 100_000;
const MAX_EVENTS: u32 = 10_000;
const MAX_SELECTORS: usize = 64;
/// An export is handed over in pieces of about this many bytes, so many of them waiting at most.
const EXPORT_CHUNK: usize = 64 * 1024;
const EXPORT_QUEUE: usize = 4;
/// A reader that takes nothing for this long is given up.
const EXPORT_STALL: Duration = Duration::from_secs(30);
/// Exports at one time: each holds a thread and reads the disk.
pub(super) const EXPORTS: usize = 4;

/// `GET /metrics[?match[]=SELECTOR]`: the fleet. Prometheus text, or OpenMetrics where it is asked for.
pub async fn metrics(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, ApiError> {
    let selectors = selectors(&mut params)?;
    params.done()?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = Format::negotiate(accept);
    let body = app.store.exposition(format, selectors, app.clock.now_ms()).into_stream();
    Ok(([(header::CONTENT_TYPE, format.content_type())], Body::from_stream(body)).into_response())
}

/// `GET /api/v1/series?match=SELECTOR…&limit=N`: the latest values.
pub async fn series(State(app): State<Arc<App>>, mut params: Params) -> Result<Response, ApiError> {
    let selectors = selectors(&mut params)?;
    let limit = params.limit(10_000, MAX_SERIES)?;
    params.done()?;
    let store = Arc::clone(&app.store);
    let now = app.clock.now_ms();
    let wanted = limit as usize;
    let mut found = blocking(move || Ok::<_, Infallible>(store.series(&selectors, wanted + 1, now))).await?;
    let truncated = found.len() > wanted;
    found.truncate(wanted);
    Ok(Json(json!({ "series": found, "truncated": truncated })).into_response())
}

/// `GET /api/v1/events?node=&kind=&plugin=&subject=&key=&severity=&since_ms=&until_ms=&before=&limit=`: newest first.
pub async fn events(State(app): State<Arc<App>>, mut params: Params) -> Result<Response, ApiError> {
    let query = EventQuery {
        node: params.one("node")?,
        kind: params.one("kind")?,
        plugin: params.one("plugin")?,
        subject: params.one("subject")?,
        key: params.one("key")?,
        severity: params.one("severity")?.map(|word| severity(&word)).transpose()?,
        since_ms: params.parsed("since_ms", "a time in Unix milliseconds")?,
        until_ms: params.parsed("until_ms", "a time in Unix milliseconds")?,
        before: params.parsed("before", "an event's id")?,
        limit: params.limit(100, MAX_EVENTS)?,
    };
    params.done()?;
    let limit = query.limit as usize;
    let events = Arc::clone(&app.events);
    let found = blocking(move || events.query(&query)).await?;
    // A full page may have one after it.
    let next = found.last().filter(|_| found.len() == limit).map(|event| event.id);
    Ok(Json(json!({ "events": found, "next_before": next })).into_response())
}

/// `GET /api/v1/export?match=SELECTOR…&node=NAME&from_ms=&to_ms=`: logged samples as JSON lines, in the order in which
/// they came.
pub async fn export(State(app): State<Arc<App>>, mut params: Params) -> Result<Response, ApiError> {
    let filter = ExportFilter {
        selectors: selectors(&mut params)?,
        node: params.one("node")?.map(|name| node_id(&name)).transpose()?,
        from_ms: params.parsed("from_ms", "a time in Unix milliseconds")?,
        to_ms: params.parsed("to_ms", "a time in Unix milliseconds")?,
    };
    params.done()?;
    let permit = Arc::clone(&app.exports).try_acquire_owned().map_err(|_| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many exports run at this time")
            .advice("try again later")
    })?;
    let (sender, receiver) = mpsc::channel(EXPORT_QUEUE);
    let log = Arc::clone(&app.log);
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        // Whoever asked may have gone, or reads nothing: then this ends too.
        let send = |chunk: Vec<u8>| {
            let sent = tokio::time::timeout(EXPORT_STALL, sender.send(Ok(Bytes::from(chunk))));
            matches!(runtime.block_on(sent), Ok(Ok(())))
        };
        write_export(log.export(filter), send);
    });
    let body = Body::from_stream(ReceiverStream::<Result<Bytes, Infallible>>::new(receiver));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Hands over rows as lines, a chunk at a time, until `send` has enough.
fn write_export(rows: impl Iterator<Item = Row>, send: impl Fn(Vec<u8>) -> bool) {
    let mut chunk = Vec::with_capacity(EXPORT_CHUNK + 1024);
    for row in rows {
        if let Err(error) = serde_json::to_writer(&mut chunk, &row) {
            tracing::error!(%error, "a logged sample cannot be written as JSON");
            continue;
        }
        chunk.push(b'\n');
        if chunk.len() >= EXPORT_CHUNK
            && !send(std::mem::replace(&mut chunk, Vec::with_capacity(EXPORT_CHUNK + 1024)))
        {
            return;
        }
    }
    if !chunk.is_empty() {
        send(chunk);
    }
}

/// `match` and `match[]`, each a selector.
fn selectors(params: &mut Params) -> Result<Vec<Selector>, ApiError> {
    let mut texts = params.all("match");
    texts.append(&mut params.all("match[]"));
    if texts.len() > MAX_SELECTORS {
        return Err(ApiError::bad_request(format!("{} selectors, {MAX_SELECTORS} are allowed", texts.len())));
    }
    texts
        .iter()
        .map(|text| Selector::parse(text).map_err(|error| ApiError::bad_request(error.to_string())))
        .collect()
}

fn severity(word: &str) -> Result<Severity, ApiError> {
    [Severity::Info, Severity::Warning, Severity::Critical]
        .into_iter()
        .find(|severity| severity_word(*severity) == word)
        .ok_or_else(|| ApiError::bad_request(format!("severity={word:?} is none of info, warning, critical")))
}
