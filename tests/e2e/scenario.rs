//! The mock's scenario, read and changed on the agent and through the aggregator.

use anyhow::{Result, ensure};
use e2e::{Api, Test, eventually, run};
use serde_json::json;

/// The mean utilisation of the simulated GPUs.
async fn utilisation(api: &Api) -> Result<f64> {
    let metrics = api.metrics().await?;
    let all = metrics.series("DCGM_FI_DEV_GPU_UTIL");
    ensure!(!all.is_empty(), "no GPUs");
    Ok(all.iter().map(|(_, value)| value).sum::<f64>() / all.len() as f64)
}

/// Reads, changes and mischanges the scenario at one address.
async fn check(api: &Api, path: &str, metrics: &Api) -> Result<()> {
    let before = api.json(path).await?;
    ensure!(before.to_string().contains("\"normal\""), "{before}");

    for bad in [
        json!({"scenario": "hurricane"}),
        json!({"scenario": "normal", "settings": {"no_such_setting": 1}}),
        json!({"scenario": 7}),
        json!({"unknown": true}),
    ] {
        let (status, answer) = api.request("PUT", path, Some(&bad)).await?;
        ensure!(status == 400, "{bad}: {status} {answer}");
        if bad["scenario"] == "hurricane" {
            for allowed in ["normal", "high_load", "degraded", "failure"] {
                ensure!(answer.contains(allowed), "does not say that {allowed} is allowed: {answer}");
            }
        }
        let after = api.json(path).await?;
        ensure!(after == before, "a refused change changed something: {after}");
    }

    let calm = utilisation(metrics).await?;
    ensure!(calm < 80.0, "normal is {calm} %");
    let (status, answer) = api.request("PUT", path, Some(&json!({"scenario": "high_load"}))).await?;
    ensure!(status == 200, "{status} {answer}");
    ensure!(api.json(path).await?.to_string().contains("high_load"), "not read back");
    eventually("the load is high", || async {
        let now = utilisation(metrics).await?;
        ensure!(now > 80.0, "{now} %");
        Ok(())
    })
    .await?;
    let (status, answer) = api.request("PUT", path, Some(&json!({"scenario": "normal"}))).await?;
    ensure!(status == 200, "{status} {answer}");
    eventually("the load is normal", || async {
        let now = utilisation(metrics).await?;
        ensure!(now < 80.0, "{now} %");
        Ok(())
    })
    .await
}

#[test]
fn on_the_agent_and_through_the_aggregator() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let agent =
            aggregator.agent(test, "gpu-1")?.mock("200ms", "seed = 3")?.enrol_and_start(&aggregator).await?;
        aggregator.has("DCGM_FI_DEV_GPU_UTIL", &[("instance", "gpu-1")]).await?;
        aggregator.connected("gpu-1", true).await?;
        check(&agent.api, "/api/v1/scenario", &agent.api).await?;
        check(&aggregator.api, "/api/v1/nodes/gpu-1/scenario", &aggregator.api).await?;
        let (status, _) = aggregator.api.request("GET", "/api/v1/nodes/nobody/scenario", None).await?;
        ensure!(status == 404, "a node that isn't: {status}");
        Ok(())
    });
}
