//! `/api/v1/actions` and `/api/v1/nodes/{node}/actions`: plan, approve, apply, look, undo; and the audit log.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Caller;
use super::body::{JsonBody, Params, node_id};
use super::error::{ApiError, blocking};
use super::{App, Routes};
use crate::actions::{ActionError, Query, Wish};
use crate::identity::Role;
use crate::ingest::CommandError;

pub(super) fn routes(routes: Routes) -> Routes {
    use Role::{Admin, Operator, Viewer};
    routes
        .add(Viewer, Method::GET, "/api/v1/nodes/{node}/actions", catalogue)
        .add(Operator, Method::POST, "/api/v1/nodes/{node}/actions/plan", plan)
        .add(Operator, Method::POST, "/api/v1/nodes/{node}/actions/apply", apply)
        .add(Operator, Method::POST, "/api/v1/nodes/{node}/actions/cancel", cancel)
        .add(Viewer, Method::GET, "/api/v1/actions", list)
        .add(Viewer, Method::GET, "/api/v1/actions/{id}", show)
        .add(Admin, Method::POST, "/api/v1/actions/{id}/approve", approve)
        .add(Operator, Method::POST, "/api/v1/actions/{id}/revert", revert)
        .add(Viewer, Method::GET, "/api/v1/breaker", breaker)
        .add(Admin, Method::PUT, "/api/v1/breaker", set_breaker)
        .add(Admin, Method::GET, "/api/v1/audit", audit)
        .add(Viewer, Method::GET, "/api/v1/audit/state", audit_state)
}

/// `GET /api/v1/nodes/{node}/actions`: what the node offers.
async fn catalogue(State(app): State<Arc<App>>, Path(node): Path<String>) -> Result<Response, ApiError> {
    let node = node_id(&node)?;
    let Some(found) = app.actions.catalogue(&node) else {
        return Err(ApiError::not_found(format!("the node {node} has said nothing of actions yet"))
            .advice("see `picket nodes` for whether it is up, and its agent's version"));
    };
    let plugins: Vec<Value> = found
        .plugins
        .iter()
        .map(|p| {
            let actions: Value = serde_json::from_str(&p.actions_json).unwrap_or_default();
            json!({ "id": p.id, "version": p.version, "digest": p.digest, "actions": actions })
        })
        .collect();
    Ok(Json(json!({ "node": node, "enabled": found.enabled, "plugins": plugins })).into_response())
}

/// `POST /api/v1/nodes/{node}/actions/plan`: what would be done now. Nothing is changed.
async fn plan(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(node): Path<String>,
    JsonBody(wish): JsonBody<Wish>,
) -> Result<Response, ApiError> {
    let node = node_id(&node)?;
    let record = app.actions.plan(caller.asker(), &node, wish).await.map_err(error)?;
    Ok((StatusCode::CREATED, Json(record.json(true))).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApplyWish {
    /// The plan's.
    id: String,
    digest: String,
    timeout: Option<String>,
}

/// `POST /api/v1/nodes/{node}/actions/apply`
async fn apply(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(node): Path<String>,
    JsonBody(wish): JsonBody<ApplyWish>,
) -> Result<Response, ApiError> {
    let node = node_id(&node)?;
    let timeout: Option<Duration> = wish
        .timeout
        .map(|text| {
            humantime::parse_duration(&text).map_err(|_| {
                ApiError::bad_request(format!("timeout {text:?} is no duration")).advice("write 30s, 5m")
            })
        })
        .transpose()?;
    let applied = app.actions.apply(caller.asker(), &node, &wish.id, &wish.digest, timeout).await;
    let record = applied.map_err(error)?;
    Ok((StatusCode::ACCEPTED, Json(record.json(false))).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CancelWish {
    id: String,
}

/// `POST /api/v1/nodes/{node}/actions/cancel`
async fn cancel(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(node): Path<String>,
    JsonBody(wish): JsonBody<CancelWish>,
) -> Result<Response, ApiError> {
    let record = app.actions.cancel(caller.asker(), &node_id(&node)?, &wish.id).await.map_err(error)?;
    Ok((StatusCode::ACCEPTED, Json(record.json(false))).into_response())
}

/// `GET /api/v1/actions[?node=&state=&limit=]`, newest first.
async fn list(State(app): State<Arc<App>>, mut params: Params) -> Result<Response, ApiError> {
    let query =
        Query { node: params.one("node")?, state: params.one("state")?, limit: params.limit(100, 1000)? };
    params.done()?;
    let records = app.actions.list(query).await.map_err(error)?;
    let records: Vec<Value> = records.iter().map(|r| r.json(false)).collect();
    Ok(Json(json!({ "actions": records })).into_response())
}

/// `GET /api/v1/actions/{id}`
async fn show(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let record = app.actions.get(&id).await.map_err(error)?;
    Ok(Json(record.json(true)).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Approval {
    digest: String,
}

/// `POST /api/v1/actions/{id}/approve`
async fn approve(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    JsonBody(approval): JsonBody<Approval>,
) -> Result<Response, ApiError> {
    let record = app.actions.approve(caller.asker(), &id, &approval.digest).await.map_err(error)?;
    Ok(Json(record.json(false)).into_response())
}

/// `POST /api/v1/actions/{id}/revert`
async fn revert(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let record = app.actions.revert(caller.asker(), &id).await.map_err(error)?;
    Ok((StatusCode::ACCEPTED, Json(record.json(false))).into_response())
}

/// `GET /api/v1/breaker`: whether all actions are stopped.
async fn breaker(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let open = app.actions.breaker().map_err(error)?;
    Ok(Json(json!({ "open": open.is_some(), "why": open })).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BreakerWish {
    open: bool,
    #[serde(default)]
    reason: String,
}

/// `PUT /api/v1/breaker`
async fn set_breaker(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    JsonBody(wish): JsonBody<BreakerWish>,
) -> Result<Response, ApiError> {
    if wish.reason.chars().count() > 500 {
        return Err(ApiError::bad_request("a reason has 500 characters at most"));
    }
    app.actions.set_breaker(caller.asker(), wish.open.then_some(wish.reason)).await.map_err(error)?;
    breaker(State(app)).await
}

/// `GET /api/v1/audit[?after=SEQ&limit=N]`: the log's own lines, so that whoever reads them can check the chain.
async fn audit(State(app): State<Arc<App>>, mut params: Params) -> Result<Response, ApiError> {
    let after = params.parsed::<u64>("after", "a number")?.unwrap_or(0);
    let limit = params.limit(1000, 10_000)? as usize;
    params.done()?;
    let audit = Arc::clone(app.actions.audit());
    let page = blocking(move || audit.page(after, limit)).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], page).into_response())
}

/// `GET /api/v1/audit/state`
async fn audit_state(State(app): State<Arc<App>>) -> Response {
    Json(app.actions.audit().state()).into_response()
}

fn error(error: ActionError) -> ApiError {
    let message = error.to_string();
    match &error {
        ActionError::Unknown(_) => ApiError::not_found(message).advice("see `picket action list`"),
        ActionError::Refused { reason, .. } => {
            let status = match reason.as_str() {
                "approval" => StatusCode::FORBIDDEN,
                "parameters" | "plugin" | "action" => StatusCode::BAD_REQUEST,
                "not-found" => StatusCode::NOT_FOUND,
                _ => StatusCode::CONFLICT,
            };
            ApiError::new(status, message).allowed(vec![format!("reason: {reason}")])
        }
        ActionError::Limited(_) => ApiError::new(StatusCode::CONFLICT, message)
            .advice("the limits are the aggregator's, in [actions] of its configuration"),
        ActionError::Command(command) => {
            let status = match command {
                CommandError::NotConnected(_) | CommandError::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
                CommandError::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
                CommandError::Disconnected(_) | CommandError::Empty(_) => StatusCode::BAD_GATEWAY,
            };
            ApiError::new(status, message).advice("see `picket action show ID` for what the node made of it")
        }
        ActionError::Node(..) => ApiError::new(StatusCode::BAD_GATEWAY, message),
        ActionError::Audit(_) | ActionError::Store(_) | ActionError::Lost(_) => ApiError::internal(&error),
    }
}
