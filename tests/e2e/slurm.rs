//! A real Slurm cluster, read by the real plugin in a real agent.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::exposition::Exposition;
use e2e::{
    Agent, AgentBuilder, Aggregator, Slurm, Test, eventually, eventually_within, large_slurm_dump, quoted,
    run, run_within, slurm_reading_a_file,
};
use serde_json::Value;

/// The plugin, polling, with a dump a second; `grants` are those beside the commands'.
fn section(slurm: &Slurm, settings: &str, grants: &str) -> Result<String> {
    Ok(format!(
        "[plugins.slurm]\nfile = \"slurm.wasm\"\ninterval = \"500ms\"\n[plugins.slurm.settings]\npoller = true\n\
         interval_seconds = 1\n{settings}\n[[plugins.slurm.grants]]\ncapability = \"system\"\n\
         [[plugins.slurm.grants]]\ncapability = \"store\"\nbytes = 262144\n{}{grants}",
        slurm.commands_grant()?
    ))
}

const NO_HTTP: &str = "[[plugins.slurm.grants]]\ncapability = \"http\"\nurls = []\n";
const NO_SOCKET: &str = "[[plugins.slurm.grants]]\ncapability = \"unix-http\"\nsockets = []\n";

fn nothing_else() -> String {
    format!("{NO_HTTP}{NO_SOCKET}")
}

/// What Slurm's own commands say at one moment, by the names of the series.
fn by_commands(slurm: &Slurm) -> Result<BTreeMap<String, f64>> {
    let mut all = BTreeMap::new();
    let cpus = slurm.run("sinfo", &["-h", "-o", "%C"])?;
    for (name, part) in ["alloc", "idle", "other", "total"].iter().zip(cpus.trim().split('/')) {
        all.insert(format!("slurm_cpus_{name}"), part.parse()?);
    }
    let states = slurm.run("sinfo", &["-h", "-N", "-o", "%T"])?;
    let count = |word: &str| states.lines().filter(|l| l.starts_with(word)).count() as f64;
    for (name, word) in
        [("idle", "idle"), ("mix", "mix"), ("alloc", "alloc"), ("drain", "drain"), ("down", "down")]
    {
        all.insert(format!("slurm_nodes_{name}"), count(word));
    }
    all.insert("slurm_nodes_total".to_owned(), states.lines().count() as f64);
    for (name, state) in [("pending", "PENDING"), ("running", "RUNNING")] {
        let jobs = slurm.run("squeue", &["-h", "-r", "-t", state, "-o", "%i"])?;
        all.insert(format!("slurm_queue_{name}"), jobs.lines().count() as f64);
        all.insert(format!("slurm_jobs_{name}"), jobs.lines().count() as f64);
    }
    let nodes =
        slurm.run("sinfo", &["-h", "-N", "-O", "NodeList:|,CPUsState:|,StateLong:|,Memory:|,AllocMem:|"])?;
    for line in nodes.lines() {
        let parts: Vec<&str> = line.split('|').map(str::trim).collect();
        let [node, cpus, status, memory, alloc, ..] = parts.as_slice() else { anyhow::bail!("{line}") };
        let labels = format!("{{{node},{}}}", status.trim_end_matches('*'));
        for (name, part) in ["alloc", "idle", "other", "total"].iter().zip(cpus.split('/')) {
            all.insert(format!("slurm_node_cpu_{name}{labels}"), part.parse()?);
        }
        all.insert(format!("slurm_node_mem_total{labels}"), memory.parse()?);
        all.insert(format!("slurm_node_mem_alloc{labels}"), alloc.parse()?);
    }
    let gpus = slurm.run("sinfo", &["-h", "-N", "-O", "GresUsed:|"])?;
    let used: f64 = gpus
        .lines()
        .filter_map(|l| l.trim_end_matches('|').split('(').next()?.rsplit(':').next()?.parse::<f64>().ok())
        .sum();
    all.insert("slurm_gpus_alloc".to_owned(), used);
    Ok(all)
}

/// What the agent exports under the same names.
fn by_agent(page: &Exposition, names: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    for key in names.keys() {
        let (name, labels) = key.split_once('{').unwrap_or((key, ""));
        let wanted: Vec<&str> = labels.trim_end_matches('}').split(',').filter(|l| !l.is_empty()).collect();
        let found = page.series(name).iter().find(|(have, _)| match wanted.as_slice() {
            [node, status] => {
                have.get("node").is_some_and(|n| n == node) && have.get("status").is_some_and(|s| s == status)
            }
            _ => !have.contains_key("job"),
        });
        if let Some((_, value)) = found {
            all.insert(key.clone(), *value);
        }
    }
    all
}

/// Waits until both say the same; Slurm is asked before and after, so that it said it at the moment of the page.
async fn agrees(slurm: &Slurm, agent: &Agent) -> Result<BTreeMap<String, f64>> {
    eventually("the agent says what sinfo and squeue say", || async {
        let before = by_commands(slurm)?;
        let page = agent.api.metrics().await?;
        let after = by_commands(slurm)?;
        ensure!(before == after, "the cluster moves");
        let told = by_agent(&page, &before);
        ensure!(told == before, "Slurm: {before:?}\nagent: {told:?}");
        Ok(before)
    })
    .await
}

async fn value(agent: &Agent, name: &str, labels: &[(&str, &str)], wanted: f64) -> Result<()> {
    eventually(&format!("{name}{labels:?} is {wanted}"), || async {
        let page = agent.api.metrics().await?;
        let have = page.value(name, labels)?;
        ensure!(have == wanted, "it is {have}");
        Ok(())
    })
    .await
}

async fn events(aggregator: &Aggregator, kind: &str, wanted: usize) -> Result<Vec<Value>> {
    eventually(&format!("{wanted} events {kind}"), || async {
        let all = aggregator.api.json(&format!("/api/v1/events?kind={kind}&limit=100")).await?;
        let list = all["events"].as_array().context("no list of events")?.clone();
        ensure!(list.len() >= wanted, "{list:?}");
        Ok(list)
    })
    .await
}

fn submit(slurm: &Slurm, args: &[&str]) -> Result<()> {
    let mut all = vec!["-o", "/dev/null", "-D", "/"];
    all.extend_from_slice(args);
    slurm.run("sbatch", &all).map(drop)
}

#[test]
fn by_commands_as_sinfo_and_squeue_and_scontrol_say() {
    run(async |test: &Test| {
        let Some(mut slurm) = Slurm::start(test).await? else { return Ok(()) };
        let aggregator = test.aggregator().await?;
        let agent = aggregator
            .agent(test, "vm-1")?
            .node("500ms")?
            .section(section(&slurm, "", &nothing_else())?)
            .enrol_and_start(&aggregator)
            .await?;
        agent.plugin_state("slurm", "running").await?;
        let idle = agrees(&slurm, &agent).await?;
        ensure!(idle.get("slurm_cpus_total") == Some(&8.0), "{idle:?}");
        // 22.05 has no `scontrol --json`, and its sinfo's is read.
        let page = agent.api.metrics().await?;
        ensure!(page.series("picket_slurm_reader_info").len() == 1, "one reader");

        submit(&slurm, &["--gres=gpu:3", "--wrap", "sleep 60"])?;
        submit(&slurm, &["-N", "4", "--gres=gpu:8", "--wrap", "sleep 1"])?;
        submit(&slurm, &["-N", "9", "--wrap", "sleep 1"])?;
        submit(&slurm, &["--array=1-5%1", "--gres=gpu:8", "--begin=now+3600", "--wrap", "sleep 1"])?;
        value(&agent, "slurm_gpus_alloc", &[], 3.0).await?;
        let busy = agrees(&slurm, &agent).await?;
        ensure!(busy.get("slurm_queue_running") == Some(&1.0), "{busy:?}");
        value(&agent, "picket_slurm_jobs_pending", &[("reason", "BeginTime")], 5.0).await?;
        value(&agent, "picket_slurm_jobs_pending", &[("reason", "PartitionConfig")], 1.0).await?;
        value(&agent, "picket_slurm_jobs_pending", &[("reason", "Resources")], 1.0).await?;
        value(&agent, "slurm_user_gpus_running", &[("user", "root")], 3.0).await?;

        slurm.run("scontrol", &["update", "nodename=gpu4", "state=drain", "reason=bad [cable] | x"])?;
        let reason = [("node", "gpu4"), ("reason", "bad [cable] | x")];
        value(&agent, "slurm_node_drain_reason_info", &reason, 1.0).await?;
        agrees(&slurm, &agent).await?;
        let told = events(&aggregator, "slurm.node-drained", 1).await?;
        ensure!(told.first().is_some_and(|e| e.to_string().contains("bad [cable]")), "{told:?}");
        slurm.run("scontrol", &["update", "nodename=gpu4", "state=resume"])?;
        value(&agent, "slurm_nodes_drain", &[], 0.0).await?;
        let told = events(&aggregator, "slurm.node-drained", 2).await?;
        ensure!(told.first().is_some_and(|e| e["clear"] == true), "the newest ends it: {told:?}");

        slurm.run(
            "scontrol",
            &["create", "reservation", "starttime=now", "duration=60", "users=root", "nodes=gpu3"],
        )?;
        value(&agent, "slurm_reservation_node_count", &[("reservation_name", "root_1")], 1.0).await?;

        slurm.kill_controller()?;
        value(&agent, "picket_component_health", &[("component", "slurm"), ("state", "unhealthy")], 1.0)
            .await?;
        events(&aggregator, "slurm.controller-down", 1).await?;
        eventually("what is old is gone, and the node's own values are there", || async {
            let page = agent.api.metrics().await?;
            ensure!(page.series("slurm_nodes_total").is_empty(), "still told");
            ensure!(!page.series("node_load1").is_empty(), "the other plugin is gone");
            Ok(())
        })
        .await?;
        agent.plugin_state("slurm", "running").await?;
        slurm.start_controller(test)?;
        value(&agent, "slurm_nodes_total", &[], 4.0).await?;
        let told = events(&aggregator, "slurm.controller-down", 2).await?;
        ensure!(told.first().is_some_and(|e| e["clear"] == true), "{told:?}");
        Ok(())
    });
}

#[test]
fn by_slurmrestd_over_a_socket_with_a_token() {
    run(async |test: &Test| {
        let Some(mut slurm) = Slurm::start(test).await? else { return Ok(()) };
        let Some((socket, token)) = slurm.start_restd(test).await? else { return Ok(()) };
        submit(&slurm, &["--gres=gpu:3", "--wrap", "sleep 60"])?;
        let settings = format!(
            "reader = \"restd\"\nrestd_socket = {}\nrestd_secret = \"slurm\"\nrestd_user = \"root\"",
            quoted(&socket)
        );
        let grant = |file: &Path| {
            format!(
                "{NO_HTTP}[[plugins.slurm.grants]]\ncapability = \"unix-http\"\nsockets = [{{ path = {}, path_prefix = \
                 \"/slurm\", secret = {{ name = \"slurm\", file = {}, header = \"X-SLURM-USER-TOKEN\" }} }}]\n",
                quoted(&socket),
                quoted(file)
            )
        };
        let agent = AgentBuilder::new(test, "vm-1")?
            .section(section(&slurm, &settings, &grant(&token))?)
            .start()
            .await?;
        value(&agent, "slurm_gpus_alloc", &[], 3.0).await?;
        agrees(&slurm, &agent).await?;
        let page = agent.api.metrics().await?;
        let readers = page.series("picket_slurm_reader_info");
        ensure!(readers.iter().any(|(l, _)| l.get("reader").is_some_and(|r| r == "restd")), "{readers:?}");

        let wrong = slurm_token(test, "not.a.token")?;
        let refused = AgentBuilder::new(test, "vm-2")?
            .section(section(&slurm, &settings, &grant(&wrong))?)
            .start()
            .await?;
        eventually("a wrong token is counted", || async {
            let page = refused.api.metrics().await?;
            let errors = page.sum("picket_source_errors_total", &[("plugin", "slurm")]);
            ensure!(errors > 0.0 && page.series("slurm_nodes_total").is_empty(), "{errors}");
            Ok(())
        })
        .await
    });
}

/// Many times what an answer over HTTP may bring at once: it is read in parts, in the plugin's usual memory and the agent's.
#[test]
fn slurmrestd_gives_a_dump_of_20000_nodes_in_the_memory_of_a_small_one() {
    run_within(Duration::from_secs(240), async |test: &Test| {
        let Some(mut slurm) = Slurm::start_with(test, 20_000).await? else { return Ok(()) };
        let Some((socket, token)) = slurm.start_restd(test).await? else { return Ok(()) };
        let settings = format!(
            "reader = \"restd\"\nrestd_socket = {}\nrestd_secret = \"slurm\"\nrestd_user = \"root\"\nrestd_timeout_seconds = 60\n\
             [plugins.slurm.limits]\nguest_time = \"30s\"\ncall_time = \"90s\"\nmemory = \"32MiB\"",
            quoted(&socket)
        );
        let grants = format!(
            "{NO_HTTP}[[plugins.slurm.grants]]\ncapability = \"unix-http\"\nsockets = [{{ path = {}, path_prefix = \
             \"/slurm\", secret = {{ name = \"slurm\", file = {}, header = \"X-SLURM-USER-TOKEN\" }} }}]\n",
            quoted(&socket),
            quoted(&token)
        );
        let agent =
            AgentBuilder::new(test, "vm-1")?.section(section(&slurm, &settings, &grants)?).start().await?;
        let rested = agent.daemon.memory("VmRSS")?;
        eventually_within(Duration::from_secs(120), "all nodes are counted", || async {
            let page = agent.api.metrics().await?;
            let have = page.value("slurm_nodes_total", &[])?;
            ensure!(have == 20_004.0, "it is {have}");
            Ok(())
        })
        .await?;
        let page = agent.api.metrics().await?;
        ensure!(page.value("slurm_nodes_down", &[])? == 20_000.0, "20,000 are down");
        ensure!(page.value("slurm_gpus_total", &[])? == 160_032.0, "eight GPUs each");
        let readers = page.series("picket_slurm_reader_info");
        ensure!(readers.iter().any(|(l, _)| l.get("reader").is_some_and(|r| r == "restd")), "{readers:?}");
        let errors = page.sum("picket_source_errors_total", &[("plugin", "slurm")]);
        ensure!(errors == 0.0, "{errors} failures");
        let took = page.value("picket_slurm_dump_duration_seconds", &[("kind", "nodes")])?;
        let memory = eventually("the plugin's memory is told", || async {
            let page = agent.api.metrics().await?;
            page.value("picket_plugin_memory_bytes", &[("plugin", "slurm")])
        })
        .await?;
        let peak = agent.daemon.memory("VmHWM")?;
        // What it is that was read, as another client of the same socket sees it.
        let bytes = slurm.restd_bytes(&socket, &token, "/slurm/v0.0.38/nodes")?;
        eprintln!(
            "MEASURED nodes=20004 bytes={bytes} seconds={took} guest_memory_bytes={memory} agent_rss_before={rested} agent_peak={peak}"
        );
        ensure!(bytes > 16 << 20, "{bytes} bytes would have come at once");
        ensure!(memory > 0.0 && memory < 32.0 * 1024.0 * 1024.0, "{memory}");
        Ok(())
    });
}

fn slurm_token(test: &Test, text: &str) -> Result<std::path::PathBuf> {
    let file = test.folder().join("wrong-token");
    std::fs::write(&file, text)?;
    Ok(file)
}

#[test]
fn the_controllers_own_metrics_beside_ours() {
    run(async |test: &Test| {
        let Some(slurm) = Slurm::start_new_controller(test).await? else { return Ok(()) };
        slurm.run("sbatch", &["-o", "/dev/null", "-N", "9", "--wrap", "true"])?;
        let settings = format!("openmetrics_url = \"http://127.0.0.1:{}\"", slurm.port());
        let grants = format!(
            "[[plugins.slurm.grants]]\ncapability = \"http\"\nurls = [{{ scheme = \"http\", host = \"127.0.0.1\", port = {}, \
             path_prefix = \"/metrics\" }}]\n{NO_SOCKET}",
            slurm.port()
        );
        let agent =
            AgentBuilder::new(test, "vm-1")?.section(section(&slurm, &settings, &grants)?).start().await?;
        value(&agent, "slurm_jobs_pending", &[("job", "slurmctld")], 1.0).await?;
        eventually("both count the same pending job, under one name", || async {
            let page = agent.api.metrics().await?;
            let pending: Vec<f64> =
                page.series("slurm_jobs_pending").iter().map(|(_, value)| *value).collect();
            ensure!(pending == [1.0, 1.0], "{pending:?}");
            let readers = page.series("picket_slurm_reader_info");
            ensure!(readers.iter().any(|(l, _)| l.get("reader").is_some_and(|r| r == "json")), "{readers:?}");
            let own = [("partition", "gpu"), ("job", "slurmctld")];
            ensure!(page.value("slurm_partition_jobs_pending", &own)? == 1.0, "one in the partition");
            let user = [("username", "root"), ("job", "slurmctld")];
            ensure!(page.value("slurm_user_jobs_pending", &user)? == 1.0, "one of the user's");
            ensure!(page.value("slurm_nodes_idle", &[("job", "slurmctld")]).is_ok(), "no nodes");
            ensure!(
                page.sum("picket_source_errors_total", &[("plugin", "slurm")]) <= 0.0,
                "something failed"
            );
            ensure!(!page.series("slurm_bf_active").is_empty(), "nothing that only the controller has");
            Ok(())
        })
        .await
    });
}

#[test]
fn a_dump_of_20000_nodes_in_the_memory_of_a_small_one() {
    run(async |test: &Test| {
        let file = test.folder().join("nodes.json");
        large_slurm_dump(&file, 20_000)?;
        let bytes = std::fs::metadata(&file)?.len();
        let section = slurm_reading_a_file(&file, "32MiB");
        let agent = AgentBuilder::new(test, "vm-1")?.section(section).start().await?;
        value(&agent, "slurm_nodes_total", &[], 20_000.0).await?;
        let page = agent.api.metrics().await?;
        ensure!(page.value("slurm_nodes_drain", &[])? == 200.0, "200 are drained");
        ensure!(page.value("slurm_gpus_total", &[])? == 160_000.0, "eight GPUs each");
        ensure!(page.value("picket_slurm_nodes_without_series", &[])? == 19_000.0, "1,000 have series");
        let took = page.value("picket_slurm_dump_duration_seconds", &[("kind", "nodes")])?;
        let memory = eventually("the agent tells the plugin's memory", || async {
            let memory = agent.api.metrics().await?.sum("picket_plugin_memory_bytes", &[("plugin", "slurm")]);
            ensure!(memory > 0.0, "{memory}");
            Ok(memory)
        })
        .await?;
        eprintln!("MEASURED nodes=20000 bytes={bytes} seconds={took} guest_memory_bytes={memory}");
        ensure!(memory > 0.0 && memory < 32.0 * 1024.0 * 1024.0, "{memory}");
        Ok(())
    });
}
