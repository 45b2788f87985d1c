//! A container engine for tests: containers as its JSON tells of them, in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::containers::{ContainersError, Listing, LogLine, LogPage, SocketState};
use crate::containers_control::{Asked, Change, ControlError};

/// What the plugin under test sees of containers; set with [`super::Host::engine`].
#[derive(Debug, Clone, Default)]
pub struct Engine {
    containers: BTreeMap<String, Container>,
    /// Every question ends so.
    error: Option<ContainersError>,
    /// Every change ends so.
    control_error: Option<ControlError>,
    changes: Vec<Asked>,
}

#[derive(Debug, Clone)]
struct Container {
    inspect: Value,
    stats: Result<Value, ContainersError>,
    logs: Vec<LogLine>,
}

impl Engine {
    /// Adds or replaces a container: the object that `GET /containers/{id}/json` gives. What a list says of it is
    /// taken from there.
    pub fn container(&mut self, inspect: Value) -> &mut Self {
        let id = text(&inspect, "/Id");
        let stats = Err(ContainersError::NotFound(id.clone()));
        let kept = self.containers.remove(&id);
        let (stats, logs) = kept.map_or((stats, Vec::new()), |c| (c.stats, c.logs));
        self.containers.insert(id, Container { inspect, stats, logs });
        self
    }

    /// What `GET /containers/{id}/stats` gives.
    pub fn stats(&mut self, id: &str, stats: Result<Value, ContainersError>) -> &mut Self {
        if let Some(container) = self.containers.get_mut(id) {
            container.stats = stats;
        }
        self
    }

    /// The container writes a line to its standard output.
    pub fn log(&mut self, id: &str, timestamp_ns: u64, line: &str) -> &mut Self {
        if let Some(container) = self.containers.get_mut(id) {
            container.logs.push(LogLine { stderr: false, timestamp_ns, text: line.to_owned() });
        }
        self
    }

    /// The container is removed.
    pub fn remove(&mut self, id: &str) -> &mut Self {
        self.containers.remove(id);
        self
    }

    /// Makes every question end so, or be answered again.
    pub fn broken(&mut self, error: Option<ContainersError>) -> &mut Self {
        self.error = error;
        self
    }

    /// Makes every change end so, or be made again.
    pub fn broken_control(&mut self, error: Option<ControlError>) -> &mut Self {
        self.control_error = error;
        self
    }

    /// The changes since the last call.
    pub fn take_changes(&mut self) -> Vec<Asked> {
        std::mem::take(&mut self.changes)
    }

    pub(crate) fn change(&mut self, asked: &Asked, now: Duration) -> Result<Change, ControlError> {
        if let Some(error) = &self.control_error {
            return Err(error.clone());
        }
        let (Asked::Restart { id, .. }
        | Asked::Stop { id, .. }
        | Asked::Start { id }
        | Asked::Kill { id, .. }) = asked;
        let container = self.containers.get_mut(id).ok_or_else(|| ControlError::NotFound(id.clone()))?;
        let state = container.inspect.as_object_mut().map(|i| i.entry("State").or_insert_with(|| json!({})));
        let Some(state) = state.and_then(Value::as_object_mut) else {
            return Err(ControlError::Other("the container has no state".to_owned()));
        };
        let running = state.get("Running") == Some(&json!(true));
        let signal_ends = matches!(asked, Asked::Kill { signal, .. } if signal == "SIGKILL");
        self.changes.push(asked.clone());
        match asked {
            Asked::Stop { .. } if !running => return Ok(Change::Unchanged),
            Asked::Start { .. } if running => return Ok(Change::Unchanged),
            Asked::Kill { .. } if !running => {
                return Err(ControlError::Refused(format!("container {id} is not running")));
            }
            Asked::Kill { .. } if !signal_ends => return Ok(Change::Done),
            _ => {}
        }
        let runs = matches!(asked, Asked::Restart { .. } | Asked::Start { .. });
        state.insert("Running".to_owned(), json!(runs));
        state.insert("Status".to_owned(), json!(if runs { "running" } else { "exited" }));
        let key = if runs { "StartedAt" } else { "FinishedAt" };
        state.insert(key.to_owned(), json!(format!("at {} ms", now.as_millis())));
        Ok(Change::Done)
    }

    pub(crate) fn list(&self, all: bool) -> Listing {
        let path = "/run/docker.sock".to_owned();
        if self.error.is_some() {
            let sockets = vec![SocketState { path, error: self.error.clone() }];
            return Listing { containers: "[]".to_owned(), sockets };
        }
        let entries =
            self.containers.values().filter(|c| all || text(&c.inspect, "/State/Status") == "running");
        let list: Vec<Value> = entries
            .map(|c| {
                let i = &c.inspect;
                json!({
                    "Id": i.pointer("/Id"), "Names": [i.pointer("/Name")], "Image": i.pointer("/Config/Image"),
                    "ImageID": i.pointer("/Image"), "Labels": i.pointer("/Config/Labels"),
                    "State": i.pointer("/State/Status"), "PicketSocket": path,
                })
            })
            .collect();
        Listing {
            containers: Value::Array(list).to_string(),
            sockets: vec![SocketState { path, error: None }],
        }
    }

    fn find(&self, id: &str) -> Result<&Container, ContainersError> {
        match &self.error {
            Some(error) => Err(error.clone()),
            None => self.containers.get(id).ok_or_else(|| ContainersError::NotFound(id.to_owned())),
        }
    }

    pub(crate) fn inspect(&self, id: &str) -> Result<String, ContainersError> {
        self.find(id).map(|c| c.inspect.to_string())
    }

    pub(crate) fn stats_of(&self, id: &str) -> Result<String, ContainersError> {
        self.find(id)?.stats.clone().map(|s| s.to_string())
    }

    pub(crate) fn logs(
        &self,
        id: &str,
        since_ns: Option<u64>,
        tail: Option<u32>,
    ) -> Result<LogPage, ContainersError> {
        let all = &self.find(id)?.logs;
        let since = since_ns.unwrap_or(0);
        let mut lines: Vec<LogLine> = all.iter().filter(|l| l.timestamp_ns >= since).cloned().collect();
        if let Some(tail) = tail {
            let start = lines.len().saturating_sub(tail as usize);
            lines.drain(..start);
        }
        Ok(LogPage { lines, more: false })
    }
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}
