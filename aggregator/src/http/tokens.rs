//! `/api/v1/tokens`: enrolment tokens for nodes, API tokens for people and programs.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use picket_proto::model::NodePattern;
use serde::Deserialize;
use serde_json::json;

use super::App;
use super::auth::Caller;
use super::body::JsonBody;
use super::error::{ApiError, blocking};
use crate::identity::{AccessError, EnrolmentText, Mode, Role};

const DEFAULT_ENROLMENT_LIFE: Duration = Duration::from_secs(3600);
const MAX_ENROLMENT_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// So many nodes may enrol with one token.
const MOST_USES: u32 = 10_000;

/// `node`, or `nodes` and `count` (an enrolment token), or `role` and `name` (an API token).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    node: Option<String>,
    /// A pattern of names, in which `*` stands for any characters.
    nodes: Option<String>,
    /// How many nodes may enrol.
    count: Option<u32>,
    role: Option<String>,
    name: Option<String>,
    /// `1h`, `30d`; an API token without one lasts until it is revoked.
    ttl: Option<String>,
}

/// `POST /api/v1/tokens`
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    JsonBody(wish): JsonBody<NewToken>,
) -> Result<Response, ApiError> {
    let life = wish
        .ttl
        .map(|text| {
            humantime::parse_duration(&text).ok().filter(|life| !life.is_zero()).ok_or_else(|| {
                ApiError::bad_request(format!("ttl {text:?} is no duration")).advice("write 30m, 1h, 7d")
            })
        })
        .transpose()?;
    match (wish.node, wish.nodes.zip(wish.count), wish.role, wish.name) {
        (Some(node), None, None, None) if wish.count.is_none() => {
            if node.contains('*') {
                return Err(ApiError::bad_request(format!("{node:?} is a pattern, not a node's name"))
                    .advice(r#"send {"nodes": "PATTERN", "count": N}"#));
            }
            enrolment(&app, &caller, &node, 1, life).await
        }
        (None, Some((nodes, uses)), None, None) => {
            if !(1..=MOST_USES).contains(&uses) {
                return Err(ApiError::bad_request(format!("count is 1 to {MOST_USES}, not {uses}")));
            }
            enrolment(&app, &caller, &nodes, uses, life).await
        }
        (None, None, Some(role), Some(name)) => api(&app, &caller, &role, name, life).await,
        _ => Err(ApiError::bad_request("a token is either for nodes or for the API").advice(
            r#"send {"node": "NAME", "ttl": "1h"}, {"nodes": "gpu-*", "count": 64} or {"role": "viewer", "name": "NAME"}"#,
        )),
    }
}

/// `GET /api/v1/tokens`
pub async fn list(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let now = app.clock.now_ms();
    let (api, enrolment) = blocking(move || -> Result<_, crate::identity::RegistryError> {
        Ok((app.access.list()?, app.registry.enrolment_tokens()?))
    })
    .await?;
    let enrolment: Vec<_> = enrolment
        .into_iter()
        .map(|token| {
            let state = match &token {
                t if t.used_ms.is_some() => "used",
                t if t.voided_ms.is_some() => "withdrawn",
                t if t.expires_ms <= now => "expired",
                _ => "open",
            };
            json!({
                "id": token.id, "node": token.node, "state": state, "created_ms": token.created_ms,
                "created_by": token.created_by, "expires_ms": token.expires_ms, "used_ms": token.used_ms,
                "count": token.uses, "used": token.used,
            })
        })
        .collect();
    Ok(Json(json!({ "api": api, "enrolment": enrolment })).into_response())
}

/// `DELETE /api/v1/tokens/{id}`: the id of either kind, or an API token's name.
pub async fn revoke(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let wanted = id.clone();
    let gone = blocking(move || -> Result<_, crate::identity::RegistryError> {
        Ok(app.access.revoke(&wanted)? || app.registry.withdraw_enrolment(&wanted)?)
    })
    .await?;
    if !gone {
        return Err(
            ApiError::not_found(format!("there is no usable token {id:?}")).advice("see `picket token ls`")
        );
    }
    tracing::info!(token = id, by = %caller.name, "revoked a token");
    Ok(Json(json!({ "revoked": id })).into_response())
}

async fn enrolment(
    app: &Arc<App>,
    caller: &Caller,
    nodes: &str,
    uses: u32,
    life: Option<Duration>,
) -> Result<Response, ApiError> {
    let Mode::Picket { authority, .. } = &app.mode else {
        return Err(ApiError::new(StatusCode::CONFLICT, "this aggregator does not enrol nodes")
            .advice("its operator brings a CA: give the node a certificate of that CA"));
    };
    let nodes = NodePattern::new(nodes).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let life = life.unwrap_or(DEFAULT_ENROLMENT_LIFE);
    if life > MAX_ENROLMENT_LIFE {
        return Err(ApiError::bad_request("an enrolment token lives 30 days at most"));
    }
    let registry = Arc::clone(&app.registry);
    let by = Arc::clone(&caller.name);
    let token = blocking(move || registry.create_enrolment(&nodes, uses, life, &by)).await?;
    let pin = authority.fingerprint();
    let text = EnrolmentText {
        addresses: &app.advertised,
        node: token.nodes.as_str(),
        pin: &pin,
        secret: &token.secret,
    }
    .encode()
    .map_err(|error| ApiError::internal(&error))?;
    tracing::info!(node = %token.nodes, uses, id = token.id, by = %caller.name, "made an enrolment token");
    let body = json!({
        "id": token.id, "kind": "enrolment", "node": token.nodes, "count": uses, "token": text,
        "expires_ms": token.expires_ms,
    });
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

async fn api(
    app: &Arc<App>,
    caller: &Caller,
    role: &str,
    name: String,
    life: Option<Duration>,
) -> Result<Response, ApiError> {
    let role: Role = role.parse().map_err(|error: AccessError| ApiError::bad_request(error.to_string()))?;
    let access = Arc::clone(&app.access);
    let by = Arc::clone(&caller.name);
    let made = tokio::task::spawn_blocking(move || access.create(&name, role, life, &by))
        .await
        .map_err(|error| ApiError::internal(&error))?;
    let made = made.map_err(|error| match &error {
        AccessError::NameTaken { .. } => ApiError::new(StatusCode::CONFLICT, error.to_string()),
        AccessError::Name | AccessError::Role { .. } => ApiError::bad_request(error.to_string()),
        AccessError::Registry(_) => ApiError::internal(&error),
    })?;
    let token = made.token;
    tracing::info!(name = token.name, %role, id = token.id, by = %caller.name, "made an API token");
    let body = json!({
        "id": token.id, "kind": "api", "name": token.name, "role": token.role, "token": made.text,
        "expires_ms": token.expires_ms,
    });
    Ok((StatusCode::CREATED, Json(body)).into_response())
}
