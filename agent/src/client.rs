//! Asks a running agent's local API: for the commands `plugins` and `support-bundle`.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

const WITHIN: Duration = Duration::from_secs(10);
const MAX_ANSWER: usize = 16 << 20;
/// Of the plugins' table.
const COLUMNS: usize = 13;

/// Why the agent gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no agent answers at {address}: {why}; is it running, and is http.listen the same?")]
    NoAnswer { address: SocketAddr, why: String },
    #[error("{address} answered {status} for {path}; is it a picket-agent?")]
    Status { address: SocketAddr, path: &'static str, status: u16 },
    #[error("{address} answered something that is not understood: {why}")]
    Answer { address: SocketAddr, why: String },
}

/// `GET path` as JSON. `listen`: the agent's own `http.listen`.
pub async fn get(listen: SocketAddr, path: &'static str) -> Result<serde_json::Value, AskError> {
    let address = reachable(listen);
    let (status, body) = fetch(listen, path).await?;
    if !status.is_success() {
        return Err(AskError::Status { address, path, status: status.as_u16() });
    }
    serde_json::from_slice(&body).map_err(|error| AskError::Answer { address, why: error.to_string() })
}

/// `GET path`, whatever the status is.
pub async fn fetch(listen: SocketAddr, path: &'static str) -> Result<(StatusCode, Bytes), AskError> {
    let address = reachable(listen);
    let no_answer = |why: String| AskError::NoAnswer { address, why };
    let ask = async {
        let stream = TcpStream::connect(address).await.map_err(|error| no_answer(error.to_string()))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| no_answer(error.to_string()))?;
        let connection = tokio::spawn(connection);
        let request = hyper::Request::get(path)
            .header(hyper::header::HOST, address.to_string())
            .body(Empty::<Bytes>::new())
            .map_err(|error| no_answer(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(|error| no_answer(error.to_string()))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| no_answer(error.to_string()))?
            .to_bytes();
        connection.abort();
        Ok((status, body))
    };
    tokio::time::timeout(WITHIN, ask)
        .await
        .unwrap_or_else(|_| Err(no_answer(format!("no answer within {WITHIN:?}"))))
}

/// An agent that listens on all addresses is reached by loopback.
pub fn reachable(mut listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    listen
}

/// The answer of `/api/v1/plugins` as a table. `now_ms`: Unix milliseconds.
pub fn plugin_table(answer: &serde_json::Value, now_ms: i64) -> String {
    let empty = Vec::new();
    let lines = answer["plugins"].as_array().unwrap_or(&empty);
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let mut rows: Vec<[String; COLUMNS]> = vec![
        [
            "PLUGIN",
            "STATE",
            "VERSION",
            "DIGEST",
            "SIGNED BY",
            "INTERVAL",
            "LAST",
            "TOOK",
            "SERIES",
            "OK",
            "FAILED",
            "SKIPPED",
            "GRANTS",
        ]
        .map(str::to_owned),
    ];
    rows.extend(lines.iter().map(|line| {
        let interval =
            Duration::from_secs_f64(line["interval_seconds"].as_f64().unwrap_or(0.0).clamp(0.0, 1e9));
        [
            text(&line["id"]),
            text(&line["state"]),
            text(&line["version"]),
            short(&line["digest"]),
            text(&line["signed_by"]),
            crate::config::format_duration(interval),
            line["last"]["timestamp_ms"].as_i64().map_or_else(nothing, |at| ago(now_ms - at)),
            line["last"]["seconds"].as_f64().map_or_else(nothing, |took| format!("{:.1}ms", took * 1000.0)),
            text(&line["series"]),
            text(&line["collects"]["ok"]),
            text(&line["collects"]["failed"]),
            text(&line["collects"]["skipped"]),
            grants(&line["grants"]),
        ]
    }));
    let mut widths = [0; COLUMNS];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for (i, row) in rows.iter().enumerate() {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
        let Some(line) = i.checked_sub(1).and_then(|i| lines.get(i)) else { continue };
        if let Some(reason) = line["reason"].as_str().filter(|reason| !reason.is_empty()) {
            for line in reason.lines() {
                let _ = writeln!(out, "    {line}");
            }
        }
        if line["rolled_out"] == true {
            let _ = writeln!(out, "    rolled out by the aggregator");
        }
        if line["previous"].is_object() {
            let back = if line["rolled_back"] == true { "rolled back; " } else { "" };
            let (version, digest) = (text(&line["previous"]["version"]), short(&line["previous"]["digest"]));
            let _ = writeln!(out, "    {back}before it: {version} ({digest})");
        }
    }
    for stray in answer["strays"].as_array().unwrap_or(&empty) {
        let _ = writeln!(out, "{}", text(&stray["reason"]));
    }
    out
}

/// As much of a digest as a person compares.
fn short(digest: &serde_json::Value) -> String {
    let digits: String = digest.as_str().unwrap_or_default().chars().take(12).collect();
    if digits.is_empty() { nothing() } else { digits }
}

fn nothing() -> String {
    "-".to_owned()
}

fn ago(milliseconds: i64) -> String {
    let seconds = Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0)).as_secs();
    format!("{} ago", humantime::format_duration(Duration::from_secs(seconds)))
}

fn grants(list: &serde_json::Value) -> String {
    let words: Vec<&str> = list.as_array().into_iter().flatten().filter_map(|word| word.as_str()).collect();
    if words.is_empty() { nothing() } else { words.join(",") }
}
