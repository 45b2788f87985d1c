//! Documents that are put together from the fleet's series: `/api/v1/containers` and `/api/v1/models`.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use picket_proto::documents::{self, Reading};
use serde_json::json;

use super::App;
use super::body::{Params, node_id};
use super::error::{ApiError, blocking};
use crate::store::Selector;

/// The most series that are looked at for one document.
const MAX_SERIES: usize = 1_000_000;

/// `GET /api/v1/containers?node=NAME`: the servers of models.
pub async fn containers(State(app): State<Arc<App>>, mut params: Params) -> Result<Response, ApiError> {
    let node = params.one("node")?.map(|name| node_id(&name)).transpose()?;
    params.done()?;
    let now_ms = app.clock.now_ms();
    let readings =
        readings(&app, &documents::CONTAINER_SERIES, node.as_ref().map(|n| n.as_str().to_owned())).await?;
    let list = documents::containers(&readings, now_ms as f64 / 1000.0);
    Ok(Json(json!({ "containers": list })).into_response())
}

/// `GET /api/v1/models?node=NAME`: the models that can be asked.
pub async fn models(State(app): State<Arc<App>>, mut params: Params) -> Result<Response, ApiError> {
    let node = params.one("node")?.map(|name| node_id(&name)).transpose()?;
    params.done()?;
    let readings =
        readings(&app, &documents::MODEL_SERIES, node.as_ref().map(|n| n.as_str().to_owned())).await?;
    Ok(Json(json!({ "models": documents::models(&readings) })).into_response())
}

/// The latest values of these families, of one node or of all.
pub(super) async fn readings(
    app: &Arc<App>,
    names: &'static [&'static str],
    node: Option<String>,
) -> Result<Vec<Reading>, ApiError> {
    let selectors: Vec<Selector> = names
        .iter()
        .map(|name| match &node {
            Some(node) => Selector::name(*name).and("instance", node.clone()),
            None => Selector::name(*name),
        })
        .collect();
    let (store, now_ms) = (Arc::clone(&app.store), app.clock.now_ms());
    let found = blocking(move || Ok::<_, Infallible>(store.series(&selectors, MAX_SERIES, now_ms))).await?;
    Ok(found
        .into_iter()
        .map(|series| Reading {
            node: Some(series.node.as_str().to_owned()),
            name: series.name,
            labels: series.labels,
            value: series.value,
        })
        .collect())
}
