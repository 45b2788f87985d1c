//! What a node with everything takes: all sources in one agent, each on a real server (eight GPUs are the fake driver's), a
//! collect each five seconds, an aggregator that takes it all. Read each minute: memory and CPU of the agent, of the worker that its
//! plugins run in, of the helper that asks the driver, and CPU of the commands that it ran.
//!
//! The first reading is after two minutes, when all has been touched. Memory and CPU seconds don't ask how busy the machine is
//! otherwise, so this may run beside other work.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{Daemon, Docker, Engine, LiteLlm, Slurm, Test, free_port, grants_of, quoted};
use serde_json::json;

use crate::node::{NVML, Node, WORKER, gpu, logs, vllm};
use crate::report::Figure;
use crate::rows::agent::join;
use crate::setup::{Aggregator, Places, get};
use crate::trend::slope;
use crate::usage::Usage;

const ROW: &str = "sources";
const MINUTE: Duration = Duration::from_secs(60);
const BUSY: &str = include_str!("../../../../plugins/vllm/tests/fixtures/metrics_busy.txt");
const MODELS: &str = include_str!("../../../../plugins/vllm/tests/fixtures/v1_models.json");
const PLUGINS: [&str; 7] = ["node", "gpu", "vllm", "litellm", "slurm", "logs", "prometheus"];

/// What the containers run: the page of a busy server whose counters grow, and five lines of log a second.
const SERVE: &str = r#"#!/bin/busybox sh
cd /www
/bin/busybox httpd -p 127.0.0.1:$1 -h /www
i=0
while :; do
  i=$((i + 1))
  /bin/busybox awk -v i=$i '/^vllm:[a-z_:]*(_total|_bucket|_sum|_count)[{ ]/ { $NF += i } { print }' base > new
  /bin/busybox mv new metrics
  echo "INFO 11-21 14:00:01 [loggers.py:257] Engine 000: Avg generation throughput: $i tokens/s, Running: 4 reqs"
  for n in 1 2 3 4; do echo "INFO:     127.0.0.1:4242 - \"POST /v1/completions HTTP/1.1\" 200 OK"; done
  /bin/busybox sleep 1
done
"#;

/// One minute's.
struct Reading {
    agent: Usage,
    worker: Usage,
    nvml: Usage,
    series: f64,
    lines: f64,
}

pub async fn measure(places: &Places, minutes: u32) -> Result<Vec<Figure>> {
    eprintln!("sources: {minutes} minutes of {}, a collect each 5 s", PLUGINS.join(", "));
    let test = Test::new()?;
    let world = World::start(&test, places).await?;
    let aggregator = Aggregator::start(places).await?;
    let dir = test.folder().join("agent");
    fs::create_dir_all(&dir)?;
    join(&aggregator, &dir, "sources-node")?;
    let node = Node::start(places, &dir, &world.sections(places, &test)?, &PLUGINS).await?;
    let begun = Instant::now();
    let mut readings = Vec::new();
    let mut tick = 0_u32;
    while readings.len() <= minutes as usize {
        tokio::time::sleep(Duration::from_secs(2)).await;
        world.work(tick).await?;
        tick += 1;
        let due = MINUTE * (2 + u32::try_from(readings.len())?);
        if begun.elapsed() < due {
            continue;
        }
        let reading = Reading::take(&node).await.with_context(|| e2e::tail(&dir.join("agent.log"), 20))?;
        reading.say(readings.len(), readings.last());
        readings.push(reading);
    }
    // It all came through: the aggregator has each source's.
    let (_, page) = get(aggregator.http, "/api/v1/nodes/sources-node", Some(&aggregator.token)).await?;
    ensure!(!page.is_empty(), "the aggregator knows no node");
    world.check(&node).await?;
    figures(&readings, minutes)
}

/// The servers that are read.
struct World {
    docker: Docker,
    slurm: Slurm,
    litellm: LiteLlm,
    node_exporter: u16,
    servers: Vec<u16>,
    log: PathBuf,
    text: PathBuf,
    _daemons: Vec<Daemon>,
}

impl World {
    async fn start(test: &Test, places: &Places) -> Result<Self> {
        let missing = "the row `sources` needs all its servers: cargo xtask parts; cargo xtask parts litellm; run it as root";
        let docker = Docker::start(test).await?.context(missing)?;
        let files: &[(&str, &[u8])] = &[
            ("serve.sh", SERVE.as_bytes()),
            ("www/base", BUSY.as_bytes()),
            ("www/metrics", BUSY.as_bytes()),
            ("www/health", b""),
            ("www/version", b"{\"version\":\"0.12.0\"}"),
            ("www/v1/models", MODELS.as_bytes()),
        ];
        docker.image("vllm/vllm-openai", "v0.12.0", files)?;
        let mut servers = Vec::new();
        for name in ["llama", "qwen"] {
            let port = free_port()?;
            let config = json!({
                "Image": "vllm/vllm-openai:v0.12.0",
                "Cmd": ["/bin/busybox", "sh", "/serve.sh", port.to_string()],
                "Labels": { "vllm": "true", "picket.port": port.to_string() },
                "Env": ["NVIDIA_VISIBLE_DEVICES=0,1"],
                // 256 MiB
                "HostConfig": { "NetworkMode": "host", "Memory": 268_435_456 },
            });
            docker.run(name, &config)?;
            servers.push(port);
        }
        let slurm = Slurm::start(test).await?.context(missing)?;
        let litellm = LiteLlm::start(test, &LiteLlm::program().context(missing)?, free_port()?).await?;
        fs::write(test.folder().join("litellm.key"), LiteLlm::KEY)?;
        let program = places.peer("node_exporter").context(missing)?;
        let node_exporter = free_port()?;
        let mut command = Command::new(program);
        command.arg(format!("--web.listen-address=127.0.0.1:{node_exporter}"));
        let daemon = Daemon::start(test, "node_exporter", &mut command)?;
        let text = test.folder().join("textfiles");
        fs::create_dir_all(&text)?;
        let log = test.folder().join("app.log");
        fs::write(&log, "")?;
        Ok(Self { docker, slurm, litellm, node_exporter, servers, log, text, _daemons: vec![daemon] })
    }

    fn sections(&self, places: &Places, test: &Test) -> Result<String> {
        let containers = self.docker.folder().join("data/containers/*/*-json.log");
        let mut all = gpu(places, "5s")?;
        all += &format!("[plugins.node]\nfile = \"node.wasm\"\ninterval = \"5s\"\n{}", grants_of("node")?);
        all += &vllm("5s", &[], &[&self.docker.socket()]);
        all += &logs("5s", &[&containers, &self.log]);
        all += &self.litellm.section("5s", &test.folder().join("litellm.key"), "hub = { enabled = false }");
        all += &format!(
            "[plugins.slurm]\nfile = \"slurm.wasm\"\ninterval = \"5s\"\n[plugins.slurm.settings]\npoller = true\n\
             [[plugins.slurm.grants]]\ncapability = \"system\"\n[[plugins.slurm.grants]]\ncapability = \"store\"\nbytes = 262144\n\
             [[plugins.slurm.grants]]\ncapability = \"http\"\nurls = []\n\
             [[plugins.slurm.grants]]\ncapability = \"unix-http\"\nsockets = []\n{}",
            self.slurm.commands_grant()?
        );
        all += &format!(
            "[plugins.prometheus]\nfile = \"prometheus.wasm\"\ninterval = \"5s\"\n[plugins.prometheus.settings]\n\
             textfile_directories = [{text}]\n[[plugins.prometheus.settings.jobs]]\njob_name = \"other\"\n\
             static_configs = [{{ targets = [\"127.0.0.1:{port}\"] }}]\n[[plugins.prometheus.grants]]\ncapability = \"http\"\n\
             urls = [{{ host = \"127.0.0.1\", port = {port} }}]\n[[plugins.prometheus.grants]]\ncapability = \"files\"\n\
             read = [{inside}]\n",
            text = quoted(&self.text),
            inside = quoted(self.text.join("**")),
            port = self.node_exporter,
        );
        Ok(all)
    }

    /// What goes on on such a node, every two seconds: requests to models, jobs, lines, a text file.
    async fn work(&self, tick: u32) -> Result<()> {
        // A gateway that is slow on a busy machine is no reason to stop.
        let _ = self.litellm.chat(if tick % 15 == 14 { "dead" } else { "llama" }).await;
        if tick % 30 == 7 {
            let job = ["-o", "/dev/null", "-D", "/", "--gres=gpu:3", "--wrap", "sleep 30"];
            self.slurm.run("sbatch", &job)?;
        }
        let mut log = fs::OpenOptions::new().append(true).open(&self.log)?;
        for n in 0..4 {
            writeln!(log, "level=info request={tick}.{n} took 12.5 ms of a model's time")?;
        }
        let new = self.text.join("backup.new");
        fs::write(&new, format!("# TYPE backup_age_seconds gauge\nbackup_age_seconds {tick}\n"))?;
        fs::rename(new, self.text.join("backup.prom")).context("cannot replace a text file")
    }

    /// Every source is there at the end.
    async fn check(&self, node: &Node) -> Result<()> {
        let page = node.api.metrics().await?;
        for (family, least) in [
            ("node_load1", 1),
            ("DCGM_FI_DEV_GPU_TEMP", 8),
            ("vllm:num_requests_running", self.servers.len()),
            ("container_memory_usage_bytes", self.servers.len()),
            ("litellm_deployment_state", 1),
            ("slurm_nodes_total", 1),
            ("slurm_node_cpu_total", 4),
            ("backup_age_seconds", 1),
            ("picket_log_entries_total", 1),
        ] {
            let have = page.series(family).len();
            ensure!(have >= least, "{family} has {have} series at the end");
        }
        ensure!(page.sum("up", &[("job", "other")]) == 1.0, "node_exporter is not read at the end");
        Ok(())
    }
}

impl Reading {
    async fn take(node: &Node) -> Result<Self> {
        let (agent, worker, nvml) = (node.agent()?, node.helper(WORKER)?, node.helper(NVML)?);
        // After its memory was read, which a page in the making is part of.
        let page = node.api.metrics().await?;
        let series = page.names().map(|name| page.series(name).len()).sum::<usize>() as f64;
        let lines = page.sum("picket_logs_lines_total", &[("plugin", "logs")]);
        Ok(Self { agent, worker, nvml, series, lines })
    }

    fn say(&self, minute: usize, before: Option<&Self>) {
        let since = |pick: fn(&Self) -> f64| before.map_or(f64::NAN, |b| pick(self) - pick(b));
        let of = |name: &str, usage: &Usage, cpu: f64| {
            let mb = |bytes: f64| bytes / 1e6;
            let (rss, own, pss) = (mb(usage.rss), mb(usage.own), mb(usage.pss));
            format!("{name} {rss:.3} MB ({own:.3} its own, PSS {pss:.3}), {cpu:.2} CPU s; ")
        };
        eprintln!(
            "sources: minute {minute}: {}{}{}commands {:.2} CPU s; {} series; {} lines",
            of("agent", &self.agent, since(|r| r.agent.cpu)),
            of("worker", &self.worker, since(|r| r.worker.cpu)),
            of(NVML, &self.nvml, since(|r| r.nvml.cpu)),
            since(|r| r.agent.ended_children),
            self.series,
            since(|r| r.lines),
        );
    }

    fn pss(&self) -> f64 {
        self.agent.pss + self.worker.pss + self.nvml.pss
    }

    fn own(&self) -> f64 {
        self.agent.own + self.worker.own + self.nvml.own
    }
}

fn figures(readings: &[Reading], minutes: u32) -> Result<Vec<Figure>> {
    let (first, last) = (readings.first().context("no minute")?, readings.last().context("no minute")?);
    let mut all = Vec::new();
    let mut figure = |what: &str, unit: &'static str, value: f64, aim: Option<f64>| {
        all.push(Figure::new(ROW, format!("{what}, {minutes} minutes"), unit, false, &[value], None, aim));
    };
    let hourly = |pick: fn(&Reading) -> f64| 60.0 * slope(readings.iter().map(pick)) / 1e3;
    let a_minute = |pick: fn(&Reading) -> f64| (pick(last) - pick(first)) / f64::from(minutes.max(1));
    figure("all, PSS first", "MB", first.pss() / 1e6, None);
    figure("all, PSS last", "MB", last.pss() / 1e6, Some(20.0));
    figure("all, anonymous last", "MB", last.own() / 1e6, None);
    figure("all, anonymous, fitted line", "KB an hour", hourly(Reading::own), None);
    for (name, pick) in
        [("agent", (|r| r.agent) as fn(&Reading) -> Usage), ("worker", |r| r.worker), (NVML, |r| r.nvml)]
    {
        let over = |what: fn(&Usage) -> f64| 60.0 * slope(readings.iter().map(|r| what(&pick(r)))) / 1e3;
        let cpu = (pick(last).cpu - pick(first).cpu) / f64::from(minutes.max(1));
        figure(&format!("{name}, RSS first"), "MB", pick(first).rss / 1e6, None);
        figure(&format!("{name}, RSS last"), "MB", pick(last).rss / 1e6, None);
        figure(&format!("{name}, PSS last"), "MB", pick(last).pss / 1e6, None);
        figure(&format!("{name}, RSS, fitted line"), "KB an hour", over(|u| u.rss), None);
        figure(&format!("{name}, CPU"), "s a minute", cpu, None);
    }
    figure("Slurm's commands, CPU", "s a minute", a_minute(|r| r.agent.ended_children), None);
    figure("series", "series", last.series, None);
    figure("log lines", "a minute", a_minute(|r| r.lines), None);
    Ok(all)
}
