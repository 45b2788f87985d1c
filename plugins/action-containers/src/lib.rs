//! Restarts and stops containers.
//!
//! A plan names the container by its id and notes since when it runs: if it is replaced or restarts before the plan is
//! applied, the plan is another one and nothing is done. By the same note a probe sees whether a restart took place.

use picket_sdk::action::{Action, Applied, Definition, Parameters, Plan, Step, Verdict};
use picket_sdk::containers_control::{self as control, Change};
use picket_sdk::{Failure, NoSettings, containers, serde_json};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Containers.
pub struct Containers;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// A name, or an id of at least 12 digits.
    container: String,
    #[serde(default = "grace")]
    grace_seconds: u32,
}

const fn grace() -> u32 {
    10
}

/// What a step is about.
#[derive(Debug, Serialize, Deserialize)]
struct Target {
    id: String,
    name: String,
    socket: String,
    grace_seconds: u32,
    running: bool,
    /// The engine's own words, compared letter by letter.
    started_at: String,
    finished_at: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    picket_socket: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    state: State,
    #[serde(default)]
    host_config: HostConfig,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct State {
    running: bool,
    started_at: String,
    finished_at: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfig {
    auto_remove: bool,
}

impl Action for Containers {
    type Settings = NoSettings;

    fn describe() -> Vec<Definition> {
        let parameters: Value = json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["container"],
            "properties": {
                "container": { "type": "string", "minLength": 1, "maxLength": 256,
                    "description": "its name, or its id (at least the first 12 digits)" },
                "grace_seconds": { "type": "integer", "minimum": 0, "maximum": 300, "default": grace(),
                    "description": "seconds between the signal to stop and the kill" }
            }
        });
        vec![
            Definition::new("restart", "Stops a container and starts it again")
                .parameters(parameters.clone())
                .disturbs(&["container", "process"]),
            Definition::new("stop", "Stops a container; undone by starting it")
                .parameters(parameters)
                .disturbs(&["container", "process"])
                .reversible(),
        ]
    }

    fn new(_: NoSettings) -> Result<Self, Failure> {
        Ok(Self)
    }

    fn plan(&mut self, name: &str, parameters: &Parameters) -> Result<Plan, Failure> {
        let wish: Wish = parameters.read()?;
        let (target, inspected) = find(&wish)?;
        let Target { id, name: called, grace_seconds, .. } = &target;
        let short = id.get(..12).unwrap_or(id);
        let known = format!("the container {called} ({short}) of {}", target.socket);
        let summary = match (name, target.running) {
            ("restart", true) => format!("restart {known}, with {grace_seconds} s to stop"),
            ("restart", false) => format!("start {known}, which does not run"),
            ("stop", true) => format!("stop {known}, with {grace_seconds} s to end"),
            ("stop", false) => return Ok(Plan::nothing(format!("{known} does not run"))),
            _ => return Err(unknown(name)),
        };
        if name == "stop" && inspected.host_config.auto_remove {
            return Err(Failure::new(
                "precondition",
                format!("{known} is removed when it stops (--rm): it could not be started again"),
            ));
        }
        Ok(Plan::of(vec![Step::new(summary, ("container", id), &target)?]))
    }

    fn apply(&mut self, name: &str, step: &Step) -> Result<Applied, Failure> {
        let target: Target = step.arguments()?;
        let change = match name {
            "restart" => control::restart(&target.id, target.grace_seconds)?,
            "stop" => control::stop(&target.id, target.grace_seconds)?,
            _ => return Err(unknown(name)),
        };
        let before = if target.running { "running" } else { "stopped" };
        let message = match (name, change) {
            ("restart", _) => format!("{} was restarted", target.name),
            (_, Change::Done) => format!("{} was stopped", target.name),
            (_, Change::Unchanged) => format!("{} had stopped already", target.name),
        };
        Ok(Applied::new(message).before(before))
    }

    fn probe(&mut self, name: &str, step: &Step) -> Verdict {
        let target: Target = match step.arguments() {
            Ok(target) => target,
            Err(failure) => return Verdict::CannotTell(failure.message),
        };
        let now = match inspect(&target.id) {
            Ok(now) => now.state,
            Err(failure) => return Verdict::CannotTell(failure.message),
        };
        let runs = if now.running { "runs" } else { "does not run" };
        let since = format!("{} {runs}, started at {}", target.name, now.started_at);
        match (name, now.running) {
            ("restart", true) if now.started_at != target.started_at => Verdict::Done(since),
            ("stop", false) => {
                Verdict::Done(format!("{} does not run, ended at {}", target.name, now.finished_at))
            }
            _ => Verdict::NotDone(since),
        }
    }

    fn revert(&mut self, name: &str, step: &Step, before: &str) -> Result<String, Failure> {
        let target: Target = step.arguments()?;
        if name != "stop" {
            return Err(Failure::new("irreversible", "a restart can't be undone"));
        }
        if before != "running" {
            return Ok(format!("{} had not been running", target.name));
        }
        match control::start(&target.id)? {
            Change::Done => Ok(format!("{} was started", target.name)),
            Change::Unchanged => Ok(format!("{} runs already", target.name)),
        }
    }
}

fn unknown(name: &str) -> Failure {
    Failure::new("parameters", format!("there is no action {name}"))
}

fn find(wish: &Wish) -> Result<(Target, Inspected), Failure> {
    let listing = containers::list(true)?;
    let all: Vec<Listed> = listing.parse()?;
    let wanted = wish.container.trim_start_matches('/');
    let is_id = wanted.len() >= 12 && wanted.bytes().all(|b| b.is_ascii_hexdigit());
    let named = |c: &Listed| c.names.iter().any(|n| n.trim_start_matches('/') == wanted);
    let mut found: Vec<Listed> =
        all.into_iter().filter(|c| named(c) || (is_id && c.id.starts_with(wanted))).collect();
    let one = match (found.pop(), found.len()) {
        (Some(one), 0) => one,
        (Some(_), more) => {
            return Err(Failure::new(
                "parameters",
                format!("{wanted:?} fits {} containers: give the whole id", more + 1),
            ));
        }
        (None, _) => {
            let silent: Vec<String> = listing
                .sockets
                .iter()
                .filter_map(|s| s.error.as_ref().map(|e| format!("{}: {e}", s.path)))
                .collect();
            let told = if silent.is_empty() { String::new() } else { format!(" ({})", silent.join("; ")) };
            return Err(Failure::new(
                "not-found",
                format!("there is no container {wanted:?} among the granted ones{told}"),
            ));
        }
    };
    let inspected = inspect(&one.id)?;
    let name = one.names.first().map(|n| n.trim_start_matches('/').to_owned()).unwrap_or_default();
    let target = Target {
        id: one.id,
        name,
        socket: one.picket_socket,
        grace_seconds: wish.grace_seconds,
        running: inspected.state.running,
        started_at: inspected.state.started_at.clone(),
        finished_at: inspected.state.finished_at.clone(),
    };
    Ok((target, inspected))
}

fn inspect(id: &str) -> Result<Inspected, Failure> {
    let mut answers = containers::inspect(&[id.to_owned()]);
    let text = answers.pop().ok_or_else(|| Failure::new("other", "the host gave no answer"))??;
    serde_json::from_str(&text)
        .map_err(|e| Failure::new("parse", format!("the container's record is not as expected: {e}")))
}

picket_sdk::export_action!(Containers);
