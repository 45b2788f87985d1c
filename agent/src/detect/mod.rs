//! `picket-agent detect`: looks at the node and writes the configuration that fits it.
//!
//! What is found decides which plugins are switched on; what each is granted is what its own manifest needs, narrowed to
//! the address or socket that was found, so that nothing here repeats a plugin's list of needs. Looking costs nothing:
//! files are looked at, sockets are asked one cheap question each, nothing is changed.

pub mod drop_in;
mod probe;
mod render;

use std::path::{Path, PathBuf};

use picket_agent_services::grants::{Scope, UrlRule};
use picket_agent_services::unix_http::SocketRule;

pub use probe::Machine;

use crate::config::Config;

/// Something on the node that a plugin reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The plugin's id, and the name of its file.
    pub plugin: &'static str,
    /// What was seen, for the reader of the configuration: a line each.
    pub seen: Vec<String>,
    pub settings: toml::Table,
    /// How its needs are narrowed.
    pub reach: Reach,
    /// None: the agent's own default.
    pub interval: Option<&'static str>,
    /// What a person must still do, a line each.
    pub todo: Vec<String>,
}

/// Where the found things are: replaces what a manifest leaves open.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reach {
    pub servers: Vec<Server>,
    /// Container engines' sockets.
    pub engines: Vec<String>,
    /// HTTP servers on Unix sockets.
    pub sockets: Vec<String>,
    /// Folders in which the commands' programs are.
    pub programs: Vec<PathBuf>,
    /// Log files' patterns, and units of the journal.
    pub files: Vec<String>,
    pub units: Vec<String>,
}

/// Where HTTP is spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub scheme: &'static str,
    /// A name, an address, or a network (`172.17.0.0/16`).
    pub host: String,
    pub port: u16,
}

impl Server {
    fn local(port: u16) -> Self {
        Self { scheme: "http", host: "127.0.0.1".to_owned(), port }
    }
}

/// The lines of a configuration file for what was found, with the reason for each.
pub async fn run(config: &Config, machine: &Machine) -> String {
    render::config(config, &machine.look().await)
}

/// Where `--write` puts it: a file of its own beside the configuration, so that nothing a person wrote is touched.
pub fn target(config_file: &Path) -> PathBuf {
    let folder = config_file.parent().unwrap_or(Path::new("."));
    folder.join("conf.d").join("50-detected.toml")
}

/// Writes the file in one step. What was there and is other, perhaps by a person's hand, is kept beside it, under the name that is
/// given back; the agent does not read it there.
///
/// # Errors
/// The folder or a file cannot be written; then the file is as it was.
pub fn write(target: &Path, text: &str) -> std::io::Result<Option<PathBuf>> {
    if let Some(folder) = target.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let copy = match std::fs::read(target) {
        Ok(before) if before != text.as_bytes() => Some(keep(target, &before)?),
        Ok(_) => None,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let new = target.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(&new, target)?;
    Ok(copy)
}

/// Most copies that are kept of one file.
const MAX_COPIES: u32 = 99;

/// Copies what a file held to `NAME.1`, or the next number that is free; what is kept already is not kept again.
fn keep(target: &Path, bytes: &[u8]) -> std::io::Result<PathBuf> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    for number in 1..=MAX_COPIES {
        let copy = target.with_file_name(format!("{name}.{number}"));
        match std::fs::File::create_new(&copy) {
            Ok(mut file) => {
                std::io::Write::write_all(&mut file, bytes)?;
                file.sync_all()?;
                return Ok(copy);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                if std::fs::read(&copy).is_ok_and(|kept| kept == bytes) {
                    return Ok(copy);
                }
            }
            Err(error) => return Err(error),
        }
    }
    let why = format!("{MAX_COPIES} copies of {} are there already: remove some", target.display());
    Err(std::io::Error::other(why))
}

impl Reach {
    /// The need as it is to be granted here.
    fn narrow(&self, need: &Scope) -> Scope {
        let mut scope = need.clone();
        match &mut scope {
            Scope::Http { urls } if !self.servers.is_empty() => {
                let open = open_rules(urls, |rule| rule.host == "*", UrlRule::get("*"));
                for rule in open {
                    for server in &self.servers {
                        let mut rule = rule.clone();
                        rule.scheme = Some(server.scheme.to_owned());
                        rule.host.clone_from(&server.host);
                        rule.port = Some(server.port);
                        rule.ports = None;
                        // An address or a network says itself what is meant; a name on the Internet has no business here.
                        rule.allow_private = false;
                        if !urls.contains(&rule) {
                            urls.push(rule);
                        }
                    }
                }
            }
            Scope::Containers(scope) if !self.engines.is_empty() => scope.sockets.clone_from(&self.engines),
            Scope::UnixHttp(scope) if !self.sockets.is_empty() => {
                let open = open_rules(&mut scope.sockets, |rule| rule.path == "*", SocketRule::get("*"));
                for rule in open {
                    for path in &self.sockets {
                        scope.sockets.push(SocketRule { path: path.clone(), ..rule.clone() });
                    }
                }
            }
            Scope::Logs(scope) => {
                scope.files.extend(self.files.iter().cloned());
                scope.units.extend(self.units.iter().cloned());
            }
            Scope::Command(scope) => {
                for rule in &mut scope.commands {
                    let name =
                        Path::new(&rule.program).file_name().map(ToOwned::to_owned).unwrap_or_default();
                    if let Some(found) = self.programs.iter().map(|p| p.join(&name)).find(|p| p.is_file()) {
                        rule.program = found.display().to_string();
                    }
                }
            }
            _ => {}
        }
        scope
    }
}

/// Takes out the rules that a manifest leaves open; where it has none at all, the whole need is open.
fn open_rules<T>(rules: &mut Vec<T>, is_open: impl Fn(&T) -> bool, any: T) -> Vec<T> {
    if rules.is_empty() {
        return vec![any];
    }
    let (open, kept) = std::mem::take(rules).into_iter().partition(is_open);
    *rules = kept;
    open
}

#[cfg(test)]
mod tests;
