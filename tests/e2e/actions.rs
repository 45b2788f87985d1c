//! Actions from the CLI to a real Docker Engine and back: plan, digest, apply, result; what is refused; and an agent that is
//! killed between intent and result.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use e2e::{
    Agent, Aggregator, Docker, Engine as _, Slurm, Systemd, Test, eventually, quoted, repository, run,
    run_within, target,
};
use serde_json::{Value, json};

const IMAGE: &str = "picket/worker";

/// The executor's section, and action-containers granted this socket's containers with the label.
fn sections(socket: &Path, more: &str) -> String {
    let socket = quoted(socket);
    format!(
        "[actions]\nenabled = true\n{more}\n\
         [plugins.action-containers]\nfile = \"action-containers.wasm\"\nrole = \"action\"\n\
         [[plugins.action-containers.grants]]\ncapability = \"containers\"\nsockets = [{socket}]\nlabels = [\"picket.actions=true\"]\n\
         [[plugins.action-containers.grants]]\ncapability = \"containers-control\"\nsockets = [{socket}]\n\
         labels = [\"picket.actions=true\"]\nverbs = [\"restart\", \"stop\", \"start\"]\n"
    )
}

/// A container that notes each of its starts in a file, and does not hear the signal to stop.
fn worker(notes: &Path, label: &str) -> Value {
    json!({
        "Image": format!("{IMAGE}:1"),
        "Cmd": ["/bin/busybox", "sh", "-c", "trap '' TERM; echo started >> /notes/starts; while :; do /bin/busybox sleep 1; done"],
        "Labels": { "picket.actions": label },
        "HostConfig": { "NetworkMode": "none", "Binds": [format!("{}:/notes", notes.display())] },
    })
}

fn starts(notes: &Path) -> usize {
    std::fs::read_to_string(notes.join("starts")).unwrap_or_default().lines().count()
}

fn notes(test: &Test, name: &str) -> Result<PathBuf> {
    let folder = test.folder().join(name);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

pub(crate) async fn offered(aggregator: &Aggregator, node: &str) -> Result<()> {
    eventually("the node offers its actions", || async {
        let offers = aggregator.api.json(&format!("/api/v1/nodes/{node}/actions")).await?;
        let plugins = offers["plugins"].as_array().context("no plugins")?;
        ensure!(offers["enabled"] == true && !plugins.is_empty(), "{offers}");
        Ok(())
    })
    .await
}

async fn plan(aggregator: &Aggregator, action: &str, parameters: &[&str]) -> Result<(String, String, Value)> {
    plan_of(aggregator, "action-containers", action, parameters).await
}

pub(crate) async fn plan_of(
    aggregator: &Aggregator,
    plugin: &str,
    action: &str,
    parameters: &[&str],
) -> Result<(String, String, Value)> {
    let mut line = vec!["action", "plan", "gpu-1", plugin, action];
    line.extend(parameters);
    let record = aggregator.cli_json(&line).await?;
    let text = |key: &str| record[key].as_str().map(str::to_owned).with_context(|| record.to_string());
    Ok((text("id")?, text("digest")?, record))
}

pub(crate) async fn apply(aggregator: &Aggregator, id: &str, digest: &str) -> Result<Value> {
    aggregator.cli_json(&["action", "apply", "gpu-1", id, "--digest", digest, "--wait", "60s"]).await
}

#[test]
fn a_container_is_restarted_as_it_was_agreed_to() {
    run(async |test: &Test| {
        let Some(docker) = Docker::start(test).await? else { return Ok(()) };
        docker.image(IMAGE, "1", &[])?;
        let (mine, other) = (notes(test, "mine")?, notes(test, "other")?);
        let id = docker.run("llama", &worker(&mine, "true"))?;
        docker.run("database", &worker(&other, "false"))?;
        docker.run("slow", &worker(&notes(test, "slow")?, "true"))?;
        let aggregator = test.aggregator().await?;
        let agent = aggregator
            .agent(test, "gpu-1")?
            .section(sections(&docker.socket(), ""))
            .enrol_and_start(&aggregator)
            .await?;
        offered(&aggregator, "gpu-1").await?;
        eventually("the container has started", || async {
            ensure!(starts(&mine) == 1);
            Ok(())
        })
        .await?;

        // A plan says exactly what would be done, and does nothing.
        let (plan_id, digest, record) =
            plan(&aggregator, "restart", &["container=llama", "grace_seconds=0"]).await?;
        let summary = record["plan"]["steps"][0]["summary"].as_str().unwrap_or_default();
        ensure!(
            summary.contains("restart the container llama") && summary.contains(id.get(..12).unwrap_or(&id)),
            "{record}"
        );
        ensure!(record["state"] == "planned" && record["dangerous"] == false, "{record}");
        let (_, same, _) = plan(&aggregator, "restart", &["container=llama", "grace_seconds=0"]).await?;
        ensure!(same == digest, "the same state has the same plan");
        let (_, differs, _) = plan(&aggregator, "restart", &["container=llama", "grace_seconds=1"]).await?;
        ensure!(differs != digest);
        ensure!(starts(&mine) == 1, "a plan changes nothing");

        // A digest that was not shown, a container that is not granted, a viewer.
        let wrong = aggregator.cli(&["action", "apply", "gpu-1", &plan_id, "--digest", &differs]).await?;
        wrong.refused(&["the digest is not that of the plan"])?;
        let stranger = aggregator
            .cli(&["action", "plan", "gpu-1", "action-containers", "restart", "container=database"])
            .await?;
        stranger.refused(&["there is no container", "among the granted ones"])?;
        let viewer = aggregator.api_token("viewer").await?;
        let api = aggregator.api.with_token(Some(&viewer));
        let body = json!({ "id": plan_id, "digest": digest });
        let (status, answer) = api.request("POST", "/api/v1/nodes/gpu-1/actions/apply", Some(&body)).await?;
        ensure!(status == 403, "{status} {answer}");

        // What was looked at is done, once.
        let done = apply(&aggregator, &plan_id, &digest).await?;
        ensure!(
            done["state"] == "succeeded" && done["steps"][0]["message"] == "llama was restarted",
            "{done}"
        );
        eventually("the container has started again", || async {
            ensure!(starts(&mine) == 2, "{} starts", starts(&mine));
            Ok(())
        })
        .await?;
        let again = aggregator.cli(&["action", "apply", "gpu-1", &plan_id, "--digest", &digest]).await?;
        again.refused(&["is succeeded"])?;

        // Its cooldown: said in the plan, and held to.
        let (next, next_digest, record) =
            plan(&aggregator, "restart", &["container=llama", "grace_seconds=0"]).await?;
        ensure!(record["plan"]["blocked"][0].as_str().is_some_and(|b| b.contains("cooldown")), "{record}");
        let cooling = aggregator.cli(&["action", "apply", "gpu-1", &next, "--digest", &next_digest]).await?;
        cooling.refused(&["cooldown"])?;

        // The node changed between the plan and its apply.
        let (stop, stop_digest, _) =
            plan(&aggregator, "stop", &["container=llama", "grace_seconds=0"]).await?;
        docker.post(&format!("/containers/{id}/restart?t=0"))?;
        let changed = aggregator.cli(&["action", "apply", "gpu-1", &stop, "--digest", &stop_digest]).await?;
        changed.refused(&["the plan is another one now"])?;
        ensure!(docker.json(&format!("/containers/{id}/json"))?["State"]["Running"] == true);

        // A stop, and its undoing.
        let (stop, stop_digest, record) =
            plan(&aggregator, "stop", &["container=llama", "grace_seconds=0"]).await?;
        ensure!(record["reversible"] == true, "{record}");
        apply(&aggregator, &stop, &stop_digest).await?;
        ensure!(docker.json(&format!("/containers/{id}/json"))?["State"]["Running"] == false);
        aggregator.cli(&["action", "revert", &stop]).await?.ok()?;
        eventually("the container runs again", || async {
            let shown = aggregator.cli_json(&["action", "show", &stop]).await?;
            ensure!(shown["state"] == "reverted", "{shown}");
            ensure!(docker.json(&format!("/containers/{id}/json"))?["State"]["Running"] == true);
            Ok(())
        })
        .await?;
        ensure!(starts(&other) == 1, "nobody touched the other container");

        // One that is under way is cancelled: it had one step, which goes on to its end, and that is what is said.
        let (slow, slow_digest, _) =
            plan(&aggregator, "stop", &["container=slow", "grace_seconds=5"]).await?;
        aggregator.cli(&["action", "apply", "gpu-1", &slow, "--digest", &slow_digest]).await?.ok()?;
        aggregator.cli(&["action", "cancel", "gpu-1", &slow]).await?.ok()?;
        eventually("the stop has ended", || async {
            let shown = aggregator.cli_json(&["action", "show", &slow]).await?;
            ensure!(shown["state"] == "succeeded", "{shown}");
            Ok(())
        })
        .await?;
        aggregator.cli(&["action", "cancel", "gpu-1", &slow]).await?.refused(&["has ended"])?;

        // An operator sees all of it: the node's own figures, and events with what was acted on.
        eventually("the figures and the events", || async {
            let page = agent.api.metrics().await?;
            let of = |action, outcome| {
                let labels = [("plugin", "action-containers"), ("action", action), ("outcome", outcome)];
                page.value("picket_action_executions_total", &labels)
            };
            ensure!(of("restart", "succeeded")? == 1.0 && of("stop", "succeeded")? == 2.0);
            ensure!(of("stop", "reverted")? == 1.0);
            ensure!(page.sum("picket_action_running", &[]) == 0.0);
            page.value("picket_action_last_duration_seconds", &[("action", "restart")])?;
            let events = aggregator.api.json("/api/v1/events?node=gpu-1&kind=action.ended").await?;
            let list = events["events"].as_array().context("no list")?;
            ensure!(list.len() == 4 && list.iter().all(|e| e["plugin"] == "picket-agent"), "{events}");
            Ok(())
        })
        .await?;

        // All of it is in the audit log, whose chain holds; until somebody changes a word.
        let verified = aggregator.cli_json(&["audit", "verify"]).await?;
        ensure!(verified["good"] == true, "{verified}");
        let entries = aggregator.cli_json(&["audit", "show", "--subject", &plan_id]).await?;
        let told: Vec<&str> =
            entries.as_array().context("no entries")?.iter().filter_map(|e| e["event"].as_str()).collect();
        ensure!(
            told == [
                "action.planned",
                "action.apply-refused",
                "action.applied",
                "action.running",
                "action.succeeded",
                "action.apply-refused"
            ],
            "{told:?}"
        );
        let log = aggregator.state().join("audit.log");
        let copy = test.folder().join("audit.copy");
        std::fs::write(&copy, std::fs::read_to_string(&log)?.replacen("llama", "lamma", 1))?;
        let copy = copy.to_string_lossy().into_owned();
        aggregator.cli(&["audit", "verify", "--file", &copy]).await?.refused(&["changed by another hand"])?;
        Ok(())
    });
}

#[test]
fn an_agent_that_is_killed_asks_what_became_of_it() {
    run(async |test: &Test| {
        let Some(docker) = Docker::start(test).await? else { return Ok(()) };
        docker.image(IMAGE, "1", &[])?;
        let mine = notes(test, "mine")?;
        docker.run("llama", &worker(&mine, "true"))?;
        let aggregator = test.aggregator().await?;
        let mut agent: Agent = aggregator
            .agent(test, "gpu-1")?
            .section(sections(&docker.socket(), "cooldown = \"0s\""))
            .enrol_and_start(&aggregator)
            .await?;
        offered(&aggregator, "gpu-1").await?;
        eventually("the container has started", || async {
            ensure!(starts(&mine) == 1);
            Ok(())
        })
        .await?;

        // The container hears no signal, so the engine is at it for the grace's time; meanwhile the agent dies.
        let (id, digest, _) = plan(&aggregator, "restart", &["container=llama", "grace_seconds=8"]).await?;
        aggregator.cli(&["action", "apply", "gpu-1", &id, "--digest", &digest]).await?.ok()?;
        let journal = agent.state().join("actions/journal");
        eventually("the intent is on the disk", || async {
            let text = std::fs::read_to_string(&journal)?;
            ensure!(
                text.contains("\"entry\":\"intent\"") && !text.contains("\"entry\":\"outcome\""),
                "{text}"
            );
            Ok(())
        })
        .await?;
        eventually("the engine is at it", || async {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
            let filters = "%7B%22event%22%3A%5B%22kill%22%5D%7D";
            let event = docker.json(&format!("/events?since=1&until={now}&filters={filters}"))?;
            ensure!(event.to_string().contains("kill"), "no signal was sent yet");
            Ok(())
        })
        .await?;
        agent.daemon.kill()?;
        let running = aggregator.cli_json(&["action", "show", &id]).await?;
        ensure!(running["state"] == "running" && running["ended_ms"].is_null(), "{running}");
        agent.restart(test).await?;
        eventually("the action ended", || async {
            let shown = aggregator.cli_json(&["action", "show", &id]).await?;
            ensure!(shown["state"] == "succeeded", "{shown}");
            let message = shown["steps"][0]["message"].as_str().unwrap_or_default();
            ensure!(message.contains("llama runs, started at"), "a probe says by what it is seen: {shown}");
            Ok(())
        })
        .await?;
        // Long enough for a second one to be seen, if there were one under way.
        tokio::time::sleep(Duration::from_secs(10)).await;
        ensure!(starts(&mine) == 2, "{} starts: it was restarted once", starts(&mine));
        let text = std::fs::read_to_string(&journal)?;
        ensure!(text.matches("\"entry\":\"intent\"").count() == 1, "{text}");
        Ok(())
    });
}

#[test]
fn a_node_only_observes_unless_its_operator_says_so() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let socket = test.folder().join("no.sock");
        let sections = sections(&socket, "").replacen("enabled = true", "enabled = false", 1);
        let agent = aggregator.agent(test, "gpu-1")?.section(sections).enrol_and_start(&aggregator).await?;
        aggregator.connected("gpu-1", true).await?;
        let refused = aggregator
            .cli(&["action", "plan", "gpu-1", "action-containers", "restart", "container=x"])
            .await?;
        refused.refused(&["only observes", "actions.enabled = true"])?;
        ensure!(!agent.state().join("actions").exists());

        // The breaker stops everybody, an admin too.
        aggregator.cli(&["action", "pause", "--reason", "a storm"]).await?.ok()?;
        let breaker = aggregator.api.json("/api/v1/breaker").await?;
        ensure!(breaker["open"] == true && breaker["why"]["reason"] == "a storm", "{breaker}");
        aggregator.cli(&["action", "resume"]).await?.ok()?;
        Ok(())
    });
}

/// Plans, applies and waits; gives the record.
async fn done(aggregator: &Aggregator, plugin: &str, action: &str, parameters: &[&str]) -> Result<Value> {
    let (id, digest, _) = plan_of(aggregator, plugin, action, parameters).await?;
    let record = apply(aggregator, &id, &digest).await?;
    ensure!(record["state"] == "succeeded", "{record}");
    Ok(record)
}

#[test]
fn nodes_and_jobs_of_a_real_slurm() {
    run_within(Duration::from_secs(240), async |test: &Test| {
        let Some(slurm) = Slurm::start(test).await? else { return Ok(()) };
        let aggregator = test.aggregator().await?;
        let section = format!(
            "[actions]\nenabled = true\ncooldown = \"0s\"\n[plugins.action-slurm]\nfile = \"action-slurm.wasm\"\nrole = \"action\"\n{}",
            slurm.commands_grant_of("action-slurm")?
        );
        let _agent = aggregator.agent(test, "gpu-1")?.section(section).enrol_and_start(&aggregator).await?;
        offered(&aggregator, "gpu-1").await?;
        let node = || slurm.run("scontrol", &["-o", "show", "node", "gpu1"]);
        let state = |text: &str| {
            text.split_whitespace().find_map(|w| w.strip_prefix("State=")).unwrap_or_default().to_owned()
        };

        // Drained with a reason, seen by Slurm's own words; undone by the same execution's revert.
        let wish = ["node=gpu1", "reason=XID 79 on GPU 3"];
        let (id, digest, record) = plan_of(&aggregator, "action-slurm", "drain", &wish).await?;
        ensure!(state(&node()?) == "IDLE", "a plan changes nothing");
        ensure!(record["dangerous"] == false && record["reversible"] == true, "{record}");
        let drained = apply(&aggregator, &id, &digest).await?;
        ensure!(drained["state"] == "succeeded", "{drained}");
        let text = node()?;
        ensure!(state(&text).contains("DRAIN") && text.contains("Reason=XID 79 on GPU 3 ["), "{text}");
        let (_, _, again) = plan_of(&aggregator, "action-slurm", "drain", &wish).await?;
        ensure!(again["plan"]["steps"] == json!([]), "{again}");
        aggregator.cli(&["action", "revert", &id]).await?.ok()?;
        eventually("the node has jobs again", || async {
            let shown = aggregator.cli_json(&["action", "show", &id]).await?;
            ensure!(shown["state"] == "reverted", "{shown}");
            ensure!(!state(&node()?).contains("DRAIN"));
            Ok(())
        })
        .await?;

        // Drained by hand; resumed by us.
        slurm.run("scontrol", &["update", "NodeName=gpu2", "State=DRAIN", "Reason=by hand"])?;
        done(&aggregator, "action-slurm", "resume", &["node=gpu2"]).await?;
        let text = slurm.run("scontrol", &["-o", "show", "node", "gpu2"])?;
        ensure!(!state(&text).contains("DRAIN"), "{text}");

        // A job that runs is requeued, then cancelled.
        let sent =
            slurm.run("sbatch", &["--parsable", "--requeue", "--output=/dev/null", "--wrap", "sleep 300"])?;
        let job = sent.trim().to_owned();
        let show = || slurm.run("scontrol", &["-o", "show", "job", &job]);
        eventually("the job runs", || async {
            let text = show()?;
            ensure!(text.contains("JobState=RUNNING"), "{text}");
            Ok(())
        })
        .await?;
        let wish = format!("job={job}");
        let record = done(&aggregator, "action-slurm", "requeue", &[&wish]).await?;
        ensure!(record["steps"][0]["message"] == format!("job {job} was requeued"), "{record}");
        let text = show()?;
        ensure!(text.contains("Restarts=1"), "{text}");
        done(&aggregator, "action-slurm", "cancel", &[&wish]).await?;
        let text = show()?;
        ensure!(text.contains("JobState=CANCELLED"), "{text}");
        let (_, _, ended) = plan_of(&aggregator, "action-slurm", "cancel", &[&wish]).await?;
        ensure!(ended["plan"]["steps"] == json!([]), "{ended}");

        // What Slurm does not know, and what would be another field of its record.
        for (wish, words) in [
            (["node=nope", "reason=x"], "not found"),
            (["node=gpu1", "reason=x State=IDLE"], "a reason has no"),
            (["node=gpu[1-4]", "reason=x"], "is not allowed"),
        ] {
            let mut line = vec!["action", "plan", "gpu-1", "action-slurm", "drain"];
            line.extend(wish);
            aggregator.cli(&line).await?.refused(&[words])?;
        }
        Ok(())
    });
}

#[test]
fn files_are_deleted_by_rule_once_an_admin_agreed() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let folder = test.folder().canonicalize()?.join("cores");
        std::fs::create_dir_all(&folder)?;
        let old = std::time::SystemTime::now() - Duration::from_secs(9 * 86_400);
        for name in ["a.core", "b.core", "keep.txt"] {
            std::fs::write(folder.join(name), vec![b'x'; 1000])?;
            std::fs::File::options().append(true).open(folder.join(name))?.set_modified(old)?;
        }
        std::fs::write(folder.join("young.core"), "x")?;
        std::os::unix::fs::symlink(folder.join("keep.txt"), folder.join("link.core"))?;
        let pattern = format!("{}/*.core", folder.display());
        let section = format!(
            "[actions]\nenabled = true\n[plugins.action-files]\nfile = \"action-files.wasm\"\nrole = \"action\"\n\
             [[plugins.action-files.grants]]\ncapability = \"files-write\"\ndelete = [{}]\nolder_than_seconds = 3600\n",
            quoted(&pattern)
        );
        let _agent = aggregator.agent(test, "gpu-1")?.section(section).enrol_and_start(&aggregator).await?;
        offered(&aggregator, "gpu-1").await?;
        let wish = format!("pattern={pattern}");
        let (id, digest, record) = plan_of(&aggregator, "action-files", "clean-up", &[&wish]).await?;
        ensure!(record["dangerous"] == true && record["plan"]["notes"][0] == "2 files, 2.0 KiB", "{record}");

        // An operator may not by himself; an admin agrees, then he may.
        let operator = aggregator.api_token("operator").await?;
        let api = aggregator.api.with_token(Some(&operator));
        let body = json!({ "id": id, "digest": digest });
        let (status, answer) = api.request("POST", "/api/v1/nodes/gpu-1/actions/apply", Some(&body)).await?;
        ensure!(status == 403 && answer.contains("approve"), "{status} {answer}");
        aggregator.cli(&["action", "approve", &id, "--digest", &digest]).await?.ok()?;
        let (status, answer) = api.request("POST", "/api/v1/nodes/gpu-1/actions/apply", Some(&body)).await?;
        ensure!(status == 202, "{status} {answer}");
        eventually("the files are gone", || async {
            let shown = aggregator.cli_json(&["action", "show", &id]).await?;
            ensure!(shown["state"] == "succeeded", "{shown}");
            ensure!(shown["applied_by"] == "operator" && shown["approved_by"] == "admin", "{shown}");
            Ok(())
        })
        .await?;
        let mut left: Vec<String> =
            std::fs::read_dir(&folder)?.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
        left.sort();
        ensure!(left == ["keep.txt", "link.core", "young.core"], "{left:?}");
        let outside = format!("pattern={}/*", folder.display());
        let refused =
            aggregator.cli(&["action", "plan", "gpu-1", "action-files", "clean-up", &outside]).await?;
        refused.refused(&["not allowed"])?;
        Ok(())
    });
}

#[test]
fn units_of_a_real_systemd() {
    run(async |test: &Test| {
        let log = test.folder().join("log");
        let note = |word: &str| format!("/bin/sh -c 'echo {word} >> {}'", log.display());
        let web = format!(
            "[Unit]\nDefaultDependencies=no\n[Service]\nExecStartPre={}\nExecStart=/bin/sleep 1000\nExecReload={}\n",
            note("started"),
            note("reloaded")
        );
        let plain = "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/sleep 1000\n";
        let units = [("web.service", web.as_str()), ("plain.service", plain), ("other.service", plain)];
        let Some(systemd) = Systemd::start(test, &units).await? else { return Ok(()) };
        let aggregator = test.aggregator().await?;
        let section = format!(
            "[actions]\nenabled = true\ncooldown = \"0s\"\n[plugins.action-systemd]\nfile = \"action-systemd.wasm\"\nrole = \"action\"\n\
             [[plugins.action-systemd.grants]]\ncapability = \"systemd-control\"\nunits = [\"web.service\", \"plain.service\"]\n\
             verbs = [\"restart\", \"reload\"]\nprogram = {}\n",
            quoted(systemd.systemctl()?)
        );
        let _agent = aggregator.agent(test, "gpu-1")?.section(section).enrol_and_start(&aggregator).await?;
        offered(&aggregator, "gpu-1").await?;
        let noted = || std::fs::read_to_string(&log).unwrap_or_default();
        ensure!(noted() == "started\n", "{}", noted());
        let invocation = || systemd.run(&["show", "-p", "InvocationID", "--value", "web.service"]);
        let first = invocation()?;

        done(&aggregator, "action-systemd", "reload", &["unit=web.service"]).await?;
        ensure!(noted() == "started\nreloaded\n" && invocation()? == first, "{}", noted());
        done(&aggregator, "action-systemd", "restart", &["unit=web.service"]).await?;
        ensure!(noted() == "started\nreloaded\nstarted\n" && invocation()? != first, "{}", noted());

        // A plan that another hand made old.
        let (id, digest, _) =
            plan_of(&aggregator, "action-systemd", "restart", &["unit=web.service"]).await?;
        systemd.run(&["restart", "web.service"])?;
        let old = aggregator.cli(&["action", "apply", "gpu-1", &id, "--digest", &digest]).await?;
        old.refused(&["the plan is another one now"])?;
        for (action, unit, words) in [
            ("restart", "unit=other.service", "not allowed"),
            ("restart", "unit=none.service", "not allowed"),
            ("restart", "unit=web.service other.service", "not valid"),
            ("restart", "unit=--help.service", "not valid"),
            ("reload", "unit=plain.service", "has no reload"),
        ] {
            let refused =
                aggregator.cli(&["action", "plan", "gpu-1", "action-systemd", action, unit]).await?;
            refused.refused(&[words])?;
        }
        Ok(())
    });
}

const HEALTHY: &str = include_str!("../fake-nvml/scenarios/8xh100.toml");

/// An nvidia-smi that does to the fake library's scenario what the real one does to a GPU, and notes each call.
fn nvidia_smi(test: &Test, scenario: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let (file, calls) = (test.folder().join("nvidia-smi"), test.folder().join("smi-calls"));
    let script = format!(
        r#"#!/bin/sh
echo "$*" >> {calls}
set_line() {{ sed "s/^$1 = .*/$1 = $2/" {s} > {s}.new && mv {s}.new {s}; }}
case "$3" in
-pl) set_line power_limit_milliwatts "$4"000 ;;
-pm) [ "$4" = 1 ] && set_line persistence_mode true || set_line persistence_mode false ;;
--gpu-reset) if grep -q '^persistence_mode = true' {s}; then echo "GPU is in use by another client"; exit 255; fi ;;
esac
"#,
        calls = calls.display(),
        s = scenario.display()
    );
    std::fs::write(&file, script)?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755))?;
    Ok(file)
}

/// What `action-gpu` asks for, with this nvidia-smi.
fn gpu_grants(smi: &Path) -> Result<String> {
    let manifest = std::fs::read_to_string(repository().join("plugins/action-gpu/plugin.toml"))?;
    let manifest: toml::Table = manifest.replace("/usr/bin/nvidia-smi", &smi.to_string_lossy()).parse()?;
    let mut lines = String::new();
    for need in manifest.get("needs").and_then(toml::Value::as_array).context("no needs")? {
        let mut grant = need.as_table().context("no table")?.clone();
        grant.remove("why");
        let commands = grant.remove("commands");
        lines.push_str(&format!("[[plugins.action-gpu.grants]]\n{grant}"));
        if let Some(commands) = commands {
            lines.push_str(&format!("commands = {commands}\n"));
        }
    }
    Ok(lines)
}

#[test]
fn a_gpu_that_is_pretended() {
    run(async |test: &Test| {
        let scenario = test.folder().join("scenario.toml");
        let idle = format!("{}\n", HEALTHY.replace("persistence_mode = false", "persistence_mode = true"));
        std::fs::write(&scenario, &idle)?;
        let smi = nvidia_smi(test, &scenario)?;
        let calls = || std::fs::read_to_string(test.folder().join("smi-calls")).unwrap_or_default();
        let library = target().join("debug/libfake_nvml.so");
        ensure!(library.exists(), "{} is missing: cargo build -p fake-nvml", library.display());
        let aggregator = test.aggregator().await?;
        let section = format!(
            "[nvml]\nlibrary = {}\n[actions]\nenabled = true\ncooldown = \"0s\"\n[plugins.action-gpu]\nfile = \"action-gpu.wasm\"\n\
             role = \"action\"\n{}",
            quoted(&library),
            gpu_grants(&smi)?
        );
        let _agent = aggregator
            .agent(test, "gpu-1")?
            .section(section)
            .environment("FAKE_NVML_SCENARIO", &scenario.to_string_lossy())
            .enrol_and_start(&aggregator)
            .await?;
        offered(&aggregator, "gpu-1").await?;
        let gpu = "gpu=GPU-6f3a1c00-0000-4000-8000-000000000001";

        let record = done(&aggregator, "action-gpu", "power-limit", &[gpu, "watts=400"]).await?;
        ensure!(std::fs::read_to_string(&scenario)?.contains("power_limit_milliwatts = 400000"));
        let id = record["id"].as_str().context("no id")?.to_owned();
        aggregator.cli(&["action", "revert", &id]).await?.ok()?;
        eventually("the limit is as it was", || async {
            ensure!(std::fs::read_to_string(&scenario)?.contains("power_limit_milliwatts = 700000"));
            Ok(())
        })
        .await?;
        let high = aggregator
            .cli(&["action", "plan", "gpu-1", "action-gpu", "power-limit", gpu, "watts=900"])
            .await?;
        high.refused(&["takes 200 to 700 W"])?;

        // A reset: persistence off, reset, on again; it is dangerous, and not done while anything runs there.
        let busy = std::fs::read_to_string(&scenario)?.contains("processes = [");
        if busy {
            let refused = aggregator.cli(&["action", "plan", "gpu-1", "action-gpu", "reset", gpu]).await?;
            refused.refused(&["processes run on"])?;
            let text = std::fs::read_to_string(&scenario)?;
            let quiet: Vec<&str> = text.lines().filter(|l| !l.starts_with("processes = ")).collect();
            std::fs::write(&scenario, quiet.join("\n"))?;
        }
        let (id, digest, record) = plan_of(&aggregator, "action-gpu", "reset", &[gpu]).await?;
        ensure!(record["dangerous"] == true, "{record}");
        std::fs::write(test.folder().join("smi-calls"), "")?;
        let reset = apply(&aggregator, &id, &digest).await?;
        ensure!(reset["state"] == "succeeded" && reset["approved_by"] == "admin", "{reset}");
        let calls = calls();
        let last: Vec<&str> =
            calls.lines().filter_map(|l| l.split_once(' ')?.1.split_once(' ').map(|(_, l)| l)).collect();
        ensure!(last.contains(&"--gpu-reset"), "{calls}");
        Ok(())
    });
}

#[test]
fn without_a_driver_no_gpu_is_touched() {
    run(async |test: &Test| {
        let scenario = test.folder().join("scenario.toml");
        std::fs::write(&scenario, HEALTHY)?;
        let smi = nvidia_smi(test, &scenario)?;
        let aggregator = test.aggregator().await?;
        let section = format!(
            "[nvml]\nlibrary = {}\n[actions]\nenabled = true\n[plugins.action-gpu]\nfile = \"action-gpu.wasm\"\nrole = \"action\"\n{}",
            quoted(test.folder().join("libnvidia-ml.so.1")),
            gpu_grants(&smi)?
        );
        let _agent = aggregator.agent(test, "gpu-1")?.section(section).enrol_and_start(&aggregator).await?;
        offered(&aggregator, "gpu-1").await?;
        let gpu = "gpu=GPU-6f3a1c00-0000-4000-8000-000000000001";
        for line in
            [&["reset", gpu][..], &["power-limit", gpu, "watts=400"], &["persistence", gpu, "on=true"]]
        {
            let mut all = vec!["action", "plan", "gpu-1", "action-gpu"];
            all.extend(line);
            aggregator.cli(&all).await?.refused(&["no NVIDIA driver"])?;
        }
        ensure!(!test.folder().join("smi-calls").exists());
        Ok(())
    });
}

/// A folder for bundles.
pub(crate) fn bundles(test: &Test) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let bundles = test.folder().canonicalize()?.join("bundles");
    std::fs::create_dir(&bundles)?;
    std::fs::set_permissions(&bundles, std::fs::Permissions::from_mode(0o700))?;
    Ok(bundles)
}

/// action-diagnostics with these parts, granted these commands beside what its manifest asks for.
pub(crate) fn diagnostics(bundles: &Path, parts: &str, commands: &str) -> String {
    format!(
        "[actions]\nenabled = true\ncooldown = \"0s\"\n[plugins.action-diagnostics]\nrole = \"action\"\n\
         [plugins.action-diagnostics.settings]\nparts = [{parts}]\n\
         [[plugins.action-diagnostics.grants]]\ncapability = \"files-write\"\nbundle_dir = {bundles}\n\
         [[plugins.action-diagnostics.grants]]\ncapability = \"command\"\ncommands = [{commands}, \
         {{ name = \"diag-dmesg\", program = \"/bin/true\" }}, {{ name = \"diag-journal\", program = \"/bin/true\" }}, \
         {{ name = \"diag-nvidia-smi\", program = \"/bin/true\" }}, {{ name = \"diag-nvidia-bug-report\", program = \"/bin/true\" }}]\n\
         [[plugins.action-diagnostics.grants]]\ncapability = \"files\"\nread = [\"/etc/os-release\", \"/usr/lib/os-release\", \"/var/lib/picket-agent/bundles/nvidia-bug-report.gz\"]\n\
         [[plugins.action-diagnostics.grants]]\ncapability = \"http\"\nurls = [{{ scheme = \"http\", host = \"127.0.0.1\", port = 9460 }}]\n",
        bundles = quoted(bundles)
    )
}

#[test]
fn a_bundle_for_people_to_look_at() {
    run(async |test: &Test| {
        let bundles = bundles(test)?;
        let aggregator = test.aggregator().await?;
        let agent = aggregator.agent(test, "gpu-1")?;
        let parts = "{ file = \"mounts.txt\", command = \"diag-mounts\" }, { file = \"gone.txt\", command = \"diag-gone\" }, \
            { file = \"os\", read = \"/etc/os-release\" }";
        let commands = "{ name = \"diag-mounts\", program = \"/bin/cat\", arguments = [\"/proc/mounts\"] }, \
            { name = \"diag-gone\", program = \"/nowhere/x\" }";
        let section = diagnostics(&bundles, parts, commands);
        let _agent = agent.section(section).enrol_and_start(&aggregator).await?;
        offered(&aggregator, "gpu-1").await?;
        let record = done(&aggregator, "action-diagnostics", "collect", &["name=incident-1"]).await?;
        let gone = record["steps"][1]["message"].as_str().unwrap_or_default();
        ensure!(gone.contains("gone.txt is left out"), "{record}");
        let mounts = std::fs::read_to_string(bundles.join("incident-1/mounts.txt"))?;
        ensure!(mounts.contains(" / "), "{mounts}");
        ensure!(!bundles.join("incident-1/gone.txt").exists());
        Ok(())
    });
}
