//! A real vLLM in a real container: it loads, works, hangs with a request in hand, goes on and is stopped, and the plugin says
//! so from its log, its page and its engine.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::exposition::{Exposition, Labels};
use e2e::{Api, Docker, Engine, Test, Vllm, eventually, eventually_within, free_port, run_within};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::containers::{IMAGE, becomes, state, vllm};

/// From its start until it answers, on a machine with little to spare.
const LOADS: Duration = Duration::from_secs(400);

/// The container: busybox's root, and in it the host's, in which vLLM is installed.
fn container(test: &Test, vllm: &Vllm, port: u16) -> Result<Value> {
    let mut command = ["/bin/busybox", "chroot", "/host", "/usr/bin/env"].map(str::to_owned).to_vec();
    command.push(format!("HOME={}", test.folder().display()));
    command.push("PATH=/usr/local/bin:/usr/bin:/bin".to_owned());
    command.extend(Vllm::environment().map(|(name, value)| format!("{name}={value}")));
    command.extend(vllm.arguments(port)?);
    Ok(json!({
        "Image": format!("{IMAGE}:v0.32.0"),
        "Cmd": command,
        "Labels": { "vllm": "true", "picket.port": port.to_string() },
        "Env": ["NVIDIA_VISIBLE_DEVICES=0"],
        // Its workers bind their memory to a node.
        "HostConfig": { "NetworkMode": "host", "PidMode": "host", "SecurityOpt": ["seccomp=unconfined"], "Binds": ["/:/host"] },
    }))
}

/// The processes that compute, which are not those that answer.
fn workers(docker: &Docker) -> Result<Vec<Pid>> {
    let top = docker.json("/containers/real/top")?;
    let titles = top["Titles"].as_array().context("no titles")?;
    let column = titles.iter().position(|t| t == "PID").context("no column PID")?;
    let mut found = Vec::new();
    for line in top["Processes"].as_array().into_iter().flatten() {
        let words: Vec<&str> = line.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if words.iter().any(|w| w.contains("VLLM::EngineCore") || w.contains("VLLM::Worker")) {
            let pid = words.get(column).and_then(|w| w.parse().ok()).and_then(Pid::from_raw);
            found.push(pid.context("no process id")?);
        }
    }
    ensure!(!found.is_empty(), "no engine among {top}");
    Ok(found)
}

/// The families that a quiet server does not change.
fn pages_agree(theirs: &Exposition, ours: &Exposition) -> Result<()> {
    let mut series = 0;
    for name in theirs.names().filter(|name| name.starts_with("vllm:")) {
        for (labels, value) in theirs.series(name) {
            let is_it = |(have, _): &&(Labels, f64)| {
                have.get("container").is_some_and(|c| c == "real")
                    && labels.iter().all(|(n, v)| v.is_empty() || have.get(n).is_some_and(|h| h == v))
            };
            let found = ours.series(name).iter().find(is_it);
            let (_, have) = found.with_context(|| format!("{name}{labels:?} is missing"))?;
            ensure!(have == value || (have.is_nan() && value.is_nan()), "{name}{labels:?}: {value}, {have}");
            series += 1;
        }
    }
    ensure!(series > 200, "{series} series only");
    Ok(())
}

#[test]
fn a_real_vllm_server_loads_works_hangs_and_goes_on() {
    run_within(Duration::from_secs(900), async |test: &Test| {
        let Some(installed) = Vllm::find() else { return Ok(()) };
        let Some(docker) = Docker::start(test).await? else { return Ok(()) };
        docker.image(IMAGE, "v0.32.0", &[("host/.mount", b"")])?;
        let port = free_port()?;
        let aggregator = test.aggregator().await?;
        let settings = "stuck_after_seconds = 5\n";
        let agent = aggregator
            .agent(test, "gpu-1")?
            .section(vllm(&[&docker.socket()], settings))
            .enrol_and_start(&aggregator)
            .await?;
        agent.plugin_state("vllm", "running").await?;
        let started = std::time::Instant::now();
        let id = docker.run("real", &container(test, &installed, port)?)?;

        // It loads, and its log says at what it is.
        becomes(&agent.api, "real", "loading").await?;
        let of = [("container", "real")];
        let mut phases = BTreeSet::new();
        let mut longest = 0.0_f64;
        let direct = Api::new(&format!("http://127.0.0.1:{port}"), None, None)?;
        while started.elapsed() < LOADS {
            let page = agent.api.metrics().await?;
            if let Some(phase) = state(&page, "picket_vllm_loading_phase", ("container", "real"), "phase") {
                phases.insert(phase);
            }
            longest = longest.max(page.value("picket_vllm_loading_seconds", &of).unwrap_or(0.0));
            match state(&page, "picket_vllm_engine_state", ("container", "real"), "state").as_deref() {
                Some("running") => break,
                Some("loading") => {}
                other => {
                    let log = docker.json("/containers/real/logs?stdout=1&stderr=1&tail=40")?;
                    anyhow::bail!("it is {other:?} while it loads: {log}");
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        becomes(&agent.api, "real", "running").await?;
        eprintln!("MEASURED loaded in {:.0} s, phases {phases:?}", started.elapsed().as_secs_f64());
        ensure!(phases.len() >= 2, "its log told of {phases:?} alone");
        ensure!(longest > 1.0 && longest <= started.elapsed().as_secs_f64() + 1.0, "{longest} s of loading");
        eventually("that it is ready is told", || async {
            let told = aggregator.api.json("/api/v1/events?kind=vllm.ready&subject=real").await?;
            ensure!(told["events"].as_array().is_some_and(|e| e.len() == 1), "{told}");
            Ok(())
        })
        .await?;

        // What it is, as it says itself.
        let version = direct.json("/version").await?["version"].as_str().context("no version")?.to_owned();
        let tag = format!("{IMAGE}:v0.32.0");
        let page = agent.api.metrics().await?;
        let info = [
            ("container", "real"),
            ("container_id", id.as_str()),
            ("image", tag.as_str()),
            ("version", "v0.32.0"),
            ("engine_version", version.as_str()),
        ];
        ensure!(page.value("picket_vllm_container_info", &info)? == 1.0);
        let listed = agent.api.json("/api/v1/containers").await?;
        let real = listed["containers"].get(0).context("no container")?;
        ensure!(real["model_name"] == "tiny-llama" && real["status"] == "running", "{real}");

        // Its page, once all is quiet again.
        let body = json!({ "model": "tiny-llama", "prompt": "hello", "max_tokens": 20 });
        let (status, answer) = direct.request("POST", "/v1/completions", Some(&body)).await?;
        ensure!(status == 200, "{answer}");
        eventually("every series of its page is passed on", || async {
            let theirs = direct.metrics().await?;
            let ours = agent.api.metrics().await?;
            ensure!(theirs.sum("vllm:generation_tokens_total", &[]) > 0.0, "no tokens");
            pages_agree(&theirs, &ours)
        })
        .await?;

        // Its engine hangs with requests in hand; the server goes on answering.
        let body = json!({ "model": "tiny-llama", "prompt": "hello", "max_tokens": 500, "ignore_eos": true, "n": 4 });
        let asking: Vec<_> = (0..3)
            .map(|_| {
                let (direct, body) = (direct.clone(), body.clone());
                tokio::spawn(async move { direct.request("POST", "/v1/completions", Some(&body)).await })
            })
            .collect();
        eventually("it computes", || async {
            let running = direct.metrics().await?.sum("vllm:num_requests_running", &[]);
            ensure!(running > 0.0, "{running} requests");
            Ok(())
        })
        .await?;
        let engines = workers(&docker)?;
        for pid in &engines {
            kill_process(*pid, Signal::STOP)?;
        }
        let hung = std::time::Instant::now();
        becomes(&agent.api, "real", "stuck").await?;
        let after = hung.elapsed().as_secs_f64();
        eprintln!("MEASURED stuck is said after {after:.1} s");
        ensure!(after < 20.0, "only after {after} s");
        let (status, _) = direct.request("GET", "/health", None).await?;
        ensure!(status == 200, "its own word is {status}");
        let page = agent.api.metrics().await?;
        ensure!(
            state(&page, "picket_vllm_endpoint_state", ("container", "real"), "state").as_deref()
                == Some("ok")
        );
        for pid in &engines {
            kill_process(*pid, Signal::CONT)?;
        }
        becomes(&agent.api, "real", "running").await?;
        for one in asking {
            // A request may have been given up meanwhile; that it ends is what counts.
            let _ = one.await?;
        }
        let told = eventually("the end of it is told", || async {
            let told = aggregator.api.json("/api/v1/events?kind=vllm.stuck&subject=real").await?;
            let list = told["events"].as_array().cloned().unwrap_or_default();
            ensure!(list.len() == 2, "{list:?}");
            Ok(list)
        })
        .await?;
        ensure!(told.iter().filter_map(|e| e["clear"].as_bool()).collect::<Vec<_>>() == [true, false]);

        docker.post("/containers/real/stop?t=20")?;
        eventually_within(Duration::from_secs(20), "a stopped server is down", || async {
            let page = agent.api.metrics().await?;
            let now = state(&page, "picket_vllm_engine_state", ("container", "real"), "state");
            ensure!(now.as_deref() == Some("down"), "it is {now:?}");
            ensure!(page.series("vllm:num_requests_running").is_empty(), "its last values stay");
            Ok(())
        })
        .await
    });
}
