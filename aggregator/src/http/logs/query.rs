//! `/loki/api/v1/query_range`, `query`, `labels`, `label/{name}/values`, `series`, `index/stats`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;

use super::super::App;
use super::params::Params;
use super::{LokiError, answer};
use crate::logs::logql::{self, ast::Expr};
use crate::logs::query::{Grid, LogQuery};

fn now_ns(app: &App) -> i64 {
    app.clock.now_ms().saturating_mul(1_000_000)
}

pub async fn range(State(app): State<Arc<App>>, params: Params) -> Result<Response, LokiError> {
    let (start, end) = params.query_range(now_ns(&app))?;
    match logql::parse(params.query()?)? {
        Expr::Log(log) => {
            let query = LogQuery {
                log,
                from_ns: start,
                to_ns: end,
                direction: params.direction()?,
                limit: params.limit()?,
            };
            let (found, stats) = app
                .logs
                .ask("lines", move |store, budget| {
                    let found = store.lines(&query, budget)?;
                    let lines = found.streams.iter().map(|stream| stream.lines.len()).sum();
                    Ok((found, answer::stats(budget, lines)))
                })
                .await?;
            Ok(answer::lines(&found, stats))
        }
        Expr::Metric(expr) => {
            let grid = params.grid(start, end)?;
            let (found, stats) = app
                .logs
                .ask("metric", move |store, budget| {
                    let found = store.evaluate(&expr, grid, budget)?;
                    Ok((found, answer::stats(budget, 0)))
                })
                .await?;
            Ok(answer::matrix(&found, stats))
        }
    }
}

pub async fn instant(State(app): State<Arc<App>>, params: Params) -> Result<Response, LokiError> {
    let at = params.at(now_ns(&app))?;
    match logql::parse(params.query()?)? {
        Expr::Log(_) => Err(LokiError::bad(
            "log queries are not supported as an instant query type, please change your query to a range query type",
        )),
        Expr::Metric(expr) => {
            let (found, stats) = app
                .logs
                .ask("metric", move |store, budget| {
                    let found = store.evaluate(&expr, Grid::instant(at), budget)?;
                    Ok((found, answer::stats(budget, 0)))
                })
                .await?;
            Ok(answer::vector(&found, stats))
        }
    }
}

pub async fn labels(State(app): State<Arc<App>>, params: Params) -> Result<Response, LokiError> {
    let query = params.streams(now_ns(&app))?;
    let names = app.logs.ask("labels", move |store, budget| store.label_names(&query, budget)).await?;
    Ok(answer::success(names))
}

pub async fn values(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, LokiError> {
    let query = params.streams(now_ns(&app))?;
    let values =
        app.logs.ask("labels", move |store, budget| store.label_values(&name, &query, budget)).await?;
    Ok(answer::success(values))
}

pub async fn series(State(app): State<Arc<App>>, params: Params) -> Result<Response, LokiError> {
    let query = params.streams(now_ns(&app))?;
    let found = app.logs.ask("series", move |store, budget| store.series(&query, budget)).await?;
    let maps: Vec<std::collections::BTreeMap<&str, &str>> =
        found.iter().map(|labels| labels.iter().collect()).collect();
    Ok(answer::success(maps))
}

pub async fn stats(State(app): State<Arc<App>>, params: Params) -> Result<Response, LokiError> {
    params.query()?;
    let query = params.streams(now_ns(&app))?;
    let stats = app.logs.ask("stats", move |store, budget| store.stats(&query, budget)).await?;
    Ok(answer::bare(&stats))
}
