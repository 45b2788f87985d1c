//! A plugin run by the node's own host: `picket-agent plugin-run`, and what it says.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use picket_agent_services::grants::{Need, grant_lines};
use picket_artifact::Manifest;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::build::{find, missing};
use super::project::component_of;
use super::{AuthorError, TrialArguments};
use crate::Error;
use crate::arguments::Output;
use crate::output;
use crate::plugin::file::{Component, FileError};

const NO_AGENT: &str =
    "It runs plugins as a node does: install it beside picket or on PATH, or name it with --agent";

/// A run that goes on.
pub struct Trial {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// How it is started.
#[derive(Default)]
pub struct Wish<'a> {
    pub with: Option<&'a Path>,
    pub secrets: Vec<String>,
    pub grant_needs: bool,
    pub collects: Option<u32>,
    pub interval: Duration,
}

impl Trial {
    pub fn start(agent: Option<&Path>, file: &Path, wish: &Wish<'_>) -> Result<Self, AuthorError> {
        let agent = match agent {
            Some(agent) => agent.to_owned(),
            None => beside("picket-agent")
                .or_else(|| find("picket-agent"))
                .ok_or_else(|| missing("picket-agent", NO_AGENT))?,
        };
        let mut command = Command::new(&agent);
        command.arg("plugin-run").arg(file).arg("--cache-dir").arg(cache());
        if let Some(with) = wish.with {
            command.arg("--with").arg(with);
        }
        if wish.grant_needs {
            command.arg("--grant-needs");
        }
        for secret in &wish.secrets {
            command.arg("--secret").arg(secret);
        }
        if let Some(collects) = wish.collects {
            command.arg("--collects").arg(collects.to_string());
        }
        command.arg("--interval").arg(format!("{}ms", wish.interval.as_millis().max(1)));
        let start = |source| AuthorError::Start { tool: agent.display().to_string(), source };
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn().map_err(start)?;
        let stdout = child.stdout.take().ok_or(AuthorError::Answer)?;
        Ok(Self { child, lines: BufReader::new(stdout).lines() })
    }

    /// What it says next; none: it has ended.
    pub async fn next(&mut self) -> Result<Option<Value>, AuthorError> {
        match self.lines.next_line().await {
            Ok(Some(line)) => serde_json::from_str(&line).map(Some).map_err(|_| AuthorError::Answer),
            Ok(None) => Ok(None),
            Err(_) => Err(AuthorError::Answer),
        }
    }

    /// Waits for its end. An error where it failed for another reason than the plugin's.
    pub async fn end(mut self) -> Result<(), AuthorError> {
        const PLUGIN_REFUSED: i32 = 3;
        let tool = "picket-agent plugin-run".to_owned();
        match self.child.wait().await {
            Ok(status) if status.success() || status.code() == Some(PLUGIN_REFUSED) => Ok(()),
            Ok(status) => Err(AuthorError::Tool { tool, status }),
            Err(source) => Err(AuthorError::Start { tool, source }),
        }
    }
}

pub async fn run(
    format: Output,
    arguments: &TrialArguments,
    grant_needs: bool,
    collects: Option<u32>,
    interval: Duration,
) -> Result<(), Error> {
    let file = component_of(&arguments.plugin)?;
    let component = Component::read(&file)?;
    if !grant_needs && arguments.with.is_none() && show_needs(&file, &component)? {
        return Err(AuthorError::NothingGranted.into());
    }
    let wish = Wish {
        with: arguments.with.as_deref(),
        secrets: arguments.secrets.clone(),
        grant_needs,
        collects,
        interval,
    };
    let mut trial = Trial::start(arguments.agent.as_deref(), &file, &wish)?;
    let mut refused = false;
    while let Some(said) = trial.next().await? {
        if format == Output::Json {
            output::line(&said)?;
        } else {
            print(&said)?;
        }
        refused |= said.get("refused").is_some();
    }
    trial.end().await?;
    if refused { Err(AuthorError::Refused.into()) } else { Ok(()) }
}

/// Prints the grants that the manifest asks for; false: it asks for none.
fn show_needs(file: &Path, component: &Component) -> Result<bool, Error> {
    let Some(text) = &component.text else { return Ok(false) };
    let manifest = Manifest::<Need>::parse(text)
        .map_err(|source| FileError::Manifest { path: file.to_owned(), source })?;
    if !manifest.needs.is_empty() {
        eprintln!("{}", grant_lines(&manifest.id, &manifest.needs).trim_end());
    }
    Ok(!manifest.needs.is_empty())
}

/// Samples to standard output, all else to standard error.
fn print(said: &Value) -> Result<(), Error> {
    if let Some(error) = said.get("refused") {
        eprintln!("{}", failure(error));
    }
    if let Some(loaded) = said.get("loaded") {
        eprintln!(
            "{} {} loaded in {} ms: {} families",
            text(&loaded["id"]),
            text(&loaded["version"]),
            loaded["load_ms"],
            loaded["families"].as_array().map_or(0, Vec::len)
        );
    }
    let Some(collected) = said.get("collected") else { return Ok(()) };
    output::line(collected["page"].as_str().unwrap_or_default().trim_end())?;
    let cost = &collected["cost"];
    if cost.is_object() {
        eprintln!(
            "{} samples, {} series, {} ms of which {} ms are the plugin's, {} KiB of memory",
            collected["samples"],
            collected["series"],
            cost["wall_ms"],
            cost["guest_ms"],
            cost["memory"].as_u64().unwrap_or(0) >> 10
        );
    }
    for failed in collected["failures"].as_array().into_iter().flatten() {
        eprintln!("could not be read: {}: {}", text(&failed["reason"]), text(&failed["message"]));
    }
    for event in collected["events"].as_array().into_iter().flatten() {
        eprintln!("event {}: {}", text(&event["kind"]), text(&event["message"]));
    }
    if collected["error"].is_object() {
        eprintln!("{}", failure(&collected["error"]));
    }
    Ok(())
}

/// A host's error on one line, with what to do.
pub fn failure(error: &Value) -> String {
    let mut line = format!(
        "{} {} ({}): {}",
        text(&error["code"]),
        text(&error["phase"]),
        text(&error["fault"]),
        // Its lines are what an operator would paste.
        error["message"].as_str().unwrap_or_default()
    );
    let advice = error["advice"].as_str().unwrap_or_default();
    if !advice.is_empty() {
        line.push_str(". ");
        line.push_str(advice);
    }
    line
}

fn text(value: &Value) -> String {
    output::plain(value.as_str().unwrap_or_default())
}

fn beside(name: &str) -> Option<PathBuf> {
    let file = std::env::current_exe().ok()?.parent()?.join(name);
    file.is_file().then_some(file)
}

/// Compiled plugins are kept between runs.
fn cache() -> PathBuf {
    let home = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    home("XDG_CACHE_HOME")
        .or_else(|| Some(home("HOME")?.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("picket")
}
