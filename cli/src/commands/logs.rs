//! `picket logs`: lines that the aggregator keeps, and lines as they come.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::Error;
use crate::api::{ApiError, Client};
use crate::arguments::{LogsArguments, Output};
use crate::output;

/// The aggregator asks more often than this whether we are there.
const SILENCE: Duration = Duration::from_secs(90);

#[derive(Deserialize)]
struct Stream {
    stream: BTreeMap<String, String>,
    /// Time and line.
    values: Vec<(String, String)>,
}

/// A message of a tail.
#[derive(Deserialize)]
struct Tailed {
    #[serde(default)]
    streams: Vec<Stream>,
    #[serde(default)]
    dropped_entries: Vec<Value>,
}

struct Line<'a> {
    ns: i64,
    labels: &'a BTreeMap<String, String>,
    text: &'a str,
}

pub async fn run(client: &Client, format: Output, wish: &LogsArguments) -> Result<(), Error> {
    let start = now_ns().saturating_sub(i64::try_from(wish.since.as_nanos()).unwrap_or(i64::MAX));
    let mut query =
        vec![("query", wish.query.clone()), ("limit", wish.limit.to_string()), ("start", start.to_string())];
    if wish.follow {
        return follow(client, format, &query).await;
    }
    query.push(("direction", "backward".to_owned()));
    let answer: Value = client.get("/loki/api/v1/query_range", &query).await?;
    if answer["data"]["resultType"] != "streams" {
        // Numbers over time are for a picture: here, what they are now.
        let now: Value = client.get("/loki/api/v1/query", &[("query", wish.query.clone())]).await?;
        return numbers(format, &now["data"]);
    }
    let streams: Vec<Stream> = serde_json::from_value(answer["data"]["result"].clone())
        .map_err(|error| ApiError::Foreign { url: client.url().to_owned(), message: error.to_string() })?;
    let lines = in_order(&streams);
    match format {
        Output::Json => {
            let lines: Vec<Value> = lines.iter().map(Line::json).collect();
            Ok(output::json(&json!({ "lines": lines }))?)
        }
        Output::Table => {
            let common = common(&streams);
            Ok(print(lines.iter().map(|line| line.text(&common)))?)
        }
    }
}

/// What a metric query gives.
fn numbers(format: Output, data: &Value) -> Result<(), Error> {
    if format == Output::Json {
        return Ok(output::json(data)?);
    }
    if data["resultType"] == "scalar" {
        return Ok(output::line(data["result"][1].as_str().unwrap_or_default())?);
    }
    let rows = data["result"].as_array().into_iter().flatten().map(|series| {
        let metric: BTreeMap<String, String> =
            serde_json::from_value(series["metric"].clone()).unwrap_or_default();
        vec![labels(&metric, &[]), series["value"][1].as_str().unwrap_or_default().to_owned()]
    });
    Ok(output::table(&["SERIES", "VALUE"], rows, &[1])?)
}

async fn follow(client: &Client, format: Output, query: &[(&str, String)]) -> Result<(), Error> {
    let mut socket = client.web_socket("/loki/api/v1/tail", query).await?;
    let broken = |message: String| ApiError::Broken { url: client.url().to_owned(), message };
    loop {
        let heard = tokio::time::timeout(SILENCE, socket.next()).await;
        let heard = heard.map_err(|_| broken(format!("nothing came for {} s", SILENCE.as_secs())))?;
        match heard {
            Some(Ok(Message::Text(text))) => {
                let message: Tailed = serde_json::from_str(text.as_str()).map_err(|error| {
                    ApiError::Foreign { url: client.url().to_owned(), message: error.to_string() }
                })?;
                if !message.dropped_entries.is_empty() {
                    eprintln!(
                        "picket: some lines came faster than they could be shown; ask for them without --follow"
                    );
                }
                let lines = in_order(&message.streams);
                match format {
                    Output::Json => print(lines.iter().map(|line| line.json().to_string()))?,
                    Output::Table => print(lines.iter().map(|line| line.text(&[])))?,
                }
            }
            Some(Ok(Message::Close(frame))) => {
                // Answered before we go.
                let _ = socket.close(None).await;
                let reason = frame.map_or_else(String::new, |frame| frame.reason.to_string());
                return Err(broken(format!("it ended the tail: {reason}")).into());
            }
            // Pings are answered by the library when it writes.
            Some(Ok(_)) => socket.flush().await.map_err(|error| broken(error.to_string()))?,
            Some(Err(error)) => return Err(broken(error.to_string()).into()),
            None => return Err(broken("it ended the tail".to_owned()).into()),
        }
    }
}

/// All lines, oldest first.
fn in_order(streams: &[Stream]) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for stream in streams {
        let mut own: Vec<Line<'_>> = Vec::with_capacity(stream.values.len());
        for (ns, text) in &stream.values {
            own.push(Line { ns: ns.parse().unwrap_or_default(), labels: &stream.stream, text });
        }
        if own.first().zip(own.last()).is_some_and(|(first, last)| first.ns > last.ns) {
            own.reverse();
        }
        lines.append(&mut own);
    }
    lines.sort_by_key(|line| line.ns);
    lines
}

/// Labels that all streams have alike: they needn't stand in each line.
fn common(streams: &[Stream]) -> Vec<String> {
    let Some((first, rest)) = streams.split_first() else { return Vec::new() };
    let alike =
        |name: &str, value: &str| rest.iter().all(|other| other.stream.get(name).is_some_and(|v| v == value));
    first.stream.iter().filter(|(name, value)| alike(name, value)).map(|(name, _)| name.clone()).collect()
}

impl Line<'_> {
    fn json(&self) -> Value {
        json!({ "timestamp_ns": self.ns.to_string(), "labels": self.labels, "line": self.text })
    }

    fn text(&self, common: &[String]) -> String {
        let labels = labels(self.labels, common);
        let space = if labels.is_empty() { "" } else { "  " };
        format!("{}{space}{labels}  {}", time(self.ns), safe(self.text))
    }
}

/// `node=a,container=b`; `instance` is the node again.
fn labels(labels: &BTreeMap<String, String>, without: &[String]) -> String {
    let shown = labels.iter().filter(|(name, value)| {
        let again = *name == "instance" && labels.get("node") == Some(value);
        !again && !without.contains(name)
    });
    output::plain(&shown.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(","))
}

/// A line's control characters can't do anything to the terminal; a trace keeps its lines.
fn safe(text: &str) -> String {
    text.trim_end_matches('\n')
        .chars()
        .map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { ' ' } else { c })
        .collect()
}

fn time(ns: i64) -> String {
    let ms = ns.div_euclid(1_000_000);
    let seconds = output::time(ms);
    format!("{}.{:03}Z", seconds.trim_end_matches('Z'), ms.rem_euclid(1000))
}

fn print(lines: impl Iterator<Item = String>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()
}

fn now_ns() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(pairs: &[(&str, &str)], values: &[(&str, &str)]) -> Stream {
        let own = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
        Stream { stream: pairs.iter().map(own).collect(), values: values.iter().map(own).collect() }
    }

    #[test]
    fn lines_of_all_streams_are_told_oldest_first() {
        let streams = [
            stream(
                &[("node", "a"), ("instance", "a"), ("c", "x")],
                &[("3000000000", "c"), ("1000000000", "a\u{1b}[31m")],
            ),
            stream(&[("node", "b"), ("instance", "b"), ("c", "x")], &[("2000000000", "b\n  at f()\n")]),
        ];
        let common = common(&streams);
        assert_eq!(common, ["c"]);
        let told: Vec<String> = in_order(&streams).iter().map(|line| line.text(&common)).collect();
        assert_eq!(
            told,
            [
                "1970-01-01 00:00:01.000Z  node=a  a [31m",
                "1970-01-01 00:00:02.000Z  node=b  b\n  at f()",
                "1970-01-01 00:00:03.000Z  node=a  c",
            ]
        );
        let json = in_order(&streams).first().map(Line::json);
        assert_eq!(json.unwrap()["labels"]["node"], "a");
    }
}
