//! `/api/v1/nodes`: what is known of each node, revocation, and the scenario control of its plugins.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use picket_proto::model::NodeId;
use picket_proto::v1;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::App;
use super::auth::Caller;
use super::body::{JsonBody, Params, node_id};
use super::error::{ApiError, blocking};
use crate::identity::{Mode, NodeRecord};
use crate::ingest::{CommandError, NodeStatus};

/// `GET /api/v1/nodes`
pub async fn list(State(app): State<Arc<App>>, mut params: Params) -> Result<Response, ApiError> {
    let after = params.one("after")?;
    let limit = params.limit(10_000, 10_000)? as usize;
    params.done()?;
    let records = {
        let registry = Arc::clone(&app.registry);
        blocking(move || registry.nodes()).await?
    };
    let mut nodes: BTreeMap<String, (Option<NodeRecord>, Option<NodeStatus>)> =
        records.into_iter().map(|record| (record.name.clone(), (Some(record), None))).collect();
    for status in app.ingest.nodes() {
        let name = status.node.to_string();
        nodes.entry(name).or_default().1 = Some(status);
    }
    let mut page: Vec<_> = nodes
        .into_iter()
        .filter(|(name, _)| after.as_ref().is_none_or(|after| name > after))
        .take(limit + 1)
        .collect();
    let more = page.len() > limit;
    page.truncate(limit);
    let next = page.last().filter(|_| more).map(|(name, _)| name.clone());
    let page: Vec<Value> =
        page.into_iter().map(|(name, (record, status))| join(&name, record, status)).collect();
    Ok(Json(json!({ "nodes": page, "next_after": next })).into_response())
}

/// `GET /api/v1/nodes/{node}`
pub async fn show(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response, ApiError> {
    let node = node_id(&name)?;
    let (record, status) = known(&app, &node).await?;
    Ok(Json(join(&name, record, status)).into_response())
}

/// `POST /api/v1/nodes/{node}/revoke`: cuts its streams and voids all its certificates, for good.
pub async fn revoke(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let node = node_id(&name)?;
    // With a CA of the operator's a name can be shut out before it is ever seen.
    if matches!(app.mode, Mode::Picket { .. }) {
        known(&app, &node).await?;
    }
    let registry = Arc::clone(&app.registry);
    let by = Arc::clone(&caller.name);
    let revoked = node.clone();
    blocking(move || registry.revoke(&revoked, &by)).await?;
    app.store.forget(&node);
    tracing::warn!(%node, by = %caller.name, "revoked a node");
    let advice = match app.mode {
        Mode::Picket { .. } => "to let it in again, make a new enrolment token",
        Mode::Own => "to let it in again with a new certificate, POST to …/readmit",
    };
    Ok(Json(json!({ "revoked": node, "advice": advice })).into_response())
}

/// `POST /api/v1/nodes/{node}/readmit`: with a CA of the operator's, lets a revoked node in again.
pub async fn readmit(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let node = node_id(&name)?;
    if matches!(app.mode, Mode::Picket { .. }) {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "a revoked node comes back by a new enrolment token",
        )
        .advice(format!("picket token create --node {node}")));
    }
    let registry = Arc::clone(&app.registry);
    let readmitted = node.clone();
    if !blocking(move || registry.readmit(&readmitted)).await? {
        return Err(ApiError::not_found(format!("the node {node} is not revoked")));
    }
    tracing::warn!(%node, by = %caller.name, "readmitted a node");
    Ok(Json(json!({ "readmitted": node, "advice": "certificates made before its revocation stay refused" }))
        .into_response())
}

/// `GET /api/v1/nodes/{node}/scenario[?plugin=ID]`: the settings of a controllable plugin, as the node tells them.
pub async fn get_scenario(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    mut params: Params,
) -> Result<Response, ApiError> {
    let node = node_id(&name)?;
    let plugin = params.one("plugin")?.unwrap_or_default();
    params.done()?;
    command(&app, &node, v1::command::Command::ControlGet(v1::ControlGet { plugin })).await
}

/// `PUT /api/v1/nodes/{node}/scenario[?plugin=ID]`: changes them; 400 lists what is allowed and changes nothing.
pub async fn put_scenario(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    mut params: Params,
    JsonBody(settings): JsonBody<Box<RawValue>>,
) -> Result<Response, ApiError> {
    let node = node_id(&name)?;
    let plugin = params.one("plugin")?.unwrap_or_default();
    params.done()?;
    let set = v1::ControlSet { plugin, settings_json: settings.get().to_owned() };
    let response = command(&app, &node, v1::command::Command::ControlSet(set)).await?;
    tracing::info!(%node, by = %caller.name, settings = settings.get(), "changed a node's scenario");
    Ok(response)
}

async fn command(app: &Arc<App>, node: &NodeId, command: v1::command::Command) -> Result<Response, ApiError> {
    known(app, node).await?;
    match app.ingest.command(node, command).await {
        Ok(v1::command_result::Result::Json(json)) => {
            // A node's words, so they are checked before they are passed on as JSON.
            let json: Box<RawValue> = serde_json::from_str(&json).map_err(|error| {
                ApiError::new(StatusCode::BAD_GATEWAY, format!("the node's answer is not JSON: {error}"))
            })?;
            Ok(([(header::CONTENT_TYPE, "application/json")], json.get().to_owned()).into_response())
        }
        Ok(v1::command_result::Result::Refused(refused)) => {
            Err(ApiError::bad_request("the node refused these settings; nothing was changed")
                .allowed(refused.lines))
        }
        Ok(v1::command_result::Result::Error(error)) => Err(ApiError::new(StatusCode::BAD_GATEWAY, error)),
        Err(error) => {
            let status = match &error {
                CommandError::NotConnected(_) | CommandError::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
                CommandError::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
                CommandError::Disconnected(_) | CommandError::Empty(_) => StatusCode::BAD_GATEWAY,
            };
            Err(ApiError::new(status, error.to_string()).advice("see `picket nodes` for which are up"))
        }
    }
}

/// The node by all that is known of it; 404 where that is nothing.
async fn known(app: &Arc<App>, node: &NodeId) -> Result<(Option<NodeRecord>, Option<NodeStatus>), ApiError> {
    let registry = Arc::clone(&app.registry);
    let name = node.clone();
    let record = blocking(move || registry.node(name.as_str())).await?;
    let status = app.ingest.node(node.as_str());
    if record.is_none() && status.is_none() {
        return Err(ApiError::not_found(format!("there is no node {node}")).advice("see `picket nodes`"));
    }
    Ok((record, status))
}

/// A node as JSON, from the registry (who it is) and from ingest (what it sent and says of itself). `state` is `up`;
/// `stale` (connected, but nothing came for a while); `down` (no stream); `revoked`; `never` (not seen yet).
fn join(name: &str, record: Option<NodeRecord>, status: Option<NodeStatus>) -> Value {
    let revoked_ms = record.as_ref().and_then(|r| r.revoked_ms);
    let state = match (&status, revoked_ms) {
        (_, Some(_)) => "revoked",
        (Some(s), None) if s.up => "up",
        (Some(s), None) if s.connected => "stale",
        (Some(s), None) if s.last_batch_ms.is_some() => "down",
        _ => "never",
    };
    let mut node = match serde_json::to_value(status) {
        Ok(Value::Object(node)) => node,
        _ => Map::from_iter([
            ("up".to_owned(), json!(false)),
            ("connected".to_owned(), json!(false)),
            ("series".to_owned(), json!(0)),
            ("samples_total".to_owned(), json!(0)),
        ]),
    };
    let record = record.as_ref();
    node.extend([
        ("node".to_owned(), json!(name)),
        ("state".to_owned(), json!(state)),
        ("enrolled_ms".to_owned(), json!(record.and_then(|r| r.enrolled_ms))),
        ("certificate_expires_ms".to_owned(), json!(record.and_then(|r| r.certificate_expires_ms))),
        ("revoked_ms".to_owned(), json!(revoked_ms)),
        ("revoked_by".to_owned(), json!(record.and_then(|r| r.revoked_by.as_deref()))),
    ]);
    Value::Object(node)
}
