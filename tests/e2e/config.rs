//! Configuration: shipped files are good, mistakes are refused before anything is started, in words that help.

use std::process::Command;

use anyhow::{Context, Result};
use e2e::{AgentBuilder, AggregatorBuilder, Test, binary, repository, run, run_program, run_program_with};

/// Each: lines, and what the refusal must say.
const AGENT_MISTAKES: &[(&str, &[&str])] = &[
    ("[spool]\nmax_sise = \"1GiB\"", &["max_sise", "max_size"]),
    ("[plugins.node]\nfiles = \"node.wasm\"", &["files", "file"]),
    ("[plugins.node]\nfile = \"node.wasm\"\ninterval = \"fast\"", &["interval"]),
    ("[spool]\nmax_size = \"1\"", &["max_size"]),
    ("[log]\nlevel = 7", &["level"]),
    ("what is this", &["agent.toml"]),
];

/// Each: a plugin that would be refused, and what the refusal must say.
const REFUSED_PLUGINS: &[(&str, &[&str])] = &[
    ("[plugins.gone]\nfile = \"gone.wasm\"", &["PKT-0001", "gone.wasm"]),
    ("[plugins.node]\nfile = \"node.wasm\"", &["PKT-0030", "[[plugins.node.grants]]"]),
    (
        "[plugins.mock]\nfile = \"mock.wasm\"\n[plugins.mock.settings]\nhostnam = \"x\"",
        &["PKT-0068", "settings.hostnam", "`hostname`"],
    ),
];

const AGGREGATOR_MISTAKES: &[(&str, &str, &[&str])] = &[
    ("store", "stale_aftr = \"5m\"", &["stale_aftr", "stale_after"]),
    ("identity", "certificate_life = \"soon\"", &["certificate_life"]),
    ("identity", "certificate = \"/x.pem\"", &["client_authorities"]),
    ("log", "level = \"a=b=c\"", &["level"]),
];

#[test]
fn mistakes_in_the_agents_config_are_named() {
    run(async |test: &Test| {
        for (number, (lines, words)) in AGENT_MISTAKES.iter().enumerate() {
            let config = AgentBuilder::new(test, &format!("agent-{number}"))?.section(*lines).write()?;
            for command in ["check-config", "run"] {
                let args = [command, "--config", &config.to_string_lossy()];
                let refused = run_program(&binary("picket-agent")?, &args).await?.refused(words);
                refused.map_err(|e| e.context(format!("{command} of {lines:?}")))?;
            }
        }
        let good = AgentBuilder::new(test, "good")?.node("15s")?.write()?;
        run_program(&binary("picket-agent")?, &["check-config", "--config", &good.to_string_lossy()])
            .await?
            .ok()?;
        // What `run` would refuse of a plugin, and only of it, is said without one being run.
        for (lines, words) in REFUSED_PLUGINS {
            let config = AgentBuilder::new(test, "refused")?.section(*lines).write()?;
            let args = ["check-config", "--config", &config.to_string_lossy()];
            let checked = run_program(&binary("picket-agent")?, &args).await?;
            anyhow::ensure!(checked.status.code() == Some(3), "{lines:?}: {checked:?}");
            checked.refused(words)?;
        }
        let missing = ["check-config", "--config", "/nonexistent/agent.toml"];
        run_program(&binary("picket-agent")?, &missing).await?.refused(&["/nonexistent/agent.toml"])
    });
}

#[test]
fn mistakes_in_the_aggregators_config_are_named() {
    run(async |test: &Test| {
        for (section, line, words) in AGGREGATOR_MISTAKES {
            let config = AggregatorBuilder::new(test)?.set(section, *line).write()?;
            for command in ["check-config", "run"] {
                let args = [command, "--config", &config.to_string_lossy()];
                let refused = run_program(&binary("picket-aggregator")?, &args).await?.refused(words);
                refused.map_err(|e| e.context(format!("{command} of {line:?}")))?;
            }
        }
        let good = AggregatorBuilder::new(test)?.write()?;
        let args = ["check-config", "--config", &good.to_string_lossy()];
        run_program(&binary("picket-aggregator")?, &args).await?.ok()?;
        // Nothing is made without `init`.
        let args = ["run", "--config", &good.to_string_lossy()];
        run_program(&binary("picket-aggregator")?, &args).await?.refused(&["init"])
    });
}

#[test]
fn shipped_configs_are_good() {
    run(async |_: &Test| {
        for (program, file) in [("picket-agent", "agent.toml"), ("picket-aggregator", "aggregator.toml")] {
            let mut command = Command::new(binary(program)?);
            command.arg("check-config").arg("--config").arg(repository().join("config").join(file));
            // Where the plugins are before they are installed.
            command.env("PICKET_PLUGIN_DIR", e2e::plugins());
            // As they are built here; what is shipped is signed.
            command.env("PICKET_TRUST__ALLOW_UNSIGNED", "true");
            run_program_with(&mut command).await?.ok()?;
        }
        Ok(())
    });
}

/// The grants in the shipped config are enough for what the shipped plugins need.
#[test]
fn shipped_grants_are_enough() {
    run(async |test: &Test| {
        let text = std::fs::read_to_string(repository().join("config/agent.toml"))?;
        let mut shipped: toml::Table = text.parse()?;
        let mut plugins = shipped.remove("plugins").context("no plugins")?;
        for (_, plugin) in plugins.as_table_mut().context("no tables")?.iter_mut() {
            let plugin = plugin.as_table_mut().context("no table")?;
            plugin.insert("enabled".into(), true.into());
            plugin.insert("interval".into(), "500ms".into());
        }
        let ids: Vec<String> = plugins.as_table().into_iter().flatten().map(|(id, _)| id.clone()).collect();
        let section = toml::Table::from_iter([("plugins".to_owned(), plugins)]).to_string();
        let agent = AgentBuilder::new(test, "shipped")?.section(section).start().await?;
        for id in ids {
            agent.plugin_state(&id, "running").await?;
        }
        Ok(())
    });
}

/// Whatever there is on the machine that the tests run on, what is detected is a configuration that runs.
#[test]
fn what_is_detected_is_a_configuration() {
    run(async |test: &Test| {
        let config = AgentBuilder::new(test, "detected")?.write()?;
        let args = |command| [command, "--config".to_owned(), config.to_string_lossy().into_owned()];
        let agent = binary("picket-agent")?;
        let printed = run_program(&agent, &args("detect".to_owned())).await?.ok()?;
        anyhow::ensure!(printed.contains("[plugins.node]"), "{printed}");
        run_program(&agent, &[&args("detect".to_owned())[..], &["--write".to_owned()]].concat())
            .await?
            .ok()?;
        run_program(&agent, &args("check-config".to_owned())).await?.ok().map(drop)
    });
}

#[test]
fn the_environment_overrides_the_file() {
    run(async |test: &Test| {
        let config = AgentBuilder::new(test, "agent")?.write()?;
        let mut command = Command::new(binary("picket-agent")?);
        command.arg("check-config").arg("--config").arg(&config).env("PICKET_SPOOL__MAX_SIZE", "tiny");
        run_program_with(&mut command).await?.refused(&["max_size"])
    });
}

#[test]
fn init_makes_a_ca_once() {
    run(async |test: &Test| -> Result<()> {
        let aggregator = test.aggregator().await?;
        let args = ["init", "--config", &aggregator.config().to_string_lossy()];
        let before = std::fs::read(aggregator.authority())?;
        run_program(&binary("picket-aggregator")?, &args).await?.refused(&["is there already"])?;
        anyhow::ensure!(std::fs::read(aggregator.authority())? == before, "the CA was replaced");
        use std::os::unix::fs::PermissionsExt;
        for secret in ["ca.key", "admin.token"] {
            let mode = std::fs::metadata(aggregator.state().join(secret))?.permissions().mode() & 0o777;
            anyhow::ensure!(mode == 0o600, "{secret} has mode {mode:o}");
        }
        Ok(())
    });
}
