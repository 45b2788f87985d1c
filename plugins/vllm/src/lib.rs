//! vLLM servers: found by their containers' labels and images or by URL, their pages passed through, and their state
//! judged by what they do.
//!
//! One collect: ask the engines which containers there are, look at those that are new or serve models, send all
//! requests to all servers at once (each with its own time limit, so that one that hangs costs the others nothing),
//! read the log of those that do not answer yet, judge. What can't be had is said and left out; what the engines
//! said last holds while they do not answer, since servers go on without them.

mod address;
mod arguments;
mod engine;
mod families;
mod gpus;
mod image;
mod inspect;
mod loading;
mod probe;
mod resources;
mod server;
mod settings;
mod told;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use picket_sdk::containers::{self, ContainersError};
use picket_sdk::http::{self, HttpError, Response};
use picket_sdk::{Collect, Describe, Failure, Severity, Source, clock};

use engine::{Limits, Look, Page, Process, State};
use families::Families;
use inspect::{Inspect, Listed, unix_seconds};
use loading::Phase;
use probe::{Answer, Question, Round};
use resources::{Owner, Resources};
use server::Server;
pub use settings::{Endpoint, Settings};
use told::Told;

/// Requests that go out together: the host's own bound.
const AT_ONCE: usize = 64;
/// Containers that are asked for together: the host's own bound.
const IDS_AT_ONCE: usize = 256;
/// Containers that serve no model are looked at again after so long.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// No more logs are read once a collect took so long.
const LOGS_UNTIL: Duration = Duration::from_secs(5);

/// The plugin.
pub struct Vllm {
    settings: Settings,
    families: Families,
    resources: Resources,
    /// By id.
    containers: BTreeMap<String, Container>,
    /// By name, the label `container`.
    servers: BTreeMap<String, Server>,
    /// Sockets that were there once: their absence is worth a word.
    seen_sockets: BTreeSet<String>,
    /// Sockets that answered in this collect.
    answered: BTreeSet<String>,
    told: Told,
}

/// A granted container.
struct Container {
    listed: Listed,
    inspect: Option<Inspect>,
    looked: Duration,
    /// The name of its server.
    server: Option<String>,
}

impl Source for Vllm {
    type Settings = Settings;

    fn describe(d: &mut Describe) -> Self {
        Self {
            settings: Settings::default(),
            families: Families::new(d),
            resources: Resources::new(d),
            containers: BTreeMap::new(),
            servers: BTreeMap::new(),
            seen_sockets: BTreeSet::new(),
            answered: BTreeSet::new(),
            told: Told::default(),
        }
    }

    fn configure(&mut self, mut settings: Settings) -> Result<(), Failure> {
        settings.check()?;
        self.servers.clear();
        for endpoint in &settings.endpoints {
            let server = Server::of_endpoint(endpoint, settings.page_options()?);
            self.servers.insert(server.name.clone(), server);
        }
        self.settings = settings;
        Ok(())
    }

    fn collect(&mut self, c: &mut Collect<'_>) -> Result<(), Failure> {
        let start = clock::monotonic();
        let complete = self.discover(c);
        self.look_at_containers(c, start)?;
        self.use_of_resources(c);
        self.ask_servers(c, start);
        self.judge(c, start);
        if complete {
            let servers = &self.servers;
            self.told.keep(c, |server| servers.contains_key(server));
        }
        self.told.save(c);
        Ok(())
    }
}

impl Vllm {
    /// Which containers there are. Says whether every engine that ever answered did.
    fn discover(&mut self, c: &mut Collect<'_>) -> bool {
        self.answered.clear();
        let listing = match containers::list(true) {
            Ok(listing) => listing,
            Err(error) => {
                c.failed(error);
                return false;
            }
        };
        let mut complete = true;
        for socket in &listing.sockets {
            self.families.engine_socket(&socket.path, socket.error.as_ref());
            match &socket.error {
                None => {
                    self.seen_sockets.insert(socket.path.clone());
                    self.answered.insert(socket.path.clone());
                }
                Some(ContainersError::Absent(_)) if !self.seen_sockets.contains(&socket.path) => {}
                Some(error) => {
                    complete = false;
                    c.failed(error.clone());
                }
            }
        }
        let listed: Vec<Listed> = match listing.parse() {
            Ok(listed) => listed,
            Err(failure) => {
                c.failed(failure);
                return false;
            }
        };
        let ids: BTreeSet<&str> = listed.iter().map(|l| l.id.as_str()).collect();
        let gone: Vec<String> = self
            .containers
            .iter()
            .filter(|(id, known)| {
                self.answered.contains(&known.listed.picket_socket) && !ids.contains(id.as_str())
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            if let Some(server) = self.containers.remove(&id).and_then(|c| c.server) {
                self.servers.remove(&server);
            }
        }
        for entry in listed {
            match self.containers.get_mut(&entry.id) {
                Some(known) => {
                    if known.listed.state != entry.state {
                        known.looked = Duration::ZERO;
                    }
                    known.listed = entry;
                }
                None => {
                    let id = entry.id.clone();
                    let looked = Duration::ZERO;
                    let new = Container { listed: entry, inspect: None, looked, server: None };
                    self.containers.insert(id, new);
                }
            }
        }
        complete
    }

    /// Inspects those that serve models, and the others now and then.
    fn look_at_containers(&mut self, c: &mut Collect<'_>, now: Duration) -> Result<(), Failure> {
        let (settings, answered) = (&self.settings, &self.answered);
        let wanted: Vec<String> = self
            .containers
            .iter()
            .filter(|(_, known)| answered.contains(&known.listed.picket_socket))
            .filter(|(_, known)| {
                known.server.is_some()
                    || known.looked.is_zero()
                    || known.inspect.is_none()
                    || now.saturating_sub(known.looked) >= LOOK_AGAIN
            })
            .filter(|(_, known)| {
                settings.container_metrics || settings.is_engine(&known.listed.labels, &known.listed.image)
                    // The tag of its image went to another one: the list has but an id.
                    || known.listed.image.starts_with("sha256:")
            })
            .map(|(id, _)| id.clone())
            .collect();
        let answers: Vec<_> = wanted.chunks(IDS_AT_ONCE).flat_map(containers::inspect).collect();
        for (id, answer) in wanted.iter().zip(answers) {
            let parsed = match answer {
                Ok(json) => serde_json::from_str::<Inspect>(&json)
                    .map_err(|e| Failure::new("parse", format!("the engine's word on {id}: {e}"))),
                // It ended while it was asked for.
                Err(ContainersError::NotFound(_)) => continue,
                Err(error) => Err(error.into()),
            };
            match parsed {
                Ok(inspect) => self.inspected(id, inspect, now)?,
                Err(failure) => c.failed(failure),
            }
        }
        Ok(())
    }

    fn inspected(&mut self, id: &str, inspect: Inspect, now: Duration) -> Result<(), Failure> {
        let Some(known) = self.containers.get_mut(id) else { return Ok(()) };
        known.looked = now.max(Duration::from_nanos(1));
        if known.server.is_none() && self.settings.is_engine(&inspect.config.labels, &inspect.config.image) {
            let name = known.listed.name();
            // Two engines may each have a container of a name.
            let name = match self.servers.contains_key(name) {
                true => format!("{name}@{}", id.get(..12).unwrap_or(id)),
                false => name.to_owned(),
            };
            let server = Server::of_container(name.clone(), id, self.settings.page_options()?);
            self.servers.insert(name.clone(), server);
            known.server = Some(name);
        }
        if let Some(server) = known.server.as_ref().and_then(|name| self.servers.get_mut(name)) {
            server.inspected(&inspect);
        }
        known.inspect = Some(inspect);
        Ok(())
    }

    /// `container_*`
    fn use_of_resources(&mut self, c: &mut Collect<'_>) {
        if !self.settings.container_metrics {
            return;
        }
        let now = clock::now().as_secs_f64();
        let mut names = BTreeSet::new();
        let mut owners = BTreeMap::new();
        for (id, known) in &self.containers {
            let Some(inspect) = &known.inspect else { continue };
            if !self.answered.contains(&known.listed.picket_socket) {
                continue;
            }
            let name = known.listed.name();
            let name = if names.insert(name.to_owned()) {
                name.to_owned()
            } else {
                format!("{name}@{}", id.get(..12).unwrap_or(id))
            };
            let owner = Owner { id: format!("/docker/{id}"), image: inspect.config.image.clone(), name };
            let started = unix_seconds(&inspect.state.started_at);
            let memory = inspect.host_config.memory;
            self.resources.inspected(&owner, started, inspect.restart_count, memory, now);
            if known.listed.state == "running" {
                owners.insert(id.clone(), owner);
            }
        }
        let ids: Vec<String> = owners.keys().cloned().collect();
        let answers = ids.chunks(IDS_AT_ONCE).flat_map(containers::stats);
        for (answer, owner) in answers.zip(owners.values()) {
            match answer {
                Ok(json) => self.resources.read(owner, &json, c),
                Err(ContainersError::NotFound(_)) => {}
                Err(error) => c.failed(error),
            }
        }
    }

    /// All questions to all servers, and what is to be done with the answers.
    fn ask_servers(&mut self, c: &mut Collect<'_>, now: Duration) {
        let mut round = Round::default();
        for server in self.servers.values_mut() {
            server.answer = match (&server.url, server.process) {
                (Err(why), process) if process != Process::Ended => {
                    let message = format!("{} can't be asked: {why}", server.name);
                    server.trouble = Some(Failure::new("address", message));
                    Answer::NoAddress
                }
                _ => Answer::Unreachable,
            };
            server.healthy = None;
            server.meter.begin();
            server.ask(&self.settings, now, &mut round);
        }
        let mut answers = Vec::with_capacity(round.requests.len());
        for chunk in round.requests.chunks(AT_ONCE) {
            answers.extend(http::send_many(chunk));
        }
        // Models before the page: its series carry their name.
        let mut all: Vec<_> = round.of.iter().zip(&round.requests).zip(answers).collect();
        all.sort_by_key(|(((_, question), _), _)| *question);
        for (((name, question), request), answer) in all {
            if let Some(server) = self.servers.get_mut(name) {
                take(server, c, *question, request.url(), &answer, now);
            }
        }
    }

    fn judge(&mut self, c: &mut Collect<'_>, start: Duration) {
        let limits = Limits {
            stuck_after: Duration::from_secs(u64::from(self.settings.stuck_after_seconds)),
            loading_limit: Duration::from_secs(u64::from(self.settings.loading_limit_seconds)),
        };
        let mut logs = true;
        for server in self.servers.values_mut() {
            let silent = !matches!(server.answer, Answer::Ok) && server.healthy != Some(true);
            let reads = silent && server.process == Process::Runs && server.state != Some(State::Running);
            // A server that is up has said how long it took; a fresh instance of this plugin reads that once.
            let first = server.process == Process::Runs && server.state.is_none();
            if logs && (reads || first) && !server.container_id.is_empty() {
                let late = clock::monotonic().saturating_sub(start) >= LOGS_UNTIL;
                match if late { Ok(()) } else { server.read_log(c) } {
                    Ok(()) => {}
                    Err(failure) => {
                        // An engine that hangs would take the time of all.
                        logs = failure.reason != "timed-out";
                        c.failed(failure);
                    }
                }
            }
            let look = Look {
                process: server.process,
                page: match server.answer {
                    Answer::Ok => Page::Activity(&server.meter.activity),
                    Answer::Slow => Page::Slow,
                    Answer::Refusing | Answer::Malformed => Page::Useless,
                    Answer::Unreachable => Page::Nothing,
                    Answer::Denied | Answer::NoAddress => Page::Unasked,
                },
                healthy: server.healthy,
                was_ready: server.progress.phase == Phase::Ready,
                failed: server.progress.failure.is_some(),
                age: server.age(),
            };
            let state = server.watch.look(&look, start, limits);
            // A fresh instance has not seen enough to call it working again.
            let doubted = state == Some(State::Running)
                && !server.watch.is_sure()
                && self.told.is_open(c, "vllm.stuck", &server.name);
            let state = if doubted { Some(State::Stuck) } else { state };
            // A server that does not listen yet is no error: its state says that it loads.
            let quiet = state == Some(State::Loading) && server.answer == Answer::Unreachable;
            if let Some(failure) = server.trouble.take().filter(|_| !quiet) {
                c.failed(failure);
            }
            if let Some(state) = state {
                tell(&mut self.told, c, server, state, limits);
            }
            server.state = state;
            self.families.server(server, state);
        }
    }
}

fn take(
    server: &mut Server,
    c: &mut Collect<'_>,
    question: Question,
    url: &str,
    answer: &Result<Response, HttpError>,
    now: Duration,
) {
    let body = probe::body(url, answer);
    match question {
        Question::Health => {
            server.healthy = match &body {
                Ok(_) => Some(true),
                Err((Answer::Refusing, _)) => Some(false),
                Err(_) => None,
            };
        }
        Question::Version => {
            if let Ok(Ok(version)) = body.map(|b| b.json::<probe::Version>()) {
                server.engine_version = version.version.chars().take(64).collect();
            }
        }
        Question::Models => match body.map(|b| b.json::<probe::Models>()) {
            Ok(Ok(models)) => server.models_answered(models.data, now),
            Ok(Err(failure)) => c.failed(failure),
            Err((Answer::Refusing, failure)) => {
                // The page says that a server refuses; here it is a key that is missing.
                server.models_refused(now);
                if server.state == Some(State::Running) {
                    c.failed(failure);
                }
            }
            Err(_) => {}
        },
        Question::Metrics => {
            let (model, gpu) = (server.model().to_owned(), server.gpus.any_label());
            let labels = [("container", server.name.as_str()), ("model", &model), ("gpu", &gpu)];
            let labels: Vec<(&str, &str)> = labels.into_iter().filter(|(_, v)| !v.is_empty()).collect();
            let outcome = body.and_then(|b| {
                let page = server.pass.watched(c, &b.body, &labels, &mut server.meter);
                page.map_err(|failure| (Answer::Malformed, failure))
            });
            match outcome {
                Ok(_) => server.answer = Answer::Ok,
                Err((answer, failure)) => {
                    server.answer = answer;
                    server.trouble = Some(failure);
                }
            }
        }
    }
}

/// Events: stuck and down, each with its end, and a model that is ready.
fn tell(told: &mut Told, c: &mut Collect<'_>, server: &Server, state: State, limits: Limits) {
    let name = &server.name;
    if state == State::Stuck {
        let seconds = limits.stuck_after.as_secs();
        let message = format!(
            "{name} ({}) has requests and moved no token for {seconds} s or more; its log and its GPUs \
             tell more, a restart frees it",
            server.model()
        );
        told.begin(c, "vllm.stuck", Severity::Critical, name, message);
    } else {
        told.end(
            c,
            "vllm.stuck",
            name,
            if state == State::Running { "it works again" } else { "it is down" },
        );
    }
    if state == State::Down {
        let (why, severity) = match (&server.progress.failure, server.process) {
            (_, Process::Ended) => {
                let severity = if server.ended_well { Severity::Warning } else { Severity::Critical };
                (server.ended.clone(), severity)
            }
            (Some(line), _) => (format!("it logged: {line}"), Severity::Critical),
            _ => (format!("its endpoint is {}", server.answer.word()), Severity::Critical),
        };
        told.begin(c, "vllm.down", severity, name, format!("{name} ({}) is down: {why}", server.model()));
    } else if state == State::Running {
        told.end(c, "vllm.down", name, "it answers again");
    }
    if server.state == Some(State::Loading) && state == State::Running {
        let seconds = server.age().as_secs();
        let message = format!("{name} serves {} after {seconds} s", server.model());
        c.emit(picket_sdk::Event::new("vllm.ready", Severity::Info, message).about("container", name));
    }
}

picket_sdk::export!(Vllm);
