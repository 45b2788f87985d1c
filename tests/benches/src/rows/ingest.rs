//! Ingest, durable and over mutual TLS: samples and new series per CPU second of the server, resident bytes a series.
//! Peers take the same series by remote write over plain HTTP, which spares them the TLS that we pay.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use futures_util::stream::{FuturesUnordered, TryStreamExt};

use crate::fleet::Agent;
use crate::process::Server;
use crate::remote_write::{Dialect, Sender, encode};
use crate::report::Figure;
use crate::setup::{Aggregator, Places, get, prometheus, victoria};
use crate::shape::{SERIES_PER_NODE, Shape};

const ROW: &str = "ingest";

/// What one run gives.
struct Run {
    samples_per_cpu: f64,
    series_per_cpu: f64,
    bytes_per_series: f64,
}

pub async fn measure(places: &Places, sizes: &[usize], runs: usize, quick: bool) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for &agents in sizes {
        let (mut ours, mut prom, mut vm) = (Vec::new(), Vec::new(), Vec::new());
        let samples = if quick { 1_000_000 } else { 12_000_000 };
        for run in 0..runs {
            eprintln!("ingest: {agents} agents, run {} of {runs}", run + 1);
            ours.push(picket(places, agents, samples).await?);
            let dir = tempfile::Builder::new().prefix("picket-bench-").tempdir_in("target")?;
            let peers = samples / 8;
            if let Some(r) = peer(places, Dialect::PrometheusV2, dir.path(), agents, peers).await? {
                prom.push(r);
            }
            if let Some(r) = peer(places, Dialect::VictoriaZstd, dir.path(), agents, peers).await? {
                vm.push(r);
            }
        }
        type Pick = fn(&Run) -> f64;
        let rows: [(&str, &str, bool, f64, Pick); 3] = [
            ("samples", "samples per CPU s", true, 5e6, |r| r.samples_per_cpu),
            ("new series", "series per CPU s", true, 5e5, |r| r.series_per_cpu),
            ("memory", "RSS bytes a series", false, 450.0, |r| r.bytes_per_series),
        ];
        for (what, unit, more, aim, pick) in rows {
            // With few series the process itself is what memory measures; one agent's registration is over before
            // the clock has ticked.
            if agents < 1000 && what != "samples" {
                continue;
            }
            let of = |list: &[Run]| list.iter().map(pick).collect::<Vec<f64>>();
            for (name, list) in [("Prometheus", &prom), ("VictoriaMetrics", &vm)] {
                figures.push(Figure::new(
                    ROW,
                    format!("{what}, {agents} agents"),
                    unit,
                    more,
                    &of(&ours),
                    Some((name, &of(list))),
                    Some(aim),
                ));
            }
        }
    }
    Ok(figures)
}

async fn picket(places: &Places, agents: usize, samples: usize) -> Result<Run> {
    let aggregator = Aggregator::start(places).await?;
    let start = now_ms() - 300_000;
    let mut shapes: Vec<Shape> = (0..agents).map(|n| Shape::new(n, SERIES_PER_NODE)).collect();
    let mut connected = Vec::new();
    for (n, shape) in shapes.iter().enumerate() {
        let tls = aggregator.authority.client(&shape.node)?;
        connected.push(Agent::connect(aggregator.uplink, tls, n as u64 + 1).await?);
    }
    let (cpu, rss) = (aggregator.server.cpu_seconds()?, aggregator.server.rss()?);
    for (agent, shape) in connected.iter_mut().zip(&shapes) {
        agent.define(shape).await?;
        agent.push(start, &shape.values).await?;
    }
    for agent in &mut connected {
        agent.settle().await?;
    }
    let registered = aggregator.server.cpu_seconds()? - cpu;
    let series = (agents * SERIES_PER_NODE) as f64;

    let batches = (samples / agents / SERIES_PER_NODE).max(4);
    let before = aggregator.server.cpu_seconds()?;
    let work: FuturesUnordered<_> = connected
        .iter_mut()
        .zip(&mut shapes)
        .map(|(agent, shape)| async move {
            for batch in 1..=batches {
                shape.step();
                agent.push(start + batch as i64 * 10, &shape.values).await?;
            }
            agent.settle().await
        })
        .collect();
    work.try_collect::<Vec<()>>().await?;
    let steady = aggregator.server.cpu_seconds()? - before;
    let grown = aggregator.server.rss()?.saturating_sub(rss) as f64;
    Ok(Run {
        samples_per_cpu: (batches * agents * SERIES_PER_NODE) as f64 / steady.max(0.01),
        series_per_cpu: series / registered.max(0.01),
        bytes_per_series: grown / series,
    })
}

async fn peer(
    places: &Places,
    dialect: Dialect,
    dir: &Path,
    agents: usize,
    samples: usize,
) -> Result<Option<Run>> {
    let (started, path) = match dialect {
        Dialect::PrometheusV2 => {
            (prometheus(places, &dir.join("prometheus"), "global: {}\n", &[]).await?, "/api/v1/write")
        }
        Dialect::VictoriaZstd => (victoria(places, &dir.join("victoria")).await?, "/api/v1/write"),
    };
    let Some((server, port)) = started else { return Ok(None) };
    let url = format!("http://127.0.0.1:{port}{path}");
    let start = now_ms() - 300_000;
    let mut shapes: Vec<Shape> = (0..agents).map(|n| Shape::new(n, SERIES_PER_NODE)).collect();
    let senders: Vec<Sender> = shapes.iter().map(|_| Sender::new(&url, dialect)).collect();
    let (cpu, rss) = (server.cpu_seconds()?, server.rss()?);
    for (sender, shape) in senders.iter().zip(&shapes) {
        sender.send(encode(dialect, shape, start)?).await?;
    }
    let series = (agents * SERIES_PER_NODE) as f64;
    settled(&server).await?;
    let registered = server.cpu_seconds()? - cpu;
    let batches = (samples / agents / SERIES_PER_NODE).max(4);
    let before = server.cpu_seconds()?;
    let work: FuturesUnordered<_> = senders
        .iter()
        .zip(&mut shapes)
        .map(|(sender, shape)| async move {
            for batch in 1..=batches {
                shape.step();
                sender.send(encode(dialect, shape, start + batch as i64 * 10)?).await?;
            }
            anyhow::Ok(())
        })
        .collect();
    work.try_collect::<Vec<()>>().await?;
    settled(&server).await?;
    let steady = server.cpu_seconds()? - before;
    // A scrape proves that it is alive and has what it was sent.
    get(port, "/metrics", None).await?;
    Ok(Some(Run {
        samples_per_cpu: (batches * agents * SERIES_PER_NODE) as f64 / steady.max(0.01),
        series_per_cpu: series / registered.max(0.01),
        bytes_per_series: server.rss()?.saturating_sub(rss) as f64 / series,
    }))
}

/// VictoriaMetrics goes on working after it has answered: waits until half a second costs it under 20 ms.
async fn settled(server: &Server) -> Result<()> {
    for _ in 0..40 {
        let before = server.cpu_seconds()?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        if server.cpu_seconds()? - before < 0.02 {
            break;
        }
    }
    Ok(())
}

pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}
