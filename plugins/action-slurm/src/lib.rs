//! Drains and resumes nodes of Slurm, requeues and cancels jobs.
//!
//! It goes by Slurm's own commands, each of which the operator grants by name. A plan notes the state of the node or of
//! the job that it found; a drain's undoing is a resume, if the node was not draining before.

use std::collections::BTreeMap;

use picket_sdk::action::{Action, Applied, Definition, Parameters, Plan, Step, Verdict};
use picket_sdk::{Failure, NoSettings, command, serde_json};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Slurm.
pub struct Slurm;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeWish {
    node: String,
    #[serde(default)]
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct JobWish {
    job: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct NodeTarget {
    node: String,
    /// Slurm's own words: `IDLE+DRAIN`.
    state: String,
    reason: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct JobTarget {
    job: u64,
    state: String,
    restarts: String,
}

impl Action for Slurm {
    type Settings = NoSettings;

    fn describe() -> Vec<Definition> {
        let node: Value = json!({ "type": "string", "minLength": 1, "maxLength": 255,
            "description": "as Slurm names it" });
        let job = json!({
            "type": "object", "additionalProperties": false, "required": ["job"],
            "properties": { "job": { "type": "integer", "minimum": 1, "description": "its number" } }
        });
        vec![
            Definition::new("drain", "Lets a node's jobs end and gives it no new ones")
                .parameters(json!({
                    "type": "object", "additionalProperties": false, "required": ["node", "reason"],
                    "properties": { "node": node, "reason": { "type": "string", "minLength": 1, "maxLength": 200,
                        "description": "what sinfo -R shows" } }
                }))
                .disturbs(&["node"])
                .reversible(),
            Definition::new("resume", "Lets a node that was drained or down have jobs again")
                .parameters(json!({
                    "type": "object", "additionalProperties": false, "required": ["node"],
                    "properties": { "node": node }
                }))
                .disturbs(&["process"]),
            Definition::new("requeue", "Ends a job and puts it back into the queue")
                .parameters(job.clone())
                .disturbs(&["process"]),
            Definition::new("cancel", "Ends a job").parameters(job).disturbs(&["process"]),
        ]
    }

    fn new(_: NoSettings) -> Result<Self, Failure> {
        Ok(Self)
    }

    fn plan(&mut self, name: &str, parameters: &Parameters) -> Result<Plan, Failure> {
        match name {
            "drain" | "resume" => plan_node(name, &parameters.read()?),
            "requeue" | "cancel" => plan_job(name, &parameters.read()?),
            _ => Err(unknown(name)),
        }
    }

    fn apply(&mut self, name: &str, step: &Step) -> Result<Applied, Failure> {
        match name {
            "drain" => {
                let target: NodeTarget = step.arguments()?;
                run("slurm-drain", &[("node", &target.node), ("reason", &target.reason)])?;
                Ok(Applied::new(format!("{} drains", target.node)).before(target.state))
            }
            "resume" => {
                let target: NodeTarget = step.arguments()?;
                run("slurm-resume", &[("node", &target.node)])?;
                Ok(Applied::new(format!("{} has jobs again", target.node)).before(target.state))
            }
            "requeue" | "cancel" => {
                let target: JobTarget = step.arguments()?;
                run(&format!("slurm-{name}"), &[("job", &target.job.to_string())])?;
                let done = if name == "cancel" { "cancelled" } else { "requeued" };
                Ok(Applied::new(format!("job {} was {done}", target.job)).before(target.state))
            }
            _ => Err(unknown(name)),
        }
    }

    fn probe(&mut self, name: &str, step: &Step) -> Verdict {
        probe(name, step).unwrap_or_else(|failure| Verdict::CannotTell(failure.message))
    }

    fn revert(&mut self, name: &str, step: &Step, before: &str) -> Result<String, Failure> {
        if name != "drain" {
            return Err(Failure::new("irreversible", format!("{name} can't be undone")));
        }
        let target: NodeTarget = step.arguments()?;
        if drains(before) {
            return Ok(format!("{} had been draining before", target.node));
        }
        let now = show_node(&target.node)?;
        if !drains(&now.state) {
            return Ok(format!("{} does not drain any more: it is {}", target.node, now.state));
        }
        if now.reason != target.reason {
            return Err(Failure::new(
                "precondition",
                format!("{} drains for another reason by now: {}", target.node, now.reason),
            ));
        }
        run("slurm-resume", &[("node", &target.node)])?;
        Ok(format!("{} has jobs again", target.node))
    }
}

fn plan_node(name: &str, wish: &NodeWish) -> Result<Plan, Failure> {
    if wish.reason.contains('=') {
        return Err(Failure::new("parameters", "a reason has no `=`: Slurm could take it for another field"));
    }
    let now = show_node(&wish.node)?;
    // As Slurm's line is read back.
    let wanted = wish.reason.split_whitespace().collect::<Vec<_>>().join(" ");
    let NodeTarget { node, state, reason } = &now;
    let summary = match name {
        "drain" if drains(state) && *reason == wanted => {
            return Ok(Plan::nothing(format!("{node} drains already for this reason: it is {state}")));
        }
        "drain" => format!("drain {node}, which is {state}, for the reason {wanted:?}"),
        _ if !drains(state) && !is_down(state) => {
            return Ok(Plan::nothing(format!("{node} may have jobs already: it is {state}")));
        }
        _ => format!("resume {node}, which is {state} ({reason})"),
    };
    let target = NodeTarget {
        node: node.clone(),
        state: state.clone(),
        reason: if name == "drain" { wanted } else { reason.clone() },
    };
    let plan = Plan::of(vec![Step::new(summary, ("slurm-node", node), &target)?]);
    Ok(if name == "drain" && drains(state) {
        plan.note(format!("it drains already, for another reason that is lost: {reason}"))
    } else {
        plan
    })
}

fn plan_job(name: &str, wish: &JobWish) -> Result<Plan, Failure> {
    let fields = show("slurm-show-job", "job", &wish.job.to_string())?;
    let field = |key: &str| fields.get(key).cloned().unwrap_or_default();
    let state = field("JobState");
    let ended = [
        "COMPLETED",
        "CANCELLED",
        "FAILED",
        "TIMEOUT",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "DEADLINE",
        "PREEMPTED",
    ];
    if ended.contains(&state.as_str()) {
        return Ok(Plan::nothing(format!("job {} has ended: it is {state}", wish.job)));
    }
    if name == "requeue" && field("Requeue") == "0" {
        return Err(Failure::new("precondition", format!("job {} was sent with --no-requeue", wish.job)));
    }
    if name == "requeue" && state == "PENDING" {
        return Ok(Plan::nothing(format!("job {} waits in the queue", wish.job)));
    }
    let target = JobTarget { job: wish.job, state: state.clone(), restarts: field("Restarts") };
    let summary = format!(
        "{name} job {} ({}) of {}, which is {state} on {}",
        wish.job,
        field("JobName"),
        field("UserId"),
        field("NodeList")
    );
    Ok(Plan::of(vec![Step::new(summary, ("job", &wish.job.to_string()), &target)?]))
}

fn probe(name: &str, step: &Step) -> Result<Verdict, Failure> {
    match name {
        "drain" | "resume" => {
            let before: NodeTarget = step.arguments()?;
            let now = show_node(&before.node)?;
            let seen = format!("{} is {} ({})", now.node, now.state, now.reason);
            let done = match name {
                "drain" => drains(&now.state) && now.reason == before.reason,
                _ => !drains(&now.state) && !is_down(&now.state),
            };
            Ok(if done { Verdict::Done(seen) } else { Verdict::NotDone(seen) })
        }
        "requeue" | "cancel" => {
            let before: JobTarget = step.arguments()?;
            let fields = show("slurm-show-job", "job", &before.job.to_string())?;
            let field = |key: &str| fields.get(key).cloned().unwrap_or_default();
            let (state, restarts) = (field("JobState"), field("Restarts"));
            let seen = format!("job {} is {state}, restarted {restarts} times", before.job);
            let done = match name {
                "requeue" => restarts != before.restarts,
                _ => state == "CANCELLED",
            };
            Ok(if done { Verdict::Done(seen) } else { Verdict::NotDone(seen) })
        }
        _ => Err(unknown(name)),
    }
}

fn drains(state: &str) -> bool {
    state
        .split('+')
        .any(|flag| flag.trim_end_matches(['*', '~', '#', '!', '%', '$', '@', '^', '-']) == "DRAIN")
}

fn is_down(state: &str) -> bool {
    let flag = |f: &str| f.trim_end_matches(['*', '~', '#', '!', '%', '$', '@', '^', '-']).to_owned();
    state.split('+').any(|f| matches!(flag(f).as_str(), "DOWN" | "FAIL" | "ERROR"))
}

fn show_node(node: &str) -> Result<NodeTarget, Failure> {
    let fields = show("slurm-show-node", "node", node)?;
    let field = |key: &str| fields.get(key).cloned().unwrap_or_default();
    let reason = field("Reason");
    // `Reason=text [user@time]`
    let reason = reason.rsplit_once(" [").map_or(reason.as_str(), |(text, _)| text).to_owned();
    let (name, state) = (field("NodeName"), field("State"));
    if name != node || state.is_empty() {
        return Err(Failure::new("parse", format!("scontrol's answer for {node} is not as expected")));
    }
    Ok(NodeTarget { node: name, state, reason })
}

/// What decisions go by. People write names, comments and reasons into the same line, so none of these may stand there twice.
const DECISIVE: [&str; 6] = ["NodeName", "State", "Reason", "JobState", "Restarts", "Requeue"];

/// The fields of `scontrol -o show`. A value may have spaces (a reason, a job's name): it goes on to the next word that is
/// a field's.
fn show(command: &str, slot: &str, value: &str) -> Result<BTreeMap<String, String>, Failure> {
    let text = run(command, &[(slot, value)])?;
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    let mut last: Option<String> = None;
    for word in text.split_whitespace() {
        let field = word.split_once('=').filter(|(key, _)| {
            !key.is_empty()
                && key.starts_with(|c: char| c.is_ascii_uppercase())
                && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':' | b'/'))
        });
        match field {
            Some((key, value)) if !fields.contains_key(key) => {
                fields.insert(key.to_owned(), value.to_owned());
                last = Some(key.to_owned());
            }
            Some((key, _)) if DECISIVE.contains(&key) => {
                return Err(Failure::new(
                    "parse",
                    format!("the record of {value} has {key} twice: a name or a reason holds it"),
                ));
            }
            _ => {
                if let Some(value) = last.as_ref().and_then(|key| fields.get_mut(key)) {
                    value.push(' ');
                    value.push_str(word);
                }
            }
        }
    }
    Ok(fields)
}

/// A command's output; that it failed is a failure, in Slurm's own words.
fn run(name: &str, slots: &[(&str, &str)]) -> Result<String, Failure> {
    let output = command::run(name, slots)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status == 0 {
        return Ok(text);
    }
    let said: String = format!("{} {}", output.stderr.trim(), text.trim()).trim().chars().take(500).collect();
    let lower = said.to_lowercase();
    let reason =
        if lower.contains("not found") || lower.contains("invalid job id") { "not-found" } else { "refused" };
    Err(Failure::new(reason, format!("{name}: {said} (status {})", output.status)))
}

fn unknown(name: &str) -> Failure {
    Failure::new("parameters", format!("there is no action {name}"))
}

picket_sdk::export_action!(Slurm);
