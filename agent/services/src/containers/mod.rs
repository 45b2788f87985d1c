//! What runs under Docker-compatible engines: the engine's own JSON, of the granted containers alone. Here it is only
//! read; [`crate::containers_control`] changes it, by way of the same filter.
//!
//! An engine's socket is root on its node, so it is never the plugin's to speak to. The four questions here are the
//! whole of what is asked, each built from checked parts: an id is 64 hexadecimal digits, never a name or a prefix, which
//! the engine would complete. Each answer is held against the filter again, whatever the engine was asked for: a label is
//! compared with the container's own map of labels, the id with the one that was asked for. Which ids were found to be
//! granted is remembered (an engine never changes a container's labels or image); which were not is not, so that a
//! question for a stranger's container costs an answer and tells nothing.
//!
//! Secrets live in environment variables and in arguments: [`redact`] takes them out.

mod engine;
mod frames;
pub(crate) mod output;
mod redact;
mod scope;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::ServiceLimits;
pub(crate) use engine::Changed;
pub(crate) use frames::Message;
pub(crate) use scope::Permit;
pub use scope::Scope;

/// Questions to one engine at a time.
const AT_ONCE: usize = 8;
/// Granted containers that are remembered.
const REMEMBERED: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// `GET /containers/json`
    List {
        /// Stopped ones too.
        all: bool,
    },
    /// `GET /containers/{id}/json` of each.
    Inspect { ids: Vec<String> },
    /// `GET /containers/{id}/stats`, one reading of each.
    Stats { ids: Vec<String> },
    /// `GET /containers/{id}/logs`
    Logs {
        id: String,
        /// Nanoseconds since the Unix epoch.
        since: Option<u64>,
        /// The most lines, from the end.
        tail: Option<u32>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    List {
        /// A JSON array, of all granted sockets; `PicketSocket` names the one that each is of.
        containers: String,
        sockets: Vec<SocketState>,
    },
    /// The engine's JSON objects, in the order of the ids.
    Objects(Vec<Result<String, Error>>),
    Logs(LogPage),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketState {
    pub path: String,
    pub error: Option<Error>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPage {
    pub lines: Vec<LogLine>,
    /// A bound was reached: later lines are there.
    pub more: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// It was written to standard error.
    pub stderr: bool,
    /// Nanoseconds since the Unix epoch, the engine's.
    pub timestamp: u64,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    #[error("not granted: {0}")]
    Denied(String),
    #[error("no such container among the granted ones: {0}")]
    NotFound(String),
    #[error("{0}")]
    Absent(String),
    #[error("the container engine cannot be reached: {0}")]
    Unreachable(String),
    #[error("the container engine did not answer in time: {0}")]
    TimedOut(String),
    #[error("the answer is too large: {0}")]
    TooLarge(String),
    #[error("the answer is malformed: {0}")]
    Malformed(String),
    #[error("the container engine refused: {0}")]
    Refused(String),
    #[error("{0}")]
    Other(String),
}

/// What a grant remembers: where its containers are.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    /// The place of its socket in the permit, by id.
    known: Mutex<HashMap<String, usize>>,
}

impl Desk {
    fn get(&self, id: &str) -> Option<usize> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied()
    }

    fn remember(&self, id: &str, socket: usize) {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < REMEMBERED || all.contains_key(id) {
            all.insert(id.to_owned(), socket);
        }
    }

    /// A listing of everything says which still are.
    fn keep(&self, socket: usize, seen: &[&str]) {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|id, known| *known != socket || seen.contains(&id.as_str()));
    }
}

/// Does what is asked, within `limits.engine_time` in all.
pub(crate) async fn call(
    permit: &Arc<Permit>,
    limits: &ServiceLimits,
    request: Request,
) -> Result<Answer, Error> {
    match request {
        Request::List { all } => Ok(list(permit, limits, all).await),
        Request::Inspect { ids } => Ok(Answer::Objects(each(permit, limits, ids, Asked::Inspect).await)),
        Request::Stats { ids } => Ok(Answer::Objects(each(permit, limits, ids, Asked::Stats).await)),
        Request::Logs { id, since, tail } => {
            let work = logs(permit, limits, &id, since, tail);
            tokio::time::timeout(limits.engine_time, work)
                .await
                .unwrap_or_else(|_| Err(timed_out(&id, limits)))
                .map(Answer::Logs)
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Asked {
    Inspect,
    Stats,
}

async fn list(permit: &Arc<Permit>, limits: &ServiceLimits, all: bool) -> Answer {
    let mut running = JoinSet::new();
    for socket in 0..permit.sockets.len() {
        let (permit, limits) = (permit.clone(), limits.clone());
        running.spawn(async move {
            let work = list_one(&permit, &limits, socket, all);
            let answer = tokio::time::timeout(limits.engine_time, work).await;
            (socket, answer.unwrap_or_else(|_| Err(timed_out(permit.path(socket), &limits))))
        });
    }
    let mut answers: Vec<Option<Result<Vec<Value>, Error>>> = permit.sockets.iter().map(|_| None).collect();
    while let Some(done) = running.join_next().await {
        if let Ok((socket, answer)) = done
            && let Some(slot) = answers.get_mut(socket)
        {
            *slot = Some(answer);
        }
    }
    let (mut containers, mut sockets) = (Vec::new(), Vec::new());
    for (socket, answer) in permit.sockets.iter().zip(answers) {
        let answer = answer.unwrap_or_else(|| Err(Error::Other("the question was lost".to_owned())));
        let error = match answer {
            Ok(list) => {
                containers.extend(list);
                None
            }
            Err(e) => Some(e),
        };
        sockets.push(SocketState { path: socket.path.clone(), error });
    }
    Answer::List { containers: Value::Array(containers).to_string(), sockets }
}

async fn list_one(
    permit: &Permit,
    limits: &ServiceLimits,
    socket: usize,
    all: bool,
) -> Result<Vec<Value>, Error> {
    let Some(place) = permit.sockets.get(socket) else { return Ok(Vec::new()) };
    let mut target = format!("/containers/json?all={}", u8::from(all));
    if let Some(filters) = place.filter.for_engine() {
        target.push_str("&filters=");
        target.push_str(&filters);
    }
    let listed = engine::json(&place.path, target, limits).await?;
    let Value::Array(listed) = listed else {
        return Err(Error::Malformed(format!("{}: the list of containers is no array", place.path)));
    };
    let mut granted = Vec::new();
    for container in listed {
        let Some(id) = container.get("Id").and_then(Value::as_str).filter(|id| is_id(id)).map(str::to_owned)
        else {
            return Err(Error::Malformed(format!("{}: a container without an id", place.path)));
        };
        let visible = permit.desk.get(&id) == Some(socket) || {
            let image = container.get("Image").and_then(Value::as_str).unwrap_or_default();
            place.filter.allows(container.get("Labels"), image)
                // Its tag went to a newer image: only its own record says how it was called.
                || (place.filter.knows_images() && is_image_id(image) && {
                    matches!(find_on(permit, limits, socket, &id).await, Ok(Some(_)))
                })
        };
        if visible {
            granted.push((id, container));
        }
    }
    if all {
        permit.desk.keep(socket, &granted.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>());
    }
    let mut list = Vec::with_capacity(granted.len());
    for (id, container) in granted {
        if permit.desk.get(&id).is_none() {
            permit.desk.remember(&id, socket);
        }
        list.push(redact::listed(container, &place.path));
    }
    Ok(list)
}

async fn each(
    permit: &Arc<Permit>,
    limits: &ServiceLimits,
    ids: Vec<String>,
    asked: Asked,
) -> Vec<Result<String, Error>> {
    let count = ids.len();
    let mut answers: Vec<Result<String, Error>> = ids.iter().map(|id| Err(timed_out(id, limits))).collect();
    let mut waiting = ids.into_iter().enumerate();
    let mut running = JoinSet::new();
    let deadline = tokio::time::sleep(limits.engine_time);
    tokio::pin!(deadline);
    loop {
        while running.len() < AT_ONCE
            && let Some((i, id)) = waiting.next()
        {
            if i >= limits.engine_ids {
                let most = limits.engine_ids;
                if let Some(slot) = answers.get_mut(i) {
                    *slot =
                        Err(Error::TooLarge(format!("{count} containers in one call, {most} are allowed")));
                }
                continue;
            }
            let (permit, limits) = (permit.clone(), limits.clone());
            running.spawn(async move { (i, one(&permit, &limits, &id, asked).await) });
        }
        tokio::select! {
            done = running.join_next() => match done {
                Some(Ok((i, answer))) => if let Some(slot) = answers.get_mut(i) {
                    *slot = answer;
                },
                Some(Err(_)) => {}
                None => return answers,
            },
            // Dropping the set ends what still runs; it stays timed out.
            () = &mut deadline => return answers,
        }
    }
}

async fn one(permit: &Permit, limits: &ServiceLimits, id: &str, asked: Asked) -> Result<String, Error> {
    match asked {
        Asked::Inspect => find(permit, limits, id)
            .await
            .map(|(socket, container)| redact::inspected(container, permit.visible_env(socket)).to_string()),
        Asked::Stats => {
            let socket = match permit.desk.get(id) {
                Some(socket) => socket,
                None => find(permit, limits, id).await?.0,
            };
            let target = format!("/containers/{id}/stats?stream=false&one-shot=true");
            let stats = engine::json(permit.path(socket), target, limits).await;
            // An engine that dropped the container may have another of that name.
            match stats.map_err(|e| named(e, id))? {
                // Docker says `id`, Podman `Id`.
                stats if ["id", "Id"].iter().any(|key| stats[*key].as_str() == Some(id)) => {
                    Ok(stats.to_string())
                }
                _ => Err(Error::NotFound(id.to_owned())),
            }
        }
    }
}

async fn logs(
    permit: &Permit,
    limits: &ServiceLimits,
    id: &str,
    since: Option<u64>,
    tail: Option<u32>,
) -> Result<LogPage, Error> {
    // Looked up each time: an output does not say whose it is.
    let (socket, container) = find(permit, limits, id).await?;
    let config = container.get("Config");
    let tty = config.and_then(|c| c.get("Tty")).and_then(Value::as_bool).unwrap_or(false);
    let mut target = format!("/containers/{id}/logs?stdout=1&stderr=1&timestamps=1");
    if let Some(since) = since {
        target.push_str(&format!("&since={}.{:09}", since / 1_000_000_000, since % 1_000_000_000));
    }
    let most = u32::try_from(limits.log_lines).unwrap_or(u32::MAX);
    if let Some(tail) = tail {
        target.push_str(&format!("&tail={}", tail.min(most)));
    }
    let (bytes, cut) =
        engine::cut(permit.path(socket), target, limits.log_bytes, limits).await.map_err(|e| named(e, id))?;
    let mut page = frames::read(&bytes, tty, cut)?;
    if let Some(since) = since {
        page.lines.retain(|line| line.timestamp >= since);
    }
    if page.lines.len() > limits.log_lines {
        page.lines.truncate(limits.log_lines);
        page.more = true;
    }
    Ok(page)
}

/// Posts to `/containers/{id}/{target}`, after a look at the engine's record of this very id.
pub(crate) async fn change(
    permit: &Permit,
    limits: &ServiceLimits,
    id: &str,
    target: &str,
) -> Result<Changed, Error> {
    let found = tokio::time::timeout(limits.engine_time, find(permit, limits, id)).await;
    let (socket, _) = found.unwrap_or_else(|_| Err(timed_out(id, limits)))?;
    let changed = engine::change(permit.path(socket), format!("/containers/{id}/{target}")).await;
    changed.map_err(|e| named(e, id))
}

/// A granted container's own record, on whichever socket it is.
async fn find(permit: &Permit, limits: &ServiceLimits, id: &str) -> Result<(usize, Value), Error> {
    if !is_id(id) {
        let shown: String = id.chars().take(80).collect();
        return Err(Error::NotFound(format!("{shown:?} is no whole id (64 hexadecimal digits)")));
    }
    let places: Vec<usize> = match permit.desk.get(id) {
        Some(socket) => vec![socket],
        None => (0..permit.sockets.len()).collect(),
    };
    let mut problem = None;
    for socket in places {
        match find_on(permit, limits, socket, id).await {
            Ok(Some(container)) => return Ok((socket, container)),
            Ok(None) => {}
            Err(Error::Absent(_)) => {}
            Err(e) => problem = Some(e),
        }
    }
    // Also where it is there and not granted: no difference is to be seen.
    Err(problem.unwrap_or_else(|| Error::NotFound(id.to_owned())))
}

async fn find_on(
    permit: &Permit,
    limits: &ServiceLimits,
    socket: usize,
    id: &str,
) -> Result<Option<Value>, Error> {
    let Some(place) = permit.sockets.get(socket) else { return Ok(None) };
    let container = match engine::json(&place.path, format!("/containers/{id}/json"), limits).await {
        Ok(container) => container,
        Err(Error::NotFound(_)) => return Ok(None),
        Err(e) => return Err(e),
    };
    // Else a container whose name looks like another's id.
    let same = container.get("Id").and_then(Value::as_str) == Some(id);
    let config = container.get("Config");
    let of_config = |key: &str| config.and_then(|c| c.get(key));
    let image = of_config("Image").and_then(Value::as_str).unwrap_or_default();
    if !same || !place.filter.allows(of_config("Labels"), image) {
        return Ok(None);
    }
    permit.desk.remember(id, socket);
    Ok(Some(container))
}

fn is_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_image_id(image: &str) -> bool {
    let digits = image.strip_prefix("sha256:").unwrap_or(image);
    digits.len() >= 12 && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The engine's own words for a container that is gone.
fn named(e: Error, id: &str) -> Error {
    match e {
        Error::NotFound(_) => Error::NotFound(id.to_owned()),
        e => e,
    }
}

fn timed_out(what: &str, limits: &ServiceLimits) -> Error {
    let what: String = what.chars().take(80).collect();
    Error::TimedOut(format!("{what}: no answer within {} ms", limits.engine_time.as_millis()))
}

#[cfg(test)]
pub(crate) mod tests;
