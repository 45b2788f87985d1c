//! The HTTP API: metrics for Prometheus, JSON for people and programs. Everything, `/healthz` included, answers 401
//! without a good token; each route says which role it needs at least.

mod actions;
mod auth;
mod body;
mod data;
mod documents;
mod error;
mod grants;
mod logs;
mod nodes;
mod rollouts;
mod status;
mod tokens;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{MethodFilter, on};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Semaphore;

pub use auth::{Caller, Door};
pub use error::ApiError;
pub use logs::Logs;

use crate::actions::Actions;
use crate::clock::Clock;
use crate::events::Events;
use crate::identity::{Access, Mode, Registry, Role};
use crate::ingest::UplinkService;
use crate::limiter::FailureLimiter;
use crate::log::Log;
use crate::rollout::Rollouts;
use crate::store::Store;
use crate::transport::{Gate, ServerCertificate};

/// The largest request body, in bytes.
const MAX_BODY: usize = 256 * 1024;

/// What the handlers work on.
pub struct App {
    pub registry: Arc<Registry>,
    pub access: Arc<Access>,
    pub limiter: Arc<FailureLimiter>,
    pub store: Arc<Store>,
    pub log: Arc<Log>,
    pub ingest: UplinkService,
    pub events: Arc<Events>,
    pub logs: Logs,
    pub actions: Arc<Actions>,
    pub rollouts: Arc<Rollouts>,
    pub mode: Mode,
    /// `host:port`s for enrolment tokens.
    pub advertised: Vec<String>,
    /// The aggregator's own metrics.
    pub metrics: PrometheusHandle,
    pub uplink_gate: Arc<Gate>,
    pub http_gate: Arc<Gate>,
    pub certificate: Arc<ServerCertificate>,
    pub clock: Clock,
    pub started_ms: i64,
    /// Permits for exports.
    pub exports: Arc<Semaphore>,
    /// Set while the aggregator serves; unset from the beginning of its stop.
    pub ready: AtomicBool,
}

impl App {
    /// The permits that [`App::exports`] begins with.
    pub fn export_permits() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(data::EXPORTS))
    }

    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }
}

/// A route as it was registered.
#[derive(Debug, Clone)]
pub struct Route {
    pub method: Method,
    pub path: &'static str,
    /// The least role that may call it.
    pub role: Role,
}

/// The API's router and the table of its routes.
pub fn router(app: Arc<App>) -> (Router, Vec<Route>) {
    use Role::{Admin, Operator, Viewer};
    let door = Door { access: Arc::clone(&app.access), limiter: Arc::clone(&app.limiter) };
    let api = Routes::default()
        .add(Viewer, Method::GET, "/metrics", data::metrics)
        .add(Viewer, Method::GET, "/metrics/self", status::own_metrics)
        .add(Viewer, Method::GET, "/healthz", status::healthy)
        .add(Viewer, Method::GET, "/readyz", status::ready)
        .add(Viewer, Method::GET, "/api/v1/status", status::status)
        .add(Viewer, Method::GET, "/api/v1/nodes", nodes::list)
        .add(Viewer, Method::GET, "/api/v1/nodes/{node}", nodes::show)
        .add(Admin, Method::POST, "/api/v1/nodes/{node}/revoke", nodes::revoke)
        .add(Admin, Method::POST, "/api/v1/nodes/{node}/readmit", nodes::readmit)
        .add(Viewer, Method::GET, "/api/v1/nodes/{node}/scenario", nodes::get_scenario)
        .add(Operator, Method::PUT, "/api/v1/nodes/{node}/scenario", nodes::put_scenario)
        .add(Viewer, Method::GET, "/api/v1/grants", grants::list)
        .add(Viewer, Method::GET, "/api/v1/containers", documents::containers)
        .add(Viewer, Method::GET, "/api/v1/models", documents::models)
        .add(Viewer, Method::GET, "/api/v1/series", data::series)
        .add(Viewer, Method::GET, "/api/v1/events", data::events)
        .add(Viewer, Method::GET, "/api/v1/export", data::export)
        .add(Admin, Method::GET, "/api/v1/tokens", tokens::list)
        .add(Admin, Method::POST, "/api/v1/tokens", tokens::create)
        .add(Admin, Method::DELETE, "/api/v1/tokens/{id}", tokens::revoke);
    let api = rollouts::routes(actions::routes(logs::routes(api)));
    let router = api
        .router
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(door, auth::authenticate))
        .with_state(app);
    (router, api.table)
}

#[derive(Default)]
struct Routes {
    router: Router<Arc<App>>,
    table: Vec<Route>,
}

impl Routes {
    fn add<H, T>(mut self, role: Role, method: Method, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        // All methods of the table have a filter.
        let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::GET);
        let guarded = on(filter, handler).layer(middleware::from_fn(observe)).layer(middleware::from_fn(
            move |request: Request, next: Next| auth::require(role, request, next),
        ));
        self.router = self.router.route(path, guarded);
        self.table.push(Route { method, path, role });
        self
    }
}

/// Counts and times a request by its route.
async fn observe(request: Request, next: Next) -> Response {
    let route =
        request.extensions().get::<MatchedPath>().map_or_else(String::new, |path| path.as_str().to_owned());
    let method = request.method().to_string();
    let begun = Instant::now();
    let response = next.run(request).await;
    let status = response.status().as_u16().to_string();
    metrics::histogram!("picket_aggregator_http_request_duration_seconds", "route" => route.clone())
        .record(begun.elapsed().as_secs_f64());
    metrics::counter!("picket_aggregator_http_requests_total", "route" => route, "method" => method, "status" => status)
        .increment(1);
    response
}

async fn unknown_path(request: Request) -> ApiError {
    let path: String = request.uri().path().chars().take(200).collect();
    ApiError::not_found(format!("there is nothing at {path}"))
        .advice("the API begins at /api/v1; metrics are at /metrics")
}

async fn unknown_method(request: Request) -> ApiError {
    ApiError::new(
        axum::http::StatusCode::METHOD_NOT_ALLOWED,
        format!("{} is not possible here", request.method()),
    )
}
