//! Other exporters on the node, passed on by the plugin `prometheus`: a real node_exporter, a real Prometheus' own
//! page, discovery files, text files, and servers that do what none should.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::exposition::{Exposition, Labels};
use e2e::{
    Agent, AgentBuilder, Api, BadServer, Behaviour, Daemon, Prometheus, Test, eventually, free_port, quoted,
    run,
};

/// The plugin's section; it may ask any port of loopback and read below `folder`.
fn plugin(folder: &Path, interval: &str, settings: &str) -> String {
    format!(
        "[plugins.prometheus]\nfile = \"prometheus.wasm\"\ninterval = \"{interval}\"\n\
         [plugins.prometheus.settings]\n{settings}\n\
         [[plugins.prometheus.grants]]\ncapability = \"http\"\nurls = [{{ host = \"127.0.0.1\", ports = \"1024-65535\" }}]\n\
         [[plugins.prometheus.grants]]\ncapability = \"files\"\nread = [{}]\n",
        quoted(folder.join("**"))
    )
}

fn targets(ports: &[u16]) -> String {
    let list: Vec<String> = ports.iter().map(|p| format!("\"127.0.0.1:{p}\"")).collect();
    format!(
        "[[plugins.prometheus.settings.jobs]]\njob_name = \"app\"\nstatic_configs = [{{ targets = [{}] }}]",
        list.join(", ")
    )
}

async fn node_exporter(test: &Test, program: &Path) -> Result<(Daemon, Api)> {
    let port = free_port()?;
    let mut command = Command::new(program);
    command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    let mut daemon = Daemon::start(test, "node_exporter", &mut command)?;
    let api = Api::new(&format!("http://127.0.0.1:{port}"), None, None)?;
    eventually("node_exporter answers", || {
        let running = daemon.check_running();
        let api = api.clone();
        async move {
            running?;
            api.metrics().await.map(drop)
        }
    })
    .await?;
    Ok((daemon, api))
}

fn address(api: &Api) -> String {
    api.url().trim_start_matches("http://").to_owned()
}

/// What a page has, as names and labels, but for what is NaN. A label with an empty value is none.
fn identities(page: &Exposition) -> BTreeSet<(String, Labels)> {
    let mut all = BTreeSet::new();
    for name in page.names() {
        let series = page.series(name).iter().filter(|(_, value)| !value.is_nan());
        all.extend(series.map(|(labels, _)| {
            let labels = labels.iter().filter(|(_, value)| !value.is_empty());
            (name.to_owned(), labels.map(|(n, v)| (n.clone(), v.clone())).collect())
        }));
    }
    all
}

/// Every series of `page` stands in what the agent exports, with the labels of the target and none lost.
fn check_passed(page: &Exposition, ours: &Exposition, job: &str, target: &str) -> Result<usize> {
    let said = identities(page);
    let ours: BTreeSet<(String, Labels)> = identities(ours)
        .into_iter()
        .filter(|(_, labels)| labels.get("target").is_some_and(|t| t == target))
        .collect();
    let missing: Vec<String> = said
        .iter()
        .filter(|(name, labels)| {
            let mut labels = labels.clone();
            labels.entry("job".to_owned()).or_insert_with(|| job.to_owned());
            labels.entry("target".to_owned()).or_insert_with(|| target.to_owned());
            !ours.contains(&(name.clone(), labels))
        })
        .map(|(name, labels)| format!("{name}{labels:?}"))
        .collect();
    ensure!(missing.is_empty(), "{} of {} are missing: {:?}", missing.len(), said.len(), missing.first());
    Ok(said.len())
}

#[test]
fn a_real_node_exporter_and_a_real_prometheus_are_passed_on() {
    run(async |test: &Test| {
        let Some(exporter) = test.part("node_exporter") else { return Ok(()) };
        let Some(program) = test.part("prometheus") else { return Ok(()) };
        let (_exporter, exporter) = node_exporter(test, &exporter).await?;
        let scrape =
            format!("- job_name: node\n  static_configs:\n  - targets: [\"{}\"]\n", address(&exporter));
        let prometheus = Prometheus::start(test, &program, &scrape).await?;
        prometheus.eventually("node_load1").await?;

        let settings = format!(
            "[[plugins.prometheus.settings.jobs]]\njob_name = \"node\"\nstatic_configs = [{{ targets = [\"{}\"] }}]\n\
             [[plugins.prometheus.settings.jobs]]\njob_name = \"prometheus\"\nstatic_configs = [{{ targets = [\"{}\"] }}]",
            address(&exporter),
            address(&prometheus.api)
        );
        let aggregator = test.aggregator().await?;
        let agent = aggregator
            .agent(test, "host-1")?
            .section(plugin(test.folder(), "1s", &settings))
            .enrol_and_start(&aggregator)
            .await?;
        agent.plugin_state("prometheus", "running").await?;
        for (job, theirs) in [("node", &exporter), ("prometheus", &prometheus.api)] {
            let target = address(theirs);
            let count = eventually(&format!("all of {job} is there"), || async {
                let page = theirs.metrics().await?;
                let ours = agent.api.metrics().await?;
                check_passed(&page, &ours, job, &target)
            })
            .await?;
            ensure!(count > 200, "{job} has {count} series only");
            let ours = agent.api.metrics().await?;
            let labels = [("job", job), ("target", target.as_str())];
            ensure!(ours.value("up", &labels)? == 1.0);
            ensure!(ours.value("scrape_samples_scraped", &labels)? >= count as f64);
            ensure!(ours.value("scrape_duration_seconds", &labels)? > 0.0);
        }
        // Types and help are theirs.
        let (theirs, ours) = (exporter.text("/metrics").await?, agent.api.text("/metrics").await?);
        for line in theirs.lines().filter(|l| l.starts_with("# TYPE node_") || l.starts_with("# HELP node_"))
        {
            ensure!(ours.contains(line), "{line}");
        }
        let ours = agent.api.metrics().await?;
        ensure!(
            ours.sum("picket_source_errors_total", &[("plugin", "prometheus")]) == 0.0,
            "something failed"
        );
        // On the fleet the instance is the node.
        let target = address(&exporter);
        let labels = [("instance", "host-1"), ("job", "node"), ("target", target.as_str())];
        aggregator.has("node_load1", &labels).await?;
        aggregator.has("up", &labels).await?;
        Ok(())
    });
}

#[test]
fn discovery_files_and_text_files_are_followed() {
    run(async |test: &Test| {
        let first = BadServer::start("/metrics", Behaviour::Page("first 1\n".to_owned())).await?;
        let second =
            BadServer::start("/metrics", Behaviour::Page("second 2\ngo_threads 3\n".to_owned())).await?;
        let folder = test.folder().join("given");
        std::fs::create_dir_all(folder.join("text"))?;
        let list = folder.join("targets.json");
        let write = |ports: &[u16]| {
            let groups: Vec<_> = ports
                .iter()
                .map(|p| serde_json::json!({ "targets": [format!("127.0.0.1:{p}")], "labels": { "rack": "r1" } }))
                .collect();
            std::fs::write(&list, serde_json::json!(groups).to_string())
        };
        write(&[first.port()])?;
        let settings = format!(
            "discovery_seconds = 1\ntextfile_directories = [{}]\n[[plugins.prometheus.settings.jobs]]\njob_name = \"found\"\n\
             file_sd_configs = [{{ files = [{}] }}]\n\
             metric_relabel_configs = [{{ source_labels = [\"__name__\"], regex = \"go_.*\", action = \"drop\" }}]",
            quoted(folder.join("text")),
            quoted(folder.join("*.json"))
        );
        let agent =
            AgentBuilder::new(test, "alone")?.section(plugin(&folder, "300ms", &settings)).start().await?;
        let has = async |name: &str, labels: &[(&str, &str)]| {
            eventually(&format!("{name} {labels:?}"), || async {
                agent.api.metrics().await?.value(name, labels)
            })
            .await
        };
        let target = format!("127.0.0.1:{}", first.port());
        has("first", &[("job", "found"), ("rack", "r1"), ("target", &target)]).await?;
        write(&[second.port()])?;
        let target = format!("127.0.0.1:{}", second.port());
        has("second", &[("job", "found"), ("rack", "r1"), ("target", &target)]).await?;
        eventually("what is not named any more is gone", || async {
            let page = agent.api.metrics().await?;
            ensure!(page.series("first").is_empty() && page.series("go_threads").is_empty());
            Ok(())
        })
        .await?;

        let file = folder.join("text/backup.prom");
        std::fs::write(&file, "# TYPE backup_ok gauge\nbackup_ok{disk=\"a\"} 1\n")?;
        ensure!(has("backup_ok", &[("disk", "a")]).await? == 1.0);
        let path = file.to_str().context("the folder is not UTF-8")?;
        let modified = std::fs::metadata(&file)?.modified()?.duration_since(std::time::UNIX_EPOCH)?;
        let said = has("node_textfile_mtime_seconds", &[("file", path)]).await?;
        ensure!((said - modified.as_secs_f64()).abs() < 0.001, "{said} is not {modified:?}");
        ensure!(has("node_textfile_scrape_error", &[]).await? == 0.0);
        std::fs::write(folder.join("text/bad.prom"), "nonsense{\n")?;
        eventually("the error is said", || async {
            let page = agent.api.metrics().await?;
            ensure!(page.value("node_textfile_scrape_error", &[])? == 1.0);
            ensure!(page.value("backup_ok", &[("disk", "a")])? == 1.0);
            Ok(())
        })
        .await?;
        // A link out of the folder leads nowhere.
        std::os::unix::fs::symlink("/etc/passwd", folder.join("text/out.prom"))?;
        eventually("the link is refused", || async {
            let page = agent.api.metrics().await?;
            ensure!(
                page.sum("picket_source_errors_total", &[("plugin", "prometheus"), ("reason", "denied")])
                    > 0.0
            );
            Ok(())
        })
        .await
    });
}

async fn becomes(agent: &Agent, target: &str, wanted: &str) -> Result<()> {
    eventually(&format!("{target} is {wanted}"), || async {
        let page = agent.api.metrics().await?;
        let labels = [("job", "app"), ("target", target), ("state", wanted)];
        let value = page.value("picket_scrape_state", &labels)?;
        ensure!(value == 1.0, "{:?}", page.series("picket_scrape_state"));
        Ok(())
    })
    .await
}

/// Killed, hung, a byte a second, 500, HTML, a gigabyte, no UTF-8, a redirect to the metadata address: the exporter
/// beside it goes on, and each is said by its name.
#[test]
fn servers_that_do_what_none_should_touch_no_other() {
    run(async |test: &Test| {
        let raw = |text: &str| Behaviour::Raw(text.as_bytes().to_vec());
        let answer = |status: &str, body: &str| {
            raw(&format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            ))
        };
        let cases = [
            (Behaviour::Hang, "slow", "timed-out"),
            (Behaviour::Drip, "slow", "timed-out"),
            (Behaviour::Flood(1 << 30), "malformed", "too-large"),
            (answer("500 Internal Server Error", "no"), "refusing", "status"),
            (
                answer("200 OK", "<!DOCTYPE html>\n<html><body>Sign in</body></html>\n"),
                "malformed",
                "malformed",
            ),
            (
                raw(
                    "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://169.254.169.254/latest/meta-data/\r\nContent-Length: 0\r\n\r\n",
                ),
                "refusing",
                "redirect",
            ),
            (
                Behaviour::Raw(
                    [&b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n"[..], b"\xff\xfe\xfd\n\xff\xfe\xfd\n"]
                        .concat(),
                ),
                "malformed",
                "malformed",
            ),
            (raw("SSH-2.0-OpenSSH_9.6\r\n"), "malformed", "malformed"),
        ];
        let good =
            BadServer::start("/metrics", Behaviour::Page("# TYPE n_total counter\nn_total 1\n".to_owned()))
                .await?;
        let mut servers = Vec::new();
        for (behaviour, ..) in &cases {
            servers.push(BadServer::start("/metrics", behaviour.clone()).await?);
        }
        let dead = free_port()?;
        let mut ports: Vec<u16> = servers.iter().map(BadServer::port).collect();
        ports.extend([good.port(), dead]);
        let settings = format!("timeout_ms = 400\n{}", targets(&ports));
        let agent = AgentBuilder::new(test, "alone")?
            .section(plugin(test.folder(), "500ms", &settings))
            .start()
            .await?;
        let target = |port: u16| format!("127.0.0.1:{port}");
        let counted = async |reason: &str| {
            eventually(&format!("{reason} is counted"), || async {
                let page = agent.api.metrics().await?;
                let labels = [("plugin", "prometheus"), ("reason", reason)];
                ensure!(page.sum("picket_source_errors_total", &labels) > 0.0);
                Ok(())
            })
            .await
        };
        for (server, (behaviour, state, reason)) in servers.iter().zip(&cases) {
            becomes(&agent, &target(server.port()), state).await.with_context(|| format!("{behaviour:?}"))?;
            counted(reason).await.with_context(|| format!("{behaviour:?}"))?;
        }
        becomes(&agent, &target(dead), "unreachable").await?;
        let good_target = target(good.port());
        let labels = [("job", "app"), ("target", good_target.as_str())];
        for n in 2..6 {
            good.behave(Behaviour::Page(format!("# TYPE n_total counter\nn_total {n}\n")));
            eventually("the good one goes on", || async {
                let page = agent.api.metrics().await?;
                ensure!(page.value("n_total", &labels)? == f64::from(n));
                ensure!(page.value("up", &labels)? == 1.0);
                Ok(())
            })
            .await?;
        }
        // Things that a page does over time.
        good.behave(Behaviour::Page("# TYPE n_total counter\nn_total 1\n".to_owned()));
        counted("reset").await?;
        good.behave(Behaviour::Page("# TYPE n_total gauge\nn_total 1\n".to_owned()));
        counted("type-changed").await?;
        good.behave(Behaviour::Page("# TYPE n_total counter\nn_total 1\nn_total 2\n".to_owned()));
        counted("duplicate").await?;
        good.behave(Behaviour::Page("n_total 1\nm{a=\"1\" 2\n".to_owned()));
        counted("malformed").await?;
        becomes(&agent, &target(good.port()), "up").await?;
        // Every one that mends is read again.
        for server in &servers {
            server.behave(Behaviour::Page("mended 1\n".to_owned()));
        }
        for server in &servers {
            becomes(&agent, &target(server.port()), "up").await?;
        }
        good.kill();
        becomes(&agent, &target(good.port()), "unreachable").await?;
        agent.plugin_state("prometheus", "running").await.map(drop)
    });
}

/// The page of a busy vLLM server, passed on in the sandbox: cheap enough to do it every few seconds, a container.
#[test]
fn a_page_of_vllm_is_passed_on_at_speed_in_the_sandbox() {
    run(async |test: &Test| {
        let agent =
            AgentBuilder::new(test, "alone")?.guest("pages", "pages.wasm", "100ms", "").start().await?;
        let page = eventually("fifty pages", || async {
            let page = agent.api.metrics().await?;
            ensure!(page.value("test_pages", &[])? >= 50.0);
            Ok(page)
        })
        .await?;
        let (bytes, seconds) = (page.value("test_page_bytes", &[])?, page.value("test_page_seconds", &[])?);
        ensure!(page.value("test_page_samples", &[])? > 400.0);
        ensure!(page.series("vllm:num_requests_running").len() == 1);
        println!("{:.0} MB/s: {bytes} bytes in {:.0} us", bytes / seconds / 1e6, seconds * 1e6);
        ensure!(bytes / seconds > 20e6, "{bytes} bytes took {seconds} s");
        Ok(())
    });
}
