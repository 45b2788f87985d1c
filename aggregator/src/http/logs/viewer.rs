//! `/api/v1/containers/{container}/logs`: the last lines of a container, and whether it still loads its model.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use picket_proto::documents;
use serde_json::json;

use super::super::App;
use super::super::body::{Params, node_id};
use super::super::documents::readings;
use super::super::error::ApiError;
use super::LokiError;
use crate::logs::logql;
use crate::logs::query::{Direction, LogQuery};

const MOST: usize = 500;
const LINES: usize = 100;
/// What vLLM says when it begins to load and when it has: the last of them tells, where no series does.
const BEGUN: &str = "Starting to load model";
const READY: [&str; 2] = ["Application startup complete", "Uvicorn running on"];

impl From<LokiError> for ApiError {
    fn from(error: LokiError) -> Self {
        Self::new(error.status, error.text)
    }
}

/// `GET /api/v1/containers/{container}/logs?lines=N&node=NAME`
pub async fn logs(
    State(app): State<Arc<App>>,
    Path(container): Path<String>,
    mut params: Params,
) -> Result<Response, ApiError> {
    let node = params.one("node")?.map(|name| node_id(&name)).transpose()?;
    let lines = params.parsed::<usize>("lines", "a number")?.unwrap_or(LINES);
    params.done()?;
    if !(1..=MOST).contains(&lines) {
        return Err(ApiError::bad_request(format!("lines={lines}: 1 to {MOST} are told at once"))
            .advice("the paths below /loki/api/v1 tell more of them"));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if container.is_empty() || container.len() > 255 || !container.bytes().all(plain) {
        return Err(ApiError::bad_request("this is no container's name"));
    }
    let instance = node.as_ref().map_or_else(String::new, |node| format!(", instance=\"{node}\""));
    let selector = format!("{{container=\"{container}\"{instance}}}");
    let now_ms = app.clock.now_ms();
    let found = last(&app, &selector, lines).await?;
    let readings =
        readings(&app, &documents::CONTAINER_SERIES, node.map(|node| node.as_str().to_owned())).await?;
    let known = documents::containers(&readings, now_ms as f64 / 1000.0)
        .into_iter()
        .find(|known| known.container_name == container && known.engine_state.is_some());
    let loading = match known {
        Some(known) => known.status == "loading",
        None => {
            let signs = format!("{selector} |~ \"{BEGUN}|{}\"", READY.join("|"));
            last(&app, &signs, 1).await?.first().is_some_and(|(_, line)| line.contains(BEGUN))
        }
    };
    let logs: Vec<String> = found.into_iter().map(|(_, line)| line).collect();
    Ok(Json(json!({ "logs": logs, "loading": loading })).into_response())
}

/// The last lines that this finds, oldest first.
async fn last(app: &App, query: &str, limit: usize) -> Result<Vec<(i64, String)>, ApiError> {
    let log = logql::parse_log(query).map_err(LokiError::from)?;
    let to_ns = app.clock.now_ms().saturating_add(crate::clock::millis(crate::logs::MAX_AHEAD));
    let query = LogQuery {
        log,
        from_ns: app.logs.store.horizon_ns(),
        to_ns: to_ns.saturating_mul(1_000_000),
        direction: Direction::Backward,
        limit,
    };
    let found = app.logs.ask("lines", move |store, budget| store.lines(&query, budget)).await?;
    let mut lines: Vec<(i64, String)> = found
        .streams
        .into_iter()
        // Within a stream the newest comes first; lines of one time stay in order.
        .flat_map(|stream| stream.lines.into_iter().rev().map(|(time, line)| (time, line.into_string())))
        .collect();
    lines.sort_by_key(|(time, _)| *time);
    Ok(lines)
}
