//! Exposition of 10 k, 100 k and 1 M series against Prometheus' `/federate` of the same ones, in turn: both hold them at
//! the same time.

use anyhow::Result;

use crate::fleet::Agent;
use crate::process::Server;
use crate::remote_write::{Dialect, Sender, encode};
use crate::report::Figure;
use crate::rows::ingest::now_ms;
use crate::setup::{Aggregator, Places, get, prometheus};
use crate::shape::Shape;

const ROW: &str = "exposition";
const SERIES_PER_NODE: usize = 1000;

pub async fn measure(places: &Places, sizes: &[usize], runs: usize) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for &series in sizes {
        eprintln!("exposition: {series} series");
        let shapes: Vec<Shape> =
            (0..series / SERIES_PER_NODE).map(|n| Shape::new(n, SERIES_PER_NODE)).collect();
        let aggregator = Aggregator::start(places).await?;
        let mut agents = Vec::new();
        for (n, shape) in shapes.iter().enumerate() {
            let tls = aggregator.authority.client(&shape.node)?;
            let mut agent = Agent::connect(aggregator.uplink, tls, n as u64 + 1).await?;
            agent.define(shape).await?;
            agent.push(now_ms(), &shape.values).await?;
            agent.settle().await?;
            agents.push(agent);
        }
        let dir = tempfile::Builder::new().prefix("picket-bench-").tempdir_in("target")?;
        let peer = prometheus(places, dir.path(), "global: {}\n", &[]).await?;
        if let Some((_, port)) = &peer {
            let sender = Sender::new(&format!("http://127.0.0.1:{port}/api/v1/write"), Dialect::PrometheusV2);
            for shape in &shapes {
                sender.send(encode(Dialect::PrometheusV2, shape, now_ms())?).await?;
            }
        }
        let token = Some(aggregator.token.as_str());
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for run in 0..runs {
            eprintln!("exposition: {series} series, run {} of {runs}", run + 1);
            let times = (2_000_000 / series).clamp(2, 50);
            ours.push(scrape(&aggregator.server, aggregator.http, "/metrics", token, times).await?);
            if let Some((server, port)) = &peer {
                let path = "/federate?match%5B%5D=%7B__name__%3D~%22bench_.%2B%22%7D";
                // A million series take it ten seconds.
                let times = (300_000 / series).clamp(1, 3);
                theirs.push(scrape(server, *port, path, None, times).await?);
            }
        }
        let pick = |list: &[Scrape], f: fn(&Scrape) -> f64| list.iter().map(f).collect::<Vec<f64>>();
        let aim = (series == 1_000_000).then_some(0.1);
        for (what, unit, f, aim) in [
            ("CPU", "s", (|s| s.cpu) as fn(&Scrape) -> f64, aim),
            ("bytes", "B", |s| s.bytes, None),
            ("extra memory", "B", |s| s.memory, None),
        ] {
            figures.push(Figure::new(
                ROW,
                format!("{what}, {series} series"),
                unit,
                false,
                &pick(&ours, f),
                Some(("Prometheus /federate", &pick(&theirs, f))),
                aim,
            ));
        }
    }
    Ok(figures)
}

struct Scrape {
    cpu: f64,
    bytes: f64,
    memory: f64,
}

/// So many scrapes, enough of them to be seen by a clock that ticks every 10 ms.
async fn scrape(server: &Server, port: u16, path: &str, token: Option<&str>, times: usize) -> Result<Scrape> {
    let rss = server.rss()?;
    std::fs::write(format!("/proc/{}/clear_refs", server.pid()), "5")?;
    let cpu = server.cpu_seconds()?;
    let mut bytes = 0;
    for _ in 0..times {
        (bytes, _) = get(port, path, token).await?;
    }
    let cpu = (server.cpu_seconds()? - cpu) / times as f64;
    Ok(Scrape { cpu, bytes: bytes as f64, memory: server.peak_rss()?.saturating_sub(rss) as f64 })
}
