//! The same names, types, help, labels and values as a real node_exporter, on this machine and on a captured one.

mod common;

use common::{NodeExporter, Page, differences};
use picket_plugin_node::Node;
use picket_sdk::serde_json::json;
use picket_sdk::testing::Host;

/// node_exporter shows `rotational="0"` of every disk where any other file of the disk's queue can't be read, which
/// is so on many kernels. Ours is the kernel's own word, so the label is left out of the comparison of this machine.
fn without_rotational(mut page: Page) -> Page {
    let cut = |series: String| match series.strip_prefix("node_disk_info") {
        Some(_) => series.replace(",rotational=\"0\"", "").replace(",rotational=\"1\"", ""),
        None => series,
    };
    page.samples = std::mem::take(&mut page.samples).into_iter().map(|(s, v)| (cut(s), v)).collect();
    page
}

#[test]
fn same_as_node_exporter_on_this_machine() {
    let Some(oracle) = NodeExporter::start("same_as_node_exporter_on_this_machine", &[]) else { return };
    let mut host = Host::<Node>::new().files_root("/");
    host.real_clock().configure(&json!({})).unwrap();

    // The machine lives: a disk or an interface may come between two readings.
    let mut last = Vec::new();
    for _ in 0..5 {
        let before = without_rotational(oracle.scrape());
        host.collect().unwrap();
        let after = without_rotational(oracle.scrape());
        assert_eq!(host.failures(), []);
        let ours = without_rotational(Page::parse(&host.text()));
        last = differences(&before, &ours);
        last.extend(values(&before, &ours, &after));
        if last.is_empty() {
            eprintln!("{} series in {} families agree", ours.samples.len(), ours.families.len());
            return;
        }
    }
    panic!("{}", last.join("\n"));
}

/// Counters lie between the two readings of the oracle; gauges too, unless they are ones that go up and down.
fn values(before: &Page, ours: &Page, after: &Page) -> Vec<String> {
    let mut lines = Vec::new();
    for (series, value) in &ours.samples {
        let name = series.split('{').next().unwrap_or(series);
        // 1.11 joins the options without commas, so it sees `ro` only where it stands alone.
        if name == "node_filesystem_readonly" {
            continue;
        }
        let (Some(a), Some(b)) = (before.samples.get(series), after.samples.get(series)) else { continue };
        // Idle time and time waited for I/O go back a little now and then.
        let slack = if name == "node_cpu_seconds_total" { 0.1 } else { 0.0 };
        let (low, high) = (a.min(*b) - slack, a.max(*b) + slack);
        let moving = ["node_memory_", "node_load", "node_procs_", "node_filesystem_", "node_disk_io_now"];
        let steady = [
            "Total_bytes",
            "CommitLimit",
            "Hugepagesize",
            "HugePages_",
            "_size_bytes",
            "_files",
            "_readonly",
        ];
        let free = moving.iter().any(|m| name.starts_with(m)) && !steady.iter().any(|s| name.ends_with(s));
        if !(low..=high).contains(value) && !free {
            lines.push(format!("{series} is {value}, node_exporter had {a}, then {b}"));
        }
        // Of the right size, at least: no wrong unit.
        if free && *value > 1e6 && !(low / 2.0..=high * 2.0).contains(value) {
            lines.push(format!("{series} is {value}, node_exporter had {a}, then {b}: another unit?"));
        }
    }
    lines
}

/// Every value is the same where both read the same files. The oracle's own clock and names are left out, and what
/// it asks of the system and not of files (the sizes of mounted file systems).
#[test]
fn same_as_node_exporter_on_a_captured_machine() {
    let root = format!("{}/tests/fixtures/server", env!("CARGO_MANIFEST_DIR"));
    let mut arguments: Vec<String> = [("procfs", "proc"), ("sysfs", "sys"), ("udev.data", "run/udev/data")]
        .map(|(flag, folder)| format!("--path.{flag}={root}/{folder}"))
        .into();
    arguments.extend(["--no-collector.netdev.netlink".to_owned(), "--collector.stat.softirq".to_owned()]);
    let name = "same_as_node_exporter_on_a_captured_machine";
    let Some(oracle) = NodeExporter::start(name, &arguments) else { return };
    let mut host = Host::<Node>::new().files_root(&root);
    // What the oracle asks the real system about.
    for mount in
        ["/", "/run", "/boot/efi", "/var/lib/kubelet", "/picket-none/scratch", "/picket-none/with blank"]
    {
        let real = std::path::Path::new(mount).exists();
        let stat = real.then(picket_sdk::files::FileSystem::default);
        host.file_system(mount, stat.ok_or(picket_sdk::files::FilesError::NotFound(mount.to_owned())));
    }
    host.configure(&json!({ "stat": { "softirq": true } })).unwrap();
    host.collect().unwrap();
    assert_eq!(host.failures(), []);

    let theirs = oracle.scrape();
    let ours = Page::parse(&host.text());
    assert!(ours.samples.len() > 300, "{} series", ours.samples.len());
    assert_eq!(differences(&theirs, &ours), Vec::<String>::new());
    for (series, value) in &ours.samples {
        let own = ["node_time_seconds", "node_filesystem_", "node_uname_info"];
        if !own.iter().any(|name| series.starts_with(name)) || series.contains("device_error") {
            assert_eq!(Some(value), theirs.samples.get(series), "{series}");
        }
    }
}
