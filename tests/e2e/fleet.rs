//! The happy path: what plugins read on nodes stands in the aggregator's exposition, API and CLI.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::{Test, eventually, run};
use serde_json::Value;

/// The list in an answer that is one, or that holds one under `key`.
fn list<'a>(answer: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    answer
        .as_array()
        .or_else(|| answer[key].as_array())
        .with_context(|| format!("no list of {key}: {answer}"))
}

#[test]
fn metrics_of_two_nodes_come_through_the_aggregator() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let one = aggregator.agent(test, "host-1")?.node("500ms")?.enrol_and_start(&aggregator).await?;
        let two =
            aggregator.agent(test, "gpu-1")?.mock("500ms", "seed = 7")?.enrol_and_start(&aggregator).await?;

        let cpu =
            aggregator.has("node_cpu_seconds_total", &[("instance", "host-1"), ("mode", "idle")]).await?;
        ensure!(cpu > 0.0, "idle time is {cpu}");
        let gpu = aggregator.has("DCGM_FI_DEV_GPU_UTIL", &[("instance", "gpu-1"), ("gpu", "0")]).await?;
        ensure!((0.0..=100.0).contains(&gpu), "utilisation is {gpu}");
        for node in ["host-1", "gpu-1"] {
            let up = aggregator.has("picket_node_up", &[("node", node)]).await?;
            ensure!(up == 1.0, "picket_node_up of {node} is {up}");
        }

        // A node's series bear its name and nothing of the aggregator's.
        let metrics = aggregator.api.metrics().await?;
        for (labels, _) in metrics.series("node_uname_info") {
            ensure!(labels.get("instance").map(String::as_str) == Some("host-1"), "{labels:?}");
        }
        ensure!(
            metrics.types.get("node_cpu_seconds_total").map(String::as_str) == Some("counter"),
            "its type"
        );

        // The aggregator's own figures stand apart.
        let own = e2e::exposition::Exposition::parse(&aggregator.api.text("/metrics/self").await?)?;
        ensure!(own.names().any(|name| name.starts_with("picket_aggregator_")), "no metrics of its own");
        ensure!(own.names().all(|name| !name.starts_with("DCGM_")), "node metrics among its own");

        // Values move on.
        let first = aggregator.has("node_time_seconds", &[("instance", "host-1")]).await?;
        eventually("a newer sample", || async {
            let now =
                aggregator.api.metrics().await?.value("node_time_seconds", &[("instance", "host-1")])?;
            ensure!(now > first, "still {now}");
            Ok(())
        })
        .await?;
        drop((one, two));
        Ok(())
    });
}

#[test]
fn api_and_cli_show_nodes_series_and_events() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let agent =
            aggregator.agent(test, "gpu-1")?.mock("500ms", "seed = 1")?.enrol_and_start(&aggregator).await?;
        aggregator.has("DCGM_FI_DEV_GPU_UTIL", &[("instance", "gpu-1")]).await?;
        aggregator.connected("gpu-1", true).await?;

        let nodes = aggregator.api.json("/api/v1/nodes").await?;
        ensure!(list(&nodes, "nodes")?.iter().any(|n| n["node"] == "gpu-1"), "{nodes}");
        let node = eventually("the plugins of the node are reported", || async {
            let node = aggregator.api.json("/api/v1/nodes/gpu-1").await?;
            let plugins = node["plugins"].as_array().context("no plugins")?;
            ensure!(plugins.iter().any(|p| p["id"] == "mock" && p["state"] == "running"), "{node}");
            Ok(node)
        })
        .await?;
        ensure!(node["agent_version"].as_str().is_some_and(|v| !v.is_empty()), "{node}");
        let (status, _) = aggregator.api.request("GET", "/api/v1/nodes/nobody", None).await?;
        ensure!(status == 404, "a node that isn't: {status}");

        let series = aggregator.api.json("/api/v1/series?match=DCGM_FI_DEV_GPU_TEMP").await?;
        ensure!(list(&series, "series")?.len() == 8, "eight GPUs: {series}");
        let events = aggregator.api.json("/api/v1/events").await?;
        list(&events, "events")?;

        let nodes = aggregator.cli_json(&["nodes"]).await?;
        ensure!(list(&nodes, "nodes")?.iter().any(|n| n["node"] == "gpu-1"), "{nodes}");
        let node = aggregator.cli_json(&["node", "show", "gpu-1"]).await?;
        ensure!(node.to_string().contains("mock"), "{node}");
        let status = aggregator.cli_json(&["status"]).await?;
        ensure!(status.is_object(), "{status}");
        let table = aggregator.cli(&["nodes"]).await?.ok()?;
        ensure!(table.contains("gpu-1"), "{table}");
        let top = aggregator.cli(&["top", "--once"]).await?.ok()?;
        ensure!(top.contains("gpu-1"), "{top}");
        let metrics = aggregator.cli(&["metrics"]).await?.ok()?;
        ensure!(metrics.contains("DCGM_FI_DEV_GPU_UTIL"), "{metrics}");
        drop(agent);
        Ok(())
    });
}

#[test]
fn nothing_answers_without_a_token_and_roles_are_kept() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let bare = aggregator.api.with_token(None);
        let wrong = aggregator.api.with_token(Some("picket-api-v1.wrong.wrong"));
        for path in [
            "/",
            "/metrics",
            "/metrics/self",
            "/healthz",
            "/readyz",
            "/api/v1/nodes",
            "/api/v1/nodes/x",
            "/api/v1/series",
            "/api/v1/events",
            "/api/v1/export",
            "/api/v1/tokens",
            "/nothing",
        ] {
            for api in [&bare, &wrong] {
                let (status, _) = api.request("GET", path, None).await?;
                ensure!(status == 401, "GET {path} without a good token: {status}");
            }
        }
        let viewer = aggregator.api.with_token(Some(&aggregator.api_token("viewer").await?));
        let operator = aggregator.api.with_token(Some(&aggregator.api_token("operator").await?));
        let scenario = serde_json::json!({"scenario": "normal"});
        let node_token = serde_json::json!({"node": "x", "ttl": "1h"});
        for (api, method, path, body, refused) in [
            (&viewer, "GET", "/metrics", None, false),
            (&viewer, "GET", "/api/v1/nodes", None, false),
            (&viewer, "PUT", "/api/v1/nodes/x/scenario", Some(&scenario), true),
            (&viewer, "POST", "/api/v1/nodes/x/revoke", None, true),
            (&viewer, "GET", "/api/v1/tokens", None, true),
            (&operator, "PUT", "/api/v1/nodes/x/scenario", Some(&scenario), false),
            (&operator, "POST", "/api/v1/nodes/x/revoke", None, true),
            (&operator, "POST", "/api/v1/tokens", Some(&node_token), true),
        ] {
            let (status, answer) = api.request(method, path, body).await?;
            ensure!((status == 403) == refused, "{method} {path}: {status} {answer}");
        }
        Ok(())
    });
}

#[test]
fn a_node_that_stops_is_down_and_its_series_go_stale() {
    run(async |test: &Test| {
        let aggregator =
            e2e::AggregatorBuilder::new(test)?.set("store", "stale_after = \"2s\"").start().await?;
        let mut agent =
            aggregator.agent(test, "gpu-1")?.mock("200ms", "seed = 1")?.enrol_and_start(&aggregator).await?;
        aggregator.has("DCGM_FI_DEV_GPU_UTIL", &[("instance", "gpu-1")]).await?;
        agent.daemon.kill()?;
        eventually("stale", || async {
            let metrics = aggregator.api.metrics().await?;
            ensure!(metrics.series("DCGM_FI_DEV_GPU_UTIL").is_empty(), "still exported");
            let up = metrics.value("picket_node_up", &[("node", "gpu-1")])?;
            ensure!(up == 0.0, "picket_node_up is {up}");
            Ok(())
        })
        .await?;
        agent.restart(test).await?;
        aggregator.has("DCGM_FI_DEV_GPU_UTIL", &[("instance", "gpu-1")]).await?;
        Ok(())
    });
}

#[test]
fn an_agent_that_is_stopped_hands_in_what_it_holds() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let mut agent =
            aggregator.agent(test, "gpu-1")?.mock("100ms", "seed = 1")?.enrol_and_start(&aggregator).await?;
        aggregator.has("DCGM_FI_DEV_GPU_UTIL", &[("instance", "gpu-1")]).await?;
        let status = agent.daemon.stop(Duration::from_secs(15)).await?;
        ensure!(status.success(), "the agent ended with {status}: {}", agent.daemon.log());
        let query = "match=DCGM_FI_DEV_GPU_UTIL&node=gpu-1";
        let rows = aggregator.api.export(query).await?;
        ensure!(!rows.is_empty(), "nothing logged");
        // Nothing comes later: all was handed in.
        agent.restart(test).await?;
        aggregator.connected("gpu-1", true).await?;
        let last = rows.iter().map(|row| row.ts_ms).max().unwrap_or_default();
        let late = eventually("samples of the second life", || async {
            let now = aggregator.api.export(query).await?;
            ensure!(now.len() > rows.len(), "{} rows", now.len());
            Ok(now.into_iter().filter(|row| row.ts_ms <= last).count())
        })
        .await?;
        ensure!(late == rows.len(), "{late} rows up to the stop, {} were there at the stop", rows.len());
        let mut daemon = aggregator.daemon;
        let status = daemon.stop(Duration::from_secs(15)).await?;
        ensure!(status.success(), "the aggregator ended with {status}: {}", daemon.log());
        Ok(())
    });
}

#[test]
fn open_metrics_too() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let agent =
            aggregator.agent(test, "gpu-1")?.mock("500ms", "seed = 1")?.enrol_and_start(&aggregator).await?;
        aggregator.has("DCGM_FI_DEV_GPU_UTIL", &[("instance", "gpu-1")]).await?;
        let (kind, text) = aggregator.api.metrics_as("application/openmetrics-text;version=1.0.0").await?;
        ensure!(kind.starts_with("application/openmetrics-text"), "{kind}");
        ensure!(text.ends_with("# EOF\n"), "no end");
        if text.contains("# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION_total") {
            bail!("a counter family is named without _total in OpenMetrics");
        }
        let (kind, text) = agent.api.metrics_as("application/openmetrics-text;version=1.0.0").await?;
        ensure!(kind.starts_with("application/openmetrics-text"), "the agent gave {kind}");
        ensure!(text.ends_with("# EOF\n"), "no end");
        Ok(())
    });
}
