//! What the operator may set. One TOML file, then `PICKET_AGGREGATOR_*` from the environment (`__` goes one level
//! down: `PICKET_AGGREGATOR_HTTP__LISTEN`). Unknown keys are refused with the nearest known one, so a typing
//! mistake never becomes a silent default. This is the only module that reads the environment.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use figment::Figment;
use figment::providers::{Env, Format, Toml};
use serde::{Deserialize, Deserializer};

/// Before a key in the environment.
pub const ENVIRONMENT_PREFIX: &str = "PICKET_AGGREGATOR_";

/// The whole configuration. Every key has a default; the shipped `config/aggregator.toml` describes each.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub state_dir: PathBuf,
    pub uplink: Uplink,
    pub http: Http,
    pub identity: Identity,
    pub store: Store,
    pub events: Events,
    pub logs: Logs,
    pub actions: Actions,
    pub rollout: Rollout,
    pub log: Log,
}

/// The port that agents talk to.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Uplink {
    pub listen: SocketAddr,
    /// `host:port`s written into enrolment tokens: where agents find this aggregator.
    pub advertise: Vec<String>,
    /// Names in the server certificate beside the advertised hosts, the host's own name and localhost.
    pub names: Vec<String>,
    /// Agents connected at one time.
    pub max_connections: usize,
}

/// The port that people and Prometheus talk to.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    pub listen: SocketAddr,
    pub tls: bool,
    pub max_connections: usize,
}

/// Who signs certificates: this aggregator's own CA, or yours (all three paths).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// Life of a node's certificate.
    #[serde(deserialize_with = "duration")]
    pub certificate_life: Duration,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub client_authorities: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// A series without a sample for this long vanishes from `/metrics`.
    #[serde(deserialize_with = "duration")]
    pub stale_after: Duration,
    /// The durable log of acknowledged batches, on disk.
    pub log_max_size: ByteSize,
    #[serde(deserialize_with = "duration")]
    pub log_max_age: Duration,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Events {
    /// Events kept; the oldest go first.
    pub max_count: u64,
    #[serde(deserialize_with = "duration")]
    pub max_age: Duration,
}

/// The log lines that nodes and others bring.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Logs {
    /// On disk; the oldest go first.
    pub max_size: ByteSize,
    #[serde(deserialize_with = "duration")]
    pub max_age: Duration,
    /// Label sets that one node, or one token, may have at a time.
    pub max_streams_per_node: usize,
    #[serde(deserialize_with = "duration")]
    pub query_timeout: Duration,
    /// Bytes of lines that one query may look at.
    pub query_max_bytes: ByteSize,
    pub forward: Forward,
}

/// How much is done to the fleet by actions. Each node has limits of its own beside these.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Actions {
    /// At a time.
    pub max_running: usize,
    pub per_hour: usize,
    /// Of the connected nodes, those to which something is done within ten minutes; one at least.
    pub max_nodes_percent: usize,
    /// How long a plan may be applied after it was shown.
    #[serde(deserialize_with = "duration")]
    pub plan_ttl: Duration,
}

/// Where plugins for the fleet come from, and whom they are trusted from.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rollout {
    /// Judges what is pulled; where there is no such file nobody is trusted.
    pub policy: PathBuf,
    /// Nodes that fetch and try at a time, of one rollout.
    pub max_in_flight: usize,
    /// On disk, the plugins of all rollouts that go on.
    pub max_size: ByteSize,
    /// Those that plugins are pulled from; no other is asked.
    pub registries: Vec<Registry>,
}

/// An OCI registry.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// With its port where it has one: what stands before the first slash of a reference.
    pub host: String,
    pub username: Option<String>,
    pub password_file: Option<PathBuf>,
    /// Its CA, PEM.
    pub authorities: Option<PathBuf>,
    #[serde(default)]
    pub plain_http: bool,
}

/// Another Loki that gets everything too.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Forward {
    pub url: Option<String>,
    /// `X-Scope-OrgID`.
    pub tenant: Option<String>,
    pub bearer_file: Option<PathBuf>,
    pub username: Option<String>,
    pub password_file: Option<PathBuf>,
    /// Its CA, PEM.
    pub authorities: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// A tracing filter: `info`, `debug`, `info,picket_aggregator::ingest=trace`.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    Text,
    Json,
    /// Straight to the systemd journal, with fields.
    Journald,
    /// `journald` under systemd, `text` elsewhere.
    Auto,
}

/// Certificate files of a CA that is not Picket's.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnCertificates {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub client_authorities: PathBuf,
}

/// Why the configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{place}: unknown key `{key}`{}", hint(nearest.as_deref()))]
    UnknownKey { place: String, key: String, nearest: Option<String> },
    #[error("{place}: {message}")]
    Value { place: String, message: String },
    #[error("{key}: {message}")]
    Invalid { key: &'static str, message: String },
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |n| format!("; did you mean `{n}`?"))
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/picket-aggregator".into(),
            uplink: Uplink::default(),
            http: Http::default(),
            identity: Identity::default(),
            store: Store::default(),
            events: Events::default(),
            logs: Logs::default(),
            actions: Actions::default(),
            rollout: Rollout::default(),
            log: Log::default(),
        }
    }
}

impl Default for Actions {
    fn default() -> Self {
        Self { max_running: 4, per_hour: 60, max_nodes_percent: 10, plan_ttl: Duration::from_secs(900) }
    }
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            policy: "/etc/picket/rollout-policy.toml".into(),
            max_in_flight: 20,
            max_size: ByteSize::gib(1),
            registries: Vec::new(),
        }
    }
}

impl Default for Uplink {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 9470)),
            advertise: Vec::new(),
            names: Vec::new(),
            max_connections: 20_000,
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9471)), tls: true, max_connections: 512 }
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            certificate_life: Duration::from_secs(24 * 3600),
            certificate: None,
            key: None,
            client_authorities: None,
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            stale_after: Duration::from_secs(300),
            log_max_size: ByteSize::gib(1),
            log_max_age: Duration::from_secs(24 * 3600),
        }
    }
}

impl Default for Events {
    fn default() -> Self {
        Self { max_count: 1_000_000, max_age: Duration::from_secs(30 * 24 * 3600) }
    }
}

impl Default for Logs {
    fn default() -> Self {
        Self {
            max_size: ByteSize::gib(2),
            max_age: Duration::from_secs(7 * 24 * 3600),
            max_streams_per_node: 5000,
            query_timeout: Duration::from_secs(30),
            query_max_bytes: ByteSize::gib(16),
            forward: Forward::default(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Auto }
    }
}

impl Config {
    /// Reads `path` (the defaults alone where it is none), then the environment, and checks the whole.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let mut figment = Figment::new();
        if let Some(path) = path {
            // Read here, because a missing file would otherwise count as an empty one.
            let text = std::fs::read_to_string(path)
                .map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
            figment = figment.merge(Toml::string(&text));
        }
        let place = path.map_or_else(|| "the environment".to_owned(), |p| p.display().to_string());
        let config: Self = figment
            .merge(Env::prefixed(ENVIRONMENT_PREFIX).split("__"))
            .extract()
            .map_err(|error| explain(&place, error))?;
        config.check()?;
        Ok(config)
    }

    /// The files of a CA of your own, where one is configured.
    pub fn own_certificates(&self) -> Option<OwnCertificates> {
        let i = &self.identity;
        match (&i.certificate, &i.key, &i.client_authorities) {
            (Some(certificate), Some(key), Some(client_authorities)) => Some(OwnCertificates {
                certificate: certificate.clone(),
                key: key.clone(),
                client_authorities: client_authorities.clone(),
            }),
            _ => None,
        }
    }

    /// Every name that the server certificate has to hold: the configured ones, the advertised hosts, the host's
    /// own name, and localhost.
    pub fn server_names(&self) -> Vec<String> {
        let mut names = self.uplink.names.clone();
        names.extend(self.uplink.advertise.iter().filter_map(|a| host_of(a)).map(str::to_owned));
        names.push(hostname());
        names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        for listen in [self.uplink.listen, self.http.listen] {
            if !listen.ip().is_unspecified() {
                names.push(listen.ip().to_string());
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        names.retain(|name| !name.is_empty() && seen.insert(name.clone()));
        names
    }

    /// Where agents find this aggregator: what is configured, else the host's name and the uplink's port.
    pub fn advertised(&self) -> Vec<String> {
        if self.uplink.advertise.is_empty() {
            vec![format!("{}:{}", hostname(), self.uplink.listen.port())]
        } else {
            self.uplink.advertise.clone()
        }
    }

    /// What the aggregator would do, for a person.
    pub fn summary(&self) -> String {
        let scheme = if self.http.tls { "https" } else { "http" };
        let ca = if self.own_certificates().is_some() { "your own" } else { "Picket's" };
        format!(
            "state folder  {}\nuplink        {} (agents are told {})\nAPI           {scheme}://{}\n\
             CA            {ca}\nserver names  {}\n",
            self.state_dir.display(),
            self.uplink.listen,
            self.advertised().join(", "),
            self.http.listen,
            self.server_names().join(", "),
        )
    }

    fn check(&self) -> Result<(), ConfigError> {
        let invalid = |key, message: &str| Err(ConfigError::Invalid { key, message: message.to_owned() });
        for address in &self.uplink.advertise {
            if host_of(address).is_none() {
                return invalid("uplink.advertise", &format!("{address:?} is not of the form host:port"));
            }
        }
        let i = &self.identity;
        let given = [&i.certificate, &i.key, &i.client_authorities].iter().filter(|p| p.is_some()).count();
        if given != 0 && given != 3 {
            return invalid(
                "identity",
                "a CA of your own needs all of `certificate`, `key` and `client_authorities`; \
                 leave out all three to use Picket's own CA",
            );
        }
        let day = Duration::from_secs(24 * 3600);
        if i.certificate_life < Duration::from_secs(5) || i.certificate_life > 366 * day {
            return invalid("identity.certificate_life", "must lie between 5s and 366d");
        }
        if self.uplink.max_connections == 0 {
            return invalid("uplink.max_connections", "must be at least 1");
        }
        if self.http.max_connections == 0 {
            return invalid("http.max_connections", "must be at least 1");
        }
        if self.store.stale_after < Duration::from_secs(1) {
            return invalid("store.stale_after", "must be at least 1s");
        }
        if self.store.log_max_size < ByteSize::mib(1) {
            return invalid("store.log_max_size", "must be at least 1MiB");
        }
        if self.events.max_count == 0 {
            return invalid("events.max_count", "must be at least 1");
        }
        self.check_logs()?;
        self.check_rollout()?;
        for (key, value, most) in [
            ("actions.max_running", self.actions.max_running, 10_000),
            ("actions.per_hour", self.actions.per_hour, 1_000_000),
            ("actions.max_nodes_percent", self.actions.max_nodes_percent, 100),
        ] {
            if !(1..=most).contains(&value) {
                return invalid(key, &format!("must lie between 1 and {most}"));
            }
        }
        if !(Duration::from_secs(10)..=Duration::from_secs(86_400)).contains(&self.actions.plan_ttl) {
            return invalid("actions.plan_ttl", "must lie between 10s and 24h");
        }
        if let Err(error) = self.log.level.parse::<tracing_subscriber::filter::Targets>() {
            return invalid("log.level", &format!("{:?} is no log filter: {error}", self.log.level));
        }
        Ok(())
    }
}

impl Config {
    fn check_rollout(&self) -> Result<(), ConfigError> {
        let invalid = |key, message: &str| Err(ConfigError::Invalid { key, message: message.to_owned() });
        if !(1..=1000).contains(&self.rollout.max_in_flight) {
            return invalid("rollout.max_in_flight", "must lie between 1 and 1000");
        }
        if self.rollout.max_size < ByteSize::mib(64) {
            return invalid("rollout.max_size", "must be at least 64MiB, the size of the largest plugin");
        }
        for (i, registry) in self.rollout.registries.iter().enumerate() {
            if registry.host.is_empty() || registry.host.contains(['/', ' ']) {
                return invalid("rollout.registries.host", &format!("{:?} is no host", registry.host));
            }
            if self.rollout.registries.iter().skip(i + 1).any(|other| other.host == registry.host) {
                return invalid("rollout.registries.host", &format!("{:?} is there twice", registry.host));
            }
            if registry.username.is_some() != registry.password_file.is_some() {
                return invalid("rollout.registries", "`username` and `password_file` belong together");
            }
        }
        Ok(())
    }

    fn check_logs(&self) -> Result<(), ConfigError> {
        let invalid = |key, message: &str| Err(ConfigError::Invalid { key, message: message.to_owned() });
        if self.logs.max_size < ByteSize::mib(32) {
            return invalid("logs.max_size", "must be at least 32MiB");
        }
        if self.logs.max_age < Duration::from_secs(60) {
            return invalid("logs.max_age", "must be at least 1m");
        }
        if self.logs.max_streams_per_node == 0 {
            return invalid("logs.max_streams_per_node", "must be at least 1");
        }
        if self.logs.query_timeout < Duration::from_millis(100) {
            return invalid("logs.query_timeout", "must be at least 100ms");
        }
        let forward = &self.logs.forward;
        let more = Forward { url: None, ..forward.clone() };
        if forward.url.is_none() && more != Forward::default() {
            return invalid("logs.forward.url", "is missing, and other keys of logs.forward are set");
        }
        if forward.bearer_file.is_some() && forward.username.is_some() {
            return invalid("logs.forward", "takes either `bearer_file` or `username` and `password_file`");
        }
        if forward.username.is_some() != forward.password_file.is_some() {
            return invalid("logs.forward", "`username` and `password_file` belong together");
        }
        Ok(())
    }
}

/// Whether standard error goes to the systemd journal.
#[allow(clippy::disallowed_methods)]
pub fn under_journald() -> bool {
    std::env::var("JOURNAL_STREAM").is_ok_and(|v| !v.is_empty())
}

/// The host's name, as `uname` gives it.
pub fn hostname() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".into() } else { name }
}

/// The host of a `host:port`, brackets of an IPv6 address taken off.
fn host_of(address: &str) -> Option<&str> {
    let (host, port) = address.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty()).then_some(host)
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|error| {
        serde::de::Error::custom(format!("{text:?} is no duration ({error}); write 30s, 5m, 24h"))
    })
}

fn explain(file: &str, error: figment::Error) -> ConfigError {
    let place = match &error.metadata {
        Some(m) if m.name.contains("environment") => "the environment".to_owned(),
        _ => file.to_owned(),
    };
    let path = error.path.join(".");
    match error.kind {
        figment::error::Kind::UnknownField(key, known) => {
            let nearest = known
                .iter()
                .map(|k| (strsim::jaro_winkler(k, &key), *k))
                .filter(|(score, _)| *score > 0.7)
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .map(|(_, k)| dotted(&path, &key, k));
            let full = dotted(&path, &key, &key);
            ConfigError::UnknownKey { place, key: full, nearest }
        }
        kind if path.is_empty() => ConfigError::Value { place, message: kind.to_string() },
        kind => ConfigError::Value { place, message: format!("{path}: {kind}") },
    }
}

/// `name` beside `key`, where `path` may or may not end in `key`.
fn dotted(path: &str, key: &str, name: &str) -> String {
    let parent = path.strip_suffix(key).unwrap_or(path).trim_end_matches('.');
    if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(Some(&path))
    }

    #[test]
    fn the_shipped_file_is_the_defaults() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/aggregator.toml");
        assert_eq!(Config::load(Some(&path)).unwrap(), Config::default());
    }

    #[test]
    fn the_shipped_file_names_every_key() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/aggregator.toml");
        let text = std::fs::read_to_string(path).unwrap();
        // The debug form of the defaults names every field.
        let all = format!("{:?}", Config::default());
        for word in all.split(|c: char| !(c.is_ascii_lowercase() || c == '_')) {
            let is_key = all.contains(&format!(" {word}: "));
            assert!(!is_key || text.contains(word), "config/aggregator.toml does not name {word}");
        }
    }

    #[test]
    fn refusals_say_what_and_where() {
        for (text, wanted) in [
            ("[htttp]\nlisten = '1.2.3.4:5'", "unknown key `htttp`; did you mean `http`?"),
            ("[http]\nlissten = '1.2.3.4:5'", "unknown key `http.lissten`; did you mean `http.listen`?"),
            ("zzzz = 1", "unknown key `zzzz`"),
            ("[http]\nlisten = 'here'", "http.listen"),
            ("[store]\nstale_after = '5 parsecs'", "is no duration"),
            ("[store]\nlog_max_size = 'big'", "store.log_max_size"),
            ("[identity]\ncertificate = '/x'", "all of `certificate`, `key` and `client_authorities`"),
            ("[identity]\ncertificate_life = '1s'", "between 5s and 366d"),
            ("[uplink]\nadvertise = ['no-port']", "host:port"),
            ("[logs]\nmax_size = '1MiB'", "logs.max_size"),
            ("[logs]\nmax_agee = '1d'", "unknown key `logs.max_agee`; did you mean `logs.max_age`?"),
            ("[logs.forward]\ntenant = 'a'", "logs.forward.url"),
            ("[logs.forward]\nurl = 'https://l'\nusername = 'u'", "belong together"),
            ("[rollout]\nmax_in_flight = 0", "rollout.max_in_flight"),
            ("[rollout]\nmax_size = '1MiB'", "rollout.max_size"),
            ("[rollout]\npolcy = '/x'", "unknown key `rollout.polcy`; did you mean `rollout.policy`?"),
            ("[[rollout.registries]]\nhost = 'a/b'", "is no host"),
            ("[[rollout.registries]]\nhost = 'a'\n[[rollout.registries]]\nhost = 'a'", "twice"),
            ("[[rollout.registries]]\nhost = 'a'\nusername = 'u'", "belong together"),
            ("[log]\nlevel = 'a=b=c'", "log filter"),
            ("state_dir = [", "a.toml"),
        ] {
            let error = load(text).expect_err(text).to_string();
            assert!(error.contains(wanted), "{text:?} gave {error:?}, wanted {wanted:?}");
        }
        let missing = Config::load(Some(Path::new("/no/such/file"))).unwrap_err().to_string();
        assert!(missing.contains("/no/such/file"), "{missing}");
    }

    #[test]
    fn names_of_the_server() {
        let config =
            load("[uplink]\nadvertise = ['a.example:9470', '[2001:db8::1]:9470']\nnames = ['b.example']")
                .unwrap();
        let names = config.server_names();
        for name in ["a.example", "2001:db8::1", "b.example", "localhost", "127.0.0.1"] {
            assert!(names.iter().any(|n| n == name), "{name} is missing of {names:?}");
        }
    }
}
