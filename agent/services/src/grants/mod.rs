//! Who may do what: the scopes that a manifest asks for and an operator grants, and the gate between them.
//!
//! Deny by default. Two of the three checks stand here: at load ([`admit`]: what the component imports and what its
//! manifest needs must lie within the grants) and at each call (the [`Grant`] carries the compiled scope). The one
//! between them, that an interface which was not granted does not exist for the plugin, is the linker's.
//! A [`Grant`] cannot be made outside this module: a service that takes one cannot be reached without the operator.

mod lines;
mod path;
mod url;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use picket_proto::model::PluginId;
use serde::{Deserialize, Serialize};

use crate::{
    command, containers, containers_control, files_write, kmsg, logs, nvml, systemd_control, unix_http,
};

pub use lines::grant_lines;
pub(crate) use lines::{list, secret_line, string, tables};
pub(crate) use path::covers as path_covers;
pub use path::{InvalidPattern, PathPattern, PathSet};
pub use url::{AddressRule, RuleSet, UrlRefusal};
pub(crate) use url::{Asked, check_secret, default_port, path_fits};

/// The scopes of one capability among others.
macro_rules! of {
    ($scopes:expr, $capability:ident) => {
        $scopes
            .iter()
            .filter_map(|s| match s {
                Scope::$capability(scope) => Some(scope),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
}

/// One capability with its scope: the same words in a manifest's `[[needs]]` and in the operator's
/// `[[plugins.NAME.grants]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "capability", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Scope {
    /// Keys and values that outlive the agent, this many bytes of them.
    Store { bytes: u64 },
    /// Reading of files, and the fill of file systems. Patterns as [`PathPattern`] says.
    Files {
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        read: Vec<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        filesystems: Vec<String>,
    },
    /// Outgoing HTTP to these places.
    Http { urls: Vec<UrlRule> },
    /// uname(2) and the local time zone.
    System {},
    /// NVIDIA GPUs, read only.
    Nvml(nvml::Scope),
    /// Kernel messages.
    Kmsg(kmsg::Scope),
    /// What runs under a Docker-compatible engine, read only.
    Containers(containers::Scope),
    /// HTTP over Unix sockets.
    UnixHttp(unix_http::Scope),
    /// Commands that the operator defined by name.
    Command(command::Scope),
    /// Lines of log files, of the journal and of containers.
    Logs(logs::Scope),
    /// Start, stop, restart and kill of containers.
    ContainersControl(containers_control::Scope),
    /// Units of systemd: their state, and restart, reload, start and stop of them.
    SystemdControl(systemd_control::Scope),
    /// Deleting files.
    FilesWrite(files_write::Scope),
}

/// What the gate asks of a scope that has a type of its own.
pub(crate) trait Granted: Sized + Clone {
    /// The scope made ready for the check of each call.
    type Compiled;

    /// All of the operator's grants of this capability in one.
    ///
    /// # Errors
    /// What makes no sense, in a sentence.
    fn compile(scopes: &[&Self]) -> Result<Self::Compiled, String>;

    /// The part of this need that no grant covers.
    fn uncovered(&self, grants: &[&Self]) -> Option<Self>;

    /// Stands in a refusal where the author named no need.
    fn example() -> Self;

    /// The TOML lines below `capability = …`, each with its newline.
    fn lines(&self) -> String;
}

/// Where a plugin may send HTTP to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UrlRule {
    /// `http` or `https`; none: both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// A name, an IP address, a network (`172.17.0.0/16`), `*.suffix` or `*`. In a manifest's needs `*` means: whatever
    /// host its settings name.
    pub host: String,
    /// None: the scheme's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Instead of `port`: the first and the last, `8000-8099`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<String>,
    /// Whole segments: `/metrics` allows `/metrics` and `/metrics/x`, not `/metrics2`.
    #[serde(default = "slash")]
    pub path_prefix: String,
    #[serde(default = "get_only")]
    pub methods: Vec<String>,
    /// Addresses that are not public too (loopback, private networks). Needless where `host` is an IP address.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_private: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretRule>,
    /// The authorities to trust, in place of the system's: a file of PEM. This and the three below are of `https`, and the
    /// operator's to say: a manifest leaves them out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Whose certificate the server's must be, where that is not the host of the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Who the agent is for the server: files of PEM, both or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<PathBuf>,
}

/// A secret that the host puts into a request's header. The plugin knows its name, never its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretRule {
    pub name: String,
    /// Where the value stands (its trailing newline is cut). The operator's to say: a manifest leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    #[serde(default = "authorization")]
    pub header: String,
    /// Put before the value: `"Bearer "`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
}

impl UrlRule {
    /// `GET` of everything there.
    pub fn get(host: &str) -> Self {
        Self {
            scheme: None,
            host: host.to_owned(),
            port: None,
            ports: None,
            path_prefix: slash(),
            methods: get_only(),
            allow_private: false,
            secret: None,
            ca: None,
            server_name: None,
            client_certificate: None,
            client_key: None,
        }
    }
}

fn slash() -> String {
    "/".to_owned()
}

fn get_only() -> Vec<String> {
    vec!["GET".to_owned()]
}

fn authorization() -> String {
    "authorization".to_owned()
}

/// A manifest's `[[needs]]`: a scope and the reason that an operator reads beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    pub scope: Scope,
    pub why: String,
}

impl<'de> Deserialize<'de> for Need {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let mut map = serde_json::Map::deserialize(d)?;
        let why = match map.remove("why") {
            Some(serde_json::Value::String(why)) if !why.trim().is_empty() => why,
            Some(_) => return Err(D::Error::custom("`why` must be a sentence")),
            None => return Err(D::Error::missing_field("why")),
        };
        let scope = Scope::deserialize(serde_json::Value::Object(map)).map_err(D::Error::custom)?;
        Ok(Self { scope, why })
    }
}

/// The interfaces that need a grant. `log`, `clock` and `random` are always there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Capability {
    Store,
    Files,
    Http,
    System,
    Nvml,
    Kmsg,
    Containers,
    UnixHttp,
    Command,
    Logs,
    ContainersControl,
    SystemdControl,
    FilesWrite,
}

impl Capability {
    pub const ALL: [Self; 13] = [
        Self::Store,
        Self::Files,
        Self::Http,
        Self::System,
        Self::Nvml,
        Self::Kmsg,
        Self::Containers,
        Self::UnixHttp,
        Self::Command,
        Self::Logs,
        Self::ContainersControl,
        Self::SystemdControl,
        Self::FilesWrite,
    ];

    /// The word in grants, and the interface's name in `picket:host`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Files => "files",
            Self::Http => "http",
            Self::System => "system",
            Self::Nvml => "nvml",
            Self::Kmsg => "kmsg",
            Self::Containers => "containers",
            Self::UnixHttp => "unix-http",
            Self::Command => "command",
            Self::Logs => "logs",
            Self::ContainersControl => "containers-control",
            Self::SystemdControl => "systemd-control",
            Self::FilesWrite => "files-write",
        }
    }

    /// It changes something by its nature: for actions alone.
    pub const fn is_control(self) -> bool {
        matches!(self, Self::ContainersControl | Self::SystemdControl | Self::FilesWrite)
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.word() == word)
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Scope {
    pub const fn capability(&self) -> Capability {
        match self {
            Self::Store { .. } => Capability::Store,
            Self::Files { .. } => Capability::Files,
            Self::Http { .. } => Capability::Http,
            Self::System {} => Capability::System,
            Self::Nvml(_) => Capability::Nvml,
            Self::Kmsg(_) => Capability::Kmsg,
            Self::Containers(_) => Capability::Containers,
            Self::UnixHttp(_) => Capability::UnixHttp,
            Self::Command(_) => Capability::Command,
            Self::Logs(_) => Capability::Logs,
            Self::ContainersControl(_) => Capability::ContainersControl,
            Self::SystemdControl(_) => Capability::SystemdControl,
            Self::FilesWrite(_) => Capability::FilesWrite,
        }
    }
}

/// The operator's permission for one plugin to use one capability within a scope. Made by [`admit`] alone.
#[derive(Debug)]
pub struct Grant {
    plugin: PluginId,
    scope: Compiled,
    held: Arc<AtomicBool>,
}

/// A scope made ready for the check of each call.
#[derive(Debug)]
pub(crate) enum Compiled {
    Store { bytes: u64 },
    Files { read: PathSet, filesystems: PathSet, desk: crate::files::Desk },
    Http { rules: RuleSet },
    System,
    Nvml(<nvml::Scope as Granted>::Compiled),
    Kmsg(<kmsg::Scope as Granted>::Compiled),
    Containers(<containers::Scope as Granted>::Compiled),
    UnixHttp(<unix_http::Scope as Granted>::Compiled),
    Command(<command::Scope as Granted>::Compiled),
    Logs(<logs::Scope as Granted>::Compiled),
    ContainersControl(<containers_control::Scope as Granted>::Compiled),
    SystemdControl(<systemd_control::Scope as Granted>::Compiled),
    FilesWrite(<files_write::Scope as Granted>::Compiled),
}

impl Grant {
    pub const fn plugin(&self) -> &PluginId {
        &self.plugin
    }

    pub const fn capability(&self) -> Capability {
        match self.scope {
            Compiled::Store { .. } => Capability::Store,
            Compiled::Files { .. } => Capability::Files,
            Compiled::Http { .. } => Capability::Http,
            Compiled::System => Capability::System,
            Compiled::Nvml(_) => Capability::Nvml,
            Compiled::Kmsg(_) => Capability::Kmsg,
            Compiled::Containers(_) => Capability::Containers,
            Compiled::UnixHttp(_) => Capability::UnixHttp,
            Compiled::Command(_) => Capability::Command,
            Compiled::Logs(_) => Capability::Logs,
            Compiled::ContainersControl(_) => Capability::ContainersControl,
            Compiled::SystemdControl(_) => Capability::SystemdControl,
            Compiled::FilesWrite(_) => Capability::FilesWrite,
        }
    }

    pub(crate) const fn scope(&self) -> &Compiled {
        &self.scope
    }

    pub(crate) fn holds_effects(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }
}

/// What a plugin may use: a grant for each capability that the operator granted and the plugin imports.
#[derive(Debug, Default)]
pub struct Admission {
    grants: Vec<Grant>,
    held: Arc<AtomicBool>,
}

impl Admission {
    pub fn grant(&self, capability: Capability) -> Option<&Grant> {
        self.grants.iter().find(|g| g.capability() == capability)
    }

    /// Whether what would change something is refused from now on, whatever is granted. It is not where nobody said so.
    pub fn hold_effects(&self, held: bool) {
        self.held.store(held, Ordering::Release);
    }

    pub fn capabilities(&self) -> impl Iterator<Item = Capability> {
        self.grants.iter().map(Grant::capability)
    }
}

/// Why a plugin was not admitted.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Needs or imports that no grant covers. The text holds the exact lines that would grant them.
    #[error("{what}. To grant it, add to the agent's config:\n\n{lines}")]
    NotGranted { what: String, lines: String },
    /// The component imports a capability that its own manifest does not name.
    #[error(
        "the component imports `{capability}`, but its manifest has no [[needs]] with capability = \"{capability}\": \
         its author must state the scope and the reason"
    )]
    NotNamed { capability: Capability },
    #[error("in {}: {problem}", if *.operator { "the operator's grants" } else { "the manifest's needs" })]
    Malformed {
        /// It is the operator's to mend, not the author's.
        operator: bool,
        problem: String,
    },
}

/// The gate at load. `needs` is the manifest's list, or none where the component has no manifest; `imports` is what
/// the component's type names. Grants that the plugin does not import are left out of the admission.
///
/// # Errors
/// [`Refusal`]: an import or a need without a grant, or a scope that makes no sense.
pub fn admit(
    plugin: &PluginId,
    needs: Option<&[Need]>,
    imports: &BTreeSet<Capability>,
    grants: &[Scope],
) -> Result<Admission, Refusal> {
    let mut admission = Admission::default();
    for capability in Capability::ALL {
        let granted = Compiled::of(true, capability, grants.iter())?;
        let asked: Vec<&Need> =
            needs.unwrap_or_default().iter().filter(|n| n.scope.capability() == capability).collect();
        // A malformed need is the author's fault, whether or not the operator grants it.
        Compiled::of(false, capability, asked.iter().map(|n| &n.scope))?;
        let imported = imports.contains(&capability);
        if imported && needs.is_some() && asked.is_empty() {
            return Err(Refusal::NotNamed { capability });
        }
        let missing: Vec<Need> = asked
            .iter()
            .filter_map(|n| {
                let scope = uncovered(&n.scope, grants)?;
                Some(Need { scope, why: n.why.clone() })
            })
            .collect();
        if !missing.is_empty() {
            let what = format!("the plugin needs `{capability}` beyond what it is granted");
            return Err(Refusal::NotGranted { what, lines: grant_lines(plugin, &missing) });
        }
        match granted {
            Some(scope) if imported => {
                let held = admission.held.clone();
                admission.grants.push(Grant { plugin: plugin.clone(), scope, held });
            }
            None if imported => {
                let example =
                    Need { scope: example(capability), why: "say here what it may reach".to_owned() };
                return Err(Refusal::NotGranted {
                    what: format!("the component imports `{capability}`, which is not granted"),
                    lines: grant_lines(plugin, &[example]),
                });
            }
            _ => {}
        }
    }
    Ok(admission)
}

impl Compiled {
    fn of<'a>(
        operator: bool,
        capability: Capability,
        scopes: impl Iterator<Item = &'a Scope>,
    ) -> Result<Option<Self>, Refusal> {
        let malformed = |problem: String| Refusal::Malformed { operator, problem };
        let scopes: Vec<&Scope> = scopes.filter(|s| s.capability() == capability).collect();
        let mut found = false;
        let mut store = 0;
        let (mut reads, mut mounts, mut rules) = (Vec::new(), Vec::new(), Vec::new());
        for scope in &scopes {
            found = true;
            match scope {
                Scope::Store { bytes } => store = store.max(*bytes),
                Scope::Files { read, filesystems } => {
                    reads.extend_from_slice(read);
                    mounts.extend_from_slice(filesystems);
                }
                Scope::Http { urls } => rules.extend_from_slice(urls),
                _ => {}
            }
        }
        if !found {
            return Ok(None);
        }
        Ok(Some(match capability {
            Capability::Store => Self::Store { bytes: store },
            Capability::Files => Self::Files {
                read: PathSet::new(&reads).map_err(|e| malformed(e.to_string()))?,
                filesystems: PathSet::new(&mounts).map_err(|e| malformed(e.to_string()))?,
                desk: crate::files::Desk::default(),
            },
            Capability::Http => Self::Http { rules: RuleSet::new(rules).map_err(malformed)? },
            Capability::System => Self::System,
            Capability::Nvml => Self::Nvml(nvml::Scope::compile(&of!(scopes, Nvml)).map_err(malformed)?),
            Capability::Kmsg => Self::Kmsg(kmsg::Scope::compile(&of!(scopes, Kmsg)).map_err(malformed)?),
            Capability::Containers => {
                Self::Containers(containers::Scope::compile(&of!(scopes, Containers)).map_err(malformed)?)
            }
            Capability::UnixHttp => {
                Self::UnixHttp(unix_http::Scope::compile(&of!(scopes, UnixHttp)).map_err(malformed)?)
            }
            Capability::Command => {
                Self::Command(command::Scope::compile(&of!(scopes, Command)).map_err(malformed)?)
            }
            Capability::Logs => Self::Logs(logs::Scope::compile(&of!(scopes, Logs)).map_err(malformed)?),
            Capability::ContainersControl => Self::ContainersControl(
                containers_control::Scope::compile(&of!(scopes, ContainersControl)).map_err(malformed)?,
            ),
            Capability::SystemdControl => Self::SystemdControl(
                systemd_control::Scope::compile(&of!(scopes, SystemdControl)).map_err(malformed)?,
            ),
            Capability::FilesWrite => {
                Self::FilesWrite(files_write::Scope::compile(&of!(scopes, FilesWrite)).map_err(malformed)?)
            }
        }))
    }
}

/// The part of a need that no grant covers.
fn uncovered(need: &Scope, grants: &[Scope]) -> Option<Scope> {
    match need {
        Scope::Store { bytes } => {
            let enough = grants.iter().any(|g| matches!(g, Scope::Store { bytes: b } if b >= bytes));
            (!enough).then(|| need.clone())
        }
        Scope::Files { read, filesystems } => {
            let granted = |of: fn(&Scope) -> &[String], path: &String| {
                grants.iter().flat_map(|g| of(g).iter()).any(|g| path::covers(g, path))
            };
            let left = |list: &[String], of: fn(&Scope) -> &[String]| -> Vec<String> {
                list.iter().filter(|p| !granted(of, p)).cloned().collect()
            };
            let none = !grants.iter().any(|g| g.capability() == Capability::Files);
            let rest =
                Scope::Files { read: left(read, read_of), filesystems: left(filesystems, filesystems_of) };
            (none || !read_of(&rest).is_empty() || !filesystems_of(&rest).is_empty()).then_some(rest)
        }
        Scope::Http { urls } => {
            let granted: Vec<&UrlRule> = grants
                .iter()
                .flat_map(|g| match g {
                    Scope::Http { urls } => urls.as_slice(),
                    _ => &[],
                })
                .collect();
            // Granted with no URL at all it exists, and denies everything.
            let none = !grants.iter().any(|g| g.capability() == Capability::Http);
            let rest: Vec<UrlRule> =
                urls.iter().filter(|n| !granted.iter().any(|g| url::covers(g, n))).cloned().collect();
            (none || !rest.is_empty()).then_some(Scope::Http { urls: rest })
        }
        Scope::System {} => {
            (!grants.iter().any(|g| matches!(g, Scope::System {}))).then_some(Scope::System {})
        }
        Scope::Nvml(need) => need.uncovered(&of!(grants, Nvml)).map(Scope::Nvml),
        Scope::Kmsg(need) => need.uncovered(&of!(grants, Kmsg)).map(Scope::Kmsg),
        Scope::Containers(need) => need.uncovered(&of!(grants, Containers)).map(Scope::Containers),
        Scope::UnixHttp(need) => need.uncovered(&of!(grants, UnixHttp)).map(Scope::UnixHttp),
        Scope::Command(need) => need.uncovered(&of!(grants, Command)).map(Scope::Command),
        Scope::Logs(need) => need.uncovered(&of!(grants, Logs)).map(Scope::Logs),
        Scope::ContainersControl(need) => {
            need.uncovered(&of!(grants, ContainersControl)).map(Scope::ContainersControl)
        }
        Scope::SystemdControl(need) => {
            need.uncovered(&of!(grants, SystemdControl)).map(Scope::SystemdControl)
        }
        Scope::FilesWrite(need) => need.uncovered(&of!(grants, FilesWrite)).map(Scope::FilesWrite),
    }
}

fn read_of(scope: &Scope) -> &[String] {
    match scope {
        Scope::Files { read, .. } => read,
        _ => &[],
    }
}

fn filesystems_of(scope: &Scope) -> &[String] {
    match scope {
        Scope::Files { filesystems, .. } => filesystems,
        _ => &[],
    }
}

fn example(capability: Capability) -> Scope {
    match capability {
        Capability::Store => Scope::Store { bytes: 65_536 },
        Capability::Files => Scope::Files { read: vec!["/path/to/read".to_owned()], filesystems: Vec::new() },
        Capability::Http => Scope::Http { urls: vec![UrlRule::get("host.example")] },
        Capability::System => Scope::System {},
        Capability::Nvml => Scope::Nvml(Granted::example()),
        Capability::Kmsg => Scope::Kmsg(Granted::example()),
        Capability::Containers => Scope::Containers(Granted::example()),
        Capability::UnixHttp => Scope::UnixHttp(Granted::example()),
        Capability::Command => Scope::Command(Granted::example()),
        Capability::Logs => Scope::Logs(Granted::example()),
        Capability::ContainersControl => Scope::ContainersControl(Granted::example()),
        Capability::SystemdControl => Scope::SystemdControl(Granted::example()),
        Capability::FilesWrite => Scope::FilesWrite(Granted::example()),
    }
}

#[cfg(test)]
mod tests;
