//! A real LiteLLM proxy, read by the plugin `litellm`.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::exposition::{Exposition, Labels};
use e2e::{Agent, LiteLlm, Test, eventually, free_port, run_within};

/// What the proxy's own page has, as names and labels.
async fn series(proxy: &LiteLlm) -> Result<BTreeSet<(String, Labels)>> {
    let page = Exposition::parse(&proxy.api.text("/metrics/").await?)?;
    let names = page.names().filter(|n| n.starts_with("litellm_"));
    // A label with an empty value is none.
    let labels = |all: &Labels| -> Labels {
        all.iter().filter(|(_, v)| !v.is_empty()).map(|(n, v)| (n.clone(), v.clone())).collect()
    };
    let of =
        |name: &str| page.series(name).iter().map(|(l, _)| (name.to_owned(), labels(l))).collect::<Vec<_>>();
    Ok(names.flat_map(of).collect())
}

async fn becomes(agent: &Agent, endpoint: &str, wanted: &str) -> Result<()> {
    eventually(&format!("the proxy is {wanted}"), || async {
        let page = agent.api.metrics().await?;
        let labels = [("endpoint", endpoint), ("state", wanted)];
        ensure!(
            page.value("picket_litellm_state", &labels)? == 1.0,
            "{:?}",
            page.series("picket_litellm_state")
        );
        Ok(())
    })
    .await
}

#[test]
fn a_real_litellm_proxy() {
    run_within(Duration::from_secs(900), async |test: &Test| {
        let Some(program) = LiteLlm::program() else { return Ok(()) };
        let mut proxy = LiteLlm::start(test, &program, free_port()?).await?;
        let endpoint = proxy.api.url().to_owned();
        let key = test.folder().join("key");
        std::fs::write(&key, format!("{}\n", LiteLlm::KEY))?;
        // Nothing listens where the hub should be: it is said, and costs nothing.
        let settings =
            format!("models_every_seconds = 5\nhub = {{ url = \"http://127.0.0.1:{}\" }}", free_port()?);
        let section = proxy.section("1s", &key, &settings);
        let aggregator = test.aggregator().await?;
        let agent = aggregator.agent(test, "gate-1")?.section(section).enrol_and_start(&aggregator).await?;
        becomes(&agent, &endpoint, "up").await?;

        for _ in 0..5 {
            ensure!(proxy.chat("llama").await? == 200);
        }
        ensure!(proxy.chat("dead").await? >= 400);
        ensure!(proxy.chat("never-heard-of").await? >= 400);

        let rate = async |name: &str, model: &str| {
            eventually(&format!("{name} of {model}"), || async {
                let page = agent.api.metrics().await?;
                let value = page.value(name, &[("model", model), ("type", "llm")])?;
                ensure!(value > 0.0, "{value}");
                Ok(value)
            })
            .await
        };
        for name in
            ["requests_per_minute", "tokens_input_per_minute", "tokens_output_per_minute", "latency_ms"]
        {
            rate(&format!("llm_model_{name}"), "llama").await?;
        }
        rate("llm_model_errors_per_minute", "dead").await?;
        let page = agent.api.metrics().await?;
        ensure!(
            page.series("llm_model_requests_per_minute").iter().all(|(l, _)| l["model"] != "never-heard-of")
        );

        // Every series of the real page, under its own labels.
        eventually("the page is passed through", || async {
            let said = series(&proxy).await?;
            ensure!(said.len() > 50, "{} series only", said.len());
            let page = agent.api.metrics().await?;
            let missing =
                said.iter().find(|(name, labels)| !page.series(name).iter().any(|(have, _)| have == labels));
            ensure!(missing.is_none(), "{missing:?} is missing");
            Ok(())
        })
        .await?;
        aggregator
            .has("litellm_deployment_state", &[("instance", "gate-1"), ("model_id", "dep-llama")])
            .await?;

        let models = eventually("the models are listed", || async {
            let of_agent = agent.api.json("/api/v1/models").await?;
            let of_fleet = aggregator.api.json("/api/v1/models").await?;
            for models in [&of_agent, &of_fleet] {
                ensure!(models["models"].as_array().is_some_and(|m| m.len() == 3), "{models}");
                // The fleet is a moment behind.
                let rated = |m: &&serde_json::Value| m["current_rpm"].as_f64().is_some_and(|rpm| rpm > 0.0);
                ensure!(
                    models["models"].as_array().into_iter().flatten().filter(rated).count() == 2,
                    "{models}"
                );
            }
            Ok(of_fleet["models"].clone())
        })
        .await?;
        let model =
            |name: &str| models.as_array().into_iter().flatten().find(|m| m["model_name"] == name).cloned();
        let llama = model("llama").context("no llama")?;
        ensure!(llama["model_id"] == "meta-llama/Llama-3.1-8B" && llama["node"] == "gate-1", "{llama}");
        ensure!(llama["status"] == "available" && llama["model_type"] == "llm", "{llama}");
        ensure!(llama["current_rpm"].as_f64().is_some_and(|rpm| rpm > 0.0), "{llama}");
        ensure!(model("embed").context("no embed")?["model_type"] == "embedding");
        let dead = model("dead").context("no dead")?;
        ensure!(dead["error_rate"].as_f64().is_some_and(|rate| rate > 99.0), "{dead}");

        eventually("the hub's absence is said", || async {
            let page = agent.api.metrics().await?;
            ensure!(page.value("picket_model_hub_state", &[("state", "unreachable")])? == 1.0);
            Ok(())
        })
        .await?;

        // A key that the proxy does not know.
        std::fs::write(&key, "sk-wrong\n")?;
        becomes(&agent, &endpoint, "refusing").await?;
        std::fs::write(&key, LiteLlm::KEY)?;
        becomes(&agent, &endpoint, "up").await?;

        let asked = proxy.daemon.log();
        ensure!(asked.contains("GET /health/readiness"), "the proxy's log has no requests");
        ensure!(
            !asked.contains("GET /health HTTP") && !asked.contains("GET /health?"),
            "the billed check was asked for"
        );

        // Restarted: its counters begin anew.
        proxy.daemon.kill()?;
        becomes(&agent, &endpoint, "unreachable").await?;
        let page = agent.api.metrics().await?;
        ensure!(page.series("llm_model_requests_per_minute").is_empty(), "rates of a proxy that is gone");
        let proxy = LiteLlm::start(test, &program, proxy.port).await?;
        becomes(&agent, &endpoint, "up").await?;
        ensure!(proxy.chat("llama").await? == 200);
        let rpm = rate("llm_model_requests_per_minute", "llama").await?;
        ensure!(rpm < 60.0, "{rpm} requests a minute were made up");
        Ok(())
    });
}
