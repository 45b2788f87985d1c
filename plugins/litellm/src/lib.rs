//! `litellm`: a LiteLLM proxy's own metrics passed through, the rates of each of its models, which of them can be had,
//! and what the Hugging Face hub knows of them.
//!
//! The proxy's state is told from its metrics, `/model/info`, `/health/readiness` and `/health/liveliness`. Its `/health`
//! is never asked: that sends a request to every model, which costs money.
//!
//! - [`models`]: the proxy's list of models, and what they are called elsewhere;
//! - [`rates`]: requests, tokens, errors and latency a minute from counters, over restarts of the proxy;
//! - [`hub`]: the Hugging Face API, cached on disk, within a budget.

pub mod export;
pub mod hub;
pub mod models;
pub mod rates;
mod settings;

use std::time::Duration;

use picket_sdk::exposition::{Options, Passthrough};
use picket_sdk::http::Response;
use picket_sdk::upstream::{self, Condition, Trouble, Upstream};
use picket_sdk::{Collect, Describe, Failure, GaugeFamily, Source, StateSetFamily, clock};

use export::Exports;
use hub::Hub;
use models::Models;
use rates::Rates;
pub use settings::{HubSettings, Settings};

/// The plugin.
pub struct LiteLlm {
    condition: StateSetFamily<1>,
    ready: GaugeFamily<1>,
    alive: GaugeFamily<1>,
    scrape_seconds: GaugeFamily<1>,
    exports: Exports,
    settings: Settings,
    proxy: Proxy,
    pass: Passthrough,
    rates: Rates,
    models: Models,
    /// When the list is to be asked for again.
    models_due: Duration,
    hub: Hub,
}

/// What is asked of the proxy. There is no request of another path.
struct Proxy {
    metrics: Upstream,
    readiness: Upstream,
    liveliness: Upstream,
    models: Upstream,
}

impl Proxy {
    fn new(settings: &Settings) -> Self {
        let base = settings.url.trim_end_matches('/');
        let timeout = Duration::from_millis(settings.timeout_ms);
        let secret = settings.secret.as_deref();
        let json = |path: &str| Upstream::json(format!("{base}{path}"), timeout);
        Self {
            metrics: Upstream::page(format!("{base}/metrics"), timeout).secret(secret),
            readiness: json("/health/readiness"),
            liveliness: json("/health/liveliness"),
            models: json("/model/info").secret(secret),
        }
    }
}

impl Source for LiteLlm {
    type Settings = Settings;

    fn describe(d: &mut Describe) -> Self {
        let settings = Settings::default();
        Self {
            condition: d
                .state_set(
                    "picket_litellm_state",
                    "What the proxy does, by its page of metrics.",
                    "state",
                    &Condition::ALL,
                )
                .labels(&["endpoint"]),
            ready: d
                .gauge("picket_litellm_ready", "Whether the proxy says that it can take requests.")
                .labels(&["endpoint"]),
            alive: d
                .gauge("picket_litellm_alive", "Whether the proxy says that it is alive.")
                .labels(&["endpoint"]),
            scrape_seconds: d
                .gauge("picket_litellm_scrape_seconds", "How long the proxy took to answer this collect.")
                .unit("seconds")
                .labels(&["endpoint"]),
            exports: Exports::declare(d),
            proxy: Proxy::new(&settings),
            pass: Passthrough::default(),
            rates: Rates::default(),
            models: Models::default(),
            models_due: Duration::ZERO,
            hub: Hub::new(settings.hub.clone()),
            settings,
        }
    }

    fn configure(&mut self, settings: Settings) -> Result<(), Failure> {
        settings.check()?;
        let relabel = settings.passed_rules()?;
        self.pass = Passthrough::new(Options { relabel, ..Options::default() });
        self.proxy = Proxy::new(&settings);
        self.rates = Rates::default();
        self.models = Models::default();
        self.models_due = Duration::ZERO;
        self.hub = Hub::new(settings.hub.clone());
        self.settings = settings;
        Ok(())
    }

    fn collect(&mut self, collect: &mut Collect<'_>) -> Result<(), Failure> {
        let now = clock::monotonic();
        let ask_models = now >= self.models_due;
        let Proxy { metrics, readiness, liveliness, models } = &mut self.proxy;
        let mut answers = upstream::ask(&mut [metrics, readiness, liveliness, models], |u| {
            ask_models || !u.url().ends_with("/info")
        })
        .into_iter();
        let mut next = || answers.next().flatten();
        let (metrics, readiness, liveliness, models) = (next(), next(), next(), next());
        let took = clock::monotonic().saturating_sub(now);
        let endpoint = self.settings.url.clone();
        self.scrape_seconds.with(&[&endpoint]).set(took.as_secs_f64());
        if let Some(answer) = models {
            self.models_due = now + Duration::from_secs(self.settings.models_every_seconds);
            self.take_models(collect, answer);
        }
        let up = metrics.map(|answer| self.take_metrics(collect, now, answer));
        // Too slow to be asked in every round: nothing new is known.
        self.condition.with(&[&endpoint]).set(up.unwrap_or(Condition::Slow).as_str());
        report(collect, &self.ready.with(&[&endpoint]), readiness, is_ready);
        report(collect, &self.alive.with(&[&endpoint]), liveliness, |_| true);
        self.export(collect, up == Some(Condition::Up));
        Ok(())
    }
}

/// A proxy with a database that it lost says `healthy` of itself, and of the database otherwise: it still takes
/// requests.
fn is_ready(answer: &Response) -> bool {
    let said: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    matches!(said.get("status").and_then(serde_json::Value::as_str), Some("healthy" | "connected"))
}

/// A probe's answer: yes, no, or nothing where nobody knows.
fn report(
    collect: &mut Collect<'_>,
    gauge: &picket_sdk::Gauge<'_>,
    answer: Option<Result<Response, Trouble>>,
    yes: impl Fn(&Response) -> bool,
) {
    match answer {
        Some(Ok(response)) => gauge.set(f64::from(u8::from(yes(&response)))),
        Some(Err(trouble)) => {
            gauge.set(0.0);
            collect.failed(trouble.failure);
        }
        None => {}
    }
}

impl LiteLlm {
    fn take_metrics(
        &mut self,
        collect: &mut Collect<'_>,
        now: Duration,
        answer: Result<Response, Trouble>,
    ) -> Condition {
        let response = match answer {
            Ok(response) => response,
            Err(trouble) => {
                collect.failed(trouble.failure);
                return trouble.condition;
            }
        };
        self.rates.begin(now);
        let passed = self.pass.watched(collect, &response.body, &[], &mut self.rates);
        match passed {
            Ok(_) => {
                self.rates.end();
                Condition::Up
            }
            Err(failure) => {
                self.proxy.metrics.unusable();
                collect.failed(failure);
                Condition::Malformed
            }
        }
    }

    fn take_models(&mut self, collect: &mut Collect<'_>, answer: Result<Response, Trouble>) {
        let read = match answer {
            Ok(response) => Models::read(&response.body),
            Err(trouble) => Err(trouble.failure),
        };
        match read {
            Ok(models) => self.models = models,
            Err(failure) => {
                // What was known is not known any more, but neither is it gone: it stays until the proxy says.
                collect.failed(failure);
            }
        }
    }

    fn export(&mut self, collect: &mut Collect<'_>, up: bool) {
        let endpoint = self.settings.url.clone();
        let wanted: Vec<String> =
            self.models.list.iter().filter_map(|m| m.hub_id(&self.settings.hub.models)).collect();
        self.hub.refresh(collect, &wanted);
        self.hub.export_state(&self.exports);
        for model in &self.models.list {
            let hub_id = model.hub_id(&self.settings.hub.models);
            let known = hub_id.as_deref().and_then(|id| self.hub.get(id));
            let status = if up { model.status(&self.rates) } else { models::Status::Error };
            self.exports.model(model, status, &endpoint, hub_id.as_deref(), known.as_ref());
        }
        if up {
            for (name, rates) in self.rates.per_model() {
                let Some(kind) = self.models.kind_of(&name) else { continue };
                self.exports.rates(&name, kind, &rates);
            }
        }
    }
}

picket_sdk::export!(LiteLlm);
