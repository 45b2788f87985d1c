//! The agent with the `node` plugin against node_exporter with the same collectors: CPU a collection, resident memory.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{Server, free_port, until};
use crate::report::Figure;
use crate::setup::{Aggregator, Places, get};

const ROW: &str = "agent";
/// What the `node` plugin reads.
pub const COLLECTORS: [&str; 11] = [
    "cpu",
    "diskstats",
    "filesystem",
    "loadavg",
    "meminfo",
    "netdev",
    "pressure",
    "stat",
    "time",
    "uname",
    "vmstat",
];

pub async fn measure(places: &Places, runs: usize, quick: bool) -> Result<Vec<Figure>> {
    let rounds: u32 = if quick { 10 } else { 60 };
    let (mut cpu, mut pss, mut rss, mut peer_cpu, mut peer_rss) = (vec![], vec![], vec![], vec![], vec![]);
    let mut series = (vec![], vec![]);
    for run in 0..runs {
        eprintln!("agent: run {} of {runs}", run + 1);
        let dir = tempfile::Builder::new().prefix("picket-bench-").tempdir_in("target")?;
        let dir_path = std::fs::canonicalize(dir.path())?;
        let (server, port) = agent(places, &dir_path, &["node"], "1s").await?;
        let before = server.tree_cpu_seconds()?;
        // One collection a second. Not polled meanwhile: a scrape costs as much as a collection.
        tokio::time::sleep(Duration::from_secs(u64::from(rounds))).await;
        cpu.push((server.tree_cpu_seconds()? - before) * 1000.0 / f64::from(rounds));
        series.0.push(node_series(port, "/metrics").await?);
        drop(server);

        let five = ["node", "mock", "node-a", "node-b", "node-c"];
        let (server, _) = agent(places, &dir_path, &five, "1s").await?;
        tokio::time::sleep(Duration::from_secs(if quick { 5 } else { 30 })).await;
        rss.push(server.rss()? as f64 / 1e6);
        pss.push(server.tree_pss()? as f64 / 1e6);
        drop(server);

        if let Some(program) = places.peer("node_exporter") {
            let port = free_port()?;
            let mut args = vec![
                "--collector.disable-defaults".to_owned(),
                format!("--web.listen-address=127.0.0.1:{port}"),
            ];
            args.extend(COLLECTORS.iter().map(|c| format!("--collector.{c}")));
            let log = dir_path.join("node_exporter.log");
            let server = Server::start("node_exporter", &program, &args, &log)?;
            until("node_exporter", Duration::from_secs(20), async || {
                get(port, "/metrics", None).await.is_ok()
            })
            .await?;
            let before = server.cpu_seconds()?;
            for _ in 0..rounds {
                get(port, "/metrics", None).await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            peer_cpu.push((server.cpu_seconds()? - before) * 1000.0 / f64::from(rounds));
            peer_rss.push(server.rss()? as f64 / 1e6);
            series.1.push(node_series(port, "/metrics").await?);
        }
    }
    let peer = "node_exporter";
    Ok(vec![
        Figure::new(ROW, "CPU a collection", "ms", false, &cpu, Some((peer, &peer_cpu)), Some(5.0)),
        Figure::new(
            ROW,
            "PSS, five plugins, agent and worker",
            "MB",
            false,
            &pss,
            Some((peer, &peer_rss)),
            Some(20.0),
        ),
        Figure::new(ROW, "RSS of the agent alone", "MB", false, &rss, None, None),
        Figure::new(ROW, "node_* series", "series", true, &series.0, Some((peer, &series.1)), None),
    ])
}

/// An agent on its own with plugins by name; `node-x` is the `node` component with another byte in it, so that
/// nothing of it is shared, and with one collector each, so that no two export one series.
pub async fn agent(places: &Places, dir: &Path, plugins: &[&str], interval: &str) -> Result<(Server, u16)> {
    let port = free_port()?;
    let at = dir.display();
    let mut config = format!(
        "state_dir = \"{at}/state\"\ncache_dir = \"{at}/cache\"\nplugin_dir = \"{at}\"\ntrust.allow_unsigned = true\n\
         compiler = \"{}\"\n[http]\nlisten = \"127.0.0.1:{port}\"\n",
        std::fs::canonicalize(places.ours("picket-compile")?)?.display()
    );
    let parts = [("node-a", "loadavg"), ("node-b", "uname"), ("node-c", "time")];
    for name in plugins {
        let source = if name.starts_with("node") { "node.wasm" } else { "mock.wasm" };
        let mut bytes = std::fs::read(places.plugins.join(source)).context("plugins are built first")?;
        // A custom section named by the copy: id 0, length, name length, name.
        bytes.extend([0, name.len() as u8 + 1, name.len() as u8]);
        bytes.extend(name.as_bytes());
        std::fs::write(dir.join(format!("{name}.wasm")), bytes)?;
        config += &format!("[plugins.{name}]\nfile = \"{name}.wasm\"\ninterval = \"{interval}\"\n");
        let shared: Vec<&str> = if plugins.len() > 1 { parts.iter().map(|p| p.1).collect() } else { vec![] };
        let wanted: Vec<&str> = match parts.iter().find(|p| p.0 == *name) {
            Some((_, one)) => vec![one],
            None => COLLECTORS.iter().copied().filter(|c| !shared.contains(c)).collect(),
        };
        if source == "node.wasm" {
            for collector in COLLECTORS.iter().filter(|c| !wanted.contains(c)) {
                config += &format!("[plugins.{name}.settings.{collector}]\nenabled = false\n");
            }
            config += &GRANTS.replace("NAME", name);
        } else if plugins.len() > 1 {
            config += &format!("[plugins.{name}.settings]\nhost = false\n");
        }
    }
    std::fs::write(dir.join("agent.toml"), config)?;
    let log = dir.join("agent.log");
    let file = dir.join("agent.toml").display().to_string();
    let program = places.ours("picket-agent")?;
    let server = Server::start("picket-agent", &program, &["run".into(), "--config".into(), file], &log)?;
    until("the agent's plugins", Duration::from_secs(60), async || {
        collects(port).await.is_ok_and(|n| n >= plugins.len() as f64)
    })
    .await
    .with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
    Ok((server, port))
}

/// Lets the agent whose folder is `dir` stream to an aggregator, as `node`.
pub fn join(aggregator: &Aggregator, dir: &Path, node: &str) -> Result<()> {
    let (certificate, key) = aggregator.authority.client_pem(node)?;
    std::fs::write(dir.join("client.pem"), certificate)?;
    std::fs::write(dir.join("client.key"), key)?;
    std::fs::create_dir_all(dir.join("conf.d"))?;
    let at = dir.display();
    let config = format!(
        "[uplink]\naggregator = \"localhost:{}\"\ncertificate = \"{at}/client.pem\"\nkey = \"{at}/client.key\"\n\
         authorities = \"{}/ca.pem\"\n",
        aggregator.uplink,
        aggregator.authority.files.display()
    );
    Ok(std::fs::write(dir.join("conf.d/uplink.toml"), config)?)
}

const GRANTS: &str = r#"[[plugins.NAME.grants]]
capability = "files"
read = ["/proc/**", "/sys/**", "/run/udev/data/**", "/etc/**"]
filesystems = ["/**"]
[[plugins.NAME.grants]]
capability = "system"
"#;

/// Collections of all plugins so far.
async fn collects(port: u16) -> Result<f64> {
    let (_, page) = get(port, "/metrics", None).await?;
    let page = String::from_utf8_lossy(&page).into_owned();
    Ok(page
        .lines()
        .filter(|l| l.starts_with("picket_plugin_collects_total"))
        .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
        .sum())
}

async fn node_series(port: u16, path: &str) -> Result<f64> {
    let (_, page) = get(port, path, None).await?;
    Ok(String::from_utf8_lossy(&page).lines().filter(|l| l.starts_with("node_")).count() as f64)
}
