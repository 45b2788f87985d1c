//! The second wall as an operator sees it: what of it stands, and what a killed worker costs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Agent, AgentBuilder, Test, eventually, run};
use rustix::process::{Pid, Signal, kill_process};

const PARTS: [&str; 7] = ["landlock", "seccomp", "user", "capabilities", "network", "mounts", "cgroup"];

#[test]
fn what_stands_is_told() {
    run(async |test: &Test| {
        let agent =
            AgentBuilder::new(test, "alone")?.mock("300ms", "seed = 1\nhost = false")?.start().await?;
        agent.plugin_state("mock", "running").await?;
        let ready: serde_json::Value = serde_json::from_str(&agent.api.text("/readyz").await?)?;
        let wall = ready["wall"].as_object().context("/readyz has no wall")?;
        ensure!(PARTS.iter().all(|part| wall.contains_key(*part)) && wall.len() == PARTS.len(), "{wall:?}");
        for (part, standing) in wall {
            ensure!(standing["detail"].as_str().is_some_and(|d| !d.is_empty()), "{part}: {standing}");
        }
        eventually("the wall in metrics", || async {
            let metrics = agent.api.metrics().await?;
            for (part, standing) in wall {
                let shown = metrics.value("picket_agent_wall", &[("part", part)])?;
                ensure!((shown == 1.0) == (standing["up"] == true), "{part}: {shown}");
            }
            Ok(())
        })
        .await?;
        for part in PARTS {
            let required =
                AgentBuilder::new(test, part)?.section(format!("[worker]\nrequire = [\"{part}\"]"));
            let mut agent = required.start_unready()?;
            if wall[part]["up"] != true {
                let ended = agent.daemon.wait(Duration::from_secs(20)).await?;
                ensure!(!ended.success(), "{part} is missing, and it started");
                let log = agent.daemon.log();
                ensure!(log.contains("worker.require") && log.contains(part), "{log}");
            } else {
                agent.wait_until_up().await?;
            }
        }
        Ok(())
    });
}

/// The processes that have the agent for their parent.
fn workers(agent: &Agent) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((name, rest)) = stat.rsplit_once(')') else { continue };
        let parent = rest.split_whitespace().nth(1).and_then(|p| p.parse::<u32>().ok());
        if parent == Some(agent.daemon.pid()) && name.ends_with("(picket-worker") {
            found.push(pid);
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[test]
fn a_killed_worker_costs_a_restart_and_stops_nobody_else() {
    run(async |test: &Test| {
        let own = format!(
            "[plugins.mock]\nfile = \"mock.wasm\"\ninterval = \"200ms\"\nisolation = \"own\"\n\
             [plugins.mock.settings]\nseed = 1\nhost = false\n{}",
            e2e::grants_of("mock")?
        );
        let agent = AgentBuilder::new(test, "alone")?.node("200ms")?.section(own).start().await?;
        for plugin in ["node", "mock"] {
            agent.plugin_state(plugin, "running").await?;
        }
        let running = workers(&agent)?;
        ensure!(running.len() == 2, "one for all and one for mock: {running:?}");
        for process in &running {
            let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
            ensure!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
            ensure!(status.contains("CapBnd:\t0000000000000000"), "{status}");
        }
        // The shared one began before any plugin was loaded.
        let shared = *running.iter().min().context("none")?;
        let skipped = agent.plugin_state("mock", "running").await?["collects"]["skipped"].clone();
        kill_process(Pid::from_raw(shared).context("0")?, Signal::KILL)?;
        eventually("it is counted, and another runs", || async {
            let metrics = agent.api.metrics().await?;
            let killed = metrics.value("picket_agent_worker_failures_total", &[("reason", "killed")])?;
            ensure!(killed == 1.0, "{killed}");
            let now = workers(&agent)?;
            ensure!(now.len() == 2 && !now.contains(&shared), "{now:?}");
            Ok(())
        })
        .await?;
        let node = agent.plugin_state("node", "running").await?;
        let ok = node["collects"]["ok"].as_u64().context("no count")?;
        eventually("it goes on", || async {
            let node = agent.plugin_state("node", "running").await?;
            ensure!(node["collects"]["ok"].as_u64() > Some(ok + 1), "{node}");
            // At most the one that was under way.
            ensure!(node["collects"]["failed"].as_u64() <= Some(1), "{node}");
            Ok(())
        })
        .await?;
        let mock = agent.plugin_state("mock", "running").await?;
        ensure!(mock["collects"]["failed"] == 0 && mock["collects"]["skipped"] == skipped, "{mock}");
        Ok(())
    });
}
