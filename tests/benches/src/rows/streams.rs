//! 10,000 agents connected over mutual TLS to one aggregator: memory a connection, CPU of a reconnect storm.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::fleet::Agent;
use crate::process::until;
use crate::report::Figure;
use crate::rows::ingest::now_ms;
use crate::setup::{Aggregator, Places};
use crate::shape::Shape;

const ROW: &str = "streams";

pub async fn measure(places: &Places, sizes: &[usize], runs: usize) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for &count in sizes {
        figures.extend(connections(places, count, runs).await?);
    }
    Ok(figures)
}

async fn connections(places: &Places, count: usize, runs: usize) -> Result<Vec<Figure>> {
    let (mut memory, mut storm, mut first) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..runs {
        eprintln!("streams: {count} agents, run {}", run + 1);
        let aggregator = Aggregator::start(places).await?;
        let mut configs = Vec::with_capacity(count);
        for n in 0..count {
            configs.push(aggregator.authority.client(&format!("bench-{n:05}"))?);
        }
        let idle = aggregator.server.rss()?;
        let cpu = aggregator.server.cpu_seconds()?;
        let agents = connect(&aggregator, &configs, 1).await?;
        first.push(aggregator.server.cpu_seconds()? - cpu);
        memory.push((aggregator.server.rss()?.saturating_sub(idle)) as f64 / count as f64 / 1024.0);

        // All vanish at once and come back at once, each with a batch.
        drop(agents);
        let mut last = f64::NAN;
        until("the aggregator to notice", Duration::from_secs(60), async || {
            let now = aggregator.server.cpu_seconds().unwrap_or(f64::NAN);
            let quiet = (now - last).abs() < 0.001;
            last = now;
            tokio::time::sleep(Duration::from_millis(500)).await;
            quiet
        })
        .await?;
        let cpu = aggregator.server.cpu_seconds()?;
        let mut agents = connect(&aggregator, &configs, 2).await?;
        storm.push(aggregator.server.cpu_seconds()? - cpu);
        let shape = Shape::new(0, 10);
        for agent in &mut agents {
            agent.define(&shape).await?;
            agent.push(now_ms(), &shape.values).await?;
        }
        let mut kept = 0;
        for agent in &mut agents {
            agent.settle().await?;
            kept += 1;
        }
        ensure!(kept == count, "{} of {count} batches were acknowledged", kept);
    }
    let scale = |aim: f64| (count == 10_000).then_some(aim);
    Ok(vec![
        Figure::new(
            ROW,
            format!("memory, {count} streams"),
            "KiB a connection",
            false,
            &memory,
            None,
            scale(30.0),
        ),
        Figure::new(ROW, format!("first connect of {count}"), "CPU s", false, &first, None, None),
        Figure::new(ROW, format!("reconnect storm of {count}"), "CPU s", false, &storm, None, scale(3.0)),
    ])
}

async fn connect(
    aggregator: &Aggregator,
    configs: &[Arc<rustls::ClientConfig>],
    life: u64,
) -> Result<Vec<Agent>> {
    stream::iter(configs.iter().cloned())
        .map(|tls| Agent::connect(aggregator.uplink, tls, life))
        .buffer_unordered(256)
        .try_collect()
        .await
}
