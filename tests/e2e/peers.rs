//! Against the real programs of others: Prometheus scrapes us, promtool finds nothing, node_exporter says the same.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use e2e::exposition::{Exposition, Labels};
use e2e::{Api, Daemon, Prometheus, Test, eventually, free_port, promtool_check, run};

#[test]
fn a_real_prometheus_scrapes_the_aggregator_and_the_agent() {
    run(async |test: &Test| {
        let Some(program) = test.part("prometheus") else { return Ok(()) };
        let aggregator = test.aggregator().await?;
        let agent = aggregator
            .agent(test, "host-1")?
            .node("500ms")?
            .mock("500ms", "seed = 5\nhost = false")?
            .enrol_and_start(&aggregator)
            .await?;
        aggregator.has("node_load1", &[("instance", "host-1")]).await?;
        let token = aggregator.api_token("viewer").await?;
        let target = |url: &str| url.split("//").nth(1).unwrap_or_default().to_owned();
        let scrape = |job: &str, path: &str| {
            format!(
                "- job_name: {job}\n  honor_labels: true\n  scheme: https\n  metrics_path: {path}\n  authorization:\n    \
                 credentials: {token}\n  tls_config:\n    ca_file: {}\n  static_configs:\n  - targets: [\"{}\"]\n",
                aggregator.authority().display(),
                target(aggregator.api.url())
            )
        };
        let configs = format!(
            "{}{}- job_name: agent\n  static_configs:\n  - targets: [\"{}\"]\n",
            scrape("fleet", "/metrics"),
            scrape("aggregator", "/metrics/self"),
            target(agent.api.url())
        );
        let prometheus = Prometheus::start(test, &program, &configs).await?;
        for job in ["fleet", "aggregator", "agent"] {
            let (_, up) = prometheus.eventually(&format!("up{{job=\"{job}\"}} == 1")).await?;
            ensure!(up == 1.0, "up of {job} is {up}");
        }
        // The instance is the node, not the aggregator.
        let (metric, load) = prometheus.eventually("node_load1{job=\"fleet\"}").await?;
        ensure!(metric["instance"] == "host-1", "{metric}");
        ensure!(load >= 0.0, "{load}");
        ensure!(metric.get("exported_instance").is_none(), "{metric}");
        let (_, gpus) = prometheus.eventually("count(DCGM_FI_DEV_GPU_UTIL{job=\"fleet\"})").await?;
        ensure!(gpus == 8.0, "{gpus} GPUs");
        prometheus.eventually("rate(node_cpu_seconds_total{job=\"fleet\",mode=\"idle\"}[10s]) > 0").await?;
        Ok(())
    });
}

#[test]
fn promtool_finds_nothing() {
    run(async |test: &Test| {
        let Some(promtool) = test.part("promtool") else { return Ok(()) };
        let aggregator = test.aggregator().await?;
        let agent = aggregator
            .agent(test, "host-1")?
            .node("300ms")?
            .mock("300ms", "seed = 5\nhost = false")?
            .enrol_and_start(&aggregator)
            .await?;
        aggregator.has("node_load1", &[("instance", "host-1")]).await?;
        aggregator.has("DCGM_FI_DEV_GPU_UTIL", &[("instance", "host-1")]).await?;
        let fleet = aggregator.api.text("/metrics").await?;
        let own = aggregator.api.text("/metrics/self").await?;
        let local = agent.api.text("/metrics").await?;
        for (what, text) in [("the aggregator's", &fleet), ("its own", &own), ("the agent's", &local)] {
            Exposition::parse(text).with_context(|| format!("{what} metrics"))?;
            promtool_check(&promtool, text, NAMES_OF_OTHERS).with_context(|| format!("{what} metrics"))?;
        }
        Ok(())
    });
}

/// Names that are in use as they are and that promtool's linter finds fault with; node_exporter's own exposition and
/// DCGM's have the same findings.
const NAMES_OF_OTHERS: &[&str] = &["DCGM_FI_", "node_", "vllm:", "nvidia_gpu_", "litellm_", "llm_model_"];

const MOUNT_POINTS_EXCLUDE: &str =
    "^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)";

/// What node_exporter's `stat` collector gives beside the boot time, and what it says of itself: not ours to give.
fn not_ours(name: &str) -> bool {
    let of_itself = name.starts_with("node_scrape_collector") || name.starts_with("node_exporter_");
    of_itself || !name.starts_with("node_")
}

#[test]
fn node_exporter_says_the_same() {
    run(async |test: &Test| {
        let Some(program) = test.part("node_exporter") else { return Ok(()) };
        let port = free_port()?;
        let mut command = Command::new(program);
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--collector.disable-defaults");
        // Upstream's default; Debian leaves out more.
        command.arg(format!("--collector.filesystem.mount-points-exclude={MOUNT_POINTS_EXCLUDE}"));
        for collector in [
            "cpu",
            "meminfo",
            "loadavg",
            "filesystem",
            "diskstats",
            "netdev",
            "vmstat",
            "pressure",
            "uname",
            "stat",
            "time",
        ] {
            command.arg(format!("--collector.{collector}"));
        }
        let _daemon = Daemon::start(test, "node_exporter", &mut command)?;
        let theirs = Api::new(&format!("http://127.0.0.1:{port}"), None, None)?;
        eventually("node_exporter answers", || async { theirs.metrics().await }).await?;
        let aggregator = test.aggregator().await?;
        let _agent = aggregator.agent(test, "host-1")?.node("300ms")?.enrol_and_start(&aggregator).await?;
        aggregator.has("node_load1", &[("instance", "host-1")]).await?;

        // Processes come and go, and with them mounts and interfaces: the sets must agree once.
        eventually("the same series with the same values", || async {
            let before = theirs.metrics().await?;
            let since = before.value("node_time_seconds", &[])?;
            let ours = eventually("a sample taken meanwhile", || async {
                let ours = aggregator.api.metrics().await?;
                ensure!(ours.value("node_time_seconds", &[("instance", "host-1")])? > since, "not yet");
                Ok(ours)
            })
            .await?;
            let after = theirs.metrics().await?;
            compare(&before, &ours, &after)
        })
        .await
    });
}

/// Names, types and label sets are equal; what stood still is equal; what only grows lies between.
fn compare(before: &Exposition, ours: &Exposition, after: &Exposition) -> Result<()> {
    let names: BTreeSet<&str> = after.names().filter(|name| !not_ours(name)).collect();
    let mine: BTreeSet<&str> = ours.names().filter(|name| !not_ours(name)).collect();
    let missing: Vec<_> = names.difference(&mine).collect();
    let extra: Vec<_> = mine.difference(&names).collect();
    ensure!(missing.is_empty() && extra.is_empty(), "missing: {missing:?}; not node_exporter's: {extra:?}");
    let mut wrong = Vec::new();
    let (mut still, mut grew) = (0, 0);
    for name in names {
        if after.types.get(name) != ours.types.get(name) {
            wrong.push(format!(
                "{name} is a {:?}, theirs a {:?}",
                ours.types.get(name),
                after.types.get(name)
            ));
        }
        let (before, after, ours) = (by_labels(before, name), by_labels(after, name), by_labels(ours, name));
        for (labels, new) in &after {
            let Some(value) = ours.get(labels) else {
                wrong.push(format!("{name}{labels:?} is missing"));
                continue;
            };
            // node_exporter 1.11 joins a mount's options with the file system's without a comma between, and misses
            // `ro` where they meet: here the kernel is the one to agree with.
            if name == "node_filesystem_readonly" {
                let at = labels.get("mountpoint").map_or("", String::as_str);
                if read_only(at)?.is_some_and(|read_only| *value != f64::from(u8::from(read_only))) {
                    wrong.push(format!("{name}{labels:?} is {value}, the kernel says otherwise"));
                }
                continue;
            }
            let Some(old) = before.get(labels) else { continue };
            if old == new {
                still += 1;
                if !close(*value, *old) {
                    wrong.push(format!("{name}{labels:?} is {value}, theirs {old}"));
                }
            } else if name.ends_with("_total") && new > old {
                grew += 1;
                if *value < *old && !close(*value, *old) || *value > *new && !close(*value, *new) {
                    wrong.push(format!("{name}{labels:?} is {value}, not within {old} and {new}"));
                }
            }
        }
        let extra = ours.keys().filter(|labels| !after.contains_key(*labels));
        wrong.extend(extra.map(|labels| format!("{name}{labels:?} is not theirs")));
    }
    if !wrong.is_empty() {
        bail!("{} differ: {}", wrong.len(), wrong.join("; "));
    }
    ensure!(still > 100 && grew > 0, "too little was compared: {still} equal, {grew} grown");
    Ok(())
}

/// What the mount table says of a mount point (proc_pid_mountinfo(5)): the last mount there counts.
fn read_only(at: &str) -> Result<Option<bool>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let of = |line: &str| -> Option<bool> {
        let (mount, system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(4);
        let has_ro = |options: &str| options.split(',').any(|option| option == "ro");
        (fields.next()? == at)
            .then(|| fields.next().is_some_and(has_ro) || system.split(' ').nth(2).is_some_and(has_ro))
    };
    Ok(table.lines().filter_map(of).next_back())
}

fn by_labels(exposition: &Exposition, name: &str) -> BTreeMap<Labels, f64> {
    let without_instance = |(labels, value): &(Labels, f64)| {
        let mut labels = labels.clone();
        labels.remove("instance");
        // An empty label is no label: node_exporter writes them, the agent leaves them out.
        labels.retain(|_, value| !value.is_empty());
        // Where it can't read all of a disk's queue (newer kernels), node_exporter says 0 whatever the disk is.
        if name == "node_disk_info" {
            labels.remove("rotational");
        }
        (labels, *value)
    };
    exposition.series(name).iter().map(without_instance).collect()
}

/// Equal but for the last digits of a float that went through text.
fn close(a: f64, b: f64) -> bool {
    a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()) || (a.is_nan() && b.is_nan())
}
