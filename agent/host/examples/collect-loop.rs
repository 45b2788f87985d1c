//! The node plugin in its sandbox, with the production host and limits: prints the CPU microseconds of a collection.
//! The sandboxed side of the benchmark row `tax`; with a worker's program as fourth argument the plugin runs in that, and the
//! worker's CPU time counts too.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use picket_agent_host::{Host, HostOptions, Isolation, Limits, PluginSpec, SampleSink, WorkerOptions};
use picket_agent_services::grants::Scope;
use picket_agent_services::{ServiceLimits, Services, ServicesOptions};
use picket_proto::model::{Family, Labels, Part, PluginId};
use picket_proto::v1;

const GRANTS: &str = r#"
[[grants]]
capability = "files"
read = ["/proc/**", "/sys/**", "/run/udev/data/**"]
filesystems = ["/**"]
[[grants]]
capability = "system"
"#;

#[derive(serde::Deserialize)]
struct Grants {
    grants: Vec<Scope>,
}

/// Counts what comes, so that nothing of it can be optimized away.
#[derive(Default)]
struct Counter {
    points: usize,
}

impl SampleSink for Counter {
    fn begin(&mut self, _: u64) {}
    fn family(&mut self, _: u32, _: &Family) {}
    fn series(&mut self, _: u32, _: u32, _: Part, _: &Labels) -> Result<(), String> {
        Ok(())
    }
    fn points(&mut self, points: &[(u32, f64)]) {
        self.points += points.len();
    }
    fn timed_points(&mut self, points: &[(u32, f64, i64)]) {
        self.points += points.len();
    }
    fn retire(&mut self, _: &[u32]) {}
    fn event(&mut self, _: v1::Event) {}
    fn fail(&mut self, reason: &str, message: &str) {
        eprintln!("{reason}: {message}");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    // As a task, as in the agent: waking the runtime's own future costs more.
    tokio::spawn(measure()).await?
}

async fn measure() -> Result<()> {
    let mut args = std::env::args().skip(1).collect::<Vec<_>>().into_iter();
    let usage = "usage: collect-loop PLUGIN.wasm PICKET-COMPILE ROUNDS";
    let file = PathBuf::from(args.next().context(usage)?);
    let compiler = PathBuf::from(args.next().context(usage)?);
    let rounds: u32 = args.next().context(usage)?.parse()?;
    let dir = tempfile::tempdir()?;
    let services = Services::new(ServicesOptions {
        state_dir: dir.path().to_owned(),
        extra_authorities: None,
        limits: ServiceLimits::default(),
        nvml: Default::default(),
        kmsg: Default::default(),
    })?;
    let worker = args.next().map(PathBuf::from);
    let options = HostOptions {
        cache_dir: dir.path().join("cache"),
        compiler,
        compile_memory: 4 << 30,
        compile_timeout: Duration::from_secs(60),
        services: Arc::new(services),
    };
    let host = match worker {
        None => Host::new(options)?,
        Some(program) => {
            let user = Some((65_533, 65_533));
            let workers = WorkerOptions { program, user, memory: 512 << 20, require: Vec::new() };
            Host::walled(options, workers).await?
        }
    };
    let process = host.workers().and_then(|workers| workers.totals().running.first().copied());
    let grants: Grants = toml::from_str(GRANTS)?;
    let mut plugin = host
        .load(PluginSpec {
            id: PluginId::new("node")?,
            file,
            settings: serde_json::json!({}),
            grants: grants.grants,
            limits: Limits::default(),
            isolation: Isolation::Shared,
        })
        .await?;
    let mut sink = Counter::default();
    for _ in 0..5 {
        plugin.collect(&mut sink).await?;
    }
    sink.points = 0;
    let (start, before) = (std::time::Instant::now(), cpu_microseconds(process)?);
    for _ in 0..rounds {
        plugin.collect(&mut sink).await?;
    }
    println!("{:.1}", (cpu_microseconds(process)? - before) / f64::from(rounds));
    eprintln!("{:.1} µs a collection by the clock", start.elapsed().as_secs_f64() * 1e6 / f64::from(rounds));
    eprintln!("{} points a collection", sink.points / rounds as usize);
    Ok(())
}

/// Of this process and the worker, by the scheduler's clock (proc(5), `schedstat`, nanoseconds on the CPU).
fn cpu_microseconds(worker: Option<u32>) -> Result<f64> {
    let mut sum = 0.0;
    for process in [Some("self".to_owned()), worker.map(|w| w.to_string())].into_iter().flatten() {
        for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            sum += text.split(' ').next().context("schedstat is empty")?.parse::<f64>()?;
        }
    }
    Ok(sum / 1000.0)
}
