//! Log lines from a file to the aggregator: each exactly once, through kills of both daemons and rotations of the file,
//! and no flood of them at the cost of anything else.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    AgentBuilder, Aggregator, Daemon, Dice, Test, eventually, eventually_within, quoted, run, run_program,
    run_within, skip,
};
use serde_json::Value;

/// Reads through the aggregator's Loki API.
pub struct Loki {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Loki {
    pub async fn new(aggregator: &Aggregator) -> Result<Self> {
        let pem = fs::read(aggregator.authority())?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(40))
            .tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem)?)
            .build()?;
        Ok(Self { http, url: aggregator.api.url().to_owned(), token: aggregator.token().to_owned() })
    }

    async fn streams(&self, query: &str) -> Result<Vec<Value>> {
        let url = format!("{}/loki/api/v1/query_range", self.url);
        let query = [("query", query), ("limit", "5000"), ("direction", "forward")];
        let answer = self.http.get(url).bearer_auth(&self.token).query(&query).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status == 200, "{status}: {text}");
        let found: Value = serde_json::from_str(&text)?;
        Ok(found["data"]["result"].as_array().context("no result")?.clone())
    }

    pub async fn lines(&self, query: &str) -> Result<Vec<String>> {
        let streams = self.streams(query).await?;
        let values = streams.iter().flat_map(|stream| stream["values"].as_array().into_iter().flatten());
        values.map(|value| value[1].as_str().map(str::to_owned).context("no line")).collect()
    }
}

fn shipping<'a>(builder: AgentBuilder<'a>, pattern: &Path, settings: &str) -> AgentBuilder<'a> {
    builder.section(format!(
        "[plugins.logs]\nfile = \"logs.wasm\"\ninterval = \"200ms\"\n[plugins.logs.settings]\nfrom = \"beginning\"\n{settings}\n[[plugins.logs.grants]]\ncapability = \"logs\"\nfiles = [{}]\n",
        quoted(pattern)
    ))
}

/// Writes numbered lines, a few at a time, and rotates its file: by renaming it, or by copying and emptying it.
struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<std::io::Result<()>>>,
}

impl Writer {
    fn start(file: PathBuf, most: u64, copying: bool) -> Self {
        let (stop, written) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (ends, counts) = (stop.clone(), written.clone());
        let thread = std::thread::spawn(move || {
            let mut dice = Dice(0x2545_f491_4f6c_dd1d);
            let mut rotated = 0;
            while !ends.load(Ordering::Relaxed) && counts.load(Ordering::Relaxed) < most {
                let from = counts.load(Ordering::Relaxed);
                let to = (from + 1 + dice.below(12)).min(most);
                let text: String = (from..to).map(|n| format!("line {n} of the log\n")).collect();
                let mut log = fs::OpenOptions::new().create(true).append(true).open(&file)?;
                log.write_all(text.as_bytes())?;
                counts.store(to, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(dice.below(120)));
                if dice.below(15) == 0 {
                    rotated += 1;
                    let other = file.with_extension(format!("log.{rotated}"));
                    if copying {
                        fs::copy(&file, &other)?;
                        fs::OpenOptions::new().write(true).truncate(true).open(&file)?;
                    } else {
                        fs::rename(&file, &other)?;
                    }
                }
            }
            Ok(())
        });
        Self { stop, written, thread: Some(thread) }
    }

    fn end(&mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok().context("the writer panicked")??;
        }
        Ok(self.written.load(Ordering::Relaxed))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// An error unless each of the numbers below `count` stands in the lines once.
fn once_each(lines: &[String], count: u64) -> Result<()> {
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    for line in lines {
        let number = line.strip_prefix("line ").and_then(|rest| rest.strip_suffix(" of the log"));
        let number = number.and_then(|n| n.parse().ok()).with_context(|| format!("a torn line: {line:?}"))?;
        *seen.entry(number).or_default() += 1;
    }
    let twice: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).take(10).collect();
    ensure!(twice.is_empty(), "these came more than once: {twice:?}");
    let missing: Vec<u64> = (0..count).filter(|n| !seen.contains_key(n)).take(10).collect();
    ensure!(missing.is_empty(), "of {count} lines, these are missing: {missing:?}");
    Ok(())
}

async fn killed_over_and_over(test: &Test, copying: bool) -> Result<()> {
    let mut aggregator = test.aggregator().await?;
    let folder = test.folder().join("app");
    fs::create_dir(&folder)?;
    let builder = shipping(aggregator.agent(test, "shipper")?, &folder.join("app.log*"), "");
    let mut agent = builder.enrol_and_start(&aggregator).await?;
    agent.plugin_state("logs", "running").await?;
    let mut writer = Writer::start(folder.join("app.log"), 4800, copying);
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for round in 0..50 {
        tokio::time::sleep(Duration::from_millis(300 + dice.below(900))).await;
        agent.start_again(test)?;
        if round % 5 == 4 {
            aggregator.start_again(test)?;
        }
    }
    aggregator.wait_until_ready().await?;
    agent.wait_until_up().await?;
    let written = writer.end()?;
    ensure!(written > 500, "too little was written to tell: {written}");
    let loki = Loki::new(&aggregator).await?;
    let query = r#"{job="logs", instance="shipper"}"#;
    eventually("all lines have come", || async {
        let lines = loki.lines(query).await?;
        if (lines.len() as u64) < written {
            once_each(&lines, written)?;
        }
        Ok(())
    })
    .await?;
    // What would come twice comes with the next reading at the latest.
    let page = agent.api.metrics().await?;
    let read = page.value("picket_plugin_collects_total", &[("plugin", "logs"), ("result", "ok")])?;
    eventually("three more readings", || async {
        let page = agent.api.metrics().await?;
        let now = page.value("picket_plugin_collects_total", &[("plugin", "logs"), ("result", "ok")])?;
        ensure!(now >= read + 3.0, "{now}");
        Ok(())
    })
    .await?;
    once_each(&loki.lines(query).await?, written)?;
    let page = agent.api.metrics().await?;
    ensure!(page.sum("picket_logs_spool_records_lost_total", &[]) == 0.0, "records were lost");
    Ok(())
}

#[test]
fn killed_fifty_times_each_line_of_a_renamed_log_arrives_once() {
    run_within(Duration::from_secs(300), async |test: &Test| killed_over_and_over(test, false).await);
}

#[test]
fn killed_fifty_times_each_line_of_a_copied_log_arrives_once() {
    run_within(Duration::from_secs(300), async |test: &Test| killed_over_and_over(test, true).await);
}

#[test]
fn a_container_is_named_and_its_traces_are_one_entry() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let id = "c0ffee".repeat(11).get(..64).context("an id")?.to_owned();
        let folder = test.folder().join("containers").join(&id);
        fs::create_dir_all(&folder)?;
        let description =
            r#"{"Name":"/vllm-a","Config":{"Image":"vllm:1","Env":["HF_TOKEN=x"],"Labels":{}}}"#;
        fs::write(folder.join("config.v2.json"), description)?;
        let log = folder.join(format!("{id}-json.log"));
        let mut text = String::new();
        let time =
            run_program(Path::new("/bin/date"), &["-u", "+%Y-%m-%dT%H:%M:%S.000000001Z"]).await?.ok()?;
        for line in [
            "ERROR 11-21 14:00:01 [core.py:1] it failed",
            "Traceback (most recent call last):",
            "  File \"core.py\", line 1",
            "ValueError: with Bearer abcdefghijkl",
        ] {
            let entry =
                serde_json::json!({"log": format!("{line}\n"), "stream": "stderr", "time": time.trim()});
            text.push_str(&format!("{entry}\n"));
        }
        fs::write(&log, text)?;
        let pattern = test.folder().join("containers/*/*-json.log");
        let agent = shipping(aggregator.agent(test, "docker")?, &pattern, "");
        let agent = agent.enrol_and_start(&aggregator).await?;
        let loki = Loki::new(&aggregator).await?;
        let streams = eventually("the lines have come", || async {
            let streams = loki.streams(r#"{container="vllm-a", stream="stderr", level="error"}"#).await?;
            let lines: usize = streams.iter().filter_map(|s| s["values"].as_array()).map(Vec::len).sum();
            ensure!(lines == 2, "{streams:?}");
            Ok(streams)
        })
        .await?;
        let text = serde_json::to_string(&streams)?;
        ensure!(text.contains("ValueError: with Bearer ***") && !text.contains("abcdefghijkl"), "{text}");
        ensure!(!text.contains("HF_TOKEN"), "{text}");
        eventually("the agent counts", || async {
            let page = agent.api.metrics().await?;
            let lines = page.value("picket_logs_lines_total", &[("plugin", "logs")])?;
            let redacted = page.value("picket_log_redactions_total", &[("rule", "bearer")])?;
            ensure!(lines == 2.0 && redacted == 1.0, "{lines} {redacted}");
            Ok(())
        })
        .await
    });
}

#[test]
fn a_flood_of_lines_delays_nobody() {
    run_within(Duration::from_secs(240), async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let log = test.folder().join("flood.log");
        fs::write(&log, "")?;
        let builder = shipping(aggregator.agent(test, "flooded")?, &log, "");
        let agent = builder.guest("count", "count.wasm", "200ms", "").enrol_and_start(&aggregator).await?;
        agent.plugin_state("logs", "running").await?;
        agent.plugin_state("count", "running").await?;
        let begun = std::time::Instant::now();
        let rested = agent.daemon.memory("VmRSS")?;
        let counts = || async { agent.api.metrics().await?.value("test_ticks", &[]) };
        let before = counts().await?;
        // 100,000 lines a second for ten seconds.
        let writing = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
            let mut file = fs::OpenOptions::new().append(true).open(&log)?;
            for second in 0..100u32 {
                let text: String = (0..10_000)
                    .map(|n| format!("INFO 2026 request {second}.{n} took 12.5 ms of a model's time\n"))
                    .collect();
                file.write_all(text.as_bytes())?;
                let next = Duration::from_millis(100) * (second + 1);
                std::thread::sleep(next.saturating_sub(begun.elapsed()));
            }
            Ok(())
        });
        writing.await??;
        let (ticks, seconds) = (counts().await? - before, begun.elapsed().as_secs_f64());
        let page = agent.api.metrics().await?;
        let skipped = page.value("picket_plugin_collects_skipped_total", &[("plugin", "count")])?;
        ensure!(ticks >= seconds * 5.0 * 0.8, "{ticks} ticks in {seconds} s");
        ensure!(skipped <= 3.0, "{skipped} ticks were skipped");
        let lines = page.value("picket_logs_lines_total", &[("plugin", "logs")]).unwrap_or(0.0);
        eprintln!("in {seconds:.1} s: {ticks} ticks, {skipped} skipped, {lines} lines taken");
        // What could not be read at once waits in the file, and comes.
        eventually_within(Duration::from_secs(150), "all lines are read", || async {
            let page = agent.api.metrics().await?;
            let lines = page.value("picket_logs_lines_total", &[("plugin", "logs")])?;
            ensure!(lines == 1_000_000.0, "{lines}");
            Ok(())
        })
        .await?;
        let page = agent.api.metrics().await?;
        let bytes = page.value("picket_logs_read_bytes_total", &[("plugin", "logs")])?;
        let guest = page.value("picket_plugin_guest_seconds_total", &[("plugin", "logs")])?;
        let all = page.value("picket_agent_cpu_seconds_total", &[])?;
        let grown = agent.daemon.memory("VmRSS")?;
        eprintln!(
            "{bytes} bytes in {:.1} s, {guest:.2} CPU s in the plugin, {all:.2} in the agent; RSS {rested} before, {grown} after",
            begun.elapsed().as_secs_f64()
        );
        Ok(())
    });
}

/// A journal of its own: journald serves a namespace without being the system's.
struct Journald {
    _daemon: Daemon,
    namespace: String,
    folder: PathBuf,
}

const JOURNALD: &str = "/usr/lib/systemd/systemd-journald";

impl Journald {
    async fn start(test: &Test) -> Result<Option<Self>> {
        let root = rustix::process::geteuid().is_root();
        let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned();
        if !root
            || machine.is_empty()
            || !Path::new(JOURNALD).is_file()
            || !Path::new("/usr/bin/journalctl").is_file()
        {
            skip("needs root, systemd-journald and journalctl");
            return Ok(None);
        }
        let namespace = format!("picket{}", std::process::id());
        let folder = PathBuf::from(format!("/run/log/journal/{machine}.{namespace}"));
        let mut command = Command::new(JOURNALD);
        let daemon = Daemon::start(test, "journald", command.arg(&namespace))?;
        let this = Self { _daemon: daemon, namespace, folder };
        let socket = PathBuf::from(format!("/run/systemd/journal.{}/socket", this.namespace));
        let up = eventually_within(Duration::from_secs(10), "journald is up", || async {
            ensure!(socket.exists() && (this.folder.is_dir() || this.kept().is_dir()), "no socket");
            Ok(())
        })
        .await;
        if up.is_err() {
            skip("systemd-journald does not serve a namespace here");
            return Ok(None);
        }
        Ok(Some(this))
    }

    fn kept(&self) -> PathBuf {
        PathBuf::from(self.folder.to_string_lossy().replacen("/run/", "/var/", 1))
    }

    fn files(&self) -> PathBuf {
        if self.kept().is_dir() { self.kept() } else { self.folder.clone() }
    }

    fn write(&self, priority: u8, text: &str) -> Result<()> {
        let socket = std::os::unix::net::UnixDatagram::unbound()?;
        let entry = format!("PRIORITY={priority}\nSYSLOG_IDENTIFIER=picket-test\nMESSAGE={text}\n");
        socket.send_to(entry.as_bytes(), format!("/run/systemd/journal.{}/socket", self.namespace))?;
        Ok(())
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        for folder in
            [self.folder.clone(), self.kept(), format!("/run/systemd/journal.{}", self.namespace).into()]
        {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

#[test]
fn a_real_journal_is_followed_over_restarts() {
    run(async |test: &Test| {
        let Some(journal) = Journald::start(test).await? else { return Ok(()) };
        let aggregator = test.aggregator().await?;
        journal.write(6, "line 0 of the log")?;
        let section = format!(
            "[plugins.logs]\nfile = \"logs.wasm\"\ninterval = \"200ms\"\n[plugins.logs.settings]\nfrom = \"beginning\"\nunits = [\"*\"]\ndrop = [{{ name = \"own\", match = \"^(?:Journal |System |Runtime )\" }}]\n[[plugins.logs.grants]]\ncapability = \"logs\"\nunits = [\"*\"]\njournal = {}\n",
            quoted(journal.files())
        );
        let mut agent =
            aggregator.agent(test, "journal")?.section(section).enrol_and_start(&aggregator).await?;
        let loki = Loki::new(&aggregator).await?;
        let query = r#"{instance="journal", unit="picket-test"}"#;
        for round in 1..6u64 {
            journal.write(3, &format!("line {round} of the log"))?;
            eventually("the entry has come", || async {
                let lines = loki.lines(query).await?;
                ensure!(lines.len() as u64 > round, "{lines:?}");
                Ok(())
            })
            .await?;
            agent.start_again(test)?;
        }
        agent.wait_until_up().await?;
        journal.write(6, "line 6 of the log")?;
        eventually("the last entry has come", || async { once_each(&loki.lines(query).await?, 7) }).await?;
        let errors = loki.lines(r#"{unit="picket-test", level="error"}"#).await?;
        ensure!(errors.len() == 5, "{errors:?}");
        Ok(())
    });
}
