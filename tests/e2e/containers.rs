//! Servers of models, found in a real Docker Engine and in a real Podman: containers whose process serves pages that a
//! real vLLM gave, and servers that do what none should.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::exposition::Exposition;
use e2e::{
    AgentBuilder, Api, BadServer, Behaviour, Docker, Engine, Podman, Test, eventually, eventually_within,
    free_port, quoted, run,
};
use serde_json::{Value, json};

const BUSY: &str = include_str!("../../plugins/vllm/tests/fixtures/metrics_busy.txt");
const IDLE: &str = include_str!("../../plugins/vllm/tests/fixtures/metrics_idle.txt");
const MODELS: &str = include_str!("../../plugins/vllm/tests/fixtures/v1_models.json");
const INTERVAL: Duration = Duration::from_secs(1);
pub const IMAGE: &str = "vllm/vllm-openai";

/// The plugin's section; `sockets` are the engines'.
pub fn vllm(sockets: &[&std::path::Path], settings: &str) -> String {
    let sockets: Vec<String> = sockets.iter().map(quoted).collect();
    format!(
        "[plugins.vllm]\nfile = \"vllm.wasm\"\ninterval = \"1s\"\n[plugins.vllm.settings]\ntimeout_ms = 500\n{settings}\n\
         [[plugins.vllm.grants]]\ncapability = \"containers\"\nsockets = [{}]\nlabels = [\"vllm=true\"]\n\
         [[plugins.vllm.grants]]\ncapability = \"http\"\nurls = [{{ host = \"127.0.0.1\", ports = \"1024-65535\" }}]\n\
         [[plugins.vllm.grants]]\ncapability = \"store\"\nbytes = 65536\n",
        sockets.join(", ")
    )
}

/// A container that serves what a vLLM server did, on a port of the host's.
fn server(port: u16) -> Value {
    json!({
        "Image": format!("{IMAGE}:v0.12.0"),
        "Cmd": ["/bin/busybox", "httpd", "-f", "-p", format!("127.0.0.1:{port}"), "-h", "/www"],
        "Labels": { "vllm": "true", "picket.port": port.to_string() },
        "Env": ["HF_TOKEN=s3cret", "NVIDIA_VISIBLE_DEVICES=0,1"],
        // 128 MiB
        "HostConfig": { "NetworkMode": "host", "Memory": 134_217_728 },
    })
}

fn images(engine: &impl Engine) -> Result<()> {
    let files: &[(&str, &[u8])] = &[
        ("www/metrics", BUSY.as_bytes()),
        ("www/health", b""),
        ("www/version", b"{\"version\":\"0.12.0\"}"),
        ("www/v1/models", MODELS.as_bytes()),
    ];
    engine.image(IMAGE, "v0.12.0", files)
}

/// What is 1 of a state set.
pub fn state(page: &Exposition, family: &str, label: (&str, &str), of: &str) -> Option<String> {
    let on = page
        .series(family)
        .iter()
        .find(|(labels, value)| *value == 1.0 && labels.get(label.0).is_some_and(|v| v == label.1));
    on.and_then(|(labels, _)| labels.get(of).cloned())
}

pub async fn becomes(api: &Api, container: &str, wanted: &str) -> Result<()> {
    eventually(&format!("{container} is {wanted}"), || async {
        let page = api.metrics().await?;
        let now = state(&page, "picket_vllm_engine_state", ("container", container), "state");
        ensure!(now.as_deref() == Some(wanted), "it is {now:?}");
        Ok(())
    })
    .await
}

fn errors(page: &Exposition, reason: &str) -> f64 {
    page.sum("picket_source_errors_total", &[("plugin", "vllm"), ("reason", reason)])
}

#[test]
fn containers_of_a_real_docker_engine() {
    run(async |test: &Test| {
        let Some(docker) = Docker::start(test).await? else { return Ok(()) };
        // No GPU here, so it can't be started; the engine keeps what was asked for.
        let mut with_gpus = server(1);
        with_gpus["HostConfig"]["DeviceRequests"] = json!([{ "Driver": "", "Count": 2, "DeviceIDs": null, "Capabilities": [["gpu"]], "Options": {} }]);
        images(&docker)?;
        docker.create("with-gpus", &with_gpus)?;
        // What `--gpus 2` asks for.
        let asked = [("container", "with-gpus"), ("gpu_indices", "0,1")];
        seen_from_start_to_end(test, docker, &asked).await
    });
}

#[test]
fn containers_of_a_real_podman() {
    run(async |test: &Test| {
        let Some(podman) = Podman::start(test).await? else { return Ok(()) };
        images(&podman)?;
        seen_from_start_to_end(test, podman, &[]).await
    });
}

/// A container's life, and its engine's: found, read, stopped, started, the engine killed and back, removed. `also` are labels
/// of a container that was made before.
async fn seen_from_start_to_end(test: &Test, mut engine: impl Engine, also: &[(&str, &str)]) -> Result<()> {
    let port = free_port()?;
    let id = engine.run("llama", &server(port))?;
    engine.run(
        "other",
        &json!({ "Image": format!("{IMAGE}:v0.12.0"), "Cmd": ["/bin/busybox", "sleep", "600"],
        "Labels": { "vllm": "false" }, "HostConfig": { "NetworkMode": "none" } }),
    )?;
    let absent = test.folder().join("absent.sock");
    let aggregator = test.aggregator().await?;
    let agent = aggregator
        .agent(test, "gpu-1")?
        .section(vllm(&[&engine.socket(), &absent], ""))
        .enrol_and_start(&aggregator)
        .await?;

    // One page holds what the engine and what the server knows.
    becomes(&agent.api, "llama", "running").await?;
    let page = agent.api.metrics().await?;
    let of = [("container", "llama"), ("model", "tiny-llama"), ("gpu", "0,1"), ("engine", "0")];
    ensure!(page.value("vllm:num_requests_running", &of)? == 4.0);
    let given = BUSY.lines().filter(|l| l.starts_with("vllm:")).count();
    let passed: usize = page.names().filter(|n| n.starts_with("vllm:")).map(|n| page.series(n).len()).sum();
    ensure!(passed == given, "{passed} series of {given}");
    let info = [
        ("container", "llama"),
        ("container_id", id.as_str()),
        ("version", "v0.12.0"),
        ("engine_version", "0.12.0"),
        ("gpu_indices", "0,1"),
    ];
    let known = page.series("picket_vllm_container_info");
    ensure!(page.value("picket_vllm_container_info", &info).is_ok_and(|value| value == 1.0), "{known:?}");
    // Podman names the registry too.
    let image = |labels: &e2e::exposition::Labels| labels["image"].ends_with("vllm/vllm-openai:v0.12.0");
    ensure!(
        known.iter().filter(|(labels, _)| labels["container"] == "llama").all(|(l, _)| image(l)),
        "{known:?}"
    );
    ensure!(also.is_empty() || page.value("picket_vllm_container_info", also)? == 1.0, "{also:?}");
    let page = eventually("the engine's statistics", || async {
        let page = agent.api.metrics().await?;
        page.value("container_cpu_usage_seconds_total", &[("name", "llama"), ("cpu", "total")])?;
        Ok(page)
    })
    .await?;
    let cpu = page.value("container_cpu_usage_seconds_total", &[("name", "llama"), ("cpu", "total")])?;
    let memory = page.value("container_memory_usage_bytes", &[("name", "llama")])?;
    ensure!(cpu > 0.0 && memory > 0.0, "{cpu} s, {memory} bytes");
    ensure!(page.value("container_spec_memory_limit_bytes", &[("name", "llama")])? == 134_217_728.0);
    let text = agent.api.text("/metrics").await?;
    let other = text.lines().find(|l| l.contains("name=\"other\"") || l.contains("container=\"other\""));
    ensure!(other.is_none(), "a container that is not granted is seen: {other:?}");
    ensure!(!text.contains("s3cret"), "a secret is seen");
    let socket = |page: &Exposition, path: &std::path::Path| {
        state(page, "picket_container_engine_state", ("socket", &path.to_string_lossy()), "state")
    };
    ensure!(socket(&page, &engine.socket()).as_deref() == Some("ok"));
    ensure!(socket(&page, &absent).as_deref() == Some("absent"), "of one socket, not of the other");

    // The document, on both.
    for (api, node) in [(&agent.api, None), (&aggregator.api, Some("gpu-1"))] {
        let llama = eventually("the document has the container", || async {
            let all = api.json("/api/v1/containers").await?;
            let list = all["containers"].as_array().context("no list")?.clone();
            list.into_iter()
                .find(|c| c["container_name"] == "llama" && c["status"] == "running")
                .with_context(|| all.to_string())
        })
        .await?;
        ensure!(llama["node"].as_str() == node, "{llama}");
        ensure!(llama["container_id"] == id.as_str() && llama["model_name"] == "tiny-llama", "{llama}");
        ensure!(llama["gpu_indices"] == json!([0, 1]) && llama["version"] == "v0.12.0", "{llama}");
        let uptime = llama["uptime_seconds"].as_f64().context("no uptime")?;
        ensure!((0.0..300.0).contains(&uptime), "{llama}");
    }

    // It stops, starts and goes; each is seen within the interval.
    let seen_within = INTERVAL * 3;
    engine.post("/containers/llama/stop?t=0")?;
    let down = || async {
        let page = agent.api.metrics().await?;
        let now = state(&page, "picket_vllm_engine_state", ("container", "llama"), "state");
        ensure!(now.as_deref() == Some("down"), "it is {now:?}");
        ensure!(page.series("vllm:num_requests_running").is_empty(), "its last values stay");
        Ok(())
    };
    eventually_within(seen_within, "a stopped container is down", down).await?;
    engine.post("/containers/llama/start")?;
    becomes(&agent.api, "llama", "running").await?;
    let events = eventually("the end of it is told", || async {
        let events = aggregator.api.json("/api/v1/events?kind=vllm.down&subject=llama").await?;
        let list = events["events"].as_array().cloned().unwrap_or_default();
        ensure!(list.len() == 2, "{list:?}");
        Ok(list)
    })
    .await?;
    let cleared: Vec<bool> = events.iter().filter_map(|e| e["clear"].as_bool()).collect();
    ensure!(cleared == [true, false], "newest first: {events:?}");

    // The engine is killed in the middle; the servers go on.
    engine.kill_daemon()?;
    let unreachable = || async {
        let page = agent.api.metrics().await?;
        ensure!(socket(&page, &engine.socket()).as_deref() == Some("unreachable"), "not yet");
        Ok(page)
    };
    let page = eventually("the engine is gone", unreachable).await?;
    ensure!(page.value("vllm:num_requests_running", &of)? == 4.0, "its page is read on");
    eventually("it is counted", || async {
        let counted = errors(&agent.api.metrics().await?, "unreachable");
        ensure!(counted > 0.0, "{counted}");
        Ok(())
    })
    .await?;
    engine.start_daemon(test).await?;
    eventually("the engine is back", || async {
        let page = agent.api.metrics().await?;
        ensure!(socket(&page, &engine.socket()).as_deref() == Some("ok"), "not yet");
        page.value("container_memory_usage_bytes", &[("name", "llama")]).map(drop)
    })
    .await?;
    becomes(&agent.api, "llama", "running").await?;
    engine.remove("llama")?;
    eventually_within(seen_within, "a removed container is gone", || async {
        let text = agent.api.text("/metrics").await?;
        ensure!(!text.contains("container=\"llama\"") && !text.contains("name=\"llama\""), "it stays");
        Ok(())
    })
    .await?;
    Ok(())
}

#[test]
fn loading_is_read_from_the_log_of_a_real_docker_container() {
    run(async |test: &Test| {
        let Some(docker) = Docker::start(test).await? else { return Ok(()) };
        loading_is_read(test, docker).await
    });
}

#[test]
fn loading_is_read_from_the_log_of_a_real_podman_container() {
    run(async |test: &Test| {
        let Some(podman) = Podman::start(test).await? else { return Ok(()) };
        loading_is_read(test, podman).await
    });
}

async fn loading_is_read(test: &Test, engine: impl Engine) -> Result<()> {
    images(&engine)?;
    let port = free_port()?;
    let say = "echo 'INFO [gpu_model_runner.py:2602] Starting to load model m...'; \
               echo 'Loading safetensors checkpoint shards:  25% Completed | 1/4 [00:01<00:03]' >&2; sleep 600";
    for (name, tty) in [("frames", false), ("terminal", true)] {
        let config = json!({ "Image": format!("{IMAGE}:v0.12.0"), "Cmd": ["/bin/busybox", "sh", "-c", say],
            "Tty": tty, "Labels": { "vllm": "true", "picket.port": port.to_string() },
            "HostConfig": { "NetworkMode": "host" } });
        engine.run(name, &config)?;
    }
    let agent = AgentBuilder::new(test, "gpu-1")?.section(vllm(&[&engine.socket()], "")).start().await?;
    for name in ["frames", "terminal"] {
        becomes(&agent.api, name, "loading").await?;
        let of = [("container", name)];
        let page = eventually("its phase is known", || async {
            let page = agent.api.metrics().await?;
            let phase = state(&page, "picket_vllm_loading_phase", ("container", name), "phase");
            ensure!(phase.as_deref() == Some("weights"), "{name} is at {phase:?}");
            Ok(page)
        })
        .await?;
        ensure!(page.value("picket_vllm_loading_progress_ratio", &of)? == 0.25, "{name}");
        ensure!(page.value("picket_vllm_loading_seconds", &of)? >= 0.0);
    }
    ensure!(errors(&agent.api.metrics().await?, "unreachable") == 0.0, "that it loads is no error");
    Ok(())
}

#[test]
fn bad_servers_are_their_own_trouble() {
    run(async |test: &Test| {
        let good = BadServer::start("/metrics", Behaviour::Page(IDLE.to_owned())).await?;
        let bad = BadServer::start("/metrics", Behaviour::Page(IDLE.to_owned())).await?;
        let settings = format!(
            "endpoints = [{{ url = \"{}\", name = \"good\" }}, {{ url = \"{}\", name = \"bad\" }}]",
            good.url(),
            bad.url()
        );
        let absent = test.folder().join("docker.sock");
        let agent = AgentBuilder::new(test, "gpu-1")?.section(vllm(&[&absent], &settings)).start().await?;
        becomes(&agent.api, "good", "running").await?;
        becomes(&agent.api, "bad", "running").await?;
        let http = |status: &str, headers: &str, body: &[u8]| {
            let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
            Behaviour::Raw([head.as_bytes(), body].concat())
        };
        let page = |text: &str| Behaviour::Page(text.to_owned());
        let metadata = "Location: http://169.254.169.254/latest/meta-data/\r\n";
        let tokens = |value: u32| {
            format!(
                "# TYPE vllm:prompt_tokens_total counter\nvllm:prompt_tokens_total{{engine=\"0\"}} {value}\n"
            )
        };
        let mut reasons = std::collections::BTreeSet::from(["unreachable"]);
        for (behaviour, state_of_it, reason) in [
            (Behaviour::Hang, "slow", "timed-out"),
            (Behaviour::Drip, "slow", "timed-out"),
            (http("500 Internal Server Error", "", b"boom"), "refusing", "status"),
            (http("200 OK", "Content-Type: text/html\r\n", b"<html></html>"), "malformed", "malformed"),
            (page("<!doctype html>\n<p>hello</p>\n"), "malformed", "malformed"),
            (Behaviour::Flood(1 << 30), "malformed", "too-large"),
            (http("200 OK", "", b"vllm:a 1\nvllm:b{c=\"\xff\xfe\"} 1\n"), "ok", "utf8"),
            (page("vllm:a 1\nvllm:a 2\n"), "ok", "duplicate"),
            (page(&tokens(100)), "ok", ""),
            (page(&tokens(1)), "ok", "reset"),
            (
                page("# TYPE vllm:prompt_tokens_total gauge\nvllm:prompt_tokens_total{engine=\"0\"} 1\n"),
                "ok",
                "type-changed",
            ),
            (http("302 Found", metadata, b""), "refusing", "redirect"),
            (Behaviour::Raw(b"\x16\x03\x01 this is no HTTP\r\n\r\n".to_vec()), "malformed", "malformed"),
            (Behaviour::Close, "malformed", "malformed"),
        ] {
            let shown: String = format!("{behaviour:?}").chars().take(100).collect();
            bad.behave(behaviour);
            // The third question comes after the second was answered, judged and shown.
            let third = bad.served() + 3;
            eventually(&format!("{shown} is {state_of_it}"), || async {
                ensure!(bad.served() >= third, "asked {} times", bad.served());
                let page = agent.api.metrics().await?;
                let now = state(&page, "picket_vllm_endpoint_state", ("container", "bad"), "state");
                ensure!(now.as_deref() == Some(state_of_it), "it is {now:?}");
                ensure!(page.value("vllm:num_requests_running", &[("container", "good")])? == 0.0);
                Ok(())
            })
            .await?;
            if !reason.is_empty() {
                reasons.insert(reason);
            }
        }
        bad.kill();
        becomes(&agent.api, "bad", "down").await?;
        let page = agent.api.metrics().await?;
        let now = state(&page, "picket_vllm_endpoint_state", ("container", "bad"), "state");
        ensure!(now.as_deref() == Some("unreachable"), "it is {now:?}");
        // The agent's own page is made anew a few times a minute.
        eventually("each is counted by its reason", || async {
            let page = agent.api.metrics().await?;
            let missing: Vec<_> = reasons.iter().filter(|r| errors(&page, r) == 0.0).collect();
            ensure!(missing.is_empty(), "not counted: {missing:?}");
            Ok(())
        })
        .await?;
        // Nothing of it made the plugin fail, or be late.
        let plugin = agent.plugin_state("vllm", "running").await?;
        ensure!(plugin["restarts"].as_u64().unwrap_or(0) == 0, "{plugin}");
        Ok(())
    });
}
