//! Real servers of others, as oracles: Prometheus and promtool.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{Api, Daemon, Test, eventually, free_port};

/// A running Prometheus.
pub struct Prometheus {
    pub daemon: Daemon,
    pub api: Api,
}

impl Prometheus {
    /// Starts it with these scrape configs (YAML, the list under `scrape_configs:`).
    pub async fn start(test: &Test, program: &Path, scrape_configs: &str) -> Result<Self> {
        let folder = test.folder().join("prometheus");
        std::fs::create_dir_all(&folder)?;
        let config = folder.join("prometheus.yml");
        let text = format!(
            "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\nscrape_configs:\n{scrape_configs}"
        );
        std::fs::write(&config, text)?;
        let port = free_port()?;
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let mut daemon = Daemon::start(test, "prometheus", &mut command)?;
        let api = Api::new(&format!("http://127.0.0.1:{port}"), None, None)?;
        eventually("Prometheus is ready", || {
            let running = daemon.check_running();
            let api = api.clone();
            async move {
                running?;
                api.text("/-/ready").await.map(drop)
            }
        })
        .await?;
        Ok(Self { daemon, api })
    }

    /// The result of an instant query: a list of `{metric, value: [time, text]}`.
    pub async fn query(&self, query: &str) -> Result<Vec<Value>> {
        let encoded: String = query.bytes().map(|b| format!("%{b:02x}")).collect();
        let answer = self.api.json(&format!("/api/v1/query?query={encoded}")).await?;
        ensure!(answer["status"] == "success", "{query}: {answer}");
        Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until the query gives something; the first value.
    pub async fn eventually(&self, query: &str) -> Result<(Value, f64)> {
        eventually(&format!("Prometheus answers {query}"), || async {
            let result = self.query(query).await?;
            let Some(first) = result.first() else { bail!("no result") };
            let value = first["value"][1].as_str().context("no value")?.parse()?;
            Ok((first["metric"].clone(), value))
        })
        .await
    }
}

/// What `promtool check metrics` has to say of a Prometheus text; nothing, if it is clean. Lines that contain one of
/// `known` are left out.
pub fn promtool_check(promtool: &Path, text: &str, known: &[&str]) -> Result<()> {
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start promtool")?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let text = text.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output()?;
    let _ = writer.join();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let said: Vec<&str> = said
        .lines()
        .filter(|line| !line.trim().is_empty() && !known.iter().any(|k| line.contains(k)))
        .collect();
    ensure!(said.is_empty(), "promtool says: {}", said.join("\n"));
    // Exit code 3: lint findings, all of which were known.
    ensure!(
        output.status.success() || (output.status.code() == Some(3) && !known.is_empty()),
        "promtool: {}",
        output.status
    );
    Ok(())
}
