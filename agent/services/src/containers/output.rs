//! The output of containers as it comes, for who follows many of them: which containers there are, and each one's output
//! from a time on, over a connection that stays open. What nobody takes waits with the engine.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::mpsc;

use super::frames::{Message, Unframe};
use super::{Error, Permit, engine, find_on, list_one, timed_out};
use crate::ServiceLimits;

/// Bytes of messages that are sent at once, about.
const BATCH: usize = 128 << 10;

/// A granted container at one look.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub id: String,
    pub runs: bool,
    /// Told once: of those that were not known before.
    pub described: Option<Described>,
}

/// What does not change of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    /// The engine's own file; empty where it keeps none that others can read.
    pub log_path: String,
    /// `json-file`, `local`, `journald` …
    pub driver: String,
    /// Its output is a terminal's.
    pub tty: bool,
    pub name: String,
    pub image: String,
    pub labels: Vec<(String, String)>,
}

/// What one engine said: its socket's path, and its granted containers, stopped ones too.
pub(crate) type Look = (String, Result<Vec<Seen>, Error>);

/// Asks all granted engines, each within `limits.engine_time`.
pub(crate) async fn look(permit: &Permit, limits: &ServiceLimits, known: &HashSet<String>) -> Vec<Look> {
    let mut looks = Vec::new();
    for (socket, place) in permit.sockets.iter().enumerate() {
        let work = look_at(permit, limits, socket, known);
        let seen = tokio::time::timeout(limits.engine_time, work).await;
        looks.push((place.path.clone(), seen.unwrap_or_else(|_| Err(timed_out(&place.path, limits)))));
    }
    looks
}

async fn look_at(
    permit: &Permit,
    limits: &ServiceLimits,
    socket: usize,
    known: &HashSet<String>,
) -> Result<Vec<Seen>, Error> {
    let mut all = Vec::new();
    for container in list_one(permit, limits, socket, true).await? {
        let text = |key: &str| container.get(key).and_then(Value::as_str).unwrap_or_default();
        let id = text("Id").to_owned();
        let runs = matches!(text("State"), "running" | "paused" | "restarting");
        let described = if known.contains(&id) {
            None
        } else {
            match find_on(permit, limits, socket, &id).await? {
                Some(container) => Some(describe(&container)),
                // It went in between.
                None => continue,
            }
        };
        all.push(Seen { id, runs, described });
    }
    Ok(all)
}

fn describe(container: &Value) -> Described {
    let at = |pointer: &str| container.pointer(pointer);
    let text = |pointer: &str| at(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let labels = at("/Config/Labels").and_then(Value::as_object);
    Described {
        log_path: text("/LogPath"),
        driver: text("/HostConfig/LogConfig/Type"),
        tty: at("/Config/Tty").and_then(Value::as_bool).unwrap_or(false),
        name: text("/Name").trim_start_matches('/').to_owned(),
        image: text("/Config/Image"),
        labels: labels
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect(),
    }
}

/// Sends what the container puts out, from a time on (nanoseconds since the Unix epoch) and then as it comes, until it ends: the
/// what came since the last were taken at a time.
pub(crate) async fn follow(
    permit: Arc<Permit>,
    socket: String,
    id: String,
    since: u64,
    tty: bool,
    sink: mpsc::Sender<Vec<Message>>,
) -> Result<(), Error> {
    let place = permit.sockets.iter().find(|place| place.path == socket);
    let place = place.ok_or_else(|| Error::NotFound(id.clone()))?;
    let (seconds, nanos) = (since / 1_000_000_000, since % 1_000_000_000);
    let target =
        format!("/containers/{id}/logs?stdout=1&stderr=1&timestamps=1&follow=1&since={seconds}.{nanos:09}");
    let mut flow = engine::open(&place.path, target).await?;
    let mut unframe = Unframe::new(tty);
    let (mut messages, mut held, mut ended) = (Vec::new(), 0, false);
    while !ended || !messages.is_empty() {
        tokio::select! {
            bytes = engine::next(&mut flow), if !ended && (held < BATCH || messages.is_empty()) => match bytes? {
                Some(bytes) => {
                    held += bytes.len();
                    unframe.push(&bytes, &mut messages)?;
                }
                None => {
                    ended = true;
                    unframe.finish(&mut messages);
                }
            },
            place = sink.reserve(), if !messages.is_empty() => match place {
                Ok(place) => {
                    place.send(std::mem::take(&mut messages));
                    held = 0;
                }
                Err(_) => return Ok(()),
            },
        }
    }
    Ok(())
}
