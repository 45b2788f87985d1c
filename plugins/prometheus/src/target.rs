//! One exporter: its page, and what Prometheus says of a target beside its page.

use std::time::Duration;

use picket_sdk::exposition::{Options, Passthrough};
use picket_sdk::http::Response;
use picket_sdk::upstream::{Condition, Trouble, Upstream};
use picket_sdk::{Collect, Describe, GaugeFamily, StateSetFamily};

use crate::discovery::Wanted;

/// The families about targets.
pub struct Exports {
    up: GaugeFamily<2>,
    duration: GaugeFamily<2>,
    scraped: GaugeFamily<2>,
    kept: GaugeFamily<2>,
    added: GaugeFamily<2>,
    state: StateSetFamily<2>,
}

impl Exports {
    pub fn declare(d: &mut Describe) -> Self {
        let mut of_target = |name: &str, help: &str| d.gauge(name, help).labels(&["job", "target"]);
        Self {
            up: of_target("up", "Whether the exporter gave its page."),
            duration: of_target(
                "scrape_duration_seconds",
                "How long the round took in which the exporter was asked; those that answer are asked together.",
            )
            .unit("seconds"),
            scraped: of_target("scrape_samples_scraped", "Samples on the exporter's page."),
            kept: of_target("scrape_samples_post_metric_relabeling", "Samples that relabelling left."),
            added: of_target("scrape_series_added", "Series that were not on the pages before."),
            state: d
                .state_set("picket_scrape_state", "What the exporter does.", "state", &Condition::ALL)
                .labels(&["job", "target"]),
        }
    }
}

/// See the module.
pub struct Target {
    pub wanted: Wanted,
    pub upstream: Upstream,
    /// In the collect under way.
    pub asked: bool,
    pass: Passthrough,
    condition: Condition,
}

impl Target {
    pub fn new(wanted: Wanted) -> Self {
        let timeout = Duration::from_millis(wanted.timeout_ms);
        let options = Options {
            relabel: wanted.rules.clone(),
            samples: wanted.sample_limit,
            timestamps: wanted.timestamps,
            ..Options::default()
        };
        Self {
            upstream: Upstream::page(wanted.url.clone(), timeout).secret(wanted.secret.as_deref()),
            pass: Passthrough::new(options),
            wanted,
            asked: false,
            condition: Condition::Up,
        }
    }

    pub fn job(&self) -> &str {
        &self.wanted.job
    }

    /// Takes what came of asking; none: it was too slow to be asked in every round.
    pub fn take(
        &mut self,
        collect: &mut Collect<'_>,
        exports: &Exports,
        answer: Option<Result<Response, Trouble>>,
        took: Duration,
    ) {
        let name = self.wanted.labels.iter().find(|(n, _)| n == "target").map_or("", |(_, v)| v).to_owned();
        let job = self.wanted.job.clone();
        let labels = [job.as_str(), name.as_str()];
        if let Some(answer) = answer {
            exports.duration.with(&labels).set(took.as_secs_f64());
            self.condition = match answer {
                Ok(response) => self.pass_on(collect, exports, &labels, &response),
                Err(trouble) => {
                    collect.failed(trouble.failure);
                    trouble.condition
                }
            };
        }
        exports.up.with(&labels).set(f64::from(u8::from(self.condition == Condition::Up)));
        exports.state.with(&labels).set(self.condition.as_str());
    }

    fn pass_on(
        &mut self,
        collect: &mut Collect<'_>,
        exports: &Exports,
        labels: &[&str; 2],
        response: &Response,
    ) -> Condition {
        let added: Vec<(&str, &str)> =
            self.wanted.labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        match self.pass.page(collect, &response.body, &added) {
            Ok(stats) => {
                exports.scraped.with(labels).set(stats.scraped as f64);
                exports.kept.with(labels).set((stats.scraped - stats.dropped) as f64);
                exports.added.with(labels).set(stats.new as f64);
                Condition::Up
            }
            Err(failure) => {
                self.upstream.unusable();
                collect.fail(&failure.reason, &format!("{}: {}", self.wanted.url, failure.message));
                Condition::Malformed
            }
        }
    }
}
