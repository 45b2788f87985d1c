//! The agent's metrics of itself: a built-in source named `picket-agent`, which goes the way of every plugin's samples,
//! to the local page and up to the aggregator.

use std::sync::Arc;
use std::time::Duration;

use picket_agent_host::{SampleSink, WORKER_REASONS};
use picket_agent_services::Services;
use picket_proto::model::{Family, Labels, MetricType, Part, PluginId};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::actions::Actions;
use crate::clock::Clock;
use crate::collector::{Collector, PluginSink};
use crate::conditions::Conditions;
use crate::config::OWN_ID;
use crate::health::{Health, Level};
use crate::lines::Lines;
use crate::schedule::{Lateness, PluginStatus, State, Stray, Ticker};
use crate::uplink;

const INTERVAL: Duration = Duration::from_secs(15);
/// The least time between two gathers.
const SETTLE: Duration = Duration::from_millis(500);

/// What the metrics are read from.
pub struct Own {
    pub clock: Arc<dyn Clock>,
    pub collector: Collector,
    pub health: Arc<Health>,
    pub node: String,
    pub started_ms: i64,
    pub conditions: Conditions,
    pub lines: Lines,
    pub services: Arc<Services>,
    pub actions: Actions,
}

impl Own {
    /// Gathers at once and then by the wall clock, like a plugin; in between when a plugin's state or the uplink changes, or an
    /// action begins or ends, so that trouble is known at once; and once more when it ends, so that the last word is not fifteen seconds old.
    pub async fn run(mut self, stop: CancellationToken) {
        let Ok(id) = PluginId::new(OWN_ID) else { return };
        let mut ticker = Ticker::new(INTERVAL, &self.node);
        let mut sink = self.collector.sink(id, 3 * INTERVAL);
        let mut board = self.health.board.subscribe();
        let mut actions = self.actions.telemetry().subscribe();
        loop {
            ticker.begin(self.clock.monotonic());
            self.gather(&mut sink);
            let lines = self.lines.clone();
            // Ends by itself; nobody waits for a disk here.
            drop(tokio::task::spawn_blocking(move || lines.save()));
            if stop.is_cancelled() {
                return;
            }
            let next = ticker.next(self.clock.wall_ms(), self.clock.monotonic());
            let at = Instant::now() + next.after;
            loop {
                let seen = self.seen();
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = sleep_until(at) => break,
                    changed = board.changed() => if changed.is_err() { break },
                    () = uplink_changed(self.health.uplink.as_deref()) => {}
                    // It ends with this.
                    _ = actions.changed() => {}
                }
                if self.seen() != seen || self.actions.telemetry().has_events() {
                    self.gather(&mut sink);
                    // A plugin that fails again and again is not to be heard of more often than this.
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = sleep_until(Instant::now() + SETTLE) => {}
                    }
                }
            }
        }
    }

    /// What a gather between the ticks is worth.
    fn seen(&self) -> (Vec<Turn>, bool) {
        let turn = |line: PluginStatus| Turn {
            id: line.id,
            state: line.state,
            digest: line.digest,
            refused: line.refused.map(|refused| refused.digest),
        };
        let plugins = self.health.board.all().into_iter().map(turn).collect();
        (plugins, self.health.uplink.as_ref().is_some_and(|uplink| uplink.connected()))
    }

    fn gather(&mut self, sink: &mut PluginSink) {
        sink.start(self.clock.wall_ms());
        // Declared anew each time: what is not declared again (a plugin that went) ends by itself.
        sink.begin(0);
        let mut page = Page { sink, family: 0, series: 0 };
        self.agent(&mut page);
        self.workers(&mut page);
        let plugins = self.health.board.all();
        plugin_metrics(&mut page, &plugins);
        self.errors(&mut page);
        self.spool(&mut page);
        self.logs(&mut page);
        self.uplink(&mut page);
        self.actions(&mut page);
        page.family(
            "picket_component_health",
            MetricType::Gauge,
            "1 for the state that a part of the agent is in.",
        );
        for part in self.health.components() {
            for level in Level::ALL {
                let value = f64::from(u8::from(level == part.state));
                page.sample(&[("component", &part.component), ("state", level.word())], value);
            }
        }
        let strays = self.health.board.strays().into_iter().filter(|stray| stray.refused);
        let all: Vec<PluginStatus> = plugins.iter().cloned().chain(strays.map(of_stray)).collect();
        let done = self.actions.telemetry().take_events();
        for event in self.conditions.turn(&all).into_iter().chain(done) {
            sink.event(event);
        }
        sink.commit(true);
    }

    fn agent(&self, page: &mut Page<'_>) {
        page.family("picket_agent_info", MetricType::Info, "The agent's version.");
        page.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        page.family(
            "picket_agent_start_time_seconds",
            MetricType::Gauge,
            "When the agent began, in seconds since the Unix epoch.",
        );
        page.sample(&[], self.started_ms as f64 / 1000.0);
        if let Some(usage) = usage("self") {
            page.family(
                "picket_agent_resident_memory_bytes",
                MetricType::Gauge,
                "Memory of the agent's process that is in RAM.",
            );
            page.sample(&[], usage.resident_bytes);
            page.family(
                "picket_agent_cpu_seconds_total",
                MetricType::Counter,
                "CPU time of the agent's process.",
            );
            page.sample(&[], usage.cpu_seconds);
            page.family("picket_agent_threads", MetricType::Gauge, "Threads of the agent's process.");
            page.sample(&[], usage.threads);
        }
    }

    /// The processes that plugins run in, and the wall around them.
    fn workers(&self, page: &mut Page<'_>) {
        let Some(workers) = &self.health.workers else { return };
        page.family(
            "picket_agent_wall",
            MetricType::Gauge,
            "1 where a part of the plugins' second wall stands, 0 where this node has not got it.",
        );
        for standing in workers.wall().parts {
            page.sample(&[("part", standing.part.word())], f64::from(u8::from(standing.up)));
        }
        let totals = workers.totals();
        page.family("picket_agent_workers", MetricType::Gauge, "Processes that plugins run in.");
        page.sample(&[], totals.running.len() as f64);
        page.family(
            "picket_agent_worker_starts_total",
            MetricType::Counter,
            "Such processes that were started.",
        );
        page.sample(&[], totals.started as f64);
        page.family(
            "picket_agent_worker_failures_total",
            MetricType::Counter,
            "Such processes that ended and were not to, by reason.",
        );
        for reason in WORKER_REASONS {
            let count = totals.ended.get(reason).copied().unwrap_or(0);
            page.sample(&[("reason", reason)], count as f64);
        }
        let used: Vec<Usage> =
            totals.running.iter().filter_map(|process| usage(&process.to_string())).collect();
        page.family(
            "picket_agent_worker_resident_memory_bytes",
            MetricType::Gauge,
            "Memory of the processes that plugins run in, all of them, that is in RAM.",
        );
        page.sample(&[], used.iter().map(|usage| usage.resident_bytes).sum());
    }

    /// What was done to the node on somebody's word; nothing where nothing was.
    fn actions(&self, page: &mut Page<'_>) {
        let figures = self.actions.telemetry().figures();
        if figures.running.is_empty() {
            return;
        }
        page.family("picket_action_running", MetricType::Gauge, "Actions that are under way.");
        for ((plugin, action), running) in &figures.running {
            page.sample(&[("plugin", plugin), ("action", action)], *running as f64);
        }
        page.family(
            "picket_action_executions_total",
            MetricType::Counter,
            "Actions and undoings that ended, by how they did.",
        );
        for (((plugin, action), outcome), count) in &figures.ended {
            page.sample(&[("plugin", plugin), ("action", action), ("outcome", outcome)], *count as f64);
        }
        page.family(
            "picket_action_last_duration_seconds",
            MetricType::Gauge,
            "From the word to the end, of the last one of each action.",
        );
        for ((plugin, action), seconds) in &figures.seconds {
            page.sample(&[("plugin", plugin), ("action", action)], *seconds);
        }
    }

    fn errors(&self, page: &mut Page<'_>) {
        let totals = self.collector.errors().totals();
        if totals.is_empty() {
            return;
        }
        page.family(
            "picket_source_errors_total",
            MetricType::Counter,
            "What a plugin could not read, or was refused, by reason.",
        );
        for (plugin, reason, total) in totals {
            page.sample(&[("plugin", plugin.as_str()), ("reason", &reason)], total as f64);
        }
    }

    fn spool(&self, page: &mut Page<'_>) {
        let Some(spool) = &self.health.spool else { return };
        let stats = spool.stats();
        let mut gauge = |name, help, value: f64| {
            page.family(name, MetricType::Gauge, help);
            page.sample(&[], value);
        };
        gauge("picket_spool_size_bytes", "Bytes in the spool.", stats.bytes as f64);
        gauge("picket_spool_segments", "Files of the spool.", stats.segments as f64);
        gauge(
            "picket_spool_records_pending",
            "Records that the aggregator has not acknowledged.",
            stats.records_pending as f64,
        );
        gauge(
            "picket_spool_durable",
            "1 where the spool outlives the agent, 0 where it is in memory.",
            f64::from(u8::from(stats.durable)),
        );
        if let Some(oldest) = stats.oldest_ms {
            gauge(
                "picket_spool_oldest_record_timestamp_seconds",
                "When the oldest record was appended, in seconds since the Unix epoch.",
                oldest as f64 / 1000.0,
            );
        }
        page.family("picket_spool_records_appended_total", MetricType::Counter, "Records appended.");
        page.sample(&[], stats.appended as f64);
        page.family("picket_spool_records_acknowledged_total", MetricType::Counter, "Records acknowledged.");
        page.sample(&[], stats.acked as f64);
        page.family(
            "picket_spool_records_lost_total",
            MetricType::Counter,
            "Records that were dropped before they were acknowledged, by reason.",
        );
        for reason in ["cap", "age", "corrupt", "write-error", "stall"] {
            if !stats.lost.contains_key(reason) {
                page.sample(&[("reason", reason)], 0.0);
            }
        }
        for (reason, lost) in &stats.lost {
            page.sample(&[("reason", reason)], *lost as f64);
        }
    }

    /// What was read of logs and what became of it; nothing where no plugin reads any.
    fn logs(&self, page: &mut Page<'_>) {
        let read = self.services.log_totals();
        let queue = self.lines.status();
        if read.is_empty() && queue.totals.is_empty() {
            return;
        }
        page.family(
            "picket_logs_read_bytes_total",
            MetricType::Counter,
            "Bytes of logs that were read and are done with.",
        );
        for (plugin, totals) in &read {
            page.sample(&[("plugin", plugin.as_str())], totals.bytes as f64);
        }
        page.family("picket_logs_files", MetricType::Gauge, "Log files that are followed.");
        for (plugin, totals) in &read {
            page.sample(&[("plugin", plugin.as_str())], totals.files as f64);
        }
        page.family(
            "picket_logs_lines_total",
            MetricType::Counter,
            "Lines that were queued for the aggregator.",
        );
        for (plugin, totals) in &queue.totals {
            page.sample(&[("plugin", plugin.as_str())], (totals.lines - totals.unsent) as f64);
        }
        page.family(
            "picket_logs_line_bytes_total",
            MetricType::Counter,
            "Bytes of the lines that were taken.",
        );
        for (plugin, totals) in &queue.totals {
            page.sample(&[("plugin", plugin.as_str())], totals.bytes as f64);
        }
        page.family(
            "picket_logs_lost_total",
            MetricType::Counter,
            "Times that log lines could not be read any more (by reason), and lines that an agent without an aggregator left.",
        );
        for (plugin, totals) in &read {
            for reason in ["deleted", "truncated", "long-line"] {
                let count = totals.lost.get(reason).copied().unwrap_or(0);
                page.sample(&[("plugin", plugin.as_str()), ("reason", reason)], count as f64);
            }
        }
        for (plugin, totals) in queue.totals.iter().filter(|(_, totals)| totals.unsent > 0) {
            page.sample(&[("plugin", plugin.as_str()), ("reason", "no-aggregator")], totals.unsent as f64);
        }
        let Some(stats) = queue.spool.map(|spool| spool.stats()) else { return };
        let mut gauge = |name, help, value: f64| {
            page.family(name, MetricType::Gauge, help);
            page.sample(&[], value);
        };
        gauge("picket_logs_spool_size_bytes", "Bytes in the queue of log lines.", stats.bytes as f64);
        gauge(
            "picket_logs_spool_records_pending",
            "Records of log lines that the aggregator has not acknowledged.",
            stats.records_pending as f64,
        );
        gauge(
            "picket_logs_spool_full",
            "1 while logs are not read because the queue is full.",
            f64::from(u8::from(queue.full)),
        );
        page.family(
            "picket_logs_spool_records_lost_total",
            MetricType::Counter,
            "Records of log lines that were dropped before they were acknowledged, by reason.",
        );
        for reason in ["cap", "age", "corrupt", "write-error", "stall"] {
            page.sample(&[("reason", reason)], stats.lost.get(reason).copied().unwrap_or(0) as f64);
        }
    }

    fn uplink(&self, page: &mut Page<'_>) {
        let Some(uplink) = &self.health.uplink else { return };
        page.family(
            "picket_agent_uplink_connected",
            MetricType::Gauge,
            "1 while a stream to the aggregator is open.",
        );
        page.sample(&[], f64::from(u8::from(uplink.connected())));
        page.family(
            "picket_agent_uplink_in_flight_batches",
            MetricType::Gauge,
            "Batches sent and not acknowledged yet.",
        );
        page.sample(&[], uplink.in_flight() as f64);
        let counters: [(&str, &str, u64); 9] = [
            (
                "picket_agent_uplink_reconnects_total",
                "Streams opened after the first one.",
                uplink.reconnects(),
            ),
            (
                "picket_agent_uplink_failures_total",
                "Attempts to connect that failed and streams that broke.",
                uplink.failures(),
            ),
            (
                "picket_agent_uplink_batches_sent_total",
                "Batches sent, those sent again included.",
                uplink.batches_sent(),
            ),
            (
                "picket_agent_uplink_sent_bytes_total",
                "Bytes sent to the aggregator, TLS included.",
                uplink.bytes_sent(),
            ),
            (
                "picket_agent_uplink_received_bytes_total",
                "Bytes received from the aggregator, TLS included.",
                uplink.bytes_received(),
            ),
            (
                "picket_agent_uplink_undefined_samples_total",
                "Samples left out because the record that defined their series was lost.",
                uplink.undefined_samples(),
            ),
            (
                "picket_agent_uplink_unsendable_records_total",
                "Records left out because they are damaged or too large.",
                uplink.unsendable_records(),
            ),
            ("picket_agent_certificate_renewals_total", "Renewals of the certificate.", uplink.renewals()),
            (
                "picket_agent_certificate_renewal_failures_total",
                "Renewals of the certificate that failed.",
                uplink.renewal_failures(),
            ),
        ];
        for (name, help, value) in counters {
            page.family(name, MetricType::Counter, help);
            page.sample(&[], value as f64);
        }
        if let Some(expiry) = uplink.certificate_expiry() {
            page.family(
                "picket_certificate_expiry_timestamp_seconds",
                MetricType::Gauge,
                "When the certificate ends, in seconds since the Unix epoch.",
            );
            page.sample(&[("certificate", "uplink")], expiry as f64);
        }
    }
}

/// What of a plugin is worth telling at once.
#[derive(PartialEq)]
struct Turn {
    id: String,
    state: State,
    digest: String,
    refused: Option<String>,
}

/// A file that nobody asked for and that would be refused, as the conditions know troubles.
fn of_stray(stray: Stray) -> PluginStatus {
    PluginStatus {
        id: stray.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        state: State::Refused,
        reason: stray.reason,
        code: stray.code,
        ..PluginStatus::default()
    }
}

fn plugin_metrics(page: &mut Page<'_>, plugins: &[PluginStatus]) {
    if plugins.is_empty() {
        return;
    }
    page.family("picket_plugin_info", MetricType::Info, "The plugin's version and file.");
    for p in plugins.iter().filter(|p| !p.digest.is_empty()) {
        page.sample(
            &[("plugin", &p.id), ("version", &p.version), ("digest", &p.digest), ("world", &p.world)],
            1.0,
        );
    }
    page.family("picket_plugin_state", MetricType::Gauge, "1 for the state that the plugin is in.");
    for p in plugins {
        for state in State::ALL {
            page.sample(&[("plugin", &p.id), ("state", state.word())], f64::from(u8::from(p.state == state)));
        }
    }
    page.family(
        "picket_plugin_unsigned",
        MetricType::Gauge,
        "1 where the plugin runs without a signature, 0 where somebody whom the policy trusts vouches for it.",
    );
    for p in plugins.iter().filter(|p| !p.signed_by.is_empty()) {
        page.sample(&[("plugin", &p.id)], f64::from(u8::from(p.signed_by == "unsigned")));
    }
    page.family(
        "picket_plugin_swaps_total",
        MetricType::Counter,
        "New versions of a plugin, by whether they took the place of the running one.",
    );
    for p in plugins {
        page.sample(&[("plugin", &p.id), ("result", "done")], p.swaps.done as f64);
        page.sample(&[("plugin", &p.id), ("result", "refused")], p.swaps.refused as f64);
    }
    page.family("picket_plugin_collects_total", MetricType::Counter, "Collects, by how they ended.");
    for p in plugins {
        page.sample(&[("plugin", &p.id), ("result", "ok")], p.collects.ok as f64);
        page.sample(&[("plugin", &p.id), ("result", "failed")], p.collects.failed as f64);
    }
    type Read = fn(&PluginStatus) -> f64;
    let counters: [(&str, &str, Read); 5] = [
        ("picket_plugin_collects_skipped_total", "Ticks that found the last collect still running.", |p| {
            p.collects.skipped as f64
        }),
        ("picket_plugin_samples_total", "Samples collected.", |p| p.collects.samples as f64),
        ("picket_plugin_events_total", "Events collected.", |p| p.collects.events as f64),
        ("picket_plugin_collect_seconds_total", "Wall time in collects.", |p| p.collects.seconds),
        ("picket_plugin_guest_seconds_total", "CPU time inside the plugin.", |p| p.collects.guest_seconds),
    ];
    for (name, help, read) in counters {
        page.family(name, MetricType::Counter, help);
        for p in plugins {
            page.sample(&[("plugin", &p.id)], read(p));
        }
    }
    page.family(
        "picket_plugin_tick_lateness_seconds",
        MetricType::Histogram,
        "How much later than planned ticks came to run: what the node and its other plugins made them wait.",
    );
    for p in plugins {
        let late = &p.collects.late;
        for (bound, within) in Lateness::BOUNDS.iter().zip(late.within) {
            page.part(Part::Bucket, &[("plugin", &p.id), ("le", &format!("{bound:?}"))], within as f64);
        }
        page.part(Part::Bucket, &[("plugin", &p.id), ("le", "+Inf")], late.ticks as f64);
        page.part(Part::Sum, &[("plugin", &p.id)], late.seconds);
        page.part(Part::Count, &[("plugin", &p.id)], late.ticks as f64);
    }
    let gauges: [(&str, &str, Read); 2] = [
        ("picket_plugin_series", "Live series of the plugin.", |p| p.series as f64),
        ("picket_plugin_interval_seconds", "The interval between collects.", |p| p.interval_seconds),
    ];
    for (name, help, read) in gauges {
        page.family(name, MetricType::Gauge, help);
        for p in plugins {
            page.sample(&[("plugin", &p.id)], read(p));
        }
    }
    let last: [(&str, &str, Read); 3] = [
        (
            "picket_plugin_last_collect_timestamp_seconds",
            "When the last collect began, in seconds since the Unix epoch.",
            |p| p.last.as_ref().map_or(0.0, |last| last.timestamp_ms as f64 / 1000.0),
        ),
        ("picket_plugin_last_collect_duration_seconds", "Wall time of the last collect.", |p| {
            p.last.as_ref().map_or(0.0, |last| last.seconds)
        }),
        ("picket_plugin_memory_bytes", "Linear memory of the plugin after the last collect.", |p| {
            p.last.as_ref().map_or(0.0, |last| last.memory_bytes as f64)
        }),
    ];
    for (name, help, read) in last {
        page.family(name, MetricType::Gauge, help);
        for p in plugins.iter().filter(|p| p.last.is_some()) {
            page.sample(&[("plugin", &p.id)], read(p));
        }
    }
}

/// Ends when the stream opened or closed; never where there is no uplink.
async fn uplink_changed(status: Option<&uplink::Status>) {
    match status {
        Some(status) => status.changed().await,
        None => std::future::pending().await,
    }
}

/// Declares families and pushes samples as a plugin would.
struct Page<'a> {
    sink: &'a mut PluginSink,
    family: u32,
    series: u32,
}

impl Page<'_> {
    fn family(&mut self, name: &str, metric_type: MetricType, help: &str) {
        self.family += 1;
        if let Ok(family) = Family::new(name, metric_type, "", help) {
            self.sink.family(self.family, &family);
        }
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.part(Part::Value, labels, value);
    }

    fn part(&mut self, part: Part, labels: &[(&str, &str)], value: f64) {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let Ok(labels) = Labels::new(labels) else { return };
        self.series += 1;
        if self.sink.series(self.series, self.family, part, &labels).is_ok() {
            self.sink.points(&[(self.series, value)]);
        }
    }
}

struct Usage {
    resident_bytes: f64,
    cpu_seconds: f64,
    threads: f64,
}

/// From a process's `stat`, see proc(5); none where it cannot be read.
fn usage(process: &str) -> Option<Usage> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is the command, in parentheses, which may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    Some(Usage {
        resident_bytes: field(24)? * rustix::param::page_size() as f64,
        cpu_seconds: (field(14)? + field(15)?) / ticks,
        threads: field(20)?,
    })
}
