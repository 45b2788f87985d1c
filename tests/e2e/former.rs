//! A plugin that was built for the contract's version before, on the real agent and in its worker: it goes on as it was.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{AgentBuilder, Test, eventually, run};

#[test]
fn a_plugin_of_the_contract_before_goes_on_as_it_was() {
    run(async |test: &Test| {
        let mut agent = AgentBuilder::new(test, "alone")?
            .guest("former", "former.wasm", "200ms", "")
            .section("[plugins.former.limits]\nseries = 100\n")
            .start()
            .await?;
        let plugin = agent.plugin_state("former", "running").await?;
        ensure!(plugin["world"] == "picket:source/controllable-source-plugin@0.1.0", "{plugin}");
        let failed = async |reason: &str| -> Result<f64> {
            let metrics = agent.api.metrics().await?;
            Ok(metrics.sum("picket_source_errors_total", &[("plugin", "former"), ("reason", reason)]))
        };
        eventually("what it pushes, and what it is answered", || async {
            let metrics = agent.api.metrics().await?;
            ensure!(metrics.value("former_value", &[("n", "b")])? == 2.0);
            for reason in ["former-quota", "former-unknown", "former-invalid"] {
                ensure!(failed(reason).await? > 0.0, "not answered {reason}");
            }
            Ok(())
        })
        .await?;
        ensure!(
            failed("former-unexpected").await? == 0.0,
            "it was answered otherwise: {}",
            agent.daemon.log()
        );
        let log = agent.daemon.log();
        let quota =
            log.lines().find(|line| line.contains("former-quota")).context("the quota is not logged")?;
        ensure!(quota.contains("limits.series"), "{quota}");
        ensure!(log.contains("a later agent will not run it"), "the operator is not told: {log}");
        let status = agent.daemon.stop(Duration::from_secs(10)).await?;
        ensure!(status.success(), "ended with {status}");
        Ok(())
    });
}
