//! `picket action`: what nodes can be told to do, as plans that are looked at first.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::Error;
use crate::api::Client;
use crate::arguments::Output;
use crate::commands::segment;
use crate::output;

/// How often is looked while an action is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub enum ActionCommand {
    /// What a node can be told to do.
    Offers { node: String },
    /// Have a node say exactly what it would do. Nothing is changed.
    Plan(PlanArguments),
    /// Agree, as an admin, to a plan that is dangerous.
    Approve {
        id: String,
        /// The digest that the plan shows.
        #[arg(long)]
        digest: String,
    },
    /// Have a node do what was planned.
    Apply(ApplyArguments),
    /// Have a node begin no further step of what it does.
    Cancel { node: String, id: String },
    /// Have a node undo what it did.
    Revert { id: String },
    /// List plans and what became of them, newest first.
    List {
        node: Option<String>,
        /// planned, sent, running, succeeded, failed, unknown, expired, cancelled, refused, reverted …
        #[arg(long)]
        state: Option<String>,
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// All that is known of one.
    Show { id: String },
    /// Stop all actions of the fleet that are not begun yet.
    Pause {
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Let them go on.
    Resume,
}

#[derive(Debug, Args)]
pub struct PlanArguments {
    pub node: String,
    /// The plugin on the node: action-containers.
    pub plugin: String,
    /// What it is to do: restart.
    pub action: String,
    /// Its parameters, as container=llama or grace_seconds=30.
    #[arg(value_name = "NAME=VALUE", value_parser = parameter)]
    pub parameters: Vec<(String, Value)>,
    /// Parameters as a JSON object, beside those.
    #[arg(long = "json", value_name = "JSON", value_parser = object)]
    pub json: Option<Map<String, Value>>,
}

#[derive(Debug, Args)]
pub struct ApplyArguments {
    pub node: String,
    /// The plan's.
    pub id: String,
    /// The digest that the plan shows: what is applied is what was looked at.
    #[arg(long)]
    pub digest: String,
    /// No step begins later than this.
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<humantime::Duration>,
    /// Wait for its end, so long at most; fail where it does not succeed.
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "10m")]
    pub wait: Option<humantime::Duration>,
}

fn parameter(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    if name.is_empty() {
        return Err("write NAME=VALUE".to_owned());
    }
    // A number or true is meant as such; a text that looks like one is given with --json.
    let value = match serde_json::from_str::<Value>(value) {
        Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
        _ => Value::from(value),
    };
    Ok((name.to_owned(), value))
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(r#"a JSON object is wanted, as {"container": "llama"}"#.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

pub async fn run(client: &Client, format: Output, command: ActionCommand) -> Result<(), Error> {
    match command {
        ActionCommand::Offers { node } => offers(client, format, &node).await,
        ActionCommand::Plan(wish) => plan(client, format, wish).await,
        ActionCommand::Approve { id, digest } => {
            let path = format!("/api/v1/actions/{}/approve", segment(&id));
            let done: Value =
                client.call(Method::POST, &path, &[], Some(&json!({ "digest": digest }))).await?;
            told(format, &done)
        }
        ActionCommand::Apply(wish) => apply(client, format, wish).await,
        ActionCommand::Cancel { node, id } => {
            let path = format!("/api/v1/nodes/{}/actions/cancel", segment(&node));
            let done: Value = client.call(Method::POST, &path, &[], Some(&json!({ "id": id }))).await?;
            told(format, &done)
        }
        ActionCommand::Revert { id } => {
            let path = format!("/api/v1/actions/{}/revert", segment(&id));
            let done: Value = client.call(Method::POST, &path, &[], None::<&()>).await?;
            told(format, &done)
        }
        ActionCommand::List { node, state, limit } => list(client, format, node, state, limit).await,
        ActionCommand::Show { id } => show(client, format, &id).await,
        ActionCommand::Pause { reason } => breaker(client, format, true, &reason).await,
        ActionCommand::Resume => breaker(client, format, false, "").await,
    }
}

async fn offers(client: &Client, format: Output, node: &str) -> Result<(), Error> {
    let answer: Value = client.get(&format!("/api/v1/nodes/{}/actions", segment(node)), &[]).await?;
    if format == Output::Json {
        return Ok(output::json(&answer)?);
    }
    if answer["enabled"] == json!(false) {
        eprintln!("{node} only observes: its operator has not set actions.enabled = true.");
    }
    let rows = list_of(&answer["plugins"]).into_iter().flat_map(|plugin| {
        let id = word(&plugin, "id");
        list_of(&plugin["actions"]).into_iter().map(move |action| {
            let disturbs: Vec<String> = list_of(&action["disturbs"])
                .iter()
                .map(|d| output::plain(d.as_str().unwrap_or_default()))
                .collect();
            vec![
                id.clone(),
                word(&action, "name"),
                disturbs.join(", "),
                yes(&action["reversible"]),
                yes(&action["dangerous"]),
                word(&action, "summary"),
            ]
        })
    });
    let header = ["PLUGIN", "ACTION", "DISTURBS", "CAN BE UNDONE", "NEEDS APPROVAL", "WHAT IT DOES"];
    Ok(output::table(&header, rows, &[])?)
}

async fn plan(client: &Client, format: Output, wish: PlanArguments) -> Result<(), Error> {
    let mut parameters = wish.json.unwrap_or_default();
    parameters.extend(wish.parameters);
    let body = json!({ "plugin": wish.plugin, "action": wish.action, "parameters": parameters });
    let path = format!("/api/v1/nodes/{}/actions/plan", segment(&wish.node));
    let record: Value = client.call(Method::POST, &path, &[], Some(&body)).await?;
    if format == Output::Json {
        return Ok(output::json(&record)?);
    }
    print_plan(&record)?;
    let (id, digest, node) = (word(&record, "id"), word(&record, "digest"), word(&record, "node"));
    if list_of(&record["plan"]["steps"]).is_empty() {
        return Ok(());
    }
    if record["dangerous"] == json!(true) {
        eprintln!("An admin has to agree first: picket action approve {id} --digest {digest}");
    }
    eprintln!("To do it: picket action apply {node} {id} --digest {digest}");
    Ok(())
}

async fn apply(client: &Client, format: Output, wish: ApplyArguments) -> Result<(), Error> {
    let body = json!({
        "id": wish.id, "digest": wish.digest, "timeout": wish.timeout.map(|t| t.to_string()),
    });
    let path = format!("/api/v1/nodes/{}/actions/apply", segment(&wish.node));
    let mut record: Value = client.call(Method::POST, &path, &[], Some(&body)).await?;
    let Some(wait) = wish.wait else { return told(format, &record) };
    let until = Instant::now() + *wait;
    let path = format!("/api/v1/actions/{}", segment(&wish.id));
    while record["ended_ms"].is_null() && Instant::now() < until {
        tokio::time::sleep(LOOK_AGAIN).await;
        record = client.get(&path, &[]).await?;
    }
    told(format, &record)?;
    match record["state"].as_str() {
        Some("succeeded") => Ok(()),
        Some(state) => Err(Error::Action(state.to_owned(), word(&record, "message"))),
        None => Err(Error::Action("unknown".to_owned(), String::new())),
    }
}

async fn list(
    client: &Client,
    format: Output,
    node: Option<String>,
    state: Option<String>,
    limit: u32,
) -> Result<(), Error> {
    let mut query = vec![("limit", limit.to_string())];
    query.extend(node.map(|node| ("node", node)));
    query.extend(state.map(|state| ("state", state)));
    let answer: Value = client.get("/api/v1/actions", &query).await?;
    if format == Output::Json {
        return Ok(output::json(&answer)?);
    }
    let rows = list_of(&answer["actions"]).into_iter().map(|r| {
        vec![
            word(&r, "id"),
            word(&r, "node"),
            word(&r, "plugin"),
            word(&r, "action"),
            word(&r, "state"),
            r["planned_ms"].as_i64().map(output::time).unwrap_or_default(),
            output::or_none(r["applied_by"].as_str().or(r["planned_by"].as_str()).map(output::plain)),
            word(&r, "message"),
        ]
    });
    Ok(output::table(&["ID", "NODE", "PLUGIN", "ACTION", "STATE", "PLANNED", "BY", "MESSAGE"], rows, &[])?)
}

async fn show(client: &Client, format: Output, id: &str) -> Result<(), Error> {
    let record: Value = client.get(&format!("/api/v1/actions/{}", segment(id)), &[]).await?;
    if format == Output::Json {
        return Ok(output::json(&record)?);
    }
    print_plan(&record)?;
    for (name, key, by) in [
        ("planned", "planned_ms", "planned_by"),
        ("approved", "approved_ms", "approved_by"),
        ("applied", "applied_ms", "applied_by"),
    ] {
        if let Some(ms) = record[key].as_i64() {
            output::line(format_args!("{name:<10} {} by {}", output::time(ms), word(&record, by)))?;
        }
    }
    if let Some(ms) = record["ended_ms"].as_i64() {
        output::line(format_args!("{:<10} {}", "ended", output::time(ms)))?;
    }
    output::line(format_args!("{:<10} {}  {}", "state", word(&record, "state"), word(&record, "message")))?;
    for (number, step) in list_of(&record["steps"]).iter().enumerate() {
        let name = format!("step {}", number + 1);
        output::line(format_args!("{name:<10} {}  {}", word(step, "state"), word(step, "message")))?;
    }
    Ok(())
}

async fn breaker(client: &Client, format: Output, open: bool, reason: &str) -> Result<(), Error> {
    let body = json!({ "open": open, "reason": reason });
    let answer: Value = client.call(Method::PUT, "/api/v1/breaker", &[], Some(&body)).await?;
    match format {
        Output::Json => Ok(output::json(&answer)?),
        Output::Table if open => Ok(output::line("all actions are stopped until `picket action resume`")?),
        Output::Table => Ok(output::line("actions go on")?),
    }
}

fn print_plan(record: &Value) -> Result<(), Error> {
    let plan = &record["plan"];
    output::line(format_args!(
        "{} of {} on {}",
        word(record, "action"),
        word(record, "plugin"),
        word(record, "node")
    ))?;
    let steps = list_of(&plan["steps"]);
    if steps.is_empty() {
        output::line("Nothing is to be done.")?;
    }
    for (number, step) in steps.iter().enumerate() {
        output::line(format_args!("  {}. {}", number + 1, word(step, "summary")))?;
    }
    for note in list_of(&plan["notes"]) {
        output::line(format_args!("  note: {}", output::plain(note.as_str().unwrap_or_default())))?;
    }
    for why in list_of(&plan["blocked"]) {
        output::line(format_args!("  now refused: {}", output::plain(why.as_str().unwrap_or_default())))?;
    }
    let undone = if record["reversible"] == json!(true) { "can be undone" } else { "can't be undone" };
    let danger = if record["dangerous"] == json!(true) { ", needs an admin's approval" } else { "" };
    output::line(format_args!("  {undone}{danger}"))?;
    output::line(format_args!("{:<10} {}", "id", word(record, "id")))?;
    Ok(output::line(format_args!("{:<10} {}", "digest", word(record, "digest")))?)
}

fn told(format: Output, record: &Value) -> Result<(), Error> {
    match format {
        Output::Json => Ok(output::json(record)?),
        Output::Table => Ok(output::line(format_args!(
            "{} {}  {}",
            word(record, "id"),
            word(record, "state"),
            word(record, "message")
        ))?),
    }
}

fn word(value: &Value, key: &str) -> String {
    output::plain(value[key].as_str().unwrap_or_default())
}

fn list_of(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn yes(value: &Value) -> String {
    if value == &json!(true) { "yes".to_owned() } else { output::NONE.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters() {
        for (text, wanted) in [
            ("container=llama", json!("llama")),
            ("grace_seconds=30", json!(30)),
            ("force=true", json!(true)),
            ("reason=a=b", json!("a=b")),
            ("name=", json!("")),
            ("json={\"a\":1}", json!("{\"a\":1}")),
        ] {
            assert_eq!(parameter(text).unwrap().1, wanted, "{text}");
        }
        assert!(parameter("container").is_err() && parameter("=x").is_err());
        assert!(object("[1]").is_err() && object("{\"a\":1}").is_ok());
    }
}
