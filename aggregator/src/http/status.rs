//! How the aggregator itself is.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::App;
use super::error::{ApiError, blocking};
use crate::identity::Mode;

/// `GET /healthz`: the process answers.
pub async fn healthy() -> Json<serde_json::Value> {
    Json(json!({ "status": "ok" }))
}

/// `GET /readyz`: agents and scrapes are served.
pub async fn ready(State(app): State<Arc<App>>) -> Response {
    if app.is_ready() {
        return Json(json!({ "status": "ready" })).into_response();
    }
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "starting or stopping").into_response()
}

/// `GET /metrics/self`: the aggregator's own metrics.
pub async fn own_metrics(State(app): State<Arc<App>>) -> Response {
    refresh(&app);
    let text = app.metrics.render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// `GET /api/v1/status`
pub async fn status(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let now = app.clock.now_ms();
    let nodes = app.store.nodes(now);
    let registry = Arc::clone(&app.registry);
    let known = blocking(move || registry.nodes()).await?;
    let (pending, trusted) = app.uplink_gate.counts();
    let (mode, fingerprint) = match &app.mode {
        Mode::Picket { authority, .. } => ("picket", Some(authority.fingerprint())),
        Mode::Own => ("own", None),
    };
    Ok(Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "ready": app.is_ready(),
        "now_ms": now,
        "started_ms": app.started_ms,
        "certificate_authority": { "mode": mode, "fingerprint": fingerprint },
        "server_certificate_expires_ms": app.certificate.expires().map(|s| s * 1000),
        "advertised": app.advertised,
        "nodes": {
            "known": nodes.len(),
            "up": nodes.iter().filter(|n| n.up).count(),
            "connected": nodes.iter().filter(|n| n.connected).count(),
            "revoked": known.iter().filter(|n| n.revoked_ms.is_some()).count(),
        },
        "series": nodes.iter().map(|n| n.series).sum::<usize>(),
        "samples_total": nodes.iter().map(|n| n.samples).sum::<u64>(),
        "log": app.log.status(),
        "logs": app.logs.store.status(),
        "connections": { "pending": pending, "trusted": trusted },
    }))
    .into_response())
}

/// Gauges that are looked up rather than kept.
fn refresh(app: &App) {
    for (port, gate) in [("uplink", &app.uplink_gate), ("http", &app.http_gate)] {
        let (pending, trusted) = gate.counts();
        metrics::gauge!("picket_aggregator_connections", "port" => port, "state" => "pending")
            .set(pending as f64);
        metrics::gauge!("picket_aggregator_connections", "port" => port, "state" => "trusted")
            .set(trusted as f64);
    }
    if let Some(seconds) = app.certificate.expires() {
        metrics::gauge!("picket_certificate_expiry_timestamp_seconds", "kind" => "server")
            .set(seconds as f64);
    }
    metrics::gauge!("picket_aggregator_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}
