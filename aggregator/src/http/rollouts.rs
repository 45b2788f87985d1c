//! `/api/v1/rollouts`: begin, look, pause, go on, roll back.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::auth::Caller;
use super::body::{JsonBody, Params};
use super::error::ApiError;
use super::{App, Routes};
use crate::identity::Role;
use crate::rollout::{RolloutError, Wish};

pub(super) fn routes(routes: Routes) -> Routes {
    use Role::{Admin, Operator, Viewer};
    // What brings code to nodes is an admin's; what stops it is anybody's who operates.
    routes
        .add(Viewer, Method::GET, "/api/v1/rollouts", list)
        .add(Admin, Method::POST, "/api/v1/rollouts", start)
        .add(Viewer, Method::GET, "/api/v1/rollouts/{id}", show)
        .add(Operator, Method::POST, "/api/v1/rollouts/{id}/pause", pause)
        .add(Admin, Method::POST, "/api/v1/rollouts/{id}/resume", resume)
        .add(Operator, Method::POST, "/api/v1/rollouts/{id}/rollback", roll_back)
}

/// `GET /api/v1/rollouts[?plugin=ID]`, newest first.
async fn list(State(app): State<Arc<App>>, mut params: Params) -> Result<Response, ApiError> {
    let plugin = params.one("plugin")?;
    params.done()?;
    let list: Vec<Value> = app.rollouts.list(plugin.as_deref()).iter().map(|r| r.json(false)).collect();
    Ok(Json(json!({ "rollouts": list })).into_response())
}

/// `POST /api/v1/rollouts`: pulls, verifies, and begins.
async fn start(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    JsonBody(wish): JsonBody<Wish>,
) -> Result<Response, ApiError> {
    let rollout = app.rollouts.start(caller.asker(), wish).await.map_err(error)?;
    Ok((StatusCode::CREATED, Json(rollout.json(true))).into_response())
}

/// `GET /api/v1/rollouts/{id}`: with its nodes.
async fn show(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    Ok(Json(app.rollouts.get(&id).map_err(error)?.json(true)).into_response())
}

/// `POST /api/v1/rollouts/{id}/pause[?reason=TEXT]`
async fn pause(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    mut params: Params,
) -> Result<Response, ApiError> {
    let reason = params.one("reason")?.unwrap_or_default();
    params.done()?;
    if reason.chars().count() > 500 {
        return Err(ApiError::bad_request("a reason has 500 characters at most"));
    }
    let rollout = app.rollouts.pause(caller.asker(), &id, &reason).await.map_err(error)?;
    Ok(Json(rollout.json(true)).into_response())
}

/// `POST /api/v1/rollouts/{id}/resume`
async fn resume(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let rollout = app.rollouts.resume(caller.asker(), &id).await.map_err(error)?;
    Ok(Json(rollout.json(true)).into_response())
}

/// `POST /api/v1/rollouts/{id}/rollback`
async fn roll_back(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let rollout = app.rollouts.roll_back(caller.asker(), &id).await.map_err(error)?;
    Ok((StatusCode::ACCEPTED, Json(rollout.json(true))).into_response())
}

fn error(error: RolloutError) -> ApiError {
    let message = error.to_string();
    match &error {
        RolloutError::Unknown(_) => ApiError::not_found(message).advice("see `picket plugin status`"),
        RolloutError::Plan(_)
        | RolloutError::Time { .. }
        | RolloutError::Name(_)
        | RolloutError::NoRegistry(_) => ApiError::bad_request(message),
        RolloutError::Registry(picket_registry::RegistryError::Reference { .. }) => {
            ApiError::bad_request(message)
        }
        RolloutError::Registry(_) => ApiError::new(StatusCode::BAD_GATEWAY, message),
        RolloutError::Slow => ApiError::new(StatusCode::GATEWAY_TIMEOUT, message),
        RolloutError::Untrusted { .. } => ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, message),
        RolloutError::Busy { .. }
        | RolloutError::NoNode(_)
        | RolloutError::TooMany(_)
        | RolloutError::RevokedFormer(_)
        | RolloutError::Policy(_)
        | RolloutError::Artifact(crate::rollout::ArtifactError::Full { .. }) => {
            ApiError::new(StatusCode::CONFLICT, message)
        }
        RolloutError::Artifact(_)
        | RolloutError::Audit(_)
        | RolloutError::Store(_)
        | RolloutError::Lost(_) => ApiError::internal(&error),
    }
}
