//! A plugin from a real registry onto a fleet of real agents, by way of the aggregator: stage by stage, halted by a node that
//! refuses it, rolled back, through kills on both sides; and what is not trusted goes nowhere.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    Agent, Aggregator, AggregatorBuilder, Keys, Registry, Test, eventually, first_party_as, plugin_of,
    plugins, quoted, run_within, signature,
};
use serde_json::{Value, json};

use crate::actions::{apply, bundles, diagnostics, offered, plan_of};

/// A registry, an aggregator that pulls from it, and keys that all trust.
struct Bench {
    registry: Registry,
    aggregator: Aggregator,
    keys: Keys,
}

impl Bench {
    async fn new(test: &Test) -> Result<Option<Self>> {
        let Some(registry) = Registry::start(test).await? else { return Ok(None) };
        let keys = Keys::new(test.folder(), "release").await?;
        let aggregator = AggregatorBuilder::new(test)?
            .set("rollout", format!("policy = {}", quoted(test.folder().join("rollout-policy.toml"))))
            .set("rollout", format!("registries = [{{ host = \"{}\", plain_http = true }}]", registry.host()))
            .start()
            .await?;
        let bench = Self { registry, aggregator, keys };
        bench.trust(test, "rollout-policy.toml", &[&bench.keys], "")?;
        bench.trust(test, "node-policy.toml", &[&bench.keys], "")?;
        Ok(Some(bench))
    }

    /// Writes a policy that trusts these keys.
    fn trust(&self, test: &Test, file: &str, keys: &[&Keys], rules: &str) -> Result<()> {
        let mut text = "policy = 1\n".to_owned();
        for (i, keys) in keys.iter().enumerate() {
            text.push_str(&format!("[keys.k{i}]\nfile = {}\n", quoted(keys.public())));
        }
        let file = test.folder().join(file);
        std::fs::write(file.with_extension("new"), text + rules)?;
        Ok(std::fs::rename(file.with_extension("new"), file)?)
    }

    /// An agent in this rack with a plugin `count`, from a folder of its own, where this version of it lies.
    async fn agent(
        &self,
        test: &Test,
        name: &str,
        rack: &str,
        version: Option<&str>,
        more: &str,
    ) -> Result<Agent> {
        let builder = self.aggregator.agent(test, name)?;
        let folder = builder.folder().join("plugins");
        std::fs::create_dir_all(&folder)?;
        if let Some(version) = version {
            self.keys
                .drop_in(&folder.join("count.wasm"), &plugin_of("count.wasm", "count", version)?)
                .await?;
        }
        builder
            .plugin_dir(&folder)
            .trust(&format!("policy = {}", quoted(test.folder().join("node-policy.toml"))))
            .section(format!("[node.labels]\nrack = \"{rack}\"\n"))
            .section(format!("[plugins.count]\ninterval = \"200ms\"\n{more}"))
            .enrol_and_start(&self.aggregator)
            .await
    }

    /// An agent that may run action-diagnostics, from a folder of its own. A collected bundle has one part, of a script that
    /// notes that it began, and ends once no file `hold` is there.
    async fn actor(&self, test: &Test, more: &str) -> Result<Agent> {
        use std::os::unix::fs::PermissionsExt as _;
        let builder = self.aggregator.agent(test, "gpu-1")?;
        let (folder, script) = (builder.folder().join("plugins"), test.folder().join("part"));
        std::fs::create_dir_all(&folder)?;
        let place = test.folder().canonicalize()?;
        let text = format!(
            "#!/bin/sh\necho begun >> {place}/begun\nwhile [ -e {place}/hold ]; do sleep 0.05; done\necho done\n",
            place = place.display()
        );
        std::fs::write(&script, text)?;
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
        let command =
            format!("{{ name = \"diag-part\", program = {}, timeout_seconds = 60 }}", quoted(&script));
        let part = "{ file = \"part.txt\", command = \"diag-part\" }";
        builder
            .plugin_dir(&folder)
            .trust(&format!("policy = {}", quoted(test.folder().join("node-policy.toml"))))
            .section(diagnostics(&bundles(test)?, part, &command) + more)
            .enrol_and_start(&self.aggregator)
            .await
    }

    /// Begins to roll action-diagnostics out.
    async fn begin_actor(&self, reference: &str) -> Result<()> {
        let line =
            ["plugin", "rollout", reference, "--name", ACTOR, "--soak", "1s", "--selector", "node=gpu-1"];
        self.aggregator.cli(&line).await?.ok().map(drop)
    }

    async fn begin(&self, reference: &str, more: &[&str]) -> Result<()> {
        let arguments =
            ["plugin", "rollout", reference, "--name", "count", "--soak", "1s", "--selector", "rack=r1"];
        self.aggregator.cli(&[&arguments[..], more].concat()).await?.ok().map(drop)
    }

    async fn refused(&self, reference: &str, words: &[&str]) -> Result<()> {
        let arguments = ["plugin", "rollout", reference, "--name", "count", "--selector", "rack=r1"];
        self.aggregator.cli(&arguments).await?.refused(words)
    }

    async fn status(&self) -> Result<Value> {
        self.aggregator.cli_json(&["plugin", "status", "count"]).await
    }

    /// Waits until the rollout is in this phase; gives it.
    async fn phase(&self, wanted: &str) -> Result<Value> {
        self.phase_of("count", wanted).await
    }

    async fn phase_of(&self, plugin: &str, wanted: &str) -> Result<Value> {
        eventually(&format!("the rollout is {wanted}"), || async {
            let rollout = self.aggregator.cli_json(&["plugin", "status", plugin]).await?;
            ensure!(rollout["phase"] == wanted, "{rollout}");
            Ok(rollout)
        })
        .await
    }

    /// Waits until this version runs there; gives what the agent says of it.
    async fn runs(&self, agent: &Agent, version: &str) -> Result<Value> {
        self.runs_of("count", agent, version).await
    }

    async fn runs_of(&self, id: &str, agent: &Agent, version: &str) -> Result<Value> {
        eventually(&format!("{} runs {id} {version}", agent.name()), || async {
            let plugin = plugin(agent, id).await?;
            ensure!(plugin["state"] == "running" && plugin["version"] == version, "{plugin}");
            Ok(plugin)
        })
        .await
    }
}

async fn plugin(agent: &Agent, id: &str) -> Result<Value> {
    let all = agent.api.json("/api/v1/plugins").await?;
    let list = all["plugins"].as_array().context("no list of plugins")?;
    list.iter().find(|plugin| plugin["id"] == id).cloned().with_context(|| format!("no {id}: {all}"))
}

const ACTOR: &str = "action-diagnostics";

fn node<'a>(rollout: &'a Value, name: &str) -> &'a Value {
    let agents = rollout["agents"].as_array();
    agents.into_iter().flatten().find(|agent| agent["node"] == name).unwrap_or(&Value::Null)
}

#[test]
fn stage_by_stage_halted_by_a_node_that_refuses_it_and_rolled_back() {
    run_within(Duration::from_secs(300), async |test: &Test| {
        let Some(mut bench) = Bench::new(test).await? else { return Ok(()) };
        let trap = "[plugins.count.settings]\nmode = \"trap\"\n";
        let mut agents = Vec::new();
        for (name, rack, more) in
            [("gpu-1", "r1", ""), ("gpu-2", "r1", ""), ("gpu-3", "r1", trap), ("gpu-4", "r2", "")]
        {
            agents.push(bench.agent(test, name, rack, Some("1.0.0"), more).await?);
        }
        for agent in &agents {
            bench.runs(agent, "1.0.0").await?;
            bench.aggregator.connected(agent.name(), true).await?;
        }
        let [one, two, three, four] = agents.as_slice() else { anyhow::bail!("four agents") };
        // What each may do stands on the aggregator, as the node tells it.
        eventually("who may do what", || async {
            let all = bench.aggregator.api.json("/api/v1/grants?plugin=count").await?;
            let list = all["grants"].as_array().context("no list")?;
            let good = |line: &Value| {
                line["version"] == "1.0.0" && line["connected"] == true && line["grants"] == json!([])
            };
            ensure!(list.len() == 4 && list.iter().all(good), "{all}");
            let one = bench.aggregator.api.json("/api/v1/grants?node=gpu-1").await?;
            ensure!(
                one["grants"][0]["node"] == "gpu-1" && one["grants"].as_array().map(Vec::len) == Some(1),
                "{one}"
            );
            Ok(())
        })
        .await?;

        // With `trap` in its settings its first collect traps: three keeps what it runs.
        let two_zero = plugin_of("hostile.wasm", "count", "2.0.0")?;
        let reference = bench.registry.push(test, &two_zero, "count:2.0.0", &[&bench.keys]).await?;
        bench.begin(&reference, &["--stages", "1,2,all"]).await?;
        bench.refused(&reference, &["is running", "pause it"]).await?;
        let halted = bench.phase("halted").await?;
        ensure!(halted["stage"] == 3 && halted["resolved"] == reference, "{halted}");
        for (name, stage, state) in [("gpu-1", 1, "done"), ("gpu-2", 2, "done"), ("gpu-3", 3, "failed")] {
            ensure!(
                node(&halted, name)["stage"] == stage && node(&halted, name)["state"] == state,
                "{halted}"
            );
        }
        ensure!(node(&halted, "gpu-3")["code"] == "PKT-0060" && node(&halted, "gpu-4").is_null(), "{halted}");
        ensure!(halted["reason"].as_str().is_some_and(|why| why.contains("gpu-3")), "{halted}");
        for agent in [one, two] {
            let plugin = bench.runs(agent, "2.0.0").await?;
            ensure!(plugin["rolled_out"] == true && plugin["signed_by"] == "k0", "{plugin}");
        }
        for agent in [three, four] {
            bench.runs(agent, "1.0.0").await?;
        }
        let nodes = bench.aggregator.cli(&["nodes", "--plugins"]).await?.ok()?;
        ensure!(nodes.lines().any(|line| line.contains("gpu-1") && line.contains("2.0.0")), "{nodes}");
        let shown = bench.aggregator.cli(&["node", "show", "gpu-1"]).await?.ok()?;
        ensure!(shown.contains("rack=r1") && shown.contains("2.0.0"), "{shown}");
        let own = e2e::exposition::Exposition::parse(&bench.aggregator.api.text("/metrics/self").await?)?;
        let phase = own.value("picket_rollout_phase", &[("plugin", "count"), ("phase", "halted")])?;
        let done = own.value("picket_rollout_nodes", &[("plugin", "count"), ("state", "done")])?;
        ensure!(phase == 1.0 && done == 2.0, "{phase} {done}");

        // Halted it stays over a restart, and so does what it would go back to.
        bench.aggregator.restart(test).await?;
        let after = bench.phase("halted").await?;
        ensure!(node(&after, "gpu-1")["state"] == "done", "{after}");
        let id = after["id"].as_str().context("no id")?;
        let (viewer, operator) =
            (bench.aggregator.api_token("viewer").await?, bench.aggregator.api_token("operator").await?);
        for (token, verb, wanted) in
            [(&viewer, "rollback", 403), (&operator, "resume", 403), (&operator, "pause", 409)]
        {
            let path = format!("/api/v1/rollouts/{id}/{verb}");
            let api = bench.aggregator.api.with_token(Some(token));
            let (status, body) = api.request("POST", &path, None).await?;
            ensure!(status == wanted, "{verb}: {status} {body}");
        }
        bench.aggregator.cli(&["plugin", "rollback", "count"]).await?.ok()?;
        let reverted = bench.phase("reverted").await?;
        for name in ["gpu-1", "gpu-2", "gpu-3"] {
            ensure!(node(&reverted, name)["state"] == "reverted", "{reverted}");
        }
        for agent in &agents {
            let plugin = bench.runs(agent, "1.0.0").await?;
            ensure!(plugin["rolled_out"] == false, "{plugin}");
        }
        let log = bench.aggregator.cli(&["audit", "show"]).await?.ok()?;
        for event in [
            "rollout.started",
            "rollout.offered",
            "rollout.stage",
            "rollout.halted",
            "rollout.rollback",
            "rollout.reverted",
        ] {
            ensure!(log.contains(event), "{event} is not in {log}");
        }
        bench.aggregator.cli(&["audit", "verify"]).await?.ok()?;

        // Revoked, it is refused from then on.
        let digest = reverted["digest"].as_str().context("no digest")?;
        let revoked = format!("[revoked]\ndigests = [\"sha256:{digest}\"]\n");
        bench.trust(test, "rollout-policy.toml", &[&bench.keys], &revoked)?;
        bench.refused(&reference, &["PKT-0015"]).await
    });
}

#[test]
fn killed_in_mid_transfer_it_goes_on_and_who_was_away_is_told_later() {
    run_within(Duration::from_secs(300), async |test: &Test| {
        let Some(mut bench) = Bench::new(test).await? else { return Ok(()) };
        // No file lies in the folder: the rollout alone brings it.
        let mut agent = bench.agent(test, "gpu-1", "r1", None, "").await?;
        let mut away = bench.agent(test, "gpu-2", "r1", Some("1.0.0"), "").await?;
        bench.runs(&away, "1.0.0").await?;
        bench.aggregator.connected("gpu-1", true).await?;
        away.daemon.kill()?;
        bench.aggregator.connected("gpu-2", false).await?;
        let large = plugin_of("count.wasm", "count", "2.0.0")?;
        let large = padded(large, 48 << 20)?;
        let reference = bench.registry.push(test, &large, "count:large", &[&bench.keys]).await?;
        bench.begin(&reference, &["--stages", "all"]).await?;
        let incoming = agent.state().join("artifacts/incoming");
        let part = || -> Option<u64> {
            let entry = std::fs::read_dir(&incoming).ok()?.filter_map(Result::ok).next()?;
            Some(entry.metadata().ok()?.len())
        };
        // Looked for without a pause: 48 MiB are there soon.
        let begun = std::time::Instant::now();
        while part().is_none_or(|bytes| bytes == 0) {
            ensure!(begun.elapsed() < e2e::DEADLINE, "no transfer began");
            std::thread::sleep(Duration::from_millis(1));
        }
        agent.daemon.kill()?;
        let came = part().context("it was all there before the kill")?;
        ensure!(came < large.len() as u64, "{came} bytes came");
        bench.aggregator.daemon.kill()?;
        bench.aggregator.restart(test).await?;
        agent.restart(test).await?;
        let plugin = bench.runs(&agent, "2.0.0").await?;
        ensure!(plugin["rolled_out"] == true, "{plugin}");
        let log = agent.daemon.log();
        ensure!(log.contains("the aggregator offers a version"), "{log}");
        let complete = bench.phase("complete").await?;
        ensure!(
            node(&complete, "gpu-1")["state"] == "done" && node(&complete, "gpu-2").is_null(),
            "{complete}"
        );
        away.restart(test).await?;
        bench.runs(&away, "2.0.0").await?;
        eventually("who came later is counted", || async {
            let status = bench.status().await?;
            ensure!(node(&status, "gpu-2")["state"] == "done" && status["phase"] == "complete", "{status}");
            Ok(())
        })
        .await?;
        // Back: one to its file, the other to nothing.
        bench.aggregator.cli(&["plugin", "rollback", "count"]).await?.ok()?;
        bench.phase("reverted").await?;
        bench.runs(&away, "1.0.0").await?;
        agent.plugin_state("count", "removed").await?;
        Ok(())
    });
}

#[test]
fn what_is_not_trusted_goes_nowhere() {
    run_within(Duration::from_secs(300), async |test: &Test| {
        let Some(bench) = Bench::new(test).await? else { return Ok(()) };
        let agent = bench.agent(test, "gpu-1", "r1", Some("1.0.0"), "\n[plugins.node]\n").await?;
        bench.runs(&agent, "1.0.0").await?;
        bench.aggregator.connected("gpu-1", true).await?;
        let bytes = plugin_of("count.wasm", "count", "2.0.0")?;
        let unsigned = bench.registry.push(test, &bytes, "count:unsigned", &[]).await?;
        bench.refused(&unsigned, &["PKT-0011", "not signed"]).await?;
        bench.refused("registry.example.org/plugins/count:1", &["[[rollout.registries]]"]).await?;
        bench.refused(&format!("{}/plugins/nothing:1", bench.registry.host()), &["404"]).await?;
        let central = Keys::new(test.folder(), "central").await?;
        let signed = bench.registry.push(test, &bytes, "count:central", &[&central]).await?;
        bench.refused(&signed, &["PKT-0013"]).await?;
        // Nobody was told anything, and no file of it was kept.
        ensure!(std::fs::read_dir(bench.aggregator.state().join("rollouts"))?.next().is_none());
        ensure!(bench.aggregator.cli(&["plugin", "status", "count"]).await?.ok().is_err());

        // What the node's operator has not configured, or not granted, does not run.
        let node_plugin = std::fs::read(plugins().join("node.wasm"))?;
        let node_plugin = bench.registry.push(test, &node_plugin, "node:1", &[&bench.keys]).await?;
        for (name, code) in [("other", "PKT-0102"), ("node", "PKT-0030")] {
            let arguments = ["plugin", "rollout", &node_plugin, "--name", name, "--selector", "node=gpu-1"];
            bench.aggregator.cli(&arguments).await?.ok()?;
            eventually(&format!("{name} is refused"), || async {
                let rollout = bench.aggregator.cli_json(&["plugin", "status", name]).await?;
                ensure!(rollout["phase"] == "halted" && node(&rollout, "gpu-1")["code"] == code, "{rollout}");
                Ok(())
            })
            .await?;
        }

        // The aggregator alone trusts that key: the node judges by its own policy.
        bench.trust(test, "rollout-policy.toml", &[&bench.keys, &central], "")?;
        bench.begin(&signed, &[]).await?;
        let halted = bench.phase("halted").await?;
        ensure!(node(&halted, "gpu-1")["code"] == "PKT-0013", "{halted}");
        bench.runs(&agent, "1.0.0").await?;
        // With the node's own word for it, it goes on.
        bench.trust(test, "node-policy.toml", &[&bench.keys, &central], "")?;
        bench.aggregator.cli(&["plugin", "resume", "count"]).await?.ok()?;
        bench.phase("complete").await?;
        bench.runs(&agent, "2.0.0").await?;
        // And the file of the node's operator takes its place again.
        let file = agent.folder().join("plugins/count.wasm");
        bench.keys.drop_in(&file, &plugin_of("count.wasm", "count", "3.0.0")?).await?;
        let plugin = bench.runs(&agent, "3.0.0").await?;
        ensure!(plugin["rolled_out"] == false && signature(&file).exists(), "{plugin}");
        Ok(())
    });
}

#[test]
fn an_action_plugin_acts_as_rolled_out_and_as_before_once_rolled_back() {
    run_within(Duration::from_secs(300), async |test: &Test| {
        let Some(mut bench) = Bench::new(test).await? else { return Ok(()) };
        let mut agent = bench.actor(test, "").await?;
        let file = agent.folder().join("plugins/action-diagnostics.wasm");
        bench.keys.drop_in(&file, &first_party_as(ACTOR, "0.1.0")?).await?;
        agent.daemon.signal(rustix::process::Signal::HUP)?;
        let one = bench.runs_of(ACTOR, &agent, "0.1.0").await?;
        acts(test, &bench, &one, "first").await?;
        let (stale, digest, _) = plan_of(&bench.aggregator, ACTOR, "collect", &["name=stale"]).await?;

        // Signed and no action at all: what acted goes on.
        let wrong = plugin_of("count.wasm", ACTOR, "0.3.0")?;
        let wrong = bench.registry.push(test, &wrong, "actor:wrong", &[&bench.keys]).await?;
        bench.begin_actor(&wrong).await?;
        let halted = bench.phase_of(ACTOR, "halted").await?;
        ensure!(node(&halted, "gpu-1")["code"] == "PKT-0021", "{halted}");
        let kept = bench.runs_of(ACTOR, &agent, "0.1.0").await?;
        ensure!(kept["refused"]["version"] == "0.3.0" && kept["rolled_out"] == false, "{kept}");
        acts(test, &bench, &one, "kept").await?;

        let two =
            bench.registry.push(test, &first_party_as(ACTOR, "0.2.0")?, "actor:2", &[&bench.keys]).await?;
        bench.begin_actor(&two).await?;
        let complete = bench.phase_of(ACTOR, "complete").await?;
        ensure!(node(&complete, "gpu-1")["state"] == "done", "{complete}");
        let two = bench.runs_of(ACTOR, &agent, "0.2.0").await?;
        ensure!(two["rolled_out"] == true && two["refused"].is_null(), "{two}");
        ensure!(two["digest"] == complete["digest"] && two["signed_by"] == "k0", "{two}");
        acts(test, &bench, &two, "second").await?;
        // What was agreed to was another version's plan.
        let line = ["action", "apply", "gpu-1", &stale, "--digest", &digest];
        bench.aggregator.cli(&line).await?.refused(&["the plan is another one now"])?;

        // Both ends begin anew, and nothing is offered again.
        agent.daemon.kill()?;
        bench.aggregator.restart(test).await?;
        agent.restart(test).await?;
        let again = bench.runs_of(ACTOR, &agent, "0.2.0").await?;
        ensure!(again["rolled_out"] == true && again["swaps"]["done"] == 0, "{again}");
        acts(test, &bench, &two, "again").await?;

        bench.aggregator.cli(&["plugin", "rollback", ACTOR]).await?.ok()?;
        bench.phase_of(ACTOR, "reverted").await?;
        let back = bench.runs_of(ACTOR, &agent, "0.1.0").await?;
        ensure!(back["rolled_out"] == false && back["digest"] == one["digest"], "{back}");
        acts(test, &bench, &one, "back").await
    });
}

/// What the node plans, and does, is this version's.
async fn acts(test: &Test, bench: &Bench, version: &Value, bundle: &str) -> Result<()> {
    bench.aggregator.connected("gpu-1", true).await?;
    offered(&bench.aggregator, "gpu-1").await?;
    let (id, digest, record) =
        plan_of(&bench.aggregator, ACTOR, "collect", &[&format!("name={bundle}")]).await?;
    ensure!(
        record["plan"]["version"] == version["version"]
            && record["plan"]["plugin_digest"] == version["digest"],
        "{record}"
    );
    let done = apply(&bench.aggregator, &id, &digest).await?;
    ensure!(done["state"] == "succeeded", "{done}");
    let part = std::fs::read_to_string(test.folder().join("bundles").join(bundle).join("part.txt"))?;
    ensure!(part == "done\n", "{part}");
    Ok(())
}

#[test]
fn a_version_waits_for_an_action_that_runs_through_a_kill_of_the_agent_too() {
    run_within(Duration::from_secs(300), async |test: &Test| {
        let Some(bench) = Bench::new(test).await? else { return Ok(()) };
        let limits = "[plugins.action-diagnostics.limits]\ncall_time = \"20s\"\n";
        let mut agent = bench.actor(test, limits).await?;
        bench.aggregator.connected("gpu-1", true).await?;
        let mut pushed = Vec::new();
        for version in ["0.1.0", "0.2.0"] {
            let bytes = first_party_as(ACTOR, version)?;
            let name = format!("actor:{version}");
            pushed.push(bench.registry.push(test, &bytes, &name, &[&bench.keys]).await?);
        }
        let [one, two] = pushed.as_slice() else { anyhow::bail!("two versions") };
        // No file lies in the folder: the rollout alone brings it.
        bench.begin_actor(one).await?;
        bench.phase_of(ACTOR, "complete").await?;
        bench.runs_of(ACTOR, &agent, "0.1.0").await?;

        let (hold, begun) = (test.folder().join("hold"), test.folder().join("begun"));
        std::fs::write(&hold, "")?;
        let (id, digest, _) = plan_of(&bench.aggregator, ACTOR, "collect", &["name=held"]).await?;
        bench.aggregator.cli(&["action", "apply", "gpu-1", &id, "--digest", &digest]).await?.ok()?;
        eventually("the step is under way", || async { Ok(std::fs::read(&begun).map(drop)?) }).await?;
        bench.begin_actor(two).await?;
        waits(&agent).await?;
        bench.runs_of(ACTOR, &agent, "0.1.0").await?;

        // The next life asks the version that began the step what became of it, and lets no other in before.
        agent.daemon.kill()?;
        std::fs::remove_file(&hold)?;
        agent.restart(test).await?;
        bench.runs_of(ACTOR, &agent, "0.1.0").await?;
        waits(&agent).await?;
        eventually("the action has ended", || async {
            let shown = bench.aggregator.cli_json(&["action", "show", &id]).await?;
            ensure!(shown["state"] == "succeeded", "{shown}");
            Ok(())
        })
        .await?;
        bench.phase_of(ACTOR, "complete").await?;
        let two = bench.runs_of(ACTOR, &agent, "0.2.0").await?;
        acts(test, &bench, &two, "second").await?;
        bench.aggregator.cli(&["plugin", "rollback", ACTOR]).await?.ok()?;
        bench.phase_of(ACTOR, "reverted").await?;
        let one = bench.runs_of(ACTOR, &agent, "0.1.0").await?;
        ensure!(one["rolled_out"] == true, "{one}");
        acts(test, &bench, &one, "back").await
    });
}

/// Until the agent has said that what is offered waits.
async fn waits(agent: &Agent) -> Result<()> {
    eventually("what is offered waits", || async {
        ensure!(agent.daemon.log().contains("an action of the running version is under way"));
        Ok(())
    })
    .await
}

/// The component with a section in front of its end that says nothing, so that it is so large.
fn padded(mut bytes: Vec<u8>, size: usize) -> Result<Vec<u8>> {
    let name = b"padding";
    let rest = size.checked_sub(bytes.len() + 16).context("larger than that already")?;
    bytes.push(0);
    let mut len = rest + 1 + name.len();
    while len > 0x7f {
        bytes.push(u8::try_from(len & 0x7f)? | 0x80);
        len >>= 7;
    }
    bytes.push(u8::try_from(len)?);
    bytes.push(u8::try_from(name.len())?);
    bytes.extend_from_slice(name);
    bytes.resize(bytes.len() + rest, 0);
    Ok(bytes)
}
