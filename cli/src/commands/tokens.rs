//! `picket token`

use reqwest::Method;
use serde_json::{Map, Value};

use super::segment;
use crate::Error;
use crate::api::Client;
use crate::arguments::{Output, TokenCommand};
use crate::output;

pub async fn run(client: &Client, format: Output, command: TokenCommand) -> Result<(), Error> {
    match command {
        TokenCommand::Create { node, nodes, count, role, name, ttl } => {
            let mut body = Map::new();
            if let Some(count) = count {
                body.insert("count".into(), count.into());
            }
            let ttl = ttl.map(|t| t.to_string());
            for (key, value) in
                [("node", node), ("nodes", nodes), ("role", role), ("name", name), ("ttl", ttl)]
            {
                if let Some(value) = value {
                    body.insert(key.into(), value.into());
                }
            }
            create(client, format, &Value::Object(body)).await
        }
        TokenCommand::Ls => list(client, format).await,
        TokenCommand::Revoke { id } => {
            let path = format!("/api/v1/tokens/{}", segment(&id));
            let answer: Value = client.call(Method::DELETE, &path, &[], None::<&()>).await?;
            match format {
                Output::Json => Ok(output::json(&answer)?),
                Output::Table => Ok(output::line(format_args!("revoked {id}"))?),
            }
        }
    }
}

/// The token alone goes to standard output, so that it can go into a file.
async fn create(client: &Client, format: Output, body: &Value) -> Result<(), Error> {
    let answer: Value = client.call(Method::POST, "/api/v1/tokens", &[], Some(body)).await?;
    if format == Output::Json {
        return Ok(output::json(&answer)?);
    }
    output::line(answer["token"].as_str().unwrap_or_default())?;
    let end = answer["expires_ms"].as_i64().map_or_else(|| "it is revoked".to_owned(), output::time);
    match answer["node"].as_str() {
        Some(nodes) if body.get("nodes").is_some() => eprintln!(
            "Works for {} new nodes named {nodes}, until {end}: picket-agent enroll --token TOKEN [--node NAME]",
            answer["count"]
        ),
        Some(node) => {
            eprintln!("Works once, for the node {node}, until {end}: picket-agent enroll --token TOKEN")
        }
        None => eprintln!("Shown this once; works until {end}."),
    }
    Ok(())
}

async fn list(client: &Client, format: Output) -> Result<(), Error> {
    let answer: Value = client.get("/api/v1/tokens", &[]).await?;
    if format == Output::Json {
        return Ok(output::json(&answer)?);
    }
    let all = |name: &str| answer[name].as_array().cloned().unwrap_or_default();
    let row = |token: &Value, what: String, state: String| {
        let text = |name: &str| output::plain(token[name].as_str().unwrap_or_default());
        let time = |name: &str| output::or_none(token[name].as_i64().map(output::time));
        vec![text("id"), what, state, time("created_ms"), text("created_by"), time("expires_ms")]
    };
    let word = |token: &Value, name: &str| output::plain(token[name].as_str().unwrap_or_default());
    let state = |token: &Value| match token["count"].as_u64() {
        Some(count) if count > 1 => format!("{}, {} of {count} used", word(token, "state"), token["used"]),
        _ => word(token, "state"),
    };
    let api = all("api");
    let enrolment = all("enrolment");
    let rows = api
        .iter()
        .map(|token| row(token, format!("{} {}", word(token, "role"), word(token, "name")), "active".into()))
        .chain(
            enrolment.iter().map(|token| row(token, format!("node {}", word(token, "node")), state(token))),
        );
    Ok(output::table(&["ID", "FOR", "STATE", "MADE", "BY", "ENDS"], rows, &[])?)
}
