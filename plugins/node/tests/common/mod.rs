//! A real node_exporter as the oracle, and pages to compare.
#![allow(clippy::unwrap_used)] // a test helper: what fails here fails the test

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// node_exporter's own default; distributions change it.
const MOUNT_POINTS: &str =
    "^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)";

const COLLECTORS: [&str; 13] = [
    "cpu",
    "diskstats",
    "filesystem",
    "hwmon",
    "infiniband",
    "loadavg",
    "meminfo",
    "netdev",
    "pressure",
    "stat",
    "time",
    "uname",
    "vmstat",
];

/// A running node_exporter.
pub struct NodeExporter {
    child: Child,
    address: String,
}

impl NodeExporter {
    /// Starts the one in `$PICKET_PARTS`, on PATH or in target/parts. None: there is none, and that was said.
    pub fn start(test: &str, arguments: &[String]) -> Option<Self> {
        let Some(program) = find() else {
            eprintln!(
                "SKIPPED {test}: no node_exporter in $PICKET_PARTS, on PATH or in target/parts/bin (cargo xtask parts)"
            );
            return None;
        };
        let mut command = Command::new(&program);
        command.args(["--web.listen-address=127.0.0.1:0", "--web.disable-exporter-metrics"]);
        command.arg("--collector.disable-defaults").args(COLLECTORS.map(|c| format!("--collector.{c}")));
        command.arg(format!("--collector.filesystem.mount-points-exclude={MOUNT_POINTS}"));
        let mut child = command.args(arguments).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut said = Vec::new();
        let mut lines = log.lines();
        let address = loop {
            let Some(Ok(line)) = lines.next() else { panic!("node_exporter ended: {}", said.join("\n")) };
            if let Some((_, rest)) = line.split_once("msg=\"Listening on\" address=") {
                break rest.trim().to_owned();
            }
            said.push(line);
        };
        // It must not block on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { child, address })
    }

    /// Its page.
    pub fn scrape(&self) -> Page {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\nAccept: text/plain\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("200 OK"), "{head}");
        Page::parse(body)
    }
}

impl Drop for NodeExporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn find() -> Option<PathBuf> {
    let names = ["node_exporter", "prometheus-node-exporter"];
    let mut folders: Vec<PathBuf> = std::env::var_os("PICKET_PARTS").map(PathBuf::from).into_iter().collect();
    folders.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    folders.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/parts/bin"));
    folders
        .iter()
        .flat_map(|f| [f.clone(), f.join("bin")])
        .flat_map(|f| names.map(|n| f.join(n)))
        .find(|p| p.is_file())
}

/// A page in the Prometheus text format.
#[derive(Debug, Default)]
pub struct Page {
    /// Type and help by name.
    pub families: BTreeMap<String, (String, String)>,
    /// Values by name and labels, the labels in order.
    pub samples: BTreeMap<String, f64>,
}

impl Page {
    pub fn parse(text: &str) -> Self {
        let mut page = Self::default();
        for line in text.lines() {
            let mut words = line.splitn(4, ' ');
            match (words.next(), words.next(), words.next(), words.next()) {
                (Some("#"), Some("HELP"), Some(name), help) => {
                    page.families.entry(name.to_owned()).or_default().1 = help.unwrap_or("").to_owned();
                }
                (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                    page.families.entry(name.to_owned()).or_default().0 = kind.to_owned();
                }
                _ => {
                    let (series, value) = line.rsplit_once(' ').unwrap();
                    let old = page.samples.insert(normal(series), value.parse().unwrap());
                    assert!(old.is_none(), "twice: {series}");
                }
            }
        }
        page.families.retain(|name, _| !its_own(name));
        page.samples.retain(|series, _| !its_own(series));
        page
    }
}

/// About node_exporter itself.
fn its_own(name: &str) -> bool {
    name.starts_with("node_scrape_collector_") || name.starts_with("node_exporter_build_info")
}

/// The same series is the same text, with its labels in order. (No label value here holds `",`.)
fn normal(series: &str) -> String {
    let Some((name, labels)) = series.split_once('{') else { return series.to_owned() };
    let mut labels: Vec<&str> = labels.trim_end_matches('}').split_inclusive("\",").collect();
    labels.sort_unstable_by_key(|l| l.split('=').next());
    let labels: Vec<&str> =
        labels.iter().map(|l| l.trim_end_matches(',')).filter(|l| !l.ends_with("=\"\"")).collect();
    if labels.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", labels.join(",")) }
}

/// What differs in names, types, help and series, a line each.
pub fn differences(theirs: &Page, ours: &Page) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, family) in &theirs.families {
        match ours.families.get(name) {
            None => lines.push(format!("missing family {name}")),
            Some(own) if own != family => {
                lines.push(format!("{name}: {own:?}, node_exporter has {family:?}"))
            }
            Some(_) => {}
        }
    }
    let added = ours.families.keys().filter(|name| !theirs.families.contains_key(*name));
    lines.extend(added.map(|name| format!("added family {name}")));
    let missing = theirs.samples.keys().filter(|s| !ours.samples.contains_key(*s));
    lines.extend(missing.map(|s| format!("missing series {s}")));
    let added = ours.samples.keys().filter(|s| !theirs.samples.contains_key(*s));
    lines.extend(added.map(|s| format!("added series {s}")));
    lines
}
