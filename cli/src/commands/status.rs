//! `picket status`

use serde_json::Value;

use crate::Error;
use crate::api::Client;
use crate::arguments::Output;
use crate::output;

pub async fn show(client: &Client, format: Output) -> Result<(), Error> {
    let answer: Value = client.get("/api/v1/status", &[]).await?;
    let ready = answer["ready"] == true;
    if format == Output::Json {
        output::json(&answer)?;
    } else {
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let nodes = &answer["nodes"];
        let time = |name: &str| output::or_none(answer[name].as_i64().map(output::time));
        let ca = match answer["certificate_authority"]["fingerprint"].as_str() {
            Some(fingerprint) => format!("Picket's, sha256 {fingerprint}"),
            None => "your own".to_owned(),
        };
        let rows = [
            ("aggregator", client.url().to_owned()),
            ("version", output::plain(answer["version"].as_str().unwrap_or(output::NONE))),
            ("state", if ready { "ready" } else { "starting or stopping" }.to_owned()),
            ("since", time("started_ms")),
            (
                "nodes",
                format!(
                    "{} up, {} connected, {} known, {} revoked",
                    number(&nodes["up"]),
                    number(&nodes["connected"]),
                    number(&nodes["known"]),
                    number(&nodes["revoked"])
                ),
            ),
            ("series", number(&answer["series"]).to_string()),
            ("samples", number(&answer["samples_total"]).to_string()),
            ("CA", ca),
            ("certificate ends", time("server_certificate_expires_ms")),
        ];
        for (name, value) in rows {
            output::line(format_args!("{name:<17} {value}"))?;
        }
    }
    if ready { Ok(()) } else { Err(Error::NotReady("it is starting or stopping".into())) }
}
