//! Containers' output asked of a real Docker Engine whose logging driver keeps no file that others can read: each line once,
//! over restarts of the agent, of the engine and of the container.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Dice, Docker, Engine, Test, eventually, eventually_within, quoted, run_within};
use serde_json::{Value, json};

use crate::shipper::Loki;

/// Says its words on both outputs, each line with the time of its start, some of them long. Docker 20.10 leaves out the newline behind
/// a long line with the driver `local`, so what follows is one line with it, here as in `docker logs`.
const SAY: &str = "s=$(/bin/busybox cut -d' ' -f1 /proc/uptime); long=$(/bin/busybox head -c 40000 /dev/zero | /bin/busybox tr '\\0' x); i=0; \
     while [ $i -lt 600 ]; do echo \"out $s line $i\"; echo \"err $s line $i\" >&2; i=$((i+1)); \
     if [ $((i % 200)) = 0 ]; then echo \"long $s $i $long\"; fi; \
     if [ $((i % 10)) = 0 ]; then /bin/busybox sleep 0.05; fi; done; echo \"end $s\"; /bin/busybox sleep 600";

fn container(driver: &str, tty: bool, name: &str) -> Value {
    json!({
        "Image": "logs:1", "Cmd": ["/bin/busybox", "sh", "-c", SAY], "Tty": tty, "Labels": { "app": name },
        "HostConfig": { "NetworkMode": "none", "LogConfig": { "Type": driver, "Config": {} } },
    })
}

/// What the engine itself has of a container's output.
fn said(docker: &Docker, name: &str, tty: bool) -> Result<Vec<String>> {
    let answer = docker.json(&format!("/containers/{name}/logs?stdout=1&stderr=1"))?;
    let text = answer.as_str().context("no output")?.to_owned();
    // The parts of a long line come one by one, each behind a head of eight bytes.
    let mut lines: Vec<String> = Vec::new();
    if tty {
        lines.extend(text.lines().map(|line| line.trim_end_matches('\r').to_owned()));
    } else {
        let mut open: BTreeMap<char, String> = BTreeMap::new();
        let mut rest = text.as_str();
        while let Some(kind) = rest.chars().next() {
            let head: String = rest.chars().take(8).collect();
            let body = rest.get(head.len()..).unwrap_or_default();
            let end = body.find(['\n', '\u{1}', '\u{2}']).unwrap_or(body.len());
            let (line, after) = body.split_at(end);
            let line = format!("{}{line}", open.remove(&kind).unwrap_or_default());
            match after.strip_prefix('\n') {
                Some(after) => {
                    lines.push(line);
                    rest = after;
                }
                None => {
                    open.insert(kind, line);
                    rest = after;
                }
            }
        }
    }
    lines.retain(|line| !line.is_empty());
    Ok(lines)
}

fn counted(lines: &[String]) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for line in lines {
        // What is longer than a line may be is cut by the plugin.
        let short: String = line.chars().take(60).collect();
        *all.entry(short).or_insert(0) += 1;
    }
    all
}

/// An error unless all that the engine has of the container has come, once.
async fn is_complete(docker: &Docker, loki: &Loki, name: &str, tty: bool) -> Result<usize> {
    let lines = loki.lines(&format!("{{container=\"{name}\"}}")).await?;
    let (have, want) = (counted(&lines), counted(&said(docker, name, tty)?));
    let other = |a: &BTreeMap<String, usize>, b: &BTreeMap<String, usize>| -> Vec<String> {
        let differs = a.iter().filter(|(line, count)| b.get(*line) != Some(count));
        differs.take(5).map(|(line, count)| format!("{count} × {line}")).collect()
    };
    let (more, missing) = (other(&have, &want), other(&want, &have));
    ensure!(more.is_empty() && missing.is_empty(), "{name}: came {more:?}, were said {missing:?}");
    Ok(lines.len())
}

#[test]
fn output_that_only_the_engine_has_arrives_once_over_restarts_of_all() {
    run_within(Duration::from_secs(240), async |test: &Test| {
        let Some(mut docker) = Docker::start(test).await? else { return Ok(()) };
        docker.image("logs", "1", &[])?;
        let mut aggregator = test.aggregator().await?;
        let section = format!(
            "[plugins.logs]\nfile = \"logs.wasm\"\ninterval = \"200ms\"\n[plugins.logs.settings]\nfrom = \"beginning\"\n\
             container_labels = [\"app\"]\n[[plugins.logs.grants]]\ncapability = \"logs\"\nfiles = [{}]\n\
             containers = {{ sockets = [{}], labels = [\"app\"] }}\n",
            quoted(docker.folder().join("data/containers/*/*-json.log")),
            quoted(docker.socket())
        );
        let mut agent =
            aggregator.agent(test, "engine")?.section(section).enrol_and_start(&aggregator).await?;
        agent.plugin_state("logs", "running").await?;
        // By the engine: frames and a terminal. By its file: what has one, and it alone.
        for (name, driver, tty) in
            [("local", "local", false), ("term", "local", true), ("filed", "json-file", false)]
        {
            docker.run(name, &container(driver, tty, name))?;
        }
        docker.run(
            "hidden",
            &json!({
                "Image": "logs:1", "Cmd": ["/bin/busybox", "echo", "not granted"],
                "HostConfig": { "NetworkMode": "none", "LogConfig": { "Type": "local", "Config": {} } },
            }),
        )?;
        let loki = Loki::new(&aggregator).await?;
        let mut dice = Dice(0x2545_f491_4f6c_dd1d);
        for round in 0..8 {
            tokio::time::sleep(Duration::from_millis(200 + dice.below(700))).await;
            agent.start_again(test)?;
            if round == 2 {
                let pid = std::fs::read_to_string(docker.folder().join("exec/containerd/containerd.pid"))?;
                docker.kill_daemon()?;
                // Else the next daemon waits for the one that dies.
                eventually("containerd is gone", || async {
                    let gone = !std::path::Path::new("/proc").join(pid.trim()).exists();
                    ensure!(gone, "{} is there", pid.trim());
                    Ok(())
                })
                .await?;
                docker.start_daemon(test).await?;
            }
            if round == 5 {
                docker.post("/containers/local/restart?t=0")?;
                aggregator.start_again(test)?;
            }
        }
        aggregator.wait_until_ready().await?;
        agent.wait_until_up().await?;
        let mut all = 0;
        for (name, tty) in [("local", false), ("term", true), ("filed", false)] {
            // It has said all that it says.
            eventually_within(Duration::from_secs(60), "it has said its words", || async {
                let count = said(&docker, name, tty)?.iter().filter(|line| line.contains("line 599")).count();
                ensure!(count >= 2, "{count} last lines");
                Ok(())
            })
            .await?;
            all += eventually_within(Duration::from_secs(60), "all lines have come", || async {
                is_complete(&docker, &loki, name, tty).await
            })
            .await?;
        }
        // What would come twice comes with the next readings.
        let collects = || async {
            let page = agent.api.metrics().await?;
            page.value("picket_plugin_collects_total", &[("plugin", "logs"), ("result", "ok")])
        };
        let before = collects().await?;
        eventually("five more readings", || async {
            let now = collects().await?;
            ensure!(now >= before + 5.0, "{now}");
            Ok(())
        })
        .await?;
        for (name, tty) in [("local", false), ("term", true), ("filed", false)] {
            is_complete(&docker, &loki, name, tty).await?;
        }
        ensure!(loki.lines("{container=\"hidden\"}").await?.is_empty(), "a container that is not granted");
        let labelled = loki.lines("{app=\"local\", stream=\"stderr\"}").await?;
        ensure!(!labelled.is_empty(), "its label and its stream are told");
        let page = agent.api.metrics().await?;
        let lost = page.sum("picket_logs_lost_total", &[("plugin", "logs")]);
        ensure!(lost == 0.0, "{lost} losses were counted");
        eprintln!("{all} lines of three containers");

        // It ends, and goes: nothing of it is lost, and nobody asks for it any more.
        docker.post("/containers/local/stop?t=0")?;
        eventually("its last lines have come", || is_complete(&docker, &loki, "local", false)).await?;
        docker.remove("local")?;
        docker.remove("term")?;
        let followed =
            || async { agent.api.metrics().await?.value("picket_logs_files", &[("plugin", "logs")]) };
        eventually("one file is left", || async {
            let files = followed().await?;
            ensure!(files == 1.0, "{files}");
            Ok(())
        })
        .await
    });
}
