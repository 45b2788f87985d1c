//! `picket events`

use serde_json::Value;

use crate::Error;
use crate::api::Client;
use crate::arguments::{EventsArguments, Output};
use crate::output;

pub async fn list(client: &Client, format: Output, wish: &EventsArguments) -> Result<(), Error> {
    let mut query = vec![("limit", wish.limit.to_string())];
    for (name, value) in [("node", &wish.node), ("kind", &wish.kind), ("severity", &wish.severity)] {
        if let Some(value) = value {
            query.push((name, value.clone()));
        }
    }
    let answer: Value = client.get("/api/v1/events", &query).await?;
    if format == Output::Json {
        return Ok(output::json(&answer)?);
    }
    let rows = answer["events"].as_array().into_iter().flatten().map(|event| {
        let word = |name: &str| output::plain(event[name].as_str().unwrap_or_default());
        let subject = match (word("subject_kind"), word("subject_id")) {
            (kind, id) if !kind.is_empty() => format!("{kind} {id}"),
            (_, id) => id,
        };
        let kind = if event["clear"] == true { format!("{} (cleared)", word("kind")) } else { word("kind") };
        vec![
            event["timestamp_ms"].as_i64().map_or_else(String::new, output::time),
            word("node"),
            word("severity"),
            kind,
            subject,
            word("message"),
        ]
    });
    Ok(output::table(&["TIME", "NODE", "SEVERITY", "KIND", "SUBJECT", "MESSAGE"], rows, &[])?)
}
