//! One server, between two looks at it.

use std::time::Duration;

use picket_sdk::clock;
use picket_sdk::containers;
use picket_sdk::exposition::{Options, Passthrough};
use picket_sdk::http::Request;
use picket_sdk::{Collect, Failure};

use crate::address;
use crate::arguments::Arguments;
use crate::engine::{self, Process, State};
use crate::gpus::Gpus;
use crate::image;
use crate::inspect::{Inspect, unix_seconds};
use crate::loading::Progress;
use crate::probe::{Answer, Model, Question, Round};
use crate::settings::{Endpoint, Settings};
use crate::work::Meter;

/// The models of a running server are asked for again after so long: adapters come and go.
const MODELS_EVERY: Duration = Duration::from_secs(60);
/// Models and adapters of a server that are shown.
const MAX_MODELS: usize = 256;
/// Pages of a log that are read in one collect.
const LOG_PAGES: usize = 4;
/// Seconds by which an engine may note a container's start later than the container's first lines.
const START_NOTED_WITHIN: f64 = 10.0;

pub struct Server {
    pub name: String,
    /// Empty where no engine knows of it.
    pub container_id: String,
    pub image: String,
    pub version: String,
    /// What the server itself says.
    pub engine_version: String,
    pub url: Result<String, String>,
    pub gpus: Gpus,
    pub models: Vec<Model>,
    /// By the command line or a setting, until the server says more.
    expected_model: String,
    pub process: Process,
    /// In words, where it does not run.
    pub ended: String,
    /// The end was asked for, or at least no failure.
    pub ended_well: bool,
    /// The engine's word for when the process began; another one is another process.
    life: String,
    pub started: Option<f64>,
    pub progress: Progress,
    log_from: Option<u64>,
    pub watch: engine::Watch,
    pub meter: Meter,
    pub pass: Passthrough,
    models_at: Option<Duration>,
    pub state: Option<State>,
    pub answer: Answer,
    pub healthy: Option<bool>,
    /// Why there is no page.
    pub trouble: Option<Failure>,
}

impl Server {
    fn new(name: String, options: Options) -> Self {
        Self {
            name,
            container_id: String::new(),
            image: String::new(),
            version: String::new(),
            engine_version: String::new(),
            url: Err(String::new()),
            gpus: Gpus::default(),
            models: Vec::new(),
            expected_model: String::new(),
            process: Process::Unknown,
            ended: String::new(),
            ended_well: false,
            life: String::new(),
            started: None,
            progress: Progress::default(),
            log_from: None,
            watch: engine::Watch::default(),
            meter: Meter::default(),
            pass: Passthrough::new(options),
            models_at: None,
            state: None,
            answer: Answer::Unreachable,
            healthy: None,
            trouble: None,
        }
    }

    /// A server by its URL.
    pub fn of_endpoint(endpoint: &Endpoint, options: Options) -> Self {
        Self {
            url: Ok(endpoint.url.clone()),
            gpus: Gpus::parse(&endpoint.gpu),
            expected_model: endpoint.model.clone(),
            ..Self::new(endpoint.name.clone(), options)
        }
    }

    /// A server in a container.
    pub fn of_container(name: String, id: &str, options: Options) -> Self {
        Self { container_id: id.to_owned(), ..Self::new(name, options) }
    }

    /// What the engine says of it now.
    pub fn inspected(&mut self, container: &Inspect) {
        let arguments = Arguments::parse(&container.path, container.args.iter().map(String::as_str));
        self.image = container.config.image.clone();
        self.version = image::version(&self.image).to_owned();
        self.gpus = Gpus::of(container);
        self.url = address::of(container, &arguments);
        self.expected_model = arguments.model_name().to_owned();
        let state = &container.state;
        let life = format!("{} {}", state.started_at, container.restart_count);
        if life != self.life {
            self.life = life;
            self.started = unix_seconds(&state.started_at);
            self.progress = Progress::default();
            self.log_from = self.started.map(|started| {
                let ended = unix_seconds(&state.finished_at).filter(|ended| *ended < started);
                let from = (started - START_NOTED_WITHIN).max(ended.unwrap_or(0.0));
                (from.max(0.0) * 1e9) as u64
            });
            self.engine_version = String::new();
            self.models = Vec::new();
            self.models_at = None;
            self.watch.restarted();
        }
        // A paused process answers nothing, and is no less there.
        let runs = matches!(state.status.as_str(), "running" | "paused");
        self.process = if runs { Process::Runs } else { Process::Ended };
        // 130, 137 and 143: it was told to end.
        self.ended_well = !state.oom_killed && matches!(state.exit_code, 0 | 130 | 137 | 143);
        self.ended = match state.status.as_str() {
            _ if state.oom_killed => "its memory limit killed it".to_owned(),
            "exited" | "dead" => format!("its container exited with code {}", state.exit_code),
            "paused" => "its container is paused".to_owned(),
            other => format!("its container is {other}"),
        };
    }

    /// The label `model`: what the server serves, without adapters.
    pub fn model(&self) -> &str {
        let own = self.models.iter().find(|m| m.parent.is_none()).or_else(|| self.models.first());
        own.map_or(&self.expected_model, |m| &m.id)
    }

    /// Asks what is to be asked now.
    pub fn ask(&self, settings: &Settings, now: Duration, round: &mut Round) {
        let (Ok(url), true) = (&self.url, self.process != Process::Ended) else { return };
        let get = |path: &str| {
            Request::get(format!("{url}{path}"))
                .timeout(Duration::from_millis(u64::from(settings.timeout_ms)))
        };
        let stale = self.models_at.is_none_or(|at| now.saturating_sub(at) >= MODELS_EVERY);
        if stale {
            let request = get("/v1/models");
            let request = match &settings.secret {
                Some(secret) => request.secret(secret),
                None => request,
            };
            round.ask(&self.name, Question::Models, request);
        }
        if self.engine_version.is_empty() {
            round.ask(&self.name, Question::Version, get("/version"));
        }
        round.ask(&self.name, Question::Health, get("/health"));
        let accept = picket_sdk::exposition::ACCEPT;
        round.ask(&self.name, Question::Metrics, get("/metrics").header("accept", accept));
    }

    pub fn models_answered(&mut self, mut models: Vec<Model>, now: Duration) {
        models.truncate(MAX_MODELS);
        self.models = models;
        self.models_at = Some(now);
    }

    /// The server has a word on its models, but not for us: its command line must do.
    pub fn models_refused(&mut self, now: Duration) {
        self.models_at = Some(now);
    }

    /// Reads what the server logged since the last time.
    pub fn read_log(&mut self, c: &mut Collect<'_>) -> Result<(), Failure> {
        for _ in 0..LOG_PAGES {
            let page = containers::logs(&self.container_id, self.log_from, None)?;
            for line in &page.lines {
                self.progress.line(&line.text, line.timestamp_ns);
            }
            match page.lines.last() {
                Some(last) => self.log_from = Some(last.timestamp_ns + 1),
                None if page.more => {
                    c.fail("log", &format!("{}: a line of its log is longer than can be read", self.name));
                    return Ok(());
                }
                None => return Ok(()),
            }
            if !page.more {
                return Ok(());
            }
        }
        Ok(())
    }

    /// How long the process runs.
    pub fn age(&self) -> Duration {
        let now = clock::now().as_secs_f64();
        self.started.map_or(Duration::ZERO, |s| Duration::from_secs_f64((now - s).clamp(0.0, 1e10)))
    }
}
