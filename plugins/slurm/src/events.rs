//! Events: nodes that go out and come back, and the controller.
//!
//! What is out is kept in the store, so that a node that came back while the agent was away has its end too, and one that
//! stayed out is not told again.

use std::collections::BTreeMap;

use picket_sdk::{Collect, Event, Severity, log, store};

use crate::model::{Controller, Node, Nodes, Status};
use crate::poller::active;

const KEY: &str = "out";
/// Events of one collect: the rest comes with the next dump.
const MOST: usize = 100;
const CONTROLLER: &str = "slurm.controller-down";

/// What was told and has not ended: the kind by the node's name.
#[derive(Default)]
pub struct Watch {
    out: BTreeMap<String, String>,
    controller_down: bool,
    loaded: bool,
}

impl Watch {
    pub fn nodes(&mut self, nodes: &Nodes, c: &mut Collect<'_>) {
        self.load();
        let now: BTreeMap<&str, (&Node, &'static str)> = nodes
            .kept
            .iter()
            .filter_map(|k| Some((k.node.name.as_str(), (&k.node, kind(k.node.status)?))))
            .collect();
        let mut left = MOST;
        let before = self.out.clone();
        for (name, kind) in &before {
            let over = now.get(name.as_str()).is_none_or(|(_, k)| k != kind);
            if over && left > 0 {
                left -= 1;
                let message = format!("{name} is no longer {}", word(kind));
                c.emit(
                    Event::ended(kind.as_str(), name.as_str(), message).about("slurm-node", name.as_str()),
                );
                self.out.remove(name);
            }
        }
        for (name, (node, kind)) in now {
            if left > 0 && !self.out.contains_key(name) {
                left -= 1;
                c.emit(begun(node, kind));
                self.out.insert(name.to_owned(), kind.to_owned());
            }
        }
        if self.out != before {
            self.save();
        }
    }

    pub fn controllers(&mut self, controllers: &[Controller], c: &mut Collect<'_>) {
        let down = active(controllers).is_none();
        if down == self.controller_down {
            return;
        }
        self.controller_down = down;
        let hosts: Vec<&str> = controllers.iter().map(|c| c.host.as_str()).collect();
        let hosts = hosts.join(", ");
        c.emit(if down {
            let message = format!("no controller of the cluster answers ({hosts})");
            Event::new(CONTROLLER, Severity::Critical, message)
                .key("controller")
                .about("slurm-controller", hosts)
        } else {
            let host = active(controllers).map(|c| c.host.as_str()).unwrap_or_default();
            let message = format!("the controller on {host} answers again");
            Event::ended(CONTROLLER, "controller", message).about("slurm-controller", hosts)
        });
    }

    fn load(&mut self) {
        if self.loaded {
            return;
        }
        self.loaded = true;
        if let Ok(Some(bytes)) = store::get(KEY) {
            self.out = serde_json::from_slice(&bytes).unwrap_or_default();
        }
    }

    fn save(&self) {
        let bytes = serde_json::to_vec(&self.out).unwrap_or_default();
        if let Err(error) = store::set(KEY, &bytes, None) {
            log::warn(&format!("which nodes are out can't be kept over a restart: {error}"));
        }
    }
}

fn kind(status: Status) -> Option<&'static str> {
    match status {
        Status::Down | Status::Error => Some("slurm.node-down"),
        Status::Drained | Status::Draining => Some("slurm.node-drained"),
        Status::Fail | Status::Failing | Status::Inval => Some("slurm.node-failing"),
        _ => None,
    }
}

fn word(kind: &str) -> &str {
    kind.strip_prefix("slurm.node-").unwrap_or(kind)
}

fn begun(node: &Node, kind: &'static str) -> Event {
    let severity = if kind == "slurm.node-down" { Severity::Critical } else { Severity::Warning };
    let reason: String = node.reason.chars().take(256).collect();
    let silent = if node.silent { ", and is not heard of" } else { "" };
    let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let mut event =
        Event::new(kind, severity, format!("{} is {}{silent}{why}", node.name, node.status.word()))
            .about("slurm-node", node.name.as_str())
            .key(node.name.as_str())
            .attribute("state", node.status.word())
            .attribute("partitions", node.partitions.join(",").chars().take(256).collect::<String>());
    if !reason.is_empty() {
        event = event.attribute("reason", reason);
    }
    if !node.reason_user.is_empty() {
        event = event.attribute("user", node.reason_user.as_str());
    }
    if let Some(since) = node.reason_since {
        // When it happened, not when it was seen.
        event = event.attribute("since", since.to_string());
    }
    event
}
