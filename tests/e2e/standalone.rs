//! An agent without an aggregator is an exporter; it reloads on SIGHUP and stops when told.

use std::time::Duration;

use anyhow::ensure;
use e2e::{AgentBuilder, Test, eventually, run};
use rustix::process::Signal;

#[test]
fn exports_by_itself() {
    run(async |test: &Test| {
        let mut agent = AgentBuilder::new(test, "alone")?
            .node("300ms")?
            .mock("300ms", "seed = 1\nhost = false")?
            .start()
            .await?;
        agent.plugin_state("node", "running").await?;
        agent.plugin_state("mock", "running").await?;
        eventually("metrics of both plugins", || async {
            let metrics = agent.api.metrics().await?;
            ensure!(!metrics.series("node_cpu_seconds_total").is_empty(), "no node metrics");
            ensure!(metrics.series("DCGM_FI_DEV_GPU_UTIL").len() == 8, "no eight GPUs");
            ensure!(metrics.names().any(|name| name.starts_with("picket_agent_")), "no metrics of its own");
            Ok(())
        })
        .await?;
        agent.api.text("/healthz").await?;
        agent.api.text("/readyz").await?;
        let (status, _) = agent.api.request("GET", "/nothing", None).await?;
        ensure!(status == 404, "{status}");
        let (status, _) = agent.api.request("POST", "/metrics", None).await?;
        ensure!(status == 405, "{status}");
        let ended = agent.daemon.stop(Duration::from_secs(10)).await?;
        ensure!(ended.success(), "ended with {ended}");
        Ok(())
    });
}

#[test]
fn sighup_reloads_and_a_bad_file_changes_nothing() {
    run(async |test: &Test| {
        let builder = AgentBuilder::new(test, "alone")?.mock("200ms", "seed = 1\nhost = false")?;
        let config = builder.write()?;
        let mut agent = builder.start().await?;
        agent.plugin_state("mock", "running").await?;
        let good = std::fs::read_to_string(&config)?;

        std::fs::write(&config, format!("{good}\nnonsense = \n"))?;
        agent.daemon.signal(Signal::HUP)?;
        eventually("the refusal is logged", || {
            let log = agent.daemon.log();
            async move {
                ensure!(log.contains("not valid TOML") || log.contains("reload"), "{log}");
                Ok(())
            }
        })
        .await?;
        agent.daemon.check_running()?;
        agent.plugin_state("mock", "running").await?;

        std::fs::write(
            &config,
            format!(
                "{good}\n[plugins.node]\nfile = \"node.wasm\"\ninterval = \"200ms\"\n{}",
                e2e::grants_of("node")?
            ),
        )?;
        agent.daemon.signal(Signal::HUP)?;
        agent.plugin_state("node", "running").await?;
        eventually("its metrics", || async {
            ensure!(!agent.api.metrics().await?.series("node_load1").is_empty(), "none");
            Ok(())
        })
        .await?;

        std::fs::write(&config, &good)?;
        agent.daemon.signal(Signal::HUP)?;
        eventually("the plugin that was taken out is gone", || async {
            ensure!(!agent.api.text("/api/v1/plugins").await?.contains("\"node\""), "still there");
            ensure!(agent.api.metrics().await?.series("node_load1").is_empty(), "still exported");
            Ok(())
        })
        .await
    });
}

/// Its own spool fills up and is bounded while the aggregator can't be reached.
#[test]
fn collects_without_its_aggregator() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let builder = aggregator.agent(test, "gpu-1")?.mock("100ms", "seed = 1")?;
        let token = aggregator.enrolment_token("gpu-1").await?;
        builder.enrol(&token).await?.ok()?;
        let mut aggregator = aggregator;
        aggregator.daemon.kill()?;
        let agent = builder.start().await?;
        agent.plugin_state("mock", "running").await?;
        eventually("samples pile up in the spool", || async {
            let metrics = agent.api.metrics().await?;
            let pending = metrics.value("picket_spool_records_pending", &[])?;
            ensure!(pending > 10.0, "{pending}");
            Ok(())
        })
        .await?;
        let before = e2e::uplink::now_ms();
        aggregator.restart(test).await?;
        aggregator.connected("gpu-1", true).await?;
        eventually("what piled up arrives", || async {
            let rows = aggregator.api.export("match=DCGM_FI_DEV_GPU_UTIL&node=gpu-1").await?;
            let early = rows.iter().filter(|row| row.ts_ms < before).count();
            ensure!(early > 10 * 8, "{early} early rows");
            Ok(())
        })
        .await
    });
}
