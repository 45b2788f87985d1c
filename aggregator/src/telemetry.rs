//! The aggregator's talk about itself: logs and its own metrics.

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::{Log, LogFormat, under_journald};

/// Changes the log level while the aggregator runs.
#[derive(Clone)]
pub struct LogLevel(reload::Handle<Targets, Registry>);

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("log.level {level:?} is no log filter: {source}")]
    Level { level: String, source: tracing_subscriber::filter::ParseError },
    #[error("cannot log to the journal: {0}; set log.format to \"text\"")]
    Journal(std::io::Error),
    #[error("logging or metrics were set up twice: {0}")]
    Twice(String),
}

impl LogLevel {
    /// Logs by this filter from now on.
    pub fn set(&self, level: &str) -> Result<(), TelemetryError> {
        self.0.reload(filter(level)?).map_err(|e| TelemetryError::Twice(e.to_string()))
    }
}

/// Starts logging to standard error or the journal, for the whole process.
pub fn logging(log: &Log) -> Result<LogLevel, TelemetryError> {
    let (filter, handle) = reload::Layer::new(filter(&log.level)?);
    let format = match log.format {
        LogFormat::Auto if under_journald() => LogFormat::Journald,
        LogFormat::Auto => LogFormat::Text,
        format => format,
    };
    let text = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let output: Box<dyn Layer<_> + Send + Sync> = match format {
        LogFormat::Json => text.json().boxed(),
        LogFormat::Journald => tracing_journald::layer().map_err(TelemetryError::Journal)?.boxed(),
        LogFormat::Text | LogFormat::Auto => text.with_ansi(false).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(output)
        .try_init()
        .map_err(|e| TelemetryError::Twice(e.to_string()))?;
    Ok(LogLevel(handle))
}

/// Installs the recorder of the aggregator's own metrics, for the whole process; the handle renders them.
pub fn metrics() -> Result<PrometheusHandle, TelemetryError> {
    let seconds = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &seconds)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|e| TelemetryError::Twice(e.to_string()))?;
    describe();
    crate::store::describe_metrics();
    crate::log::describe_metrics();
    crate::logs::describe_metrics();
    crate::ingest::describe_metrics();
    crate::rollout::describe_metrics();
    Ok(handle)
}

fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!("picket_aggregator_connections_total", "TCP connections accepted, by port.");
    describe_counter!(
        "picket_aggregator_connections_refused_total",
        "Connections that ended early, by port and reason."
    );
    describe_gauge!("picket_aggregator_connections", "Open connections, by port and state.");
    describe_counter!("picket_aggregator_certificates_issued_total", "Node certificates issued, by reason.");
    describe_counter!("picket_aggregator_enrolments_refused_total", "Enrolments refused, by reason.");
    describe_counter!("picket_aggregator_http_requests_total", "API requests, by route, method and status.");
    describe_histogram!(
        "picket_aggregator_http_request_duration_seconds",
        "Time to the response's head, by route."
    );
    describe_counter!("picket_aggregator_logins_refused_total", "API requests without a good token.");
    describe_counter!("picket_aggregator_events_total", "Events stored.");
    describe_gauge!(
        "picket_certificate_expiry_timestamp_seconds",
        "When the certificate ends, Unix time; `kind` says which."
    );
    describe_gauge!("picket_aggregator_build_info", "Always 1; the version is a label.");
}

fn filter(level: &str) -> Result<Targets, TelemetryError> {
    level.parse().map_err(|source| TelemetryError::Level { level: level.to_owned(), source })
}
