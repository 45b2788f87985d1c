//! `picket-agent support-bundle`: what a stranger needs to understand what goes wrong on this node, in one file.
//!
//! It is for strangers, so nothing goes in that was not cleaned by the [`redact::Redactor`], and a person sees the list before the
//! file is made. It is for nodes that are ill, so every reading has its time and its size, and what can't be read is an entry of the
//! list and no failure: neither a valid configuration nor a running agent is needed. It reads, and changes nothing.

mod archive;
mod bag;
pub mod command;
mod folders;
mod log;
mod metrics;
mod node;
mod processes;
mod pseudonyms;
mod read;
mod redact;
mod settings;
mod words;

use std::fmt::Write as _;
use std::net::SocketAddr;

use bag::{Bag, Content, Entry, Missing, WITHIN};
use pseudonyms::Pseudonyms;
use redact::Redactor;

use crate::client;
use crate::config::{self, Config, Sources};
use crate::detect;

/// What of the agent's own API goes in; the metrics are apart.
const ANSWERS: [(&str, &str); 4] = [
    ("api/healthz.json", "/healthz"),
    ("api/readyz.json", "/readyz"),
    ("api/plugins.json", "/api/v1/plugins"),
    ("api/grants.json", "/api/v1/grants"),
];
/// Processes that are described.
const MAX_PROCESSES: usize = 32;
/// A node's name as part of a file's.
const MAX_NODE: usize = 63;

/// What is asked for.
#[derive(Debug)]
pub struct Options {
    pub sources: Sources,
    /// Nodes, the aggregator and addresses get other names.
    pub anonymous: bool,
    /// The whole page of metrics; else Picket's own, and of the others the numbers of series.
    pub all_metrics: bool,
}

/// All that goes into the file.
#[derive(Debug)]
pub struct Bundle {
    /// The folder in the archive, and the file's name before `.tar.gz`.
    pub name: String,
    pub entries: Vec<Entry>,
    time: i64,
}

impl Bundle {
    /// Reads all of it. Takes at most two minutes, whatever hangs.
    pub async fn gather(options: Options) -> Self {
        let time = crate::identity::unix_now();
        let prepared = prepare(options.sources.clone(), options.anonymous).await;
        let Prepared { config, redactor, node, told } = prepared;
        let mut bag = Bag::new(redactor);
        bag.add("version.txt", "the programs", read::blocking(node::version)).await;
        for (name, from, content) in told {
            bag.add(name, from, async { content }).await;
        }
        add_settings(&mut bag, &config, &options.sources).await;
        add_answers(&mut bag, config.http.listen, options.all_metrics).await;
        add_processes(&mut bag, &config).await;
        bag.add("system.txt", "/proc, /sys, /etc/os-release", read::blocking(node::system)).await;
        let name =
            format!("picket-support-{}-{}", archive::plain(&node, MAX_NODE).replace('/', "_"), compact(time));
        Self { name, entries: bag.entries, time }
    }

    /// The archive's bytes.
    ///
    /// # Errors
    /// None that memory gives.
    pub fn pack(&self) -> std::io::Result<Vec<u8>> {
        let list = serde_json::to_vec_pretty(&self.entries)?;
        let there = self.entries.iter().filter(|entry| entry.missing.is_none());
        let files = there.map(|entry| (entry.name.as_str(), entry.content.as_bytes()));
        archive::pack(&self.name, std::iter::once(("contents.json", list.as_slice())).chain(files), self.time)
    }

    /// The list for a person.
    pub fn table(&self) -> String {
        let width = |of: fn(&Entry) -> usize| self.entries.iter().map(of).max().unwrap_or(0);
        let (names, places) = (width(|e| e.name.chars().count()), width(|e| e.from.chars().count()));
        let mut out = String::new();
        let _ = writeln!(out, "{:<names$}  {:>8}  {:<places$}  NOTE", "NAME", "BYTES", "FROM");
        for entry in &self.entries {
            let bytes = if entry.missing.is_some() { "-".to_owned() } else { entry.bytes.to_string() };
            let line =
                format!("{:<names$}  {bytes:>8}  {:<places$}  {}", entry.name, entry.from, note(entry));
            let _ = writeln!(out, "{}", line.trim_end());
        }
        out
    }

    /// Something is missing because this user may not read it.
    pub fn lacks_rights(&self) -> bool {
        self.entries.iter().any(|entry| entry.denied)
    }
}

fn note(entry: &Entry) -> String {
    let mut notes = Vec::new();
    if let Some(why) = &entry.missing {
        notes.push(format!("missing: {}", why.lines().map(str::trim).collect::<Vec<_>>().join(" ")));
    }
    if entry.redacted > 0 {
        notes.push(format!("{} redacted", entry.redacted));
    }
    if let Some(cut) = &entry.cut {
        notes.push(format!("cut: {cut}"));
    }
    notes.join("; ")
}

/// What must be known before anything else is read.
struct Prepared {
    config: Config,
    redactor: Redactor,
    /// This node's name, or what stands for it.
    node: String,
    /// The configuration, as entries.
    told: Vec<Told>,
}

type Told = (String, String, Result<Content, Missing>);

async fn prepare(sources: Sources, anonymous: bool) -> Prepared {
    let file = sources.file.clone();
    let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let prepared = tokio::task::spawn_blocking(move || prepared(&sources, anonymous));
    match tokio::time::timeout(WITHIN, prepared).await {
        Ok(Ok(prepared)) => prepared,
        // The disk hangs that the configuration lies on.
        _ => {
            let mut redactor = Redactor::default();
            let told = ("config/effective.toml".to_owned(), file.display().to_string(), Err(Missing::Late));
            let config = config::defaults(&file);
            let node = if anonymous { with_pseudonyms(&mut redactor, vec![("node", node)]) } else { node };
            Prepared { config, redactor, node, told: vec![told] }
        }
    }
}

fn prepared(sources: &Sources, anonymous: bool) -> Prepared {
    let mut redactor = Redactor::default();
    let files = config::files_of(sources);
    let (config, told) = match config::load(sources) {
        Ok(config) => {
            settings::learn(&config, &mut redactor);
            let read: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            let from = format!("{}{}", read.join(", "), settings::variables(sources));
            let effective = settings::in_force(&config);
            (config, vec![("config/effective.toml".to_owned(), from, effective)])
        }
        Err(error) => {
            let mut told: Vec<Told> = Vec::new();
            for (nth, file) in files.iter().enumerate() {
                let name = format!("config/{nth}-{}", file.file_name().unwrap_or_default().to_string_lossy());
                told.push((name, file.display().to_string(), settings::file(file, &mut redactor)));
            }
            let why = Ok(Content::Text(format!("{error}\n")));
            told.insert(0, ("config/error.txt".to_owned(), "check-config".to_owned(), why));
            (config::defaults(&sources.file), told)
        }
    };
    let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let node = if anonymous { with_pseudonyms(&mut redactor, settings::hosts(&config)) } else { node };
    Prepared { config, redactor, node, told }
}

/// What stands for the first of these machines.
fn with_pseudonyms(redactor: &mut Redactor, hosts: Vec<(&'static str, String)>) -> String {
    let mut pseudonyms = Pseudonyms::default();
    let names: Vec<String> = hosts.iter().map(|(kind, name)| pseudonyms.host(kind, name)).collect();
    redactor.pseudonyms = Some(pseudonyms);
    names.into_iter().next().unwrap_or_default()
}

async fn add_settings(bag: &mut Bag, config: &Config, sources: &Sources) {
    let own = || config.clone();
    let (check, certificates, plugins) = (own(), own(), own());
    bag.add("config/check.txt", "check-config", read::blocking(move || settings::check(&check))).await;
    let detected = async {
        let text = detect::run(config, &detect::Machine::default()).await;
        Ok(Content::Text(text))
    };
    bag.add("config/detected.toml", "detect", detected).await;
    bag.add("unit.txt", "systemd's folders", read::blocking(node::unit)).await;
    let from = settings::certificate_file(config).display().to_string();
    let reading = read::blocking(move || settings::certificates(&certificates));
    bag.add("certificates.txt", from, reading).await;
    let folder = config.plugin_dir.display().to_string();
    bag.add("plugins/files.txt", folder, read::blocking(move || settings::plugins(&plugins))).await;
    for (id, file) in settings::manifests(config) {
        let from = file.display().to_string();
        let reading = read::blocking(move || settings::manifest(&file));
        bag.add(format!("plugins/{id}.toml"), from, reading).await;
    }
    for folder in settings::folders(config, &sources.file) {
        let from = folder.display().to_string();
        let name = format!("folders/{}.txt", from.trim_matches('/').replace('/', "-"));
        bag.add(name, from, read::blocking(move || folders::list(&folder))).await;
    }
}

async fn add_answers(bag: &mut Bag, listen: SocketAddr, all_metrics: bool) {
    let base = format!("http://{}", client::reachable(listen));
    for (name, path) in ANSWERS {
        let asked = async {
            let (status, body) = client::fetch(listen, path).await?;
            let answer = serde_json::from_slice(&body)
                .unwrap_or_else(|_| serde_json::Value::String(String::from_utf8_lossy(&body).into_owned()));
            Ok(Content::Json(serde_json::json!({ "status": status.as_u16(), "answer": answer })))
        };
        bag.add(name, format!("{base}{path}"), asked).await;
    }
    let page = async {
        let (_, body) = client::fetch(listen, "/metrics").await?;
        let page = String::from_utf8_lossy(&body);
        Ok(Content::Text(if all_metrics { page.into_owned() } else { metrics::own(&page) }))
    };
    bag.add("api/metrics.txt", format!("{base}/metrics"), page).await;
}

async fn add_processes(bag: &mut Bag, config: &Config) {
    let state_dir = config.state_dir.clone();
    let looked = tokio::task::spawn_blocking(move || processes::running(&state_dir));
    let running = match tokio::time::timeout(WITHIN, looked).await {
        Ok(Ok(running)) => running,
        _ => Vec::new(),
    };
    bag.add("log/journal.txt", "journalctl", log::journal()).await;
    let Some(agent) = running.first().map(|process| process.pid) else {
        let none = || {
            Missing::Not(format!("no agent runs with {}, as far as can be seen", config.state_dir.display()))
        };
        for name in ["log/agent.txt", "cgroup.txt", "processes/picket-agent.txt"] {
            bag.add(name, "/proc", async { Err(none()) }).await;
        }
        return;
    };
    bag.add(
        "log/agent.txt",
        format!("/proc/{agent}/fd/2"),
        read::blocking(move || processes::log_file(agent)),
    )
    .await;
    bag.add("cgroup.txt", "/sys/fs/cgroup", read::blocking(move || processes::group(agent))).await;
    for process in running.into_iter().take(MAX_PROCESSES) {
        let name = format!("processes/{}-{}.txt", process.name, process.pid);
        let from = format!("/proc/{}", process.pid);
        bag.add(name, from, read::blocking(move || processes::describe(&process))).await;
    }
}

/// A time in a file's name, UTC: `20260131T120000Z`.
fn compact(time: i64) -> String {
    let date = crate::identity::date(time);
    let digits = |c: &char| c.is_ascii_alphanumeric();
    date.chars().filter(digits).collect()
}

#[cfg(test)]
mod tests;
