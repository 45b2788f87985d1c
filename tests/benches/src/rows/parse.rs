//! What the sources cost where they have much to read: a page of a busy vLLM server, a dump of a large Slurm cluster, a backlog
//! of log lines, eight GPUs. The agent and its plugins are as they are shipped; what they read is made here.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{BadServer, Behaviour, large_slurm_dump, slurm_reading_a_file};

use crate::node::{NVML, Node, WORKER, collects, gpu, guest_seconds, logs, vllm};
use crate::report::Figure;
use crate::rows::agent::join;
use crate::setup::{Aggregator, Places};

const ROW: &str = "parse";
const PAGE: &str = include_str!("../../../../plugins/vllm/tests/fixtures/metrics_busy.txt");

pub async fn measure(places: &Places, runs: usize, quick: bool) -> Result<Vec<Figure>> {
    let mut all: Vec<Figure> = Vec::new();
    let (mut speed, mut page_ms) = (vec![], vec![]);
    let (mut dump_seconds, mut dump_guest, mut dump_agent) = (vec![], vec![], vec![]);
    let (mut lines, mut megabytes, mut guest_lines, mut grown) = (vec![], vec![], vec![], vec![]);
    let mut gpus: Vec<Gpus> = Vec::new();
    for run in 0..runs {
        eprintln!("parse: run {} of {runs}", run + 1);
        let dir = tempfile::Builder::new().prefix("picket-bench-").tempdir_in("target")?;
        let dir = std::fs::canonicalize(dir.path())?;

        let page = vllm_page(places, &dir.join("vllm"), if quick { 50.0 } else { 200.0 }).await?;
        speed.push(page.0);
        page_ms.push(page.1);

        let dump = slurm_dump(places, &dir.join("slurm"), if quick { 2_000 } else { 20_000 }).await?;
        dump_seconds.push(dump.0);
        dump_guest.push(dump.1);
        dump_agent.push(dump.2);

        let backlog = log_backlog(places, &dir.join("logs"), if quick { 50_000 } else { 500_000 }).await?;
        lines.push(backlog.0);
        megabytes.push(backlog.1);
        guest_lines.push(backlog.2);
        grown.push(backlog.3);

        gpus.push(eight_gpus(places, &dir.join("gpu"), if quick { 10.0 } else { 60.0 }).await?);
    }
    let kib = PAGE.len() as f64 / 1e3;
    let mut figure = |what: &str, unit: &'static str, more: bool, values: &[f64]| {
        all.push(Figure::new(ROW, what, unit, more, values, None, None));
    };
    figure(&format!("vLLM page of {kib:.1} KB"), "MB a CPU s", true, &speed);
    figure("vLLM page, a collect, in the plugin", "CPU ms", false, &page_ms);
    figure("Slurm, dump of the nodes", "s", false, &dump_seconds);
    figure("Slurm, dump, memory of the plugin", "MB", false, &dump_guest);
    figure("Slurm, dump, peak RSS, agent and worker", "MB", false, &dump_agent);
    figure("logs, lines, agent and worker", "lines a CPU s", true, &lines);
    figure("logs, the same", "MB a CPU s", true, &megabytes);
    figure("logs, in the plugin", "lines a CPU s", true, &guest_lines);
    figure("logs, peak RSS with the backlog, agent and worker", "MB", false, &grown);
    let of = |pick: fn(&Gpus) -> f64| gpus.iter().map(pick).collect::<Vec<f64>>();
    figure("GPUs, a collect, agent", "CPU ms", false, &of(|g| g.agent));
    figure("GPUs, a collect, worker", "CPU ms", false, &of(|g| g.worker));
    figure("GPUs, a collect, in the plugin", "CPU ms", false, &of(|g| g.guest));
    figure("GPUs, a collect, picket-nvml", "CPU ms", false, &of(|g| g.helper));
    figure("GPUs, series of 8", "series", true, &of(|g| g.series));
    Ok(all)
}

/// MB a CPU second of the plugin, and its milliseconds a collect: one server, whose page is another each time.
async fn vllm_page(places: &Places, dir: &Path, rounds: f64) -> Result<(f64, f64)> {
    let server = BadServer::start("/metrics", Behaviour::Page(changed(0))).await?;
    let node = Node::start(places, dir, &vllm("100ms", &[server.url()], &[]), &["vllm"]).await?;
    let work = async {
        let before = node.api.metrics().await?;
        let after = node.after(&before, "vllm", rounds).await?;
        let passed =
            after.names().filter(|n| n.starts_with("vllm:")).map(|n| after.series(n).len()).sum::<usize>();
        ensure!(passed == PAGE.lines().filter(|l| l.starts_with("vllm:")).count(), "{passed} series came");
        let each = (guest_seconds(&after, "vllm") - guest_seconds(&before, "vllm"))
            / (collects(&after, "vllm") - collects(&before, "vllm"));
        Ok((PAGE.len() as f64 / each / 1e6, each * 1e3))
    };
    let change = async {
        for step in 1.. {
            server.behave(Behaviour::Page(changed(step)));
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    };
    tokio::select! {
        done = work => done,
        () = change => unreachable!("it ends with the other"),
    }
}

/// The page after a while: each counter has grown.
fn changed(step: u32) -> String {
    let mut page = String::with_capacity(PAGE.len() + 1024);
    for line in PAGE.lines() {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let counts = ["_total", "_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end));
        match line.rsplit_once(' ').and_then(|(series, value)| Some((series, value.parse::<f64>().ok()?))) {
            Some((series, value)) if counts && !line.starts_with('#') => {
                page.push_str(&format!("{series} {:?}\n", value + f64::from(step)));
            }
            _ => {
                page.push_str(line);
                page.push('\n');
            }
        }
    }
    page
}

/// Seconds that a dump takes, MB of the plugin, and MB that agent and worker had at most.
async fn slurm_dump(places: &Places, dir: &Path, nodes: u32) -> Result<(f64, f64, f64)> {
    std::fs::create_dir_all(dir)?;
    let file = dir.join("nodes.json");
    large_slurm_dump(&file, nodes)?;
    let node = Node::start(places, dir, &slurm_reading_a_file(&file, "32MiB"), &["slurm"]).await?;
    let before = node.api.metrics().await?;
    let after = node.after(&before, "slurm", 3.0).await?;
    ensure!(after.value("slurm_nodes_total", &[])? == f64::from(nodes), "not all nodes were read");
    let seconds = after.value("picket_slurm_dump_duration_seconds", &[("kind", "nodes")])?;
    let memory = after.sum("picket_plugin_memory_bytes", &[("plugin", "slurm")]);
    Ok((seconds, memory / 1e6, node.both()?.peak / 1e6))
}

/// Lines and MB a CPU second of agent and worker, lines a CPU second of the plugin, and MB resident at most with a backlog that lay
/// there at once.
async fn log_backlog(places: &Places, dir: &Path, count: u32) -> Result<(f64, f64, f64, f64)> {
    std::fs::create_dir_all(dir)?;
    let aggregator = Aggregator::start(places).await?;
    join(&aggregator, dir, "logs-node")?;
    let log = dir.join("app.log");
    let node = Node::start(places, dir, &logs("200ms", &[&log]), &["logs"]).await?;
    let before = (node.api.metrics().await?, node.both()?);
    let mut out = std::io::BufWriter::new(std::fs::File::create(&log)?);
    for n in 0..count {
        writeln!(
            out,
            "INFO 11-21 14:00:01 [loggers.py:257] request {n:>7} took 12.5 ms of a model's time, and it gave 99 tokens"
        )?;
    }
    out.flush()?;
    let bytes = std::fs::metadata(&log)?.len() as f64;
    let after = node
        .page(|page| {
            let lines = page.sum("picket_logs_lines_total", &[("plugin", "logs")]);
            ensure!(lines == f64::from(count), "{lines} of {count} lines");
            Ok(())
        })
        .await?;
    let cpu = node.both()?.cpu - before.1.cpu;
    let guest = guest_seconds(&after, "logs") - guest_seconds(&before.0, "logs");
    let count = f64::from(count);
    Ok((count / cpu, bytes / cpu / 1e6, count / guest, node.both()?.peak / 1e6))
}

/// CPU milliseconds a collect: of the agent, of the worker, of that in the plugin, of the helper; and how many series.
struct Gpus {
    agent: f64,
    worker: f64,
    guest: f64,
    helper: f64,
    series: f64,
}

async fn eight_gpus(places: &Places, dir: &Path, rounds: f64) -> Result<Gpus> {
    let node = Node::start(places, dir, &gpu(places, "500ms")?, &["gpu"]).await?;
    // Nothing is asked for between the two.
    let before = (node.api.metrics().await?, node.agent()?, node.helper(WORKER)?, node.helper(NVML)?);
    tokio::time::sleep(Duration::from_secs_f64(rounds / 2.0)).await;
    let after = (node.agent()?, node.helper(WORKER)?, node.helper(NVML)?);
    let page = node.after(&before.0, "gpu", rounds / 2.0).await?;
    let guest = (guest_seconds(&page, "gpu") - guest_seconds(&before.0, "gpu"))
        / (collects(&page, "gpu") - collects(&before.0, "gpu"));
    let series = page.names().filter(|n| n.starts_with("DCGM_") || n.starts_with("nvidia_"));
    let series: usize = series.map(|n| page.series(n).len()).sum();
    let each = |before: f64, after: f64| (after - before) * 1e3 / rounds;
    Ok(Gpus {
        agent: each(before.1.cpu, after.0.cpu),
        worker: each(before.2.cpu, after.1.cpu),
        guest: guest * 1e3,
        helper: each(before.3.cpu, after.2.cpu),
        series: series as f64,
    })
}
