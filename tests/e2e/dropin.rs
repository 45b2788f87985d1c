//! Plugins that are dropped into the folder of a real agent, replaced, taken away, rolled back: what is vouched for runs,
//! what is not leaves the former one running, and all of it is said.

use std::io::Write as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{
    Agent, AgentBuilder, Keys, Output, Test, binary, eventually, guests, plugin_of, quoted, run,
    run_program_with, run_within, signature,
};
use serde_json::Value;

/// An agent that trusts one key, with one plugin, `count`, in a folder of its own.
struct Bench {
    keys: Keys,
    folder: PathBuf,
    file: PathBuf,
    policy: PathBuf,
}

impl Bench {
    async fn new(test: &Test) -> Result<Self> {
        let folder = test.folder().join("plugins");
        std::fs::create_dir_all(&folder)?;
        let keys = Keys::new(test.folder(), "release").await?;
        let policy = test.folder().join("policy.toml");
        let bench = Self { file: folder.join("count.wasm"), keys, folder, policy };
        bench.allow("")?;
        Ok(bench)
    }

    /// Writes the policy: the key, and `rules`.
    fn allow(&self, rules: &str) -> Result<()> {
        let text = format!("policy = 1\n[keys.release]\nfile = {}\n{rules}", quoted(self.keys.public()));
        let new = self.policy.with_extension("new");
        std::fs::write(&new, text)?;
        Ok(std::fs::rename(&new, &self.policy)?)
    }

    fn agent<'a>(&self, builder: AgentBuilder<'a>) -> AgentBuilder<'a> {
        builder
            .plugin_dir(&self.folder)
            .trust(&format!("policy = {}", quoted(&self.policy)))
            .section("[plugins.count]\ninterval = \"200ms\"\n")
    }

    async fn alone(&self, test: &Test) -> Result<Agent> {
        self.agent(AgentBuilder::new(test, "alone")?).start().await
    }

    async fn drop_in(&self, version: &str) -> Result<()> {
        self.keys.drop_in(&self.file, &plugin_of("count.wasm", "count", version)?).await
    }
}

async fn count(agent: &Agent) -> Result<Value> {
    let all = agent.api.json("/api/v1/plugins").await?;
    let list = all["plugins"].as_array().context("no list of plugins")?;
    list.iter().find(|plugin| plugin["id"] == "count").cloned().with_context(|| format!("no count: {all}"))
}

/// Waits until this version runs.
async fn runs(agent: &Agent, version: &str) -> Result<Value> {
    eventually(&format!("count {version} runs"), || async {
        let plugin = count(agent).await?;
        ensure!(plugin["state"] == "running" && plugin["version"] == version, "{plugin}");
        ensure!(plugin["collects"]["ok"].as_u64() > Some(0), "{plugin}");
        Ok(plugin)
    })
    .await
}

/// Waits until what lies in the folder is refused with this code; gives what is said.
async fn refused(agent: &Agent, code: &str) -> Result<Value> {
    eventually(&format!("refused with {code}"), || async {
        let plugin = count(agent).await?;
        ensure!(plugin["refused"]["code"] == code, "{plugin}");
        Ok(plugin)
    })
    .await
}

async fn agent_command(agent: &Agent, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary("picket-agent")?);
    command.args(arguments).arg("--config").arg(agent.config());
    run_program_with(&mut command).await
}

#[test]
fn what_is_dropped_in_runs_and_what_is_taken_away_stops_within_a_second() {
    run(async |test: &Test| {
        let bench = Bench::new(test).await?;
        let agent = bench.alone(test).await?;
        let nothing = refused(&agent, "PKT-0001").await?;
        ensure!(nothing["state"] == "refused", "{nothing}");
        for version in ["1.0.0", "1.1.0"] {
            bench.drop_in(version).await?;
            let plugin = runs(&agent, version).await?;
            ensure!(plugin["signed_by"] == "release", "{plugin}");
            eventually("its series", || async { agent.api.metrics().await?.value("test_ticks", &[]) })
                .await?;
            // Read beforehand, so that only the agent's time is measured.
            let gone = Instant::now();
            std::fs::remove_file(&bench.file)?;
            let stopped = loop {
                if agent.api.metrics().await?.value("test_ticks", &[]).is_err() {
                    break gone.elapsed();
                }
                ensure!(gone.elapsed() < Duration::from_secs(10), "its series are still there");
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            ensure!(stopped < Duration::from_secs(1), "it stopped after {stopped:?}");
            let plugin = agent.plugin_state("count", "removed").await?;
            ensure!(plugin["reason"].as_str().is_some_and(|why| why.contains("taken away")), "{plugin}");
        }
        let table = agent_command(&agent, &["plugins"]).await?.ok()?;
        ensure!(table.contains("removed"), "{table}");
        Ok(())
    });
}

#[test]
fn a_new_version_takes_over_without_a_gap_or_a_value_too_many() {
    run_within(Duration::from_secs(240), async |test: &Test| {
        let bench = Bench::new(test).await?;
        bench.drop_in("1.0.0").await?;
        let aggregator = test.aggregator().await?;
        let agent = bench.agent(aggregator.agent(test, "gpu-1")?).enrol_and_start(&aggregator).await?;
        for version in ["1.0.0", "2.0.0", "3.0.0"] {
            bench.drop_in(version).await?;
            runs(&agent, version).await?;
            // Some collects of each, so that the borders lie within.
            let before = count(&agent).await?["collects"]["ok"].as_u64().unwrap_or_default();
            eventually("some collects", || async {
                let plugin = count(&agent).await?;
                ensure!(plugin["collects"]["ok"].as_u64() >= Some(before + 8), "{plugin}");
                Ok(())
            })
            .await?;
        }
        let rows = eventually("all samples", || async {
            let rows = aggregator.api.export("match=test_ticks&node=gpu-1").await?;
            let done = count(&agent).await?["collects"]["ok"].as_u64().unwrap_or_default();
            ensure!(rows.len() as u64 + 6 > done, "{} rows of {done} collects", rows.len());
            Ok(rows)
        })
        .await?;
        let times: Vec<i64> = rows.iter().map(|row| row.ts_ms).collect();
        let numbers: Vec<f64> = rows.iter().filter_map(e2e::Row::number).collect();
        for (pair, values) in times.windows(2).zip(numbers.windows(2)) {
            let gap = pair[1] - pair[0];
            ensure!(gap > 0, "two samples at one time: {times:?}");
            // A tick may be late on a busy machine; a swap that cost one would double it at the borders alone.
            ensure!(gap < 1_000, "a gap of {gap} ms: {times:?}");
            // The trial was the instance's first collect, and nobody saw it.
            let next = values[1] == values[0] + 1.0 || values[1] == 2.0;
            ensure!(next, "{numbers:?}");
        }
        let borders = numbers.windows(2).filter(|pair| pair[1] < pair[0]).count();
        ensure!(borders == 2, "{borders} swaps in {numbers:?}");
        let plugin = count(&agent).await?;
        ensure!(plugin["previous"]["version"] == "2.0.0" && plugin["swaps"]["done"] == 2, "{plugin}");
        eventually("the event of the swap", || async {
            let events = aggregator.api.json("/api/v1/events?node=gpu-1&kind=plugin.swapped").await?;
            let list = events["events"].as_array().context("no list")?;
            ensure!(list.len() == 2, "{events}");
            ensure!(
                list[0].to_string().contains("3.0.0") && list[0].to_string().contains("former_digest"),
                "{events}"
            );
            Ok(())
        })
        .await?;
        let metrics = agent.api.metrics().await?;
        let done = metrics.value("picket_plugin_swaps_total", &[("plugin", "count"), ("result", "done")])?;
        ensure!(done == 2.0, "{done}");
        ensure!(metrics.value("picket_plugin_unsigned", &[("plugin", "count")])? == 0.0);
        Ok(())
    });
}

#[test]
fn what_is_not_vouched_for_leaves_the_former_one_running() {
    run_within(Duration::from_secs(300), async |test: &Test| {
        let bench = Bench::new(test).await?;
        bench.drop_in("1.0.0").await?;
        let aggregator = test.aggregator().await?;
        let agent = bench.agent(aggregator.agent(test, "gpu-1")?).enrol_and_start(&aggregator).await?;
        runs(&agent, "1.0.0").await?;
        let two = plugin_of("count.wasm", "count", "2.0.0")?;
        let stranger = Keys::new(test.folder(), "stranger").await?;
        type Done<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;
        type Do<'a> = Box<dyn Fn() -> Done<'a> + 'a>;
        let cases: Vec<(&str, &str, Do<'_>)> = vec![
            (
                "no signature",
                "PKT-0011",
                Box::new(|| {
                    Box::pin(async {
                        std::fs::remove_file(signature(&bench.file))?;
                        Ok(std::fs::write(&bench.file, &two)?)
                    })
                }),
            ),
            (
                "the signature of the version before",
                "PKT-0012",
                Box::new(|| {
                    Box::pin(async {
                        bench.drop_in("1.0.0").await?;
                        Ok(std::fs::write(&bench.file, &two)?)
                    })
                }),
            ),
            (
                "a manifest changed after the signing",
                "PKT-0012",
                Box::new(|| {
                    Box::pin(async {
                        bench.drop_in("2.0.0").await?;
                        let mut bytes = two.clone();
                        let at = bytes.windows(5).rposition(|w| w == b"2.0.0").context("no version")?;
                        *bytes.get_mut(at).context("no version")? = b'9';
                        Ok(std::fs::write(&bench.file, bytes)?)
                    })
                }),
            ),
            (
                "a key that nobody knows",
                "PKT-0013",
                Box::new(|| Box::pin(stranger.drop_in(&bench.file, &two))),
            ),
            (
                "half a file",
                "PKT-0004",
                Box::new(|| {
                    Box::pin(async {
                        bench.drop_in("2.0.0").await?;
                        Ok(std::fs::write(&bench.file, two.get(..two.len() / 2).context("a short file")?)?)
                    })
                }),
            ),
            (
                "garbage for a signature",
                "PKT-0014",
                Box::new(|| {
                    Box::pin(async {
                        std::fs::write(signature(&bench.file), "{}")?;
                        Ok(std::fs::write(&bench.file, &two)?)
                    })
                }),
            ),
            (
                "a symbolic link",
                "PKT-0018",
                Box::new(|| {
                    Box::pin(async {
                        let link = bench.folder.join("link");
                        std::os::unix::fs::symlink(test.folder().join("work.wasm"), &link)?;
                        Ok(std::fs::rename(&link, &bench.file)?)
                    })
                }),
            ),
            (
                "a folder",
                "PKT-0001",
                Box::new(|| {
                    Box::pin(async {
                        std::fs::remove_file(&bench.file)?;
                        Ok(std::fs::create_dir(&bench.file)?)
                    })
                }),
            ),
        ];
        for (i, (what, code, make)) in cases.iter().enumerate() {
            if *what == "a folder" {
                // In between the file is gone, and so is the plugin.
                make().await?;
                let plugin = refused(&agent, code).await.context(*what)?;
                ensure!(plugin["state"] != "running" || plugin["version"] == "1.0.0", "{plugin}");
                continue;
            }
            make().await.context(*what)?;
            let plugin = refused(&agent, code).await.context(*what)?;
            ensure!(plugin["state"] == "running" && plugin["version"] == "1.0.0", "{what}: {plugin}");
            ensure!(
                plugin["reason"].as_str().is_some_and(|why| why.contains("the former runs on")),
                "{plugin}"
            );
            let before = plugin["collects"]["ok"].as_u64();
            eventually("the former one collects", || async {
                ensure!(count(&agent).await?["collects"]["ok"].as_u64() > before);
                Ok(())
            })
            .await?;
            if i == 0 {
                eventually("the event of the refusal", || async {
                    let events = aggregator.api.json("/api/v1/events?node=gpu-1&kind=plugin.refused").await?;
                    ensure!(events.to_string().contains("not signed"), "{events}");
                    Ok(())
                })
                .await?;
            }
        }
        std::fs::remove_dir(&bench.file)?;
        bench.drop_in("3.0.0").await?;
        let plugin = runs(&agent, "3.0.0").await?;
        ensure!(plugin["refused"].is_null() && plugin["reason"] == "", "{plugin}");
        eventually("that it is over", || async {
            let events = aggregator.api.json("/api/v1/events?node=gpu-1&kind=plugin.recovered").await?;
            ensure!(events["events"].as_array().is_some_and(|list| !list.is_empty()), "{events}");
            Ok(())
        })
        .await
    });
}

#[test]
fn a_version_that_fails_on_trial_is_not_taken_and_survives_no_restart() {
    run_within(Duration::from_secs(240), async |test: &Test| {
        let bench = Bench::new(test).await?;
        bench.drop_in("1.0.0").await?;
        let builder = bench.agent(AgentBuilder::new(test, "alone")?);
        let mut agent =
            builder.section("[plugins.count.settings]\nmode = \"trap\"\n[plugins.count.limits]\nrestarts = 1\nback_off = \"100ms\"\n").start().await?;
        runs(&agent, "1.0.0").await?;
        // Signed, admitted, compiled, configured; its first collect traps.
        bench.keys.drop_in(&bench.file, &plugin_of("hostile.wasm", "count", "2.0.0")?).await?;
        let plugin = refused(&agent, "PKT-0060").await?;
        ensure!(plugin["state"] == "running" && plugin["version"] == "1.0.0", "{plugin}");
        ensure!(
            plugin["refused"]["version"] == "2.0.0"
                && plugin["refused"]["reason"].to_string().contains("on trial"),
            "{plugin}"
        );
        // Its series never were.
        ensure!(agent.api.metrics().await?.value("test_hostile", &[]).is_err());
        // Nothing ran beside it at the start; what ran last has its turn where a version can't be let in at all.
        bench.drop_in("2.0.1").await?;
        runs(&agent, "2.0.1").await?;
        std::fs::write(&bench.file, b"no plugin")?;
        agent.restart(test).await?;
        let plugin = runs(&agent, "2.0.1").await?;
        ensure!(plugin["refused"]["code"] == "PKT-0012", "{plugin}");
        Ok(())
    });
}

#[test]
fn rolled_back_by_hand_and_still_after_a_restart() {
    run_within(Duration::from_secs(240), async |test: &Test| {
        let bench = Bench::new(test).await?;
        bench.drop_in("1.0.0").await?;
        let mut agent = bench.alone(test).await?;
        runs(&agent, "1.0.0").await?;
        agent_command(&agent, &["plugins", "rollback", "count"]).await?.refused(&["no version"])?;
        agent_command(&agent, &["plugins", "rollback", "nobody"]).await?.refused(&["no plugin nobody"])?;
        bench.drop_in("2.0.0").await?;
        runs(&agent, "2.0.0").await?;
        let said = agent_command(&agent, &["plugins", "rollback", "count"]).await?.ok()?;
        ensure!(said.contains("1.0.0"), "{said}");
        let plugin = runs(&agent, "1.0.0").await?;
        ensure!(plugin["rolled_back"] == true && plugin["previous"]["version"] == "2.0.0", "{plugin}");
        let table = agent_command(&agent, &["plugins"]).await?.ok()?;
        ensure!(table.contains("rolled back") && table.contains("2.0.0"), "{table}");
        agent.restart(test).await?;
        runs(&agent, "1.0.0").await?;
        // The policy's oldest version holds for a way back too.
        bench.allow("[plugins.count]\nminimum_version = \"2.0.0\"\n")?;
        agent.plugin_state("count", "refused").await?;
        refused(&agent, "PKT-0016").await?;
        bench.allow("")?;
        runs(&agent, "1.0.0").await?;
        bench.drop_in("3.0.0").await?;
        let plugin = runs(&agent, "3.0.0").await?;
        ensure!(plugin["rolled_back"] == false, "{plugin}");
        Ok(())
    });
}

#[test]
fn what_is_revoked_stops_and_a_mistake_in_the_policy_changes_nothing() {
    run(async |test: &Test| {
        let bench = Bench::new(test).await?;
        bench.drop_in("1.0.0").await?;
        let agent = bench.alone(test).await?;
        let plugin = runs(&agent, "1.0.0").await?;
        bench.allow("[revocked]\n")?;
        eventually("the mistake is said", || async {
            let ready = agent.api.json("/readyz").await?;
            ensure!(ready.to_string().contains("revocked"), "{ready}");
            Ok(())
        })
        .await?;
        ensure!(count(&agent).await?["state"] == "running");
        let digest = plugin["digest"].as_str().context("no digest")?;
        bench.allow(&format!("[revoked]\ndigests = [\"sha256:{digest}\"]\n"))?;
        let plugin = agent.plugin_state("count", "refused").await?;
        ensure!(plugin["code"] == "PKT-0015", "{plugin}");
        ensure!(agent.api.metrics().await?.value("test_ticks", &[]).is_err(), "its series are still there");
        bench.drop_in("1.0.1").await?;
        runs(&agent, "1.0.1").await?;
        Ok(())
    });
}

#[test]
fn a_quarantine_is_of_a_digest_and_ends_by_hand() {
    run_within(Duration::from_secs(240), async |test: &Test| {
        let bench = Bench::new(test).await?;
        bench.keys.drop_in(&bench.file, &plugin_of("hostile.wasm", "count", "1.0.0")?).await?;
        let builder = bench.agent(AgentBuilder::new(test, "alone")?).section(
            "[plugins.count.settings]\nmode = \"trap\"\n[plugins.count.limits]\nrestarts = 1\nback_off = \"100ms\"\n",
        );
        let mut agent = builder.start().await?;
        agent.plugin_state("count", "quarantined").await?;
        agent_command(&agent, &["plugins", "release", "nobody"]).await?.refused(&["no plugin nobody"])?;
        agent.restart(test).await?;
        let plugin = agent.plugin_state("count", "quarantined").await?;
        ensure!(
            plugin["code"] == "PKT-0081" && plugin["collects"]["failed"] == 0,
            "it was entered: {plugin}"
        );
        agent_command(&agent, &["plugins", "release", "count"]).await?.ok()?;
        eventually("it is tried again", || async {
            let plugin = count(&agent).await?;
            ensure!(plugin["collects"]["failed"].as_u64() > Some(0), "{plugin}");
            Ok(())
        })
        .await?;
        agent.plugin_state("count", "quarantined").await?;
        // Another version is another digest.
        bench.drop_in("1.0.1").await?;
        runs(&agent, "1.0.1").await?;
        Ok(())
    });
}

#[test]
fn a_file_that_still_grows_is_not_touched() {
    run(async |test: &Test| {
        let bench = Bench::new(test).await?;
        bench.drop_in("1.0.0").await?;
        let agent = bench.alone(test).await?;
        runs(&agent, "1.0.0").await?;
        let work = test.folder().join("next.wasm");
        let bytes = plugin_of("count.wasm", "count", "2.0.0")?;
        std::fs::write(&work, &bytes)?;
        bench.keys.sign(&work).await?;
        std::fs::rename(signature(&work), signature(&bench.file))?;
        let mut file = std::fs::File::create(&bench.file)?;
        for piece in bytes.chunks(bytes.len() / 12 + 1) {
            file.write_all(piece)?;
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        drop(file);
        let plugin = runs(&agent, "2.0.0").await?;
        ensure!(plugin["swaps"]["refused"] == 0, "it was looked at too early: {plugin}");
        Ok(())
    });
}

#[test]
fn strays_in_the_folder_are_named() {
    run(async |test: &Test| {
        let bench = Bench::new(test).await?;
        bench.drop_in("1.0.0").await?;
        let agent = bench.alone(test).await?;
        runs(&agent, "1.0.0").await?;
        std::fs::write(bench.folder.join("evil.cwasm"), b"\x7fELF")?;
        std::fs::copy(guests().join("count.wasm"), bench.folder.join("other.wasm"))?;
        eventually("both are named", || async {
            let all = agent.api.json("/api/v1/plugins").await?;
            let strays = all["strays"].as_array().context("no list")?;
            ensure!(strays.len() == 2, "{all}");
            ensure!(strays[0]["code"] == "PKT-0007" && strays[0]["refused"] == true, "{all}");
            ensure!(strays[1]["reason"].as_str().is_some_and(|why| why.contains("[plugins.other]")), "{all}");
            Ok(())
        })
        .await?;
        let table = agent_command(&agent, &["plugins"]).await?.ok()?;
        ensure!(table.contains("evil.cwasm is refused"), "{table}");
        ensure!(count(&agent).await?["state"] == "running");
        Ok(())
    });
}

#[test]
fn unsigned_is_refused_unless_somebody_says_otherwise() {
    run(async |test: &Test| {
        let folder = test.folder().join("plugins");
        std::fs::create_dir_all(&folder)?;
        std::fs::copy(guests().join("count.wasm"), folder.join("count.wasm"))?;
        // No policy at all.
        let builder = AgentBuilder::new(test, "alone")?.plugin_dir(&folder).trust("");
        let builder = builder.section("[plugins.count]\ninterval = \"200ms\"\n");
        let config = builder.write()?;
        let agent = builder.start().await?;
        let plugin = agent.plugin_state("count", "refused").await?;
        ensure!(plugin["code"] == "PKT-0011", "{plugin}");
        let checked = agent_command(&agent, &["check-config"]).await?;
        ensure!(checked.status.code() == Some(3) && checked.err.contains("PKT-0011"), "{}", checked.err);
        let ready = |agent: &Agent| {
            let api = agent.api.clone();
            async move { api.request("GET", "/readyz", None).await.map(|(_, body)| body) }
        };
        ensure!(!ready(&agent).await?.contains("allow_unsigned"));
        let text = std::fs::read_to_string(&config)?.replace("[trust]", "[trust]\nallow_unsigned = true");
        std::fs::write(&config, text)?;
        agent.daemon.signal(rustix::process::Signal::HUP)?;
        let plugin = agent.plugin_state("count", "running").await?;
        ensure!(plugin["signed_by"] == "unsigned", "{plugin}");
        ensure!(ready(&agent).await?.contains("allow_unsigned"));
        let table = agent_command(&agent, &["plugins"]).await?.ok()?;
        ensure!(table.contains("unsigned"), "{table}");
        eventually("the metric says so", || async {
            let unsigned =
                agent.api.metrics().await?.value("picket_plugin_unsigned", &[("plugin", "count")])?;
            ensure!(unsigned == 1.0, "{unsigned}");
            Ok(())
        })
        .await?;
        // Who may do what.
        let grants = agent.api.json("/api/v1/grants").await?;
        ensure!(
            grants["plugins"][0]["plugin"] == "count" && grants["plugins"][0]["signed_by"] == "unsigned",
            "{grants}"
        );
        Ok(())
    });
}
