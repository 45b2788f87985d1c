//! The agent with the `node` plugin against node_exporter on a server's files: 32 CPUs, some 520 series, whatever machine the
//! bench runs on. Both must tell the same series before anything is measured.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::exposition::{Exposition, Labels};
use e2e::{Api, quoted};

use crate::machine::Machine;
use crate::node::Node;
use crate::precise::Cpu;
use crate::process::{Server, free_port, until};
use crate::report::Figure;
use crate::rows::agent::COLLECTORS;
use crate::setup::Places;

const ROW: &str = "server";
/// node_exporter's own default; distributions change it.
const MOUNT_POINTS: &str =
    "^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)";

pub async fn measure(places: &Places, runs: usize, quick: bool) -> Result<Vec<Figure>> {
    let rounds: u32 = if quick { 4 } else { 18 };
    let dir = tempfile::Builder::new().prefix("picket-bench-").tempdir_in("target")?;
    let dir = std::fs::canonicalize(dir.path()).map(|path| (dir, path))?;
    let machine = Machine::start(&dir.1.join("server"))?;
    let (mut ours, mut theirs, mut series) = (vec![], vec![], vec![]);
    for run in 0..runs {
        eprintln!("server: run {} of {runs}", run + 1);
        let folder = dir.1.join(format!("agent-{run}"));
        let node = Node::start(places, &folder, &sections(&machine), &["node"]).await?;
        let collected = collects(&node).await?;
        let before = Cpu::of_tree(node.server.pid())?;
        // One collection a second. Not polled meanwhile: a scrape costs as much as a collection.
        tokio::time::sleep(Duration::from_secs(u64::from(rounds))).await;
        let cpu = Cpu::of_tree(node.server.pid())?.since(&before);
        let collected = collects(&node).await? - collected;
        let page = node.api.metrics().await?;
        ensure!(
            page.sum("picket_source_errors_total", &[]) == 0.0,
            "the plugin failed: {}",
            folder.display()
        );
        ensure!(collected + 1.0 >= f64::from(rounds), "{collected} collections in {rounds} seconds");
        ours.push(cpu * 1000.0 / collected);
        let told = host_series(&page);
        series.push(told.len() as f64);
        drop(node);

        if let Some(program) = places.peer("node_exporter") {
            let port = free_port()?;
            let root = machine.root.display();
            let mut args = vec![
                format!("--web.listen-address=127.0.0.1:{port}"),
                format!("--path.procfs={root}/proc"),
                format!("--path.sysfs={root}/sys"),
                format!("--path.rootfs={root}"),
                format!("--path.udev.data={root}/run/udev/data"),
                format!("--collector.filesystem.mount-points-exclude={MOUNT_POINTS}"),
                // By netlink it would see the interfaces of this machine.
                "--no-collector.netdev.netlink".to_owned(),
                "--collector.disable-defaults".to_owned(),
                "--web.disable-exporter-metrics".to_owned(),
            ];
            args.extend(COLLECTORS.iter().map(|c| format!("--collector.{c}")));
            let log = dir.1.join("node_exporter.log");
            let server = Server::start("node_exporter", &program, &args, &log)?;
            let api = Api::new(&format!("http://127.0.0.1:{port}"), None, None)?;
            until("node_exporter", Duration::from_secs(20), async || api.metrics().await.is_ok()).await?;
            same(&told, &host_series(&api.metrics().await?))?;
            let before = Cpu::of_tree(server.pid())?;
            for _ in 0..rounds {
                tokio::time::sleep(Duration::from_secs(1)).await;
                api.text("/metrics").await?;
            }
            theirs.push(Cpu::of_tree(server.pid())?.since(&before) * 1000.0 / f64::from(rounds));
        }
    }
    let what = format!("CPU a collection, {:.0} series", crate::report::median(&series));
    Ok(vec![Figure::new(ROW, what, "ms", false, &ours, Some(("node_exporter", &theirs)), Some(5.0))])
}

fn sections(machine: &Machine) -> String {
    let root = machine.root.display().to_string();
    let below = |path: &str| quoted(format!("{root}{path}"));
    // What node_exporter does not collect here.
    let off =
        ["hwmon", "infiniband"].map(|c| format!("[plugins.node.settings.{c}]\nenabled = false\n")).concat();
    format!(
        "[plugins.node]\nfile = \"node.wasm\"\ninterval = \"1s\"\n[plugins.node.settings]\nroot = {}\n{off}\
         [[plugins.node.grants]]\ncapability = \"files\"\n\
         read = [\"/proc/**\", \"/sys/**\", \"/run/udev/data/*\", {}, {}, {}]\nfilesystems = [\"/**\"]\n\
         [[plugins.node.grants]]\ncapability = \"system\"\n",
        below(""),
        below("/proc/**"),
        below("/sys/**"),
        below("/run/udev/data/*"),
    )
}

/// How often the plugin has collected: what the agent exports of that is as old as its last own collection.
async fn collects(node: &Node) -> Result<f64> {
    let told = node.api.json("/api/v1/plugins").await?;
    told["plugins"][0]["collects"]["ok"].as_f64().context("the agent tells of no collects")
}

/// Names and labels of what tells of the host; a label with an empty value is none.
fn host_series(page: &Exposition) -> BTreeSet<(String, Labels)> {
    // node_exporter has the last one by netlink alone, which would be this machine's.
    let own = |name: &str| {
        name.starts_with("node_scrape_collector_")
            || ["node_exporter_build_info", "node_network_receive_nohandler_total"].contains(&name)
    };
    let names = page.names().filter(|name| name.starts_with("node_") && !own(name));
    let series =
        names.flat_map(|name| page.series(name).iter().map(move |(labels, _)| (name.to_owned(), labels)));
    series
        .map(|(name, labels)| {
            (
                name,
                labels.iter().filter(|(_, v)| !v.is_empty()).map(|(n, v)| (n.clone(), v.clone())).collect(),
            )
        })
        .collect()
}

fn same(ours: &BTreeSet<(String, Labels)>, theirs: &BTreeSet<(String, Labels)>) -> Result<()> {
    let some =
        |a: &BTreeSet<_>, b: &BTreeSet<_>| format!("{:?}", a.difference(b).take(5).collect::<Vec<_>>());
    ensure!(
        ours == theirs,
        "not the same series: of {} ours alone tells {}; of {} node_exporter alone {}",
        ours.len(),
        some(ours, theirs),
        theirs.len(),
        some(theirs, ours)
    );
    Ok(())
}
