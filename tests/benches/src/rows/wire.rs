//! Bytes a sample on the wire at 15 s, TLS and TCP included, both ways: the real agent with the `node` plugin
//! against vmagent and a Prometheus agent that scrape node_exporter and send by remote write.
//!
//! The kernel counts (`ss -ti`): payload bytes and segments of the one connection; each segment is taken as 52 bytes
//! of IPv4 and TCP headers (20 + 20 + 12 of timestamps, RFC 7323).

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{Server, free_port, until};
use crate::report::Figure;
use crate::rows::agent::{COLLECTORS, join};
use crate::setup::{Aggregator, Places, get, prometheus, victoria};

const ROW: &str = "wire";
const HEADER_BYTES: f64 = 52.0;

/// Each run is so many collections one after the other, of the same connections.
pub async fn measure(places: &Places, runs: usize, collections: u32, quick: bool) -> Result<Vec<Figure>> {
    let (interval, rounds) = if quick { (2u64, 5u32) } else { (15, collections) };
    let dir = tempfile::Builder::new().prefix("picket-bench-").tempdir_in("target")?;
    let dir_path = std::fs::canonicalize(dir.path())?;
    let at = dir_path.display();

    let aggregator = Aggregator::start(places).await?;
    join(&aggregator, &dir_path, "wire-node")?;
    let _agent = crate::rows::agent::agent(places, &dir_path, &["node"], &format!("{interval}s")).await?;

    let mut peers: Vec<(&str, Server, u16)> = Vec::new();
    let mut others: Vec<Server> = Vec::new();
    if let Some(program) = places.peer("node_exporter") {
        let exporter = free_port()?;
        let mut args = vec![
            "--collector.disable-defaults".to_owned(),
            format!("--web.listen-address=127.0.0.1:{exporter}"),
        ];
        args.extend(COLLECTORS.iter().map(|c| format!("--collector.{c}")));
        others.push(Server::start("node_exporter", &program, &args, &dir_path.join("node_exporter.log"))?);
        let config = |write: u16| {
            format!(
                "global: {{scrape_interval: {interval}s}}\nscrape_configs:\n- job_name: node\n  static_configs:\n  - \
                 targets: ['127.0.0.1:{exporter}']\nremote_write:\n- url: http://127.0.0.1:{write}/api/v1/write\n"
            )
        };
        if let Some((target, port)) =
            prometheus(places, &dir_path.join("target"), "global: {}\n", &[]).await?
        {
            others.push(target);
            let extra = ["--agent"];
            if let Some((sender, _)) =
                prometheus(places, &dir_path.join("sender"), &config(port), &extra).await?
            {
                peers.push(("Prometheus agent", sender, port));
            }
        }
        if let (Some(program), Some((target, port))) =
            (places.peer("vmagent"), victoria(places, &dir_path.join("victoria")).await?)
        {
            others.push(target);
            let scrape = dir_path.join("vmagent.yml");
            let text = config(port);
            std::fs::write(&scrape, text.split("remote_write:").next().unwrap_or_default())?;
            let args = [
                format!("-promscrape.config={}", scrape.display()),
                format!("-remoteWrite.url=http://127.0.0.1:{port}/api/v1/write"),
                format!("-remoteWrite.tmpDataPath={at}/vmagent"),
                format!("-httpListenAddr=127.0.0.1:{}", free_port()?),
            ];
            peers.push((
                "vmagent",
                Server::start("vmagent", &program, &args, &dir_path.join("vmagent.log"))?,
                port,
            ));
        }
    }

    // The first batches carry the definitions: the steady state is what is measured.
    tokio::time::sleep(Duration::from_secs(interval * 3)).await;
    let exporter_series = match exporter_port(&others) {
        Some(port) => {
            let (_, page) = get(port, "/metrics", None).await?;
            String::from_utf8_lossy(&page).lines().filter(|l| !l.starts_with('#')).count() as f64
        }
        None => 0.0,
    };
    let (mut ours, mut batch) = (Vec::new(), Vec::new());
    let mut theirs: Vec<Vec<f64>> = vec![Vec::new(); peers.len()];
    let mut before = between_ticks(&aggregator, interval).await?;
    let mut peers_before: Vec<Traffic> = peers.iter().map(|p| connection(p.2)).collect::<Result<_>>()?;
    for run in 0..runs {
        eprintln!("wire: run {} of {runs}, {rounds} collections of {interval} s", run + 1);
        tokio::time::sleep(Duration::from_secs((interval * u64::from(rounds)).saturating_sub(interval / 2)))
            .await;
        let now = between_ticks(&aggregator, interval).await?;
        let sent = now.1 - before.1;
        ours.push(now.0.since(&before.0).context("the agent reconnected")? / sent);
        batch.push(sent / f64::from(rounds));
        before = now;
        for (((name, _, port), before), theirs) in peers.iter().zip(&mut peers_before).zip(&mut theirs) {
            let now = connection(*port)?;
            // A scrape adds five series of its own (up, scrape_duration_seconds …).
            match now.since(before) {
                Some(bytes) => theirs.push(bytes / (f64::from(rounds) * (exporter_series + 5.0))),
                None => eprintln!("{name} came over another connection in the end: this run of it is lost"),
            }
            *before = now;
        }
    }
    let what = format!("bytes a sample at {interval} s");
    let aim = (!quick).then_some(2.0);
    let mut figures = vec![Figure::new(ROW, &what, "B", false, &ours, None, aim)];
    for ((name, ..), theirs) in peers.iter().zip(&theirs) {
        figures.push(Figure::new(ROW, &what, "B", false, &ours, Some((name, theirs)), aim));
    }
    figures.push(Figure::new(ROW, "samples a collection", "samples", true, &batch, None, None));
    Ok(figures)
}

/// Bytes and samples so far, looked at when a tick is over and nothing is under way.
async fn between_ticks(aggregator: &Aggregator, interval: u64) -> Result<(Traffic, f64)> {
    let now = samples(aggregator).await?;
    until("samples at the aggregator", Duration::from_secs(2 * interval + 10), async || {
        samples(aggregator).await.is_ok_and(|n| n > now)
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(interval) / 4).await;
    Ok((connection(aggregator.uplink)?, samples(aggregator).await?))
}

fn exporter_port(others: &[Server]) -> Option<u16> {
    let exporter = others.iter().find(|s| s.name == "node_exporter")?;
    let line = std::fs::read(format!("/proc/{}/cmdline", exporter.pid())).ok()?;
    let line = String::from_utf8_lossy(&line).into_owned();
    line.split("--web.listen-address=127.0.0.1:").nth(1)?.split('\0').next()?.parse().ok()
}

/// What went over the client's side of all connections to a port, both ways, headers included.
struct Traffic {
    bytes: f64,
    /// The local addresses: another one is another connection, whose count began anew.
    connections: BTreeSet<String>,
}

impl Traffic {
    fn since(&self, before: &Self) -> Option<f64> {
        (self.connections == before.connections).then_some(self.bytes - before.bytes)
    }
}

fn connection(port: u16) -> Result<Traffic> {
    let out = Command::new("ss")
        .args(["-tinH", "state", "established", &format!("dport = :{port}")])
        .output()
        .context("`ss` is needed (Debian: iproute2)")?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let sum = |key: &str| -> f64 {
        text.split_whitespace().filter_map(|w| w.strip_prefix(key)?.parse::<f64>().ok()).sum()
    };
    let segments = sum("segs_out:") + sum("segs_in:");
    if segments == 0.0 {
        bail!("no connection to port {port}");
    }
    // Each connection is a line of addresses (queue sizes, local, peer) and an indented one of counters.
    let lines = text.lines().filter(|line| !line.starts_with([' ', '\t']));
    let connections = lines.filter_map(|line| line.split_whitespace().nth(2)).map(str::to_owned).collect();
    Ok(Traffic { bytes: sum("bytes_sent:") + sum("bytes_received:") + segments * HEADER_BYTES, connections })
}

/// Samples that the aggregator has taken.
async fn samples(aggregator: &Aggregator) -> Result<f64> {
    let (_, page) = get(aggregator.http, "/metrics/self", Some(&aggregator.token)).await?;
    let page = String::from_utf8_lossy(&page).into_owned();
    let total = page
        .lines()
        .filter(|l| l.starts_with("picket_aggregator_samples_total"))
        .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    Ok(total)
}
