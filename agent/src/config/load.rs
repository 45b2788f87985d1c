//! Finds the files, merges them and reads the result.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use picket_agent_host::{Isolation, Limits};
use picket_proto::model::PluginId;

use crate::actions::Rules;

use super::reader::{Reader, Table};
use super::values::format_duration;
use super::{
    Actions, ByteSize, Compile, Config, ConfigError, Http, Kmsg, Log, LogFormat, Logs, MAX_INTERVAL,
    MIN_INTERVAL, Node, Nvml, OWN_ID, Plugin, Problem, Spool, Trust, Uplink, Worker,
};

/// The smallest spool that holds a useful part of an hour.
const MIN_SPOOL: ByteSize = ByteSize(1 << 20);
/// The smallest queue of log lines that takes what one collect may emit.
const MIN_LOG_SPOOL: ByteSize = ByteSize(32 << 20);
/// The time of one call into an action plugin, where the operator says none.
const ACTION_CALL_TIME: Duration = Duration::from_secs(60);
/// The compiler with the smallest of plugins.
const MIN_COMPILE_MEMORY: ByteSize = ByteSize(256 << 20);
/// How long it may be let work: what waits for it waits so long too.
const COMPILE_WITHIN: std::ops::RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(600);
/// A worker with one plugin of the default limits.
const MIN_WORKER_MEMORY: ByteSize = ByteSize(64 << 20);
pub(super) const ENVIRONMENT: &str = "environment";

/// Where the configuration comes from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The main file; `conf.d/*.toml` is looked for beside it.
    pub file: PathBuf,
    /// `PICKET_*` variables, see [`super::variables`].
    pub environment: Vec<(String, String)>,
}

/// Reads and checks all of it, or tells all that is wrong. Reads files alone: no address is bound, nothing is created.
pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
    let mut figment = Figment::new();
    let mut problems = Vec::new();
    for file in files(&sources.file, &mut problems) {
        // Read here, so that a file without permission is a mistake and not an empty file.
        match std::fs::read_to_string(&file) {
            Ok(_) => {
                let provider = Toml::file_exact(&file);
                match provider.data() {
                    Ok(_) => figment = figment.merge(provider),
                    Err(error) => problems.extend(error.into_iter().map(|error| Problem {
                        source: file.display().to_string(),
                        key: String::new(),
                        what: format!("is not valid TOML: {}", error.kind.to_string().trim()),
                    })),
                }
            }
            Err(error) => problems.push(Problem {
                source: file.display().to_string(),
                key: String::new(),
                what: format!("cannot be read: {error}"),
            }),
        }
    }
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }
    let figment = figment.merge(Variables(&sources.environment));
    let dict = match figment.data() {
        Ok(mut profiles) => profiles.remove(&Profile::Default).unwrap_or_default(),
        Err(error) => {
            return Err(ConfigError {
                problems: error
                    .into_iter()
                    .map(|error| Problem {
                        source: String::new(),
                        key: String::new(),
                        what: error.to_string(),
                    })
                    .collect(),
            });
        }
    };
    let reader = Reader::new(&figment);
    let config = read(reader.root(&dict), &policy_beside(&sources.file));
    reader.finish()?;
    Ok(config)
}

/// What is in force where nothing is said.
pub fn defaults(file: &Path) -> Config {
    let figment = Figment::new();
    let reader = Reader::new(&figment);
    read(reader.root(&Dict::new()), &policy_beside(file))
}

/// The files that [`load`] reads, as far as they can be found.
pub fn files_of(sources: &Sources) -> Vec<PathBuf> {
    files(&sources.file, &mut Vec::new())
}

fn policy_beside(file: &Path) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join("policy.toml")
}

/// The main file and those of `conf.d`, in the order in which they are merged.
fn files(main: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let mut files = vec![main.to_owned()];
    let folder = main.parent().unwrap_or(Path::new("")).join("conf.d");
    match std::fs::read_dir(&folder) {
        Ok(entries) => {
            let mut more: Vec<PathBuf> = entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| {
                    path.extension().is_some_and(|ext| ext == "toml")
                        && path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b"."))
                })
                .collect();
            more.sort();
            files.append(&mut more);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => problems.push(Problem {
            source: folder.display().to_string(),
            key: String::new(),
            what: format!("cannot be listed: {error}"),
        }),
    }
    files
}

/// The environment as a provider: passed in, so that a test has its own.
struct Variables<'a>(&'a [(String, String)]);

impl Provider for Variables<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named(ENVIRONMENT)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut dict = Dict::new();
        for (name, text) in self.0 {
            let Some(name) = name.strip_prefix("PICKET_") else { continue };
            let value = text.parse::<Value>().unwrap_or_else(|never| match never {});
            let name = name.to_lowercase();
            let mut levels: Vec<&str> = name.split("__").collect();
            if let Some(key) = levels.pop() {
                put(&mut dict, &levels, key, value);
            }
        }
        Ok(Profile::Default.collect(dict))
    }
}

/// Puts a value under nested tables; a plain value in the way gives place.
fn put(dict: &mut Dict, levels: &[&str], key: &str, value: Value) {
    match levels.split_first() {
        None => {
            dict.insert(key.to_owned(), value);
        }
        Some((level, rest)) => {
            let table = dict.entry((*level).to_owned()).or_insert_with(|| Value::from(Dict::new()));
            if !matches!(table, Value::Dict(..)) {
                *table = Value::from(Dict::new());
            }
            if let Value::Dict(_, table) = table {
                put(table, rest, key, value);
            }
        }
    }
}

fn read(mut root: Table<'_>, policy: &Path) -> Config {
    let config = Config {
        state_dir: root.path("state_dir").unwrap_or_else(|| "/var/lib/picket-agent".into()),
        cache_dir: root.path("cache_dir").unwrap_or_else(|| "/var/cache/picket-agent".into()),
        plugin_dir: root.path("plugin_dir").unwrap_or_else(|| "/usr/lib/picket/plugins".into()),
        compiler: root.path("compiler"),
        node: node(root.table("node")),
        http: http(root.table("http")),
        uplink: uplink(root.table("uplink")),
        spool: spool(root.table("spool"), MIN_SPOOL),
        logs: logs(root.table("logs")),
        log: log(root.table("log")),
        nvml: nvml(root.table("nvml")),
        kmsg: kmsg(root.table("kmsg")),
        worker: worker(root.table("worker")),
        compile: compile(root.table("compile")),
        actions: actions(root.table("actions")),
        trust: trust(root.table("trust"), policy),
        plugins: root.tables("plugins").into_iter().filter_map(|(id, table)| plugin(id, table)).collect(),
    };
    for (key, path) in [("state_dir", &config.state_dir), ("cache_dir", &config.cache_dir)] {
        if path.is_relative() {
            root.refuse(key, format!("{:?} is relative; write a path that begins with /", path.display()));
        }
    }
    root.finish();
    config
}

/// Labels of one node.
const MAX_LABELS: usize = 32;
const MAX_LABEL: usize = 253;

fn node(mut table: Table<'_>) -> Node {
    let labels = table.read("labels", |value| {
        let Value::Dict(_, dict) = value else {
            return Err(format!("must be a table, as {{ rack = \"r1\" }}, not {}", value.to_actual()));
        };
        if dict.len() > MAX_LABELS {
            return Err(format!("there are {} labels; {MAX_LABELS} are allowed", dict.len()));
        }
        dict.iter().map(|(name, value)| label(name, value)).collect::<Result<BTreeMap<_, _>, _>>()
    });
    table.finish();
    Node { labels: labels.unwrap_or_default() }
}

fn label(name: &str, value: &Value) -> Result<(String, String), String> {
    picket_proto::model::check_label_name(name).map_err(|error| error.to_string())?;
    if name == "node" {
        return Err("node is the node's own name, which its certificate says; choose another name".to_owned());
    }
    match value.as_str() {
        Some(text) if text.chars().any(char::is_control) || name.len().max(text.len()) > MAX_LABEL => {
            Err(format!("the label {name} is longer than {MAX_LABEL} bytes, or has a control character"))
        }
        Some(text) => Ok((name.to_owned(), text.to_owned())),
        None => Err(format!("the label {name} must be a text, as {name} = \"r1\"")),
    }
}

fn http(mut table: Table<'_>) -> Http {
    let http = Http { listen: table.address("listen").unwrap_or_else(|| ([127, 0, 0, 1], 9460).into()) };
    table.finish();
    http
}

fn uplink(mut table: Table<'_>) -> Uplink {
    let uplink = Uplink {
        aggregator: table.string("aggregator"),
        certificate: table.path("certificate"),
        key: table.path("key"),
        authorities: table.path("authorities"),
        backoff_min: table.duration("backoff_min").unwrap_or(Duration::from_secs(1)),
        backoff_max: table.duration("backoff_max").unwrap_or(Duration::from_secs(60)),
    };
    if let Some(aggregator) = &uplink.aggregator
        && !is_host_port(aggregator)
    {
        table.refuse(
            "aggregator",
            format!("{aggregator:?} is no HOST:PORT; write for example \"metrics.example.org:9470\""),
        );
    }
    let own =
        [("certificate", &uplink.certificate), ("key", &uplink.key), ("authorities", &uplink.authorities)];
    if own.iter().any(|(_, path)| path.is_some()) {
        for (key, _) in own.iter().filter(|(_, path)| path.is_none()) {
            table.refuse(
                key,
                "is missing: an identity of your own needs certificate, key and authorities; an enrolled one none of them",
            );
        }
    }
    if uplink.backoff_min < Duration::from_millis(10) {
        table.refuse("backoff_min", "must be at least 10ms");
    }
    if uplink.backoff_max < uplink.backoff_min {
        table.refuse(
            "backoff_max",
            format!("must not be shorter than backoff_min, {}", format_duration(uplink.backoff_min)),
        );
    }
    table.finish();
    uplink
}

fn is_host_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(|c: char| c.is_whitespace() || c == '/')
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

fn logs(mut table: Table<'_>) -> Logs {
    let logs = Logs { spool: spool(table.table("spool"), MIN_LOG_SPOOL) };
    table.finish();
    logs
}

fn spool(mut table: Table<'_>, least: ByteSize) -> Spool {
    let spool = Spool {
        max_size: table.size("max_size").unwrap_or(ByteSize(256 << 20)),
        max_age: table.duration("max_age").unwrap_or(Duration::from_secs(3 * 86_400)),
    };
    if spool.max_size < least {
        table.refuse("max_size", format!("{} is too small; at least {least} is needed", spool.max_size));
    }
    if spool.max_age < Duration::from_secs(60) {
        table.refuse("max_age", "must be at least 1m");
    }
    table.finish();
    spool
}

fn log(mut table: Table<'_>) -> Log {
    let log = Log {
        level: table.string("level").unwrap_or_else(|| "info".to_owned()),
        format: table
            .word("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)])
            .unwrap_or(LogFormat::Text),
    };
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(&log.level) {
        table.refuse(
            "level",
            format!("{:?} is no level: {error}; allowed are error, warn, info, debug, trace", log.level),
        );
    }
    table.finish();
    log
}

fn nvml(mut table: Table<'_>) -> Nvml {
    let nvml = Nvml {
        helper: table.path("helper"),
        library: table.path("library"),
        timeout: table.duration("timeout").unwrap_or(Duration::from_secs(2)),
    };
    // A snapshot in which one call takes its time must still be there before the plugin's own time is over.
    if !(Duration::from_millis(100)..=Duration::from_secs(5)).contains(&nvml.timeout) {
        table.refuse("timeout", "must be from 100ms to 5s");
    }
    for (key, path) in [("helper", &nvml.helper), ("library", &nvml.library)] {
        if path.as_ref().is_some_and(|path| path.is_relative()) {
            table.refuse(key, "is relative; write a path that begins with /");
        }
    }
    table.finish();
    nvml
}

fn kmsg(mut table: Table<'_>) -> Kmsg {
    let kmsg = Kmsg { path: table.path("path").unwrap_or_else(|| "/dev/kmsg".into()) };
    if kmsg.path.is_relative() {
        table.refuse("path", "is relative; write a path that begins with /");
    }
    table.finish();
    kmsg
}

fn trust(mut table: Table<'_>, beside: &Path) -> Trust {
    let policy = table.path("policy");
    if policy.as_ref().is_some_and(|path| path.is_relative()) {
        table.refuse("policy", "is relative; write a path that begins with /");
    }
    let trust = Trust {
        policy: policy.unwrap_or_else(|| beside.to_owned()),
        allow_unsigned: table.bool("allow_unsigned").unwrap_or(false),
    };
    table.finish();
    trust
}

fn actions(mut table: Table<'_>) -> Actions {
    let actions = Actions {
        enabled: table.bool("enabled").unwrap_or(false),
        max_running: table.count("max_running", 1..=64).unwrap_or(1),
        per_hour: table.count("per_hour", 1..=10_000).unwrap_or(10),
        cooldown: table.duration("cooldown").unwrap_or(Duration::from_secs(300)),
        max_time: table.duration("max_time").unwrap_or(Duration::from_secs(900)),
    };
    if !(Duration::from_secs(1)..=MAX_INTERVAL).contains(&actions.max_time) {
        table.refuse("max_time", "must be from 1s to 1d");
    }
    table.finish();
    actions
}

/// What is said of an action plugin alone; none: it is a source.
fn rules(table: &mut Table<'_>) -> Option<Rules> {
    let is_action = table.word("role", &[("source", false), ("action", true)]).unwrap_or(false);
    let mut of_action = table.table("action");
    if !is_action && of_action.is_there() {
        of_action.refuse_itself("is for a plugin with role = \"action\" alone");
    }
    let rules = Rules {
        allow: of_action.list("allow").unwrap_or_default(),
        approve: of_action.list("approve").unwrap_or_default(),
        cooldown: of_action.duration("cooldown"),
    };
    of_action.finish();
    is_action.then_some(rules)
}

fn compile(mut table: Table<'_>) -> Compile {
    let default = Compile::default();
    let compile = Compile {
        memory: table.size("memory").unwrap_or(default.memory),
        timeout: table.duration("timeout").unwrap_or(default.timeout),
    };
    if compile.memory < MIN_COMPILE_MEMORY {
        let what = format!("{} is too small; at least {MIN_COMPILE_MEMORY} is needed", compile.memory);
        table.refuse("memory", what);
    }
    if !COMPILE_WITHIN.contains(&compile.timeout) {
        table.refuse("timeout", "is not between 10s and 10m");
    }
    table.finish();
    compile
}

fn worker(mut table: Table<'_>) -> Worker {
    let worker = Worker {
        program: table.path("program"),
        user: table.string("user"),
        memory: table.size("memory").unwrap_or(ByteSize(512 << 20)),
        require: table.list("require").unwrap_or_default(),
    };
    if worker.memory < MIN_WORKER_MEMORY {
        table.refuse(
            "memory",
            format!("{} is too small; at least {MIN_WORKER_MEMORY} is needed", worker.memory),
        );
    }
    if worker.program.as_ref().is_some_and(|path| path.is_relative()) {
        table.refuse("program", "is relative; write a path that begins with /");
    }
    table.finish();
    worker
}

fn plugin(id: &str, mut table: Table<'_>) -> Option<(PluginId, Plugin)> {
    let checked = match PluginId::new(id) {
        Ok(checked) => Some(checked),
        Err(error) => {
            table.refuse_itself(error.to_string());
            None
        }
    };
    if id == OWN_ID {
        table.refuse_itself("is the id of the agent's own metrics; choose another");
    }
    let file = table.path("file").unwrap_or_else(|| format!("{id}.wasm").into());
    let interval = table.duration("interval").unwrap_or(Duration::from_secs(15));
    if !(MIN_INTERVAL..=MAX_INTERVAL).contains(&interval) {
        table.refuse(
            "interval",
            format!(
                "{} is not allowed; from {} to {} is",
                format_duration(interval),
                format_duration(MIN_INTERVAL),
                format_duration(MAX_INTERVAL)
            ),
        );
    }
    let action = rules(&mut table);
    let mut limits: Limits = table.deserialize("limits").unwrap_or_default();
    // What stops a container or a service takes the time that these need.
    if action.is_some() && limits.call_time == Limits::default().call_time {
        limits.call_time = ACTION_CALL_TIME;
    }
    let plugin = Plugin {
        file,
        interval,
        enabled: table.bool("enabled").unwrap_or(true),
        settings: table
            .read("settings", |value| match value {
                Value::Dict(..) => value.deserialize().map_err(|error| error.to_string()),
                other => Err(format!("must be a table, not {}", other.to_actual())),
            })
            .unwrap_or_else(|| serde_json::json!({})),
        grants: table.list("grants").unwrap_or_default(),
        limits,
        isolation: table
            .word("isolation", &[("shared", Isolation::Shared), ("own", Isolation::Own)])
            .unwrap_or_default(),
        action,
    };
    table.finish();
    Some((checked?, plugin))
}
