//! Files that are no plugins, and what becomes of a plugin that was quarantined, on the real agent. What plugins may do that mean
//! no good is in `suite`.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use e2e::{Agent, AgentBuilder, Test, eventually, guests, plugins, run};
use serde_json::Value;

/// Limits that make misbehaviour end soon.
const LIMITS: &str = "guest_time = \"300ms\"\ncall_time = \"1s\"\nrestarts = 2\nback_off = \"100ms\"\n";

fn with_guest<'a>(test: &'a Test, mode: &str) -> Result<AgentBuilder<'a>> {
    let builder = AgentBuilder::new(test, "alone")?
        .guest("neighbour", "count.wasm", "100ms", "")
        .guest("hostile", "hostile.wasm", "200ms", &format!("mode = \"{mode}\""))
        .section(format!("[plugins.hostile.limits]\n{LIMITS}"));
    Ok(builder)
}

/// How often the neighbour has collected, once it has.
async fn ticks(agent: &Agent) -> Result<f64> {
    let plugin = plugin(agent, "neighbour").await?;
    let collects = &plugin["collects"];
    let ok = collects["ok"].as_f64().with_context(|| format!("no count: {plugin}"))?;
    ensure!(ok > 0.0, "not once");
    ensure!(collects["failed"] == 0, "the neighbour failed: {plugin}");
    Ok(ok)
}

/// What the API says of a plugin.
async fn plugin(agent: &Agent, id: &str) -> Result<Value> {
    let all = agent.api.json("/api/v1/plugins").await?;
    let list = all["plugins"].as_array().context("no list of plugins")?;
    list.iter().find(|plugin| plugin["id"] == id).cloned().with_context(|| format!("no {id}: {all}"))
}

#[test]
fn events_of_a_plugin_reach_the_aggregator() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let _agent = aggregator
            .agent(test, "gpu-1")?
            .guest("hostile", "hostile.wasm", "1s", "mode = \"event\"")
            .enrol_and_start(&aggregator)
            .await?;
        eventually("the event", || async {
            let events = aggregator.api.json("/api/v1/events?node=gpu-1&kind=test.event").await?;
            let list = events["events"].as_array().context("no list")?;
            let event = list.first().with_context(|| format!("none: {events}"))?;
            ensure!(event["severity"] == "critical" && event["plugin"] == "hostile", "{event}");
            Ok(())
        })
        .await
    });
}

/// Each: a file, and the code of its refusal.
fn bad_files(folder: &Path) -> Result<Vec<(&'static str, &'static str)>> {
    let good = std::fs::read(plugins().join("node.wasm")).context("no node.wasm")?;
    let half = good.get(..good.len() / 2).context("a short file")?;
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    for byte in flipped.get_mut(middle..middle + 64).context("a short file")? {
        *byte ^= 0xff;
    }
    let elf = std::fs::read(e2e::binary("picket-agent")?)?;
    let elf = elf.get(..4096).context("a short program")?;
    // The smallest core module there is.
    let core = b"\0asm\x01\0\0\0";
    for (name, bytes) in [
        ("empty.wasm", &b""[..]),
        ("truncated.wasm", half),
        ("flipped.wasm", &flipped),
        ("core.wasm", core),
        ("text.wasm", b"This is no plugin.\n"),
        ("elf.wasm", elf),
    ] {
        std::fs::write(folder.join(name), bytes)?;
    }
    for guest in ["stranger.wasm", "curious.wasm"] {
        std::fs::copy(guests().join(guest), folder.join(guest))
            .with_context(|| format!("no guest {guest}"))?;
    }
    Ok(vec![
        ("empty.wasm", "PKT-0003"),
        ("truncated.wasm", "PKT-0004"),
        ("flipped.wasm", "PKT-00"),
        ("core.wasm", "PKT-0005"),
        ("text.wasm", "PKT-0008"),
        ("elf.wasm", "PKT-0006"),
        ("stranger.wasm", "PKT-0021"),
        ("curious.wasm", "PKT-0030"),
        ("missing.wasm", "PKT-0001"),
    ])
}

#[test]
fn bad_files_are_refused_by_name() {
    run(async |test: &Test| {
        let folder = test.folder().join("plugins");
        std::fs::create_dir_all(&folder)?;
        let bad = bad_files(&folder)?;
        std::fs::copy(guests().join("count.wasm"), folder.join("count.wasm"))?;
        let mut builder = AgentBuilder::new(test, "alone")?
            .plugin_dir(&folder)
            .section("[plugins.neighbour]\nfile = \"count.wasm\"\ninterval = \"100ms\"\n");
        for (file, _) in &bad {
            let id = file.trim_end_matches(".wasm");
            builder = builder.section(format!("[plugins.{id}]\nfile = \"{file}\"\ninterval = \"200ms\"\n"));
        }
        let mut agent = builder.start().await?;
        eventually("the neighbour's first sample", || ticks(&agent)).await?;
        for (file, code) in &bad {
            let id = file.trim_end_matches(".wasm");
            let state = agent.plugin_state(id, "refused").await.with_context(|| (*file).to_owned())?;
            ensure!(state.to_string().contains(code), "{file}: not {code}: {state}");
        }
        // A refusal for want of a grant says the lines that would grant it.
        let all = agent.api.text("/api/v1/plugins").await?;
        ensure!(
            all.contains("[[plugins.curious.grants]]") && all.contains("capability = \\\"system\\\""),
            "{all}"
        );
        let before = ticks(&agent).await?;
        eventually("the neighbour goes on", || async {
            ensure!(ticks(&agent).await? >= before + 20.0);
            Ok(())
        })
        .await?;
        agent.daemon.check_running()
    });
}

#[test]
fn a_quarantined_plugin_is_tried_again_after_a_reload() {
    run(async |test: &Test| {
        let builder = with_guest(test, "trap")?;
        let config = builder.write()?;
        let agent = builder.start().await?;
        agent.plugin_state("hostile", "quarantined").await?;
        let text = std::fs::read_to_string(&config)?.replace("mode = \"trap\"", "mode = \"good\"");
        std::fs::write(&config, text)?;
        agent.daemon.signal(rustix::process::Signal::HUP)?;
        agent.plugin_state("hostile", "running").await?;
        eventually("its sample", || async {
            let state = plugin(&agent, "hostile").await?;
            match agent.api.metrics().await?.value("test_hostile", &[("mode", "good")]) {
                Ok(1.0) => Ok(()),
                other => bail!("{other:?}; {state}"),
            }
        })
        .await
    });
}
