//! The three ways to read a cluster, and the choice between them.

use std::io::Read;

use picket_sdk::{Failure, command, log};

use crate::model::{Controller, Nodes, Partition, Queue, Reservation, Scheduler};
use crate::restd::Restd;
use crate::settings::{ReaderChoice, Settings};
use crate::{commands, json, text};

/// What the cluster is read with.
#[derive(Debug, Clone)]
pub enum Reader {
    Restd(Restd),
    /// The command that gives nodes as JSON depends on the version.
    Json {
        nodes: &'static str,
    },
    Text,
}

impl Reader {
    /// The labels of its info series: the reader, and its version of the interface.
    pub fn name(&self) -> (&'static str, &str) {
        match self {
            Self::Restd(restd) => ("restd", restd.version.as_str()),
            Self::Json { nodes } if *nodes == commands::NODES_JSON_OLD => ("json", "sinfo"),
            Self::Json { .. } => ("json", "scontrol"),
            Self::Text => ("text", ""),
        }
    }

    /// The best that the settings allow and that works. A lower one is taken only where a higher one can't be had, and
    /// what it can't be had for is logged.
    ///
    /// # Errors
    /// None works; what the last one said.
    pub fn choose(settings: &Settings) -> Result<Self, Failure> {
        let wanted = settings.reader;
        if matches!(wanted, ReaderChoice::Auto | ReaderChoice::Restd) {
            match Restd::find(settings) {
                Some(Ok(restd)) => return Ok(Self::Restd(restd)),
                Some(Err(failure)) if wanted == ReaderChoice::Restd => return Err(failure),
                Some(Err(failure)) => {
                    log::warn(&format!("slurmrestd can't be used, commands are tried: {failure}"))
                }
                None => {}
            }
        }
        if matches!(wanted, ReaderChoice::Auto | ReaderChoice::Json) {
            let mut last = None;
            for nodes in [commands::NODES_JSON, commands::NODES_JSON_OLD] {
                match has_json(nodes) {
                    Ok(()) => return Ok(Self::Json { nodes }),
                    Err(failure) => last = Some(failure),
                }
            }
            if let Some(failure) = last {
                if wanted == ReaderChoice::Json || failure.reason == "timed-out" {
                    return Err(failure);
                }
                log::info(&format!("no JSON from Slurm's commands, their text is read: {failure}"));
            }
        }
        Ok(Self::Text)
    }

    pub fn controllers(&self) -> Result<Vec<Controller>, Failure> {
        match self {
            Self::Restd(restd) => restd.read("ping", |from| json::pings(from)),
            // Its status is 1 where one is down.
            _ => text::pings(&commands::text(commands::PING, &[])?),
        }
    }

    pub fn nodes(&self, most: usize) -> Result<Nodes, Failure> {
        let mut nodes = Nodes::new(most);
        match self {
            Self::Restd(restd) => {
                restd.read("nodes", |from| json::nodes(from, |n| nodes.add(n)).map(drop))?;
            }
            Self::Json { nodes: name } => {
                commands::read(name, |from| json::nodes(from, |n| nodes.add(n)).map(drop))?
            }
            Self::Text => commands::read(commands::NODES, |from| text::nodes(from, |n| nodes.add(n)))?,
        }
        Ok(nodes)
    }

    pub fn queue(&self) -> Result<Queue, Failure> {
        let mut queue = Queue::default();
        match self {
            Self::Restd(restd) => {
                restd.read("jobs", |from| json::jobs(from, |j| queue.add(&j)).map(drop))?;
            }
            Self::Json { .. } => {
                commands::read(commands::JOBS_JSON, |from| json::jobs(from, |j| queue.add(&j)).map(drop))?;
            }
            Self::Text => commands::read(commands::JOBS, |from| text::jobs(from, |j| queue.add(&j)))?,
        }
        Ok(queue)
    }

    /// Small, and the same in all versions as text: only slurmrestd gives it as JSON.
    pub fn partitions(&self) -> Result<Vec<Partition>, Failure> {
        match self {
            Self::Restd(restd) => restd.read("partitions", |from| json::partitions(from)),
            _ => commands::read(commands::PARTITIONS, |from| text::partitions(from)),
        }
    }

    pub fn reservations(&self, now: f64) -> Result<Vec<Reservation>, Failure> {
        match self {
            Self::Restd(restd) => restd.read("reservations", |from| json::reservations(from, now)),
            _ => commands::read(commands::RESERVATIONS, |from| text::reservations(from)),
        }
    }

    pub fn scheduler(&self) -> Result<Scheduler, Failure> {
        match self {
            Self::Restd(restd) => restd.read("diag", |from| json::diag(from)),
            _ => text::diag(&commands::sound(commands::DIAG)?),
        }
    }
}

/// Whether this command prints JSON with a list of nodes. Only its beginning is read; then it is ended.
fn has_json(name: &str) -> Result<(), Failure> {
    let mut stream = command::stream(name, &[])?;
    let mut start = Vec::new();
    let read = stream.by_ref().take(8 << 10).read_to_end(&mut start);
    if let Some(failure) = stream.failure() {
        return Err(failure);
    }
    read.map_err(|e| Failure::new("parse", e.to_string()))?;
    let text = String::from_utf8_lossy(&start);
    let output = stream.finish()?;
    if output.status > 0 {
        output.success(name)?;
    }
    // 23.02 and later list nodes by partition in `sinfo --json`, which is another document.
    if text.trim_start().starts_with('{') && text.contains("\"nodes\"") && !text.contains("\"sinfo\"") {
        Ok(())
    } else {
        let start: String = text.chars().take(60).collect();
        Err(Failure::new("parse", format!("{name} prints no JSON with nodes: {start:?}")))
    }
}
