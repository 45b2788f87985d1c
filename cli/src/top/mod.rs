//! `picket top`: the fleet as a table that lives. Without a terminal, or with `--once`, one table on standard output.

mod screen;
mod view;

use std::io::IsTerminal as _;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::Error;
use crate::api::{ApiError, Client};
use crate::arguments::Output;
use crate::commands::nodes;
use crate::output;
use view::{History, Row, Snapshot};

/// What the table is made of. One value a CPU and a GPU and a few a node.
const SELECTORS: [&str; 6] = [
    r#"node_cpu_seconds_total{mode="idle"}"#,
    "node_load1",
    "node_memory_MemTotal_bytes",
    "node_memory_MemAvailable_bytes",
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_GPU_TEMP",
];

/// Looking more often than this shows nothing new.
const SHORTEST: Duration = Duration::from_millis(200);

/// The table and what is to be said above it.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub rows: Vec<Row>,
    pub url: String,
    pub error: Option<String>,
    pub truncated: bool,
}

pub async fn run(client: Client, format: Output, once: bool, interval: Duration) -> Result<(), Error> {
    let interval = interval.max(SHORTEST);
    if once || format == Output::Json || !std::io::stdout().is_terminal() {
        return print_once(&client, format).await;
    }
    let (sender, receiver) = watch::channel(State { url: client.url().to_owned(), ..State::default() });
    let feed = tokio::spawn(feed(client, interval, sender));
    let shown = tokio::task::spawn_blocking(move || screen::show(&receiver)).await;
    feed.abort();
    match shown {
        Ok(result) => Ok(result?),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

async fn print_once(client: &Client, format: Output) -> Result<(), Error> {
    let mut history = History::default();
    let rows = history.update(&fetch(client).await?);
    if format == Output::Json {
        let rows = serde_json::to_value(&rows).unwrap_or_default();
        return Ok(output::json(&json!({ "nodes": rows }))?);
    }
    Ok(output::table(&view::HEADER, rows.iter().map(Row::cells), &view::RIGHT)?)
}

/// Looks again and again, until nobody watches.
async fn feed(client: Client, interval: Duration, sender: watch::Sender<State>) {
    let mut history = History::default();
    let mut tick = tokio::time::interval(interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let looked = fetch(&client).await;
        sender.send_modify(|state| match looked {
            Ok(snapshot) => {
                state.rows = history.update(&snapshot);
                state.truncated = snapshot.truncated;
                state.error = None;
            }
            // The last table stays, and says that it is old.
            Err(error) => state.error = Some(error.to_string()),
        });
        if sender.is_closed() {
            return;
        }
    }
}

async fn fetch(client: &Client) -> Result<Snapshot, ApiError> {
    let query: Vec<(&str, String)> = SELECTORS
        .iter()
        .map(|selector| ("match", (*selector).to_owned()))
        .chain([("limit", "100000".to_owned())])
        .collect();
    let (nodes, series) = tokio::join!(nodes::fetch(client), client.get::<Value>("/api/v1/series", &query));
    Ok(Snapshot::new(nodes::now_ms(), &nodes?, &series?))
}
