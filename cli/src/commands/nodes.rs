//! `picket nodes`, `picket node …`

use reqwest::Method;
use semver::Version;
use serde_json::{Map, Value, json};

use super::segment;
use crate::Error;
use crate::api::{ApiError, Client};
use crate::arguments::{Output, ScenarioArguments};
use crate::output::{self, ago, or_none, plain};

/// All pages of the list of nodes, as one list.
pub async fn fetch(client: &Client) -> Result<Vec<Value>, ApiError> {
    let mut nodes = Vec::new();
    let mut query = Vec::new();
    loop {
        let mut page: Value = client.get("/api/v1/nodes", &query).await?;
        if let Some(list) = page["nodes"].as_array_mut() {
            nodes.append(list);
        }
        match page["next_after"].as_str() {
            Some(after) => query = vec![("after", after.to_owned())],
            None => return Ok(nodes),
        }
    }
}

pub async fn list(
    client: &Client,
    format: Output,
    with_plugins: bool,
    only_outdated: bool,
) -> Result<(), Error> {
    let mut nodes = fetch(client).await?;
    if only_outdated {
        let status: Value = client.get("/api/v1/status", &[]).await?;
        let aggregator = word(&status, "version");
        nodes.retain(|node| is_older(&word(node, "agent_version"), &aggregator));
        if nodes.is_empty() && format != Output::Json {
            eprintln!("No agent is older than the aggregator ({aggregator}).");
            return Ok(());
        }
    }
    if format == Output::Json {
        return Ok(output::json(&json!({ "nodes": nodes }))?);
    }
    if with_plugins {
        return list_plugins(&nodes);
    }
    let now = now_ms();
    let rows = nodes.iter().map(|node| {
        vec![
            word(node, "node"),
            word(node, "state"),
            or_none(node["last_batch_ms"].as_i64().map(|ms| ago(now - ms))),
            node["series"].as_u64().unwrap_or_default().to_string(),
            node["samples_total"].as_u64().unwrap_or_default().to_string(),
            or_none(Some(word(node, "agent_version"))),
            or_none(node["certificate_expires_ms"].as_i64().map(|ms| left(ms - now))),
        ]
    });
    output::table(&["NODE", "STATE", "SEEN", "SERIES", "SAMPLES", "AGENT", "CERTIFICATE"], rows, &[2, 3, 4])?;
    if nodes.is_empty() {
        eprintln!(
            "No nodes yet. Make a token with `picket token create --node NAME`, then enrol the node with it."
        );
    }
    Ok(())
}

/// Whether the first version comes before the second. What is no semantic version is older if it is another one; an agent that
/// never said its version is not counted.
fn is_older(agent: &str, aggregator: &str) -> bool {
    match (Version::parse(agent), Version::parse(aggregator)) {
        (Ok(agent), Ok(aggregator)) => agent.cmp_precedence(&aggregator).is_lt(),
        _ => !agent.is_empty() && agent != aggregator,
    }
}

/// A line for each plugin of each node.
fn list_plugins(nodes: &[Value]) -> Result<(), Error> {
    let plugins = |node: &Value| node["plugins"].as_array().cloned().unwrap_or_default();
    let rows = nodes.iter().flat_map(|node| {
        let name = word(node, "node");
        plugins(node).into_iter().map(move |plugin| [vec![name.clone()], plugin_row(&plugin)].concat())
    });
    Ok(output::table(&["NODE", "PLUGIN", "VERSION", "DIGEST", "STATE", "SERIES", "REASON"], rows, &[5])?)
}

fn plugin_row(plugin: &Value) -> Vec<String> {
    let digest: String = word(plugin, "digest").chars().take(12).collect();
    vec![
        word(plugin, "id"),
        or_none(Some(word(plugin, "version"))),
        or_none(Some(digest)),
        word(plugin, "state"),
        plugin["series"].as_u64().unwrap_or_default().to_string(),
        word(plugin, "reason"),
    ]
}

pub async fn show(client: &Client, format: Output, node: &str) -> Result<(), Error> {
    let answer: Value = client.get(&format!("/api/v1/nodes/{}", segment(node)), &[]).await?;
    if format == Output::Json {
        return Ok(output::json(&answer)?);
    }
    let time = |name: &str| or_none(answer[name].as_i64().map(output::time));
    let number = |name: &str| answer[name].as_u64().unwrap_or_default().to_string();
    let skew = answer["clock_skew_ms"].as_i64().map(|ms| format!("{ms} ms"));
    let rows = [
        ("node", word(&answer, "node")),
        ("state", word(&answer, "state")),
        ("last batch", time("last_batch_ms")),
        ("connected since", time("connected_since_ms")),
        ("series", number("series")),
        ("samples", number("samples_total")),
        ("agent", or_none(Some(word(&answer, "agent_version")))),
        ("agent since", time("started_ms")),
        (
            "kernel",
            or_none(Some(format!("{} {}", word(&answer, "kernel"), word(&answer, "arch")).trim().to_owned())),
        ),
        ("clock skew", or_none(skew)),
        ("enrolled", time("enrolled_ms")),
        ("certificate ends", time("certificate_expires_ms")),
        ("revoked", time("revoked_ms")),
    ];
    for (name, value) in rows {
        output::line(format_args!("{name:<17} {value}"))?;
    }
    let labels: Vec<String> = answer["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{}={}", plain(name), plain(value.as_str().unwrap_or_default())))
        .collect();
    if !labels.is_empty() {
        output::line(format_args!("{:<17} {}", "labels", labels.join(" ")))?;
    }
    for (reason, count) in answer["losses"].as_object().into_iter().flatten() {
        let name = format!("lost ({})", plain(reason));
        output::line(format_args!("{name:<17} {count} records"))?;
    }
    let plugins = answer["plugins"].as_array().cloned().unwrap_or_default();
    if !plugins.is_empty() {
        output::line("")?;
        let rows = plugins.iter().map(plugin_row);
        output::table(&["PLUGIN", "VERSION", "DIGEST", "STATE", "SERIES", "REASON"], rows, &[4])?;
    }
    Ok(())
}

pub async fn revoke(client: &Client, format: Output, node: &str) -> Result<(), Error> {
    act(client, format, node, "revoke").await
}

pub async fn readmit(client: &Client, format: Output, node: &str) -> Result<(), Error> {
    act(client, format, node, "readmit").await
}

/// Reads the settings, or changes them where the wish holds any.
pub async fn scenario(client: &Client, format: Output, wish: &ScenarioArguments) -> Result<(), Error> {
    let path = format!("/api/v1/nodes/{}/scenario", segment(&wish.node));
    let query: Vec<(&str, String)> = wish.plugin.iter().map(|plugin| ("plugin", plugin.clone())).collect();
    let answer: Value = if wish.set.is_none() && wish.settings.is_none() {
        client.get(&path, &query).await?
    } else {
        let mut body = Map::new();
        if let Some(scenario) = &wish.set {
            body.insert("scenario".into(), json!(scenario));
        }
        if let Some(settings) = &wish.settings {
            body.insert("settings".into(), settings.clone());
        }
        client.call(Method::PUT, &path, &query, Some(&body)).await?
    };
    // A plugin's own words: there is no table that fits them all.
    let _ = format;
    Ok(output::json(&answer)?)
}

async fn act(client: &Client, format: Output, node: &str, verb: &str) -> Result<(), Error> {
    let path = format!("/api/v1/nodes/{}/{verb}", segment(node));
    let answer: Value = client.call(Method::POST, &path, &[], None::<&()>).await?;
    if format == Output::Json {
        return Ok(output::json(&answer)?);
    }
    let past = if verb == "revoke" { "revoked" } else { "readmitted" };
    output::line(format_args!("{past} {node}"))?;
    if let Some(advice) = answer["advice"].as_str() {
        eprintln!("{}", plain(advice));
    }
    Ok(())
}

pub fn now_ms() -> i64 {
    (time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000) as i64
}

fn word(value: &Value, name: &str) -> String {
    plain(value[name].as_str().unwrap_or_default())
}

fn left(ms: i64) -> String {
    if ms <= 0 { "ended".into() } else { format!("{} left", ago(ms)) }
}

#[cfg(test)]
mod tests {
    use super::is_older;

    #[test]
    fn versions() {
        for (agent, aggregator, older) in [
            ("0.1.0", "0.1.0", false),
            ("0.1.9", "0.1.10", true),
            ("0.2.0", "0.1.10", false),
            ("1.0.0-rc.1", "1.1.0", true),
            ("1.0.0-rc.1", "1.0.0", true),
            ("1.0.0+one", "1.0.0+two", false),
            ("1.0", "1.0.0", true),
            ("", "1.0.0", false),
        ] {
            assert_eq!(is_older(agent, aggregator), older, "{agent} {aggregator}");
        }
    }
}
