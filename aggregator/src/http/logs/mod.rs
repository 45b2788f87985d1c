//! Loki's HTTP API over the log store, so that what speaks to Loki (Grafana, logcli, promtail, Alloy) speaks to this. Paths,
//! parameters, answers and errors are Loki's; who may call is decided as everywhere here. `X-Scope-OrgID` is ignored: there is
//! one tenant.
//!
//! Queries run off the async threads, a few at a time, within a budget, and end when whoever asked has gone.

mod answer;
mod params;
mod push;
mod query;
mod tail;
mod viewer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{Role, Routes};
use crate::config;
use crate::logs::LogStore;
use crate::logs::logql::ParseError;
use crate::logs::query::{Budget, QueryError};
use axum::http::Method;

/// Queries at one time; each holds a thread.
const QUERIES: usize = 4;
/// How long one waits for its turn.
const TURN: Duration = Duration::from_secs(10);
/// Pushes at one time; each holds its body in memory.
const PUSHES: usize = 8;
/// Live tails at one time.
const TAILS: usize = 64;

/// The log store and what its callers share.
pub struct Logs {
    pub store: Arc<LogStore>,
    query_timeout: Duration,
    query_max_bytes: u64,
    queries: Arc<Semaphore>,
    pushes: Arc<Semaphore>,
    tails: Arc<Semaphore>,
    stopping: CancellationToken,
}

impl Logs {
    pub fn new(store: Arc<LogStore>, options: &config::Logs) -> Self {
        Self {
            store,
            query_timeout: options.query_timeout,
            query_max_bytes: options.query_max_bytes.as_u64(),
            queries: Arc::new(Semaphore::new(QUERIES)),
            pushes: Arc::new(Semaphore::new(PUSHES)),
            tails: Arc::new(Semaphore::new(TAILS)),
            stopping: CancellationToken::new(),
        }
    }

    /// Ends the live tails: they would hold their connections for ever.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Runs a query on the store, within its budget.
    async fn ask<T: Send + 'static>(
        &self,
        kind: &'static str,
        work: impl FnOnce(&LogStore, &Budget) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, LokiError> {
        let turn = tokio::time::timeout(TURN, Arc::clone(&self.queries).acquire_owned()).await;
        let Ok(Ok(permit)) = turn else {
            return Err(LokiError::new(StatusCode::TOO_MANY_REQUESTS, "too many outstanding requests"));
        };
        let budget = Budget::new(self.query_timeout, self.query_max_bytes);
        let _cancel = Cancel(budget.cancelled());
        let store = Arc::clone(&self.store);
        let began = Instant::now();
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&store, &budget)
        });
        let result = done.await.map_err(|error| {
            tracing::error!(%error, "a log query failed");
            LokiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the aggregator failed to answer; its log says why",
            )
        })?;
        metrics::histogram!("picket_aggregator_log_query_duration_seconds", "kind" => kind)
            .record(began.elapsed().as_secs_f64());
        Ok(result?)
    }
}

/// Ends a query when the request that asked is dropped.
struct Cancel(Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The routes of Loki's API, and the last lines of a container.
pub(super) fn routes(routes: Routes) -> Routes {
    use Role::{Operator, Viewer};
    routes
        .add(Viewer, Method::GET, "/loki/api/v1/query_range", query::range)
        .add(Viewer, Method::POST, "/loki/api/v1/query_range", query::range)
        .add(Viewer, Method::GET, "/loki/api/v1/query", query::instant)
        .add(Viewer, Method::POST, "/loki/api/v1/query", query::instant)
        .add(Viewer, Method::GET, "/loki/api/v1/labels", query::labels)
        .add(Viewer, Method::POST, "/loki/api/v1/labels", query::labels)
        .add(Viewer, Method::GET, "/loki/api/v1/label/{name}/values", query::values)
        .add(Viewer, Method::POST, "/loki/api/v1/label/{name}/values", query::values)
        .add(Viewer, Method::GET, "/loki/api/v1/series", query::series)
        .add(Viewer, Method::POST, "/loki/api/v1/series", query::series)
        .add(Viewer, Method::GET, "/loki/api/v1/index/stats", query::stats)
        .add(Viewer, Method::GET, "/loki/api/v1/tail", tail::tail)
        .add(Operator, Method::POST, "/loki/api/v1/push", push::push)
        .add(Viewer, Method::GET, "/api/v1/containers/{container}/logs", viewer::logs)
}

/// An error as Loki says it: a status and a text.
#[derive(Debug)]
pub struct LokiError {
    status: StatusCode,
    text: String,
}

impl LokiError {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    fn bad(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }
}

impl From<ParseError> for LokiError {
    fn from(error: ParseError) -> Self {
        Self::bad(error.to_string())
    }
}

impl From<QueryError> for LokiError {
    fn from(error: QueryError) -> Self {
        let status = match error {
            QueryError::TooLong(_) => StatusCode::GATEWAY_TIMEOUT,
            // Nobody is there to read it.
            QueryError::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }
}

impl IntoResponse for LokiError {
    fn into_response(self) -> Response {
        let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
        let mut text = self.text;
        if !text.ends_with('\n') {
            text.push('\n');
        }
        (self.status, kind, text).into_response()
    }
}
