//! What the agent was told: its configuration, its identity's public part, its plugins, and what it would say to them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use picket_agent_services::grants::{Scope, SecretRule};
use picket_artifact::{Digest, Evidence, MAX_COMPONENT_BYTES, manifest_bytes};
use picket_proto::model::PluginId;
use serde_json::Value;

use super::bag::{Content, Missing};
use super::read;
use super::redact::Redactor;
use crate::app;
use crate::config::{self, Config};
use crate::identity;

/// A secret that a grant names is no longer than this.
const MAX_SECRET: usize = 64 << 10;

/// As it is in force.
pub fn in_force(config: &Config) -> Result<Content, Missing> {
    let value = serde_json::to_value(config);
    value.map(Content::Toml).map_err(|error| Missing::Not(format!("it cannot be written down: {error}")))
}

/// A file of a configuration that is not valid. What is no TOML is not shown: in it nothing can be told apart.
pub fn file(path: &Path, redactor: &mut Redactor) -> Result<Content, Missing> {
    let text = read::file(path)?;
    let value: Value = toml::from_str(&text).map_err(|_| {
        Missing::Not("it is no TOML, and secrets can't be told from the rest in it".to_owned())
    })?;
    redactor.learn_from(&value);
    Ok(Content::Toml(value))
}

/// What this configuration keeps secret, by value: it is found then wherever else it stands.
pub fn learn(config: &Config, redactor: &mut Redactor) {
    for plugin in config.plugins.values() {
        redactor.learn_from(&plugin.settings);
        for rule in plugin.grants.iter().flat_map(secrets) {
            let Some(path) = &rule.file else { continue };
            // What can't be read here can't stand in what is read here.
            if let Ok(text) = read::file(path)
                && text.len() <= MAX_SECRET
            {
                redactor.learn(&text);
            }
        }
    }
}

fn secrets(scope: &Scope) -> Vec<&SecretRule> {
    match scope {
        Scope::Http { urls } => urls.iter().filter_map(|rule| rule.secret.as_ref()).collect(),
        Scope::UnixHttp(scope) => scope.sockets.iter().filter_map(|rule| rule.secret.as_ref()).collect(),
        _ => Vec::new(),
    }
}

/// The machines that this configuration and this node's certificate name, with what they are.
pub fn hosts(config: &Config) -> Vec<(&'static str, String)> {
    let mut list = vec![("node", rustix::system::uname().nodename().to_string_lossy().into_owned())];
    let source = source(config);
    let (certificate, _) = source.public_files();
    let node = std::fs::read(certificate).ok().and_then(|pem| identity::node_named(&pem));
    list.extend(node.map(|node| ("node", node)));
    let host = |address: &String| Some(address.rsplit_once(':')?.0.to_owned());
    let aggregators = config.uplink.aggregator.iter().cloned().chain(source.aggregators());
    list.extend(aggregators.filter_map(|address| Some(("aggregator", host(&address)?))));
    list
}

fn source(config: &Config) -> identity::Source {
    let uplink = &config.uplink;
    let (certificate, key) = (uplink.certificate.as_deref(), uplink.key.as_deref());
    identity::Source::new(&config.state_dir, certificate, key, uplink.authorities.as_deref())
        .unwrap_or_else(|_| identity::Source::Enrolled(identity::Store::new(&config.state_dir)))
}

/// Where the certificate lies.
pub fn certificate_file(config: &Config) -> PathBuf {
    source(config).public_files().0
}

/// What anybody may know of the certificate and of the authorities. The key's file is not opened.
pub fn certificates(config: &Config) -> Result<Content, Missing> {
    let (certificate, authorities) = source(config).public_files();
    let mut out = String::new();
    for (what, path) in [("certificate", certificate), ("authorities", authorities)] {
        let pem = read::file(&path)?;
        read::section(&mut out, &format!("{what}: {}", path.display()), &identity::facts(pem.as_bytes()));
    }
    Ok(Content::Text(out))
}

/// Each plugin of the configuration: which file it is, and how the policy judges it.
pub fn plugins(config: &Config) -> Result<Content, Missing> {
    let mut out = String::new();
    for (id, plugin) in &config.plugins {
        let path = config.plugin_file(plugin);
        let what = match component(&path) {
            Err(why) => why.to_string(),
            Ok(bytes) => {
                let evidence = Evidence::beside(&path).map_or_else(
                    |error| format!("signatures cannot be read: {error}"),
                    |evidence| {
                        if evidence == Evidence::default() { "not signed" } else { "signed" }.to_owned()
                    },
                );
                format!("{} bytes, {}, {evidence}", bytes.len(), Digest::of(&bytes).tagged())
            }
        };
        let enabled = if plugin.enabled { "" } else { ", not enabled" };
        let _ = writeln!(out, "{id}: {}: {what}{enabled}", path.display());
    }
    if out.is_empty() {
        return Err(Missing::Not("the configuration has no plugin".to_owned()));
    }
    Ok(Content::Text(out))
}

/// What a plugin says of itself and asks for.
pub fn manifest(path: &Path) -> Result<Content, Missing> {
    let bytes = component(path)?;
    let manifest = manifest_bytes(&bytes).map_err(|error| Missing::Not(error.to_string()))?;
    let manifest = manifest.ok_or_else(|| Missing::Not("it has no manifest".to_owned()))?;
    Ok(Content::Text(String::from_utf8_lossy(manifest).into_owned()))
}

fn component(path: &Path) -> Result<Vec<u8>, Missing> {
    let missing = |source| Missing::Read { path: path.display().to_string(), source };
    let meta = std::fs::metadata(path).map_err(missing)?;
    if !meta.is_file() || meta.len() > MAX_COMPONENT_BYTES {
        return Err(Missing::Not(format!("{} is no file of a plugin's size", path.display())));
    }
    std::fs::read(path).map_err(missing)
}

/// What `check-config` says.
pub fn check(config: &Config) -> Result<Content, Missing> {
    let mut out = String::new();
    for error in app::refused_plugins(config) {
        let _ = writeln!(out, "would be refused: {error}");
    }
    match app::wall(config) {
        Ok(wall) => {
            for standing in &wall.parts {
                let is = if standing.up { "has" } else { "lacks" };
                let _ = writeln!(out, "the plugins' second wall {is} {standing}");
            }
        }
        Err(why) => {
            let _ = writeln!(out, "the agent would not start: {why}");
        }
    }
    Ok(Content::Text(out))
}

/// The folders that are listed, each once. Beside a configuration file of another place lies what is none of Picket's.
pub fn folders(config: &Config, config_file: &Path) -> BTreeSet<PathBuf> {
    let beside = config_file.parent().unwrap_or(Path::new(""));
    let of_config = if config_file == Path::new(config::DEFAULT_FILE) {
        Some(beside.to_owned())
    } else {
        Some(beside.join("conf.d")).filter(|folder| folder.is_dir())
    };
    let all = [&config.state_dir, &config.cache_dir, &config.plugin_dir].map(Clone::clone);
    all.into_iter().chain(of_config).collect()
}

/// The files of plugins whose manifests are shown.
pub fn manifests(config: &Config) -> Vec<(PluginId, PathBuf)> {
    config.plugins.iter().map(|(id, plugin)| (id.clone(), config.plugin_file(plugin))).collect()
}

/// The names of the variables that set something.
pub fn variables(sources: &config::Sources) -> String {
    let names: Vec<&str> = sources.environment.iter().map(|(name, _)| name.as_str()).collect();
    if names.is_empty() { String::new() } else { format!(", {}", names.join(", ")) }
}
