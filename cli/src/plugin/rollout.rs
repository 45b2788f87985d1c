//! `picket plugin rollout`, `status`, `pause`, `resume` and `rollback`: a plugin onto the fleet, by way of the aggregator.

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use crate::Error;
use crate::api::Client;
use crate::arguments::Output;
use crate::commands::segment;
use crate::output;

#[derive(Debug, Args)]
pub struct RolloutArguments {
    /// HOST/REPOSITORY:TAG, or HOST/REPOSITORY@sha256:DIGEST for exactly that one; the aggregator pulls it.
    pub reference: String,
    /// The plugin's name in the nodes' configuration.
    #[arg(long)]
    pub name: String,
    /// Nodes with these labels, as rack=r1 or gpu!=h100; `node` is a node's name. May stand more than once: all must hold.
    /// Without it, all nodes.
    #[arg(long, value_name = "LABEL=VALUE")]
    pub selector: Vec<String>,
    /// How many nodes have it when each stage is full: numbers, percentages, all.
    #[arg(long, default_value = "1,10%,all")]
    pub stages: String,
    /// How long all nodes of a stage must be well before the next one begins.
    #[arg(long, default_value = "5m")]
    pub soak: humantime::Duration,
    /// A node that does not run it after so long, or is not well for so long, has failed.
    #[arg(long, default_value = "10m")]
    pub timeout: humantime::Duration,
    /// With more failures than these it halts.
    #[arg(long, default_value_t = 0)]
    pub max_failures: usize,
}

pub async fn start(client: &Client, format: Output, wish: &RolloutArguments) -> Result<(), Error> {
    let body = json!({
        "reference": wish.reference, "plugin": wish.name, "selector": wish.selector.join(","), "stages": wish.stages,
        "soak": wish.soak.to_string(), "timeout": wish.timeout.to_string(), "max_failures": wish.max_failures,
    });
    let rollout: Value = client.call(Method::POST, "/api/v1/rollouts", &[], Some(&body)).await?;
    told(format, &rollout)
}

/// The newest rollout of each plugin; of one plugin, with its nodes.
pub async fn status(client: &Client, format: Output, name: Option<&str>) -> Result<(), Error> {
    if let Some(name) = name {
        let rollout = newest(client, name).await?;
        return told(format, &rollout);
    }
    let answer: Value = client.get("/api/v1/rollouts", &[]).await?;
    if format == Output::Json {
        return Ok(output::json(&answer)?);
    }
    let mut seen = Vec::new();
    let mut rows = Vec::new();
    for rollout in list_of(&answer["rollouts"]) {
        let plugin = word(&rollout, "plugin");
        if seen.contains(&plugin) {
            continue;
        }
        rows.push(vec![
            plugin.clone(),
            word(&rollout, "version"),
            short(&rollout["digest"]),
            word(&rollout, "phase"),
            format!("{} of {}", rollout["stage"], list_of(&rollout["stages"]).len()),
            counts(&rollout),
            output::or_none(Some(word(&rollout, "selector"))),
            rollout["created_ms"].as_i64().map(output::time).unwrap_or_default(),
            word(&rollout, "created_by"),
        ]);
        seen.push(plugin);
    }
    let none = rows.is_empty();
    let header = ["PLUGIN", "VERSION", "DIGEST", "PHASE", "STAGE", "NODES", "SELECTOR", "BEGUN", "BY"];
    output::table(&header, rows, &[])?;
    if none {
        eprintln!("Nothing was rolled out yet: picket plugin rollout REFERENCE --name NAME");
    }
    Ok(())
}

/// `pause`, `resume` or `rollback` of a plugin's newest rollout.
pub async fn change(
    client: &Client,
    format: Output,
    name: &str,
    verb: &str,
    reason: Option<&str>,
) -> Result<(), Error> {
    let rollout = newest(client, name).await?;
    let path = format!("/api/v1/rollouts/{}/{verb}", segment(&word(&rollout, "id")));
    let query: Vec<(&str, String)> = reason.iter().map(|reason| ("reason", (*reason).to_owned())).collect();
    let rollout: Value = client.call(Method::POST, &path, &query, None::<&()>).await?;
    told(format, &rollout)
}

async fn newest(client: &Client, name: &str) -> Result<Value, Error> {
    let answer: Value = client.get("/api/v1/rollouts", &[("plugin", name.to_owned())]).await?;
    match list_of(&answer["rollouts"]).first() {
        Some(rollout) => {
            Ok(client.get(&format!("/api/v1/rollouts/{}", segment(&word(rollout, "id"))), &[]).await?)
        }
        None => Err(Error::NoRollout(output::plain(name))),
    }
}

fn told(format: Output, rollout: &Value) -> Result<(), Error> {
    if format == Output::Json {
        return Ok(output::json(rollout)?);
    }
    let stages: Vec<String> =
        list_of(&rollout["stages"]).iter().filter_map(|stage| stage.as_str().map(output::plain)).collect();
    for (name, value) in [
        ("plugin", format!("{} {}", word(rollout, "plugin"), word(rollout, "version"))),
        ("artifact", word(rollout, "resolved")),
        ("digest", word(rollout, "digest")),
        ("signed by", word(rollout, "signed_by")),
        ("selector", output::or_none(Some(word(rollout, "selector")))),
        ("stage", format!("{} of {}", rollout["stage"], stages.join(", "))),
        ("phase", word(rollout, "phase")),
        ("why", word(rollout, "reason")),
        ("nodes", counts(rollout)),
        ("begun", rollout["created_ms"].as_i64().map(output::time).unwrap_or_default()),
        ("by", word(rollout, "created_by")),
        ("id", word(rollout, "id")),
    ] {
        if !value.is_empty() {
            output::line(format_args!("{name:<10} {value}"))?;
        }
    }
    let agents = list_of(&rollout["agents"]);
    if agents.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let rows = agents.iter().map(|agent| {
        let well = if agent["well"] == true { "yes" } else { output::NONE };
        let why = format!("{} {}", word(agent, "code"), word(agent, "reason"));
        vec![
            word(agent, "node"),
            agent["stage"].to_string(),
            word(agent, "state"),
            well.to_owned(),
            short(&agent["former"]),
            why.trim().to_owned(),
        ]
    });
    Ok(output::table(&["NODE", "STAGE", "STATE", "WELL", "BEFORE", "WHY"], rows, &[1])?)
}

/// Those states that any node is in.
fn counts(rollout: &Value) -> String {
    let counts = rollout["nodes"].as_object().into_iter().flatten();
    let some = counts.filter(|(_, count)| count.as_u64() > Some(0));
    some.map(|(state, count)| format!("{count} {}", output::plain(state))).collect::<Vec<_>>().join(", ")
}

/// As much of a digest as a person compares.
fn short(digest: &Value) -> String {
    let digits: String = digest.as_str().unwrap_or_default().chars().take(12).collect();
    output::or_none(Some(output::plain(&digits)))
}

fn word(value: &Value, key: &str) -> String {
    output::plain(value[key].as_str().unwrap_or_default())
}

fn list_of(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}
