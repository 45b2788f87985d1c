//! The local HTTP server: the page for Prometheus, health, the plugins, the scenario.
//!
//! It listens on loopback unless the operator says otherwise, because it asks nobody for a name. Nothing behind it
//! waits on a plugin, but for the scenario calls, which are bounded in number and time. Connections are bounded in
//! number and in time too: a client that opens one and stalls gets nothing but its own place.

mod server;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use picket_proto::documents;
use serde::{Deserialize, Serialize};

pub use server::serve;

use crate::collector::{Collector, Format};
use crate::health::Health;
use crate::schedule::{Control, ControlError, Schedule};

/// The longest body that is read, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// What the handlers read.
#[derive(Clone)]
pub struct Api {
    pub collector: Collector,
    pub schedule: Schedule,
    pub health: Arc<Health>,
    pub listen: SocketAddr,
}

pub fn router(api: Api) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/api/v1/plugins", get(plugins))
        .route("/api/v1/grants", get(grants))
        .route("/api/v1/containers", get(containers))
        .route("/api/v1/models", get(models))
        .route("/api/v1/scenario", get(scenario).put(set_scenario))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not know this method")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(api)
}

/// An error as JSON.
#[derive(Debug, Serialize)]
struct Problem {
    #[serde(skip)]
    status: StatusCode,
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed: Option<Vec<String>>,
}

impl Problem {
    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), allowed: None }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(&self)).into_response()
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        let status = match &error {
            ControlError::Refused(lines) => {
                return Self {
                    status: StatusCode::BAD_REQUEST,
                    error: "the settings are not allowed; nothing was changed".to_owned(),
                    allowed: Some(lines.clone()),
                };
            }
            ControlError::NothingToControl
            | ControlError::NoSuchPlugin(_)
            | ControlError::NotControllable(_) => StatusCode::NOT_FOUND,
            ControlError::NotRunning { .. } | ControlError::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            ControlError::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            ControlError::Failed(_) => StatusCode::BAD_GATEWAY,
        };
        Self::new(status, error.to_string())
    }
}

async fn index() -> &'static str {
    "picket-agent: /metrics /healthz /readyz /api/v1/plugins /api/v1/grants /api/v1/containers /api/v1/models /api/v1/scenario\n"
}

async fn metrics(State(api): State<Api>, headers: HeaderMap) -> Response {
    let accept: Vec<&str> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::of_accept(&accept.join(","));
    let chunks = api.collector.exposition(format).map(Ok::<_, std::convert::Infallible>);
    let body = Body::from_stream(futures_util::stream::iter(chunks));
    ([(header::CONTENT_TYPE, format.content_type())], body).into_response()
}

/// The process answers; nothing more.
async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(api): State<Api>) -> Response {
    let readiness = api.health.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn plugins(State(api): State<Api>) -> Response {
    let board = api.schedule.board();
    Json(serde_json::json!({ "plugins": board.all(), "strays": board.strays() })).into_response()
}

/// Who may do what on this node, and why.
async fn grants(State(api): State<Api>) -> Response {
    Json(crate::schedule::permits(api.schedule.board())).into_response()
}

/// The servers of models that the plugins know of.
async fn containers(State(api): State<Api>) -> Response {
    let readings = api.collector.latest(&documents::CONTAINER_SERIES);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let list = documents::containers(&readings, now.as_secs_f64());
    Json(serde_json::json!({ "containers": list })).into_response()
}

/// The models that the plugins know of.
async fn models(State(api): State<Api>) -> Response {
    let readings = api.collector.latest(&documents::MODEL_SERIES);
    Json(serde_json::json!({ "models": documents::models(&readings) })).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhichPlugin {
    /// None: the one that has controls.
    plugin: Option<String>,
}

type Which = Result<Query<WhichPlugin>, axum::extract::rejection::QueryRejection>;

async fn scenario(State(api): State<Api>, which: Which) -> Result<Response, Problem> {
    control(&api, which, Control::Get).await
}

async fn set_scenario(
    State(api): State<Api>,
    which: Which,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    if api.listen.ip().is_loopback() && !is_local(&headers) {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "the Host header names another host than this one: a web page must not change a node's settings",
        ));
    }
    let body = body.map_err(|error| Problem::new(error.status(), error.body_text()))?;
    let settings: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_slice(&body);
    let text = match settings {
        Ok(_) => String::from_utf8_lossy(&body).into_owned(),
        Err(error) => {
            return Err(Problem {
                status: StatusCode::BAD_REQUEST,
                error: format!("the body is no JSON object: {error}"),
                allowed: Some(vec![
                    r#"a JSON object such as {"scenario":"high_load","settings":{}}"#.to_owned(),
                ]),
            });
        }
    };
    control(&api, which, Control::Set(text)).await
}

async fn control(api: &Api, which: Which, what: Control) -> Result<Response, Problem> {
    let Query(which) = which.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let json = api.schedule.control(which.plugin.as_deref(), what).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

/// Whether the request was meant for this machine: a name that a foreign page resolved to loopback was not.
fn is_local(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests;
