//! What is read of the fleet while it runs, and what asks it: a Prometheus, and people.

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::Api;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::usage::{Usage, children};

/// What an agent says of the records that the aggregator has not acknowledged.
pub const PENDING: &str = "picket_spool_records_pending";
/// How often the aggregator is scraped.
const SCRAPE: Duration = Duration::from_secs(15);
/// Each so many scrapes its API is asked too.
const ASK_EACH: u32 = 4;
const QUERIES: [&str; 9] = [
    "/api/v1/status",
    "/api/v1/nodes",
    "/api/v1/nodes/soak-1",
    "/api/v1/series?match=node_load1&limit=100",
    "/api/v1/events?limit=100",
    "/api/v1/grants",
    "/api/v1/models",
    "/api/v1/export?match=node_load1&node=soak-1",
    "/metrics/self",
];

/// A daemon of the fleet, as it is seen from outside.
pub struct Watched {
    pub name: String,
    pub kind: &'static str,
    /// Another one after each start.
    pub pid: Cell<u32>,
    pub api: Api,
    /// Its state folder.
    pub state: PathBuf,
}

#[derive(Debug, Clone, Serialize)]
pub struct Process {
    /// Which daemon it is or belongs to.
    pub owner: String,
    pub kind: String,
    pub pid: u32,
    #[serde(flatten)]
    pub usage: Usage,
}

/// What an agent has in its spool.
#[derive(Debug, Clone, Serialize)]
pub struct Spool {
    pub owner: String,
    /// On disk.
    pub bytes: f64,
    /// Records not acknowledged, and those that were lost; none where the agent does not answer.
    pub pending: Option<f64>,
    pub lost: Option<f64>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    pub at_s: f64,
    pub processes: Vec<Process>,
    pub spools: Vec<Spool>,
    /// Bytes of the aggregator's SQLite files.
    pub databases: f64,
    /// Bytes of its durable log.
    pub log: f64,
    /// Bytes of the rest of its state folder.
    pub other_state: f64,
    /// Series of the last scrape; none where that failed.
    pub series: Option<f64>,
}

/// How the scrapes and queries went.
#[derive(Default)]
pub struct Traffic {
    pub asked: Cell<u32>,
    pub failed: Cell<u32>,
    series: Cell<Option<f64>>,
}

/// Takes a sample each `step`, for ever; each is on disk at once.
pub async fn watch(
    fleet: &[Watched],
    traffic: &Traffic,
    begun: Instant,
    step: Duration,
    file: &Path,
    samples: &RefCell<Vec<Sample>>,
) -> Result<()> {
    let mut out = File::create(file).with_context(|| format!("cannot write {}", file.display()))?;
    let mut ticks = interval(step);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    // At once: nothing has been touched yet.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let sample = Sample::take(fleet, traffic, begun).await;
        sample.say();
        serde_json::to_writer(&mut out, &sample)?;
        writeln!(out).with_context(|| format!("cannot write {}", file.display()))?;
        samples.borrow_mut().push(sample);
    }
}

/// Scrapes the aggregator and asks its API, for ever.
pub async fn ask(aggregator: &Api, traffic: &Traffic) {
    let mut ticks = interval(SCRAPE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for number in 0_u32.. {
        ticks.tick().await;
        let page = traffic.get(aggregator, "/metrics").await;
        let series = |page: String| page.lines().filter(|line| !line.starts_with('#')).count() as f64;
        traffic.series.set(page.map(series));
        if number.is_multiple_of(ASK_EACH) {
            for query in QUERIES {
                traffic.get(aggregator, query).await;
            }
        }
    }
}

impl Traffic {
    async fn get(&self, api: &Api, path: &str) -> Option<String> {
        self.asked.set(self.asked.get() + 1);
        let page = api.text(path).await.ok();
        self.failed.set(self.failed.get() + u32::from(page.is_none()));
        page
    }
}

impl Sample {
    async fn take(fleet: &[Watched], traffic: &Traffic, begun: Instant) -> Self {
        let at_s = begun.elapsed().as_secs_f64();
        let mut processes = Vec::new();
        for daemon in fleet {
            let pid = daemon.pid.get();
            let mut add = |kind: &str, pid: u32| {
                // One that ended meanwhile is none.
                if let Ok(usage) = Usage::of(pid) {
                    processes.push(Process { owner: daemon.name.clone(), kind: kind.to_owned(), pid, usage });
                }
            };
            add(daemon.kind, pid);
            for child in children(pid) {
                add(&child.name, child.pid);
            }
        }
        // After all memory was read, which a page in the making is part of.
        let mut spools = Vec::new();
        let (mut databases, mut log, mut state) = (0.0, 0.0, 0.0);
        for daemon in fleet {
            if daemon.kind == super::AGGREGATOR {
                let is_database = |file: &Path| file.to_string_lossy().contains(".db");
                databases = bytes_below(&daemon.state, &is_database);
                log = bytes_below(&daemon.state.join("log"), &|_| true);
                state = bytes_below(&daemon.state, &|_| true);
                continue;
            }
            // A stalled agent answers nothing.
            let page = timeout(Duration::from_secs(3), daemon.api.metrics()).await.ok().and_then(Result::ok);
            let sum = |name: &str| page.as_ref().map(|page| page.sum(name, &[]));
            spools.push(Spool {
                owner: daemon.name.clone(),
                bytes: bytes_below(&daemon.state.join("spool"), &|_| true),
                pending: sum(PENDING),
                lost: sum("picket_spool_records_lost_total"),
            });
        }
        Self {
            at_s,
            processes,
            spools,
            databases,
            log,
            other_state: state - databases - log,
            series: traffic.series.get(),
        }
    }

    fn say(&self) {
        let rss: Vec<String> = self
            .processes
            .iter()
            .map(|p| {
                format!("{} {} {:.2} MB", p.owner, p.kind.trim_start_matches("picket-"), p.usage.rss / 1e6)
            })
            .collect();
        let spool: f64 = self.spools.iter().map(|s| s.bytes).sum();
        let series = self.series.map_or("no".to_owned(), |n| n.to_string());
        eprintln!(
            "soak: {:.1} min: {}; spools {:.0} KB; {series} series",
            self.at_s / 60.0,
            rss.join(", "),
            spool / 1e3
        );
    }
}

/// Bytes of the files in a folder and below it that are meant. What vanishes meanwhile is nothing.
fn bytes_below(folder: &Path, meant: &dyn Fn(&Path) -> bool) -> f64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => bytes_below(&entry.path(), meant),
            Ok(data) if meant(&entry.path()) => data.len() as f64,
            _ => 0.0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_files_that_are_meant() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("log")).unwrap();
        fs::write(folder.path().join("a.db"), [0; 10]).unwrap();
        fs::write(folder.path().join("a.db-wal"), [0; 5]).unwrap();
        fs::write(folder.path().join("log/1"), [0; 7]).unwrap();
        assert_eq!(bytes_below(folder.path(), &|_| true), 22.0);
        assert_eq!(bytes_below(folder.path(), &|file| file.to_string_lossy().contains(".db")), 15.0);
        assert_eq!(bytes_below(&folder.path().join("none"), &|_| true), 0.0);
    }
}
