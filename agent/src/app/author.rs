//! One plugin, run for its author: `picket-agent plugin-run`, which `picket plugin check|run|test` start.
//!
//! It is the agent's own way from a file to samples, in the same worker with the same limits, so that what an author sees is
//! what a node does. What is missing is the node: there is no configuration, no spool and no uplink, and nothing is
//! kept. So the command line needs no WebAssembly engine, and no daemon learns to run what nobody configured.
//!
//! What it prints is for `picket`: a JSON object a line, `loaded` or `refused` first, then `collected` for each reading.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use picket_agent_host::{
    Host, HostOptions, Isolation, Limits, LogRecord, Manifest, Plugin, PluginError, PluginSpec, SampleSink,
    manifest_of,
};
use picket_agent_services::grants::Scope;
use picket_agent_services::{ServiceLimits, Services, ServicesOptions, kmsg, nvml};
use picket_proto::model::{Family, Labels, Part, PluginId, type_word};
use picket_proto::v1;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{beside, worker};
use crate::clock::{Clock as _, SystemClock};
use crate::collector::{Collector, Format, PluginSink};
use crate::config::Compile;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    file: PathBuf,
    /// What the operator's section of the plugin would say, as TOML: `[settings]`, `[[grants]]`, `[limits]`
    #[arg(long, value_name = "FILE")]
    with: Option<PathBuf>,
    /// Grant what the manifest asks for, where --with grants nothing else
    #[arg(long)]
    grant_needs: bool,
    /// Where the value of a secret that the manifest names stands
    #[arg(long = "secret", value_name = "NAME=FILE", value_parser = secret)]
    secrets: Vec<(String, PathBuf)>,
    /// Readings; 0: it is only loaded. None: until it is told to end
    #[arg(long)]
    collects: Option<u32>,
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Where compiled plugins are kept
    #[arg(long)]
    cache_dir: PathBuf,
}

/// The part of an operator's section that is the plugin's own.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct With {
    settings: Value,
    grants: Option<Vec<Scope>>,
    limits: Limits,
    /// For `picket plugin test`, which reads it too.
    #[serde(rename = "expect")]
    _expect: Vec<String>,
}

fn secret(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or("NAME=FILE is wanted")?;
    Ok((name.to_owned(), std::path::absolute(file).map_err(|e| e.to_string())?))
}

/// Loads the plugin and reads with it. False: it was refused.
///
/// # Errors
/// What is not the plugin's doing.
pub async fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let with = match &arguments.with {
        None => With::default(),
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("{} cannot be read", file.display()))?;
            toml::from_str(&text).with_context(|| format!("{} is not valid", file.display()))?
        }
    };
    let spec = spec(arguments, with)?;
    let place = Place::new(&arguments.cache_dir)?;
    let host = host(&place).await?;
    let begin = Instant::now();
    let mut plugin = match host.load(spec).await {
        Ok(plugin) => plugin,
        Err(error) => {
            say(&json!({ "refused": explained(&error) }))?;
            return Ok(false);
        }
    };
    say(&json!({ "loaded": loaded(&plugin, begin.elapsed()) }))?;
    let clock = Arc::new(SystemClock::new());
    let collector = Collector::new(clock.clone(), None);
    let mut sink = Recorder::new(collector.sink(plugin.info().id.clone(), Duration::from_secs(3600)));
    let mut ticks = tokio::time::interval(arguments.interval.max(Duration::from_millis(100)));
    for _ in 0..arguments.collects.unwrap_or(u32::MAX) {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = tokio::signal::ctrl_c() => break,
        }
        sink.inner.start(clock.wall_ms());
        let collected = plugin.collect(&mut sink).await;
        let committed = sink.inner.commit(collected.is_ok());
        let page: String = collector.exposition(Format::Prometheus).collect();
        let stats = collected.as_ref().ok().map(|stats| {
            json!({
                "wall_ms": milliseconds(stats.wall), "guest_ms": milliseconds(stats.guest_time),
                "memory": stats.memory,
            })
        });
        say(&json!({ "collected": {
            "samples": committed.samples, "series": committed.series, "cost": stats,
            "error": collected.err().as_ref().map(explained),
            "failures": std::mem::take(&mut sink.failures), "events": std::mem::take(&mut sink.events),
            "page": page,
        }}))?;
    }
    Ok(true)
}

fn spec(arguments: &Arguments, with: With) -> anyhow::Result<PluginSpec> {
    let manifest = manifest_of(&arguments.file).ok();
    let id = match &manifest {
        Some(manifest) => manifest.id.clone(),
        None => PluginId::new(&arguments.file.file_stem().unwrap_or_default().to_string_lossy())?,
    };
    let grants = match (with.grants, &manifest) {
        (Some(grants), _) => grants,
        (None, Some(manifest)) if arguments.grant_needs => needed(manifest, &arguments.secrets)?,
        (None, _) => Vec::new(),
    };
    Ok(PluginSpec {
        id,
        file: arguments.file.clone(),
        settings: with.settings,
        grants,
        limits: with.limits,
        isolation: Isolation::Shared,
    })
}

/// The manifest's needs as grants. What only an operator can say of them, the files of secrets, is filled in.
fn needed(manifest: &Manifest, secrets: &[(String, PathBuf)]) -> anyhow::Result<Vec<Scope>> {
    let mut scopes: Vec<Scope> = manifest.needs.iter().map(|need| need.scope.clone()).collect();
    for scope in &mut scopes {
        let rules: Vec<_> = match scope {
            Scope::Http { urls } => urls.iter_mut().map(|rule| &mut rule.secret).collect(),
            Scope::UnixHttp(scope) => scope.sockets.iter_mut().map(|rule| &mut rule.secret).collect(),
            _ => continue,
        };
        for secret in rules.into_iter().flatten() {
            let given = secrets.iter().find(|(name, _)| *name == secret.name);
            match given {
                Some((_, file)) => secret.file = Some(file.clone()),
                None => bail!(
                    "the plugin wants the secret {name:?}: say where its value stands with --secret {name}=FILE",
                    name = secret.name
                ),
            }
        }
    }
    Ok(scopes)
}

/// The host as the daemon has it.
async fn host(place: &Place) -> anyhow::Result<Arc<Host>> {
    let services = Services::new(ServicesOptions {
        state_dir: place.state.clone(),
        extra_authorities: None,
        limits: ServiceLimits::default(),
        nvml: nvml::Options { helper: beside("picket-nvml"), ..nvml::Options::default() },
        kmsg: kmsg::Options::default(),
    })?;
    let compile = Compile::default();
    let options = HostOptions {
        cache_dir: place.cache.clone(),
        compiler: beside("picket-compile"),
        compile_memory: compile.memory.0,
        compile_timeout: compile.timeout,
        services: Arc::new(services),
    };
    Ok(Host::walled(options, worker::of_an_author()).await?)
}

/// Where this run keeps what it needs; the plugin's store is gone afterwards.
struct Place {
    cache: PathBuf,
    state: PathBuf,
}

impl Place {
    fn new(cache: &Path) -> anyhow::Result<Self> {
        let cache = std::path::absolute(cache)?;
        let state = cache.join(format!("run-{}", std::process::id()));
        std::fs::create_dir_all(&state).with_context(|| format!("{} cannot be made", state.display()))?;
        Ok(Self { cache: cache.join("compiled"), state })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.state);
    }
}

fn loaded(plugin: &Plugin, took: Duration) -> Value {
    let info = plugin.info();
    let families: Vec<Value> = info
        .families
        .iter()
        .map(|f| json!({ "name": f.name, "type": type_word(f.metric_type, true), "help": f.help }))
        .collect();
    json!({
        "id": info.id.as_str(), "version": info.version, "world": info.world, "digest": info.digest,
        "families": families, "load_ms": milliseconds(took),
        "limits": info.limits,
    })
}

fn explained(error: &PluginError) -> Value {
    json!({
        "code": error.code, "phase": error.phase.word(), "fault": error.fault.word(), "message": error.why(),
        "advice": error.advice,
    })
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn say(line: &Value) -> anyhow::Result<()> {
    use std::io::Write as _;
    writeln!(std::io::stdout().lock(), "{line}").context("nobody reads what is said here")
}

/// The agent's own sink, which also keeps what a page does not show.
struct Recorder {
    inner: PluginSink,
    failures: Vec<Value>,
    events: Vec<Value>,
}

impl Recorder {
    const fn new(inner: PluginSink) -> Self {
        Self { inner, failures: Vec::new(), events: Vec::new() }
    }
}

impl SampleSink for Recorder {
    fn begin(&mut self, generation: u64) {
        self.inner.begin(generation);
    }

    fn family(&mut self, id: u32, family: &Family) {
        self.inner.family(id, family);
    }

    fn series(&mut self, id: u32, family: u32, part: Part, labels: &Labels) -> Result<(), String> {
        let taken = self.inner.series(id, family, part, labels);
        if let Err(why) = &taken {
            self.failures.push(json!({ "reason": "refused", "message": why }));
        }
        taken
    }

    fn points(&mut self, points: &[(u32, f64)]) {
        self.inner.points(points);
    }

    fn timed_points(&mut self, points: &[(u32, f64, i64)]) {
        self.inner.timed_points(points);
    }

    fn retire(&mut self, ids: &[u32]) {
        self.inner.retire(ids);
    }

    fn event(&mut self, event: v1::Event) {
        self.events.push(json!({
            "kind": event.kind, "message": event.message, "key": event.key, "clear": event.clear,
        }));
        self.inner.event(event);
    }

    fn log_room(&mut self) -> u64 {
        1 << 20
    }

    fn logs(&mut self, record: LogRecord) -> Result<(), String> {
        drop(record);
        Ok(())
    }

    fn fail(&mut self, reason: &str, message: &str) {
        self.failures.push(json!({ "reason": reason, "message": message }));
        self.inner.fail(reason, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_filled_in_or_asked_for() {
        let text = "manifest = 1\nid = \"x\"\nversion = \"1\"\nworld = \"w\"\nlicense = \"l\"\ndescription = \"d\"\n\
                    [[needs]]\ncapability = \"http\"\nwhy = \"y\"\n\
                    urls = [{ host = \"a.example\", secret = { name = \"key\" } }]\n\
                    [[needs]]\ncapability = \"unix-http\"\nwhy = \"y\"\n\
                    sockets = [{ path = \"/run/a.sock\", secret = { name = \"key\" } }]\n";
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        let asked = needed(&manifest, &[]).unwrap_err().to_string();
        assert!(asked.contains("--secret key=FILE"), "{asked}");
        let grants = needed(&manifest, &[secret("key=/etc/key").unwrap()]).unwrap();
        let [Scope::Http { urls }, Scope::UnixHttp(unix)] = &grants[..] else { panic!("{grants:?}") };
        for secret in [&urls[0].secret, &unix.sockets[0].secret] {
            assert_eq!(secret.as_ref().unwrap().file, Some(PathBuf::from("/etc/key")));
        }
        assert!(secret("key").is_err());
    }

    #[test]
    fn a_section_is_read_as_the_operators() {
        let with: With = toml::from_str(
            "expect = [\"a\"]\n[settings]\nurl = \"http://x\"\n[limits]\nmemory = \"128MiB\"\n[[grants]]\ncapability = \"system\"\n",
        )
        .unwrap();
        assert_eq!(with.settings, json!({ "url": "http://x" }));
        assert_eq!(with.limits.memory, 128 << 20);
        assert_eq!(with.grants, Some(vec![Scope::System {}]));
        assert!(toml::from_str::<With>("setings = 1").is_err());
    }
}
