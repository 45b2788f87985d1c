//! The node plugin in its sandbox, with the production host and limits: prints the CPU microseconds of a collection.
//! The sandboxed side of the benchmark row `tax`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use picket_agent_host::{Host, HostOptions, Limits, PluginSpec, SampleSink};
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
    let mut args = std::env::args().skip(1);
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
    let host = Host::new(HostOptions {
        cache_dir: dir.path().join("cache"),
        compiler,
        compile_memory: 4 << 30,
        compile_timeout: Duration::from_secs(60),
        services: Arc::new(services),
    })?;
    let grants: Grants = toml::from_str(GRANTS)?;
    let mut plugin = host
        .load(PluginSpec {
            id: PluginId::new("node")?,
            file,
            settings: serde_json::json!({}),
            grants: grants.grants,
            limits: Limits::default(),
        })
        .await?;
    let mut sink = Counter::default();
    for _ in 0..5 {
        plugin.collect(&mut sink).await?;
    }
    sink.points = 0;
    let before = cpu_microseconds()?;
    for _ in 0..rounds {
        plugin.collect(&mut sink).await?;
    }
    println!("{:.1}", (cpu_microseconds()? - before) / f64::from(rounds));
    eprintln!("{} points a collection", sink.points / rounds as usize);
    Ok(())
}

/// Of this process, by the scheduler's clock (proc(5), `schedstat`, nanoseconds on the CPU).
fn cpu_microseconds() -> Result<f64> {
    let mut sum = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        sum += text.split(' ').next().context("schedstat is empty")?.parse::<f64>()?;
    }
    Ok(sum / 1000.0)
}
