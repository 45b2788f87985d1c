//! XIDs from the kernel's log and from NVML: once each, judged, opened and ended.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // what fails here fails the test

mod common;

use common::{World, node, uuid};
use picket_sdk::Event;
use picket_sdk::Severity;
use picket_sdk::serde_json::{Value, json};

const BUS_1: &str = "0000:19:00";
/// Milliseconds since the Unix epoch.
const NOW: u64 = 1_767_225_600_000;

fn xid(code: u32, rest: &str) -> String {
    format!("NVRM: Xid (PCI:{BUS_1}): {code}, {rest}")
}

/// The last code of GPU 1 that is not over.
fn open_xid(world: &World) -> Option<f64> {
    let samples = world.host.samples();
    let of =
        |s: &&picket_sdk::testing::Sample| s.name == "DCGM_FI_DEV_XID_ERRORS" && s.label("gpu") == Some("1");
    samples.iter().find(of).map(|s| s.value)
}

fn counted(world: &World, code: &str) -> f64 {
    let samples = world.host.samples();
    let of = |s: &&picket_sdk::testing::Sample| {
        s.name == "picket_gpu_xid_errors_total" && s.label("xid") == Some(code)
    };
    samples.iter().filter(of).map(|s| s.value).sum()
}

fn event<'a>(events: &'a [Event], kind: &str) -> picket_sdk::EventView<'a> {
    events.iter().map(Event::view).find(|e| e.kind == kind).unwrap()
}

#[test]
fn an_xid_is_an_event_with_its_verdict_and_ends_when_the_driver_asks_for_nothing() {
    let mut world = World::new(node(2));
    world.collect();
    world.host.file("/proc/4711/cgroup", "0::/system.slice/slurmstepd.scope/job_42/step_0/user/task_0\n");
    world.host.file("/proc/4711/status", "Name:\tpython\nPPid:\t1\nUid:\t1000\t1000\t1000\t1000\n");
    world.host.file("/etc/passwd", "ada:x:1000:1000::/home/ada:/bin/sh\n");
    world.document["devices"][1]["recovery_action"] = json!("gpu-reset");
    world.host.kernel_message(&xid(119, "pid=4711, name=python, Timeout waiting for RPC from GSP!"));
    world.tick(1);
    let events = world.host.take_events();
    let told = event(&events, "gpu.xid");
    assert_eq!((told.severity, told.clear), (Severity::Critical, false));
    assert_eq!(told.subject, ("gpu", &*uuid(1)));
    assert_eq!(told.key, format!("{}/xid-119", uuid(1)));
    for (name, want) in [
        ("code", "119"),
        ("action", "reset-gpu"),
        ("investigate", "contact-support"),
        ("severity", "critical"),
        ("source", "driver"),
        ("name", "GSP_RPC_TIMEOUT"),
        ("gpu", "1"),
        ("pci_bus_id", "00000000:19:00.0"),
        ("pid", "4711"),
        ("slurm_job_id", "42"),
        ("user", "ada"),
    ] {
        assert_eq!(told.attribute(name), Some(want), "{name}");
    }
    assert!(told.message.contains("Timeout waiting for RPC from GSP!"), "{}", told.message);
    assert_eq!(open_xid(&world), Some(119.0));
    assert_eq!(world.health(1), "unhealthy");
    let labels = [
        ("UUID", &*uuid(1)),
        ("gpu", "1"),
        ("xid", "119"),
        ("action", "reset-gpu"),
        ("severity", "critical"),
    ];
    assert_eq!(world.host.value("picket_gpu_xid_errors_total", &labels), Some(1.0));
    let last = [("UUID", &*uuid(1)), ("gpu", "1"), ("xid", "119")];
    assert!(world.host.value("picket_gpu_xid_last_timestamp_seconds", &last).unwrap() > 1.7e9);

    // Again and again: one event.
    for _ in 0..5 {
        world.host.kernel_message(&xid(119, "Timeout waiting for RPC from GSP!"));
        world.tick(5);
        assert_eq!(world.events(), [""; 0]);
    }
    assert_eq!(counted(&world, "119"), 6.0);

    world.document["devices"][1]["recovery_action"] = json!("none");
    world.tick(5);
    world.tick(30);
    assert_eq!((open_xid(&world), world.events().len()), (Some(119.0), 0));
    world.tick(31);
    assert_eq!(world.events(), [format!("end gpu.xid {}/xid-119", uuid(1))]);
    assert_eq!(open_xid(&world), Some(0.0));
    // The GPU is well again after its own wait.
    world.tick(61);
    assert_eq!(world.events(), [format!("end gpu.health gpu/{}", uuid(1))]);
    assert_eq!(world.health(1), "healthy");
    assert_eq!(counted(&world, "119"), 6.0);
}

fn nvml_event(world: &mut World, sequence: u64, code: u32, index: u32) {
    let events = world.document["events"].as_array_mut().unwrap();
    events.push(json!({"sequence": sequence, "timestamp_ms": NOW, "uuid": uuid(index), "xid": code}));
}

#[test]
fn an_error_that_both_sources_tell_counts_once() {
    let mut world = World::new(node(2));
    world.host.set_now_ms(NOW);
    world.collect();
    // Both in one collect.
    world.host.kernel_message(&xid(79, "GPU has fallen off the bus."));
    nvml_event(&mut world, 1, 79, 1);
    world.collect();
    assert_eq!(world.events().iter().filter(|e| e.starts_with("gpu.xid")).count(), 1);
    assert_eq!(counted(&world, "79"), 1.0);
    // NVML first, the kernel's line in the next collect.
    nvml_event(&mut world, 2, 31, 1);
    world.collect();
    world.host.kernel_message(&xid(31, "pid=7, name=x, MMU Fault"));
    world.collect();
    assert_eq!(counted(&world, "31"), 1.0);
    // The same of another GPU is another one.
    nvml_event(&mut world, 3, 31, 0);
    world.collect();
    assert_eq!(counted(&world, "31"), 2.0);
    // NVML alone: the kernel's log may be unreadable.
    nvml_event(&mut world, 4, 13, 0);
    world.collect();
    assert_eq!(counted(&world, "13"), 1.0);
    // What was seen is not seen again, by the same or the next instance; a new life of the agent counts from 1.
    let open = |world: &mut World| world.events().iter().filter(|e| e.starts_with("gpu.xid")).count();
    assert_eq!(open(&mut world), 3);
    let mut world = world.restarted();
    world.collect();
    assert_eq!([counted(&world, "13"), counted(&world, "31"), counted(&world, "79")], [1.0, 2.0, 1.0]);
    world.document["events"] = json!([]);
    world.document["events_life"] = json!("life-2");
    nvml_event(&mut world, 1, 13, 0);
    world.collect();
    assert_eq!((counted(&world, "13"), open(&mut world)), (2.0, 0));
}

/// Each case: the code, what ends it, how, and the reason.
#[test]
fn what_ends_an_error_depends_on_what_it_asks_for() {
    type Change = fn(&mut World);
    let reboot: Change = |w| {
        w.host.file("/proc/sys/kernel/random/boot_id", "boot-2\n");
    };
    let reset: Change = |w| w.document["devices"][1]["energy_millijoules"] = json!(5);
    let process: Change = |w| w.document["devices"][1]["processes"] = json!([]);
    let nothing: Change = |_| {};
    for (code, restart, change, seconds, reason) in [
        (79, true, reboot, 1, "reboot"),
        (119, false, reset, 1, "gpu-reset"),
        (48, false, reset, 1, "gpu-reset"),
        (94, false, process, 61, "process-gone"),
        (31, false, nothing, 300, "quiet"),
        (43, false, nothing, 300, "quiet"),
        (119, false, nothing, 61, "recovery-none"),
    ] {
        let mut world = World::new(node(2));
        world.document["devices"][1]["processes"] = json!([{"pid": 4711, "kind": "compute"}]);
        world.collect();
        world.host.kernel_message(&xid(code, "pid=4711, name=x, what"));
        world.tick(1);
        assert!(world.events().iter().any(|e| e.starts_with("gpu.xid")), "{code}");
        change(&mut world);
        let mut world = if restart { world.restarted() } else { world };
        world.tick(1);
        world.tick(seconds);
        let events = world.host.take_events();
        let end = events.iter().map(Event::view).find(|e| e.kind == "gpu.xid" && e.clear);
        let end = end.unwrap_or_else(|| panic!("{code} did not end ({reason})"));
        assert_eq!(end.attribute("reason"), Some(reason), "{code}");
        assert_eq!(open_xid(&world), Some(0.0), "{code}");
    }
}

#[test]
fn an_open_error_survives_a_restart_and_is_told_once() {
    let mut world = World::new(node(2));
    world.document["devices"][1]["recovery_action"] = json!("node-reboot");
    world.host.kernel_message(&xid(79, "GPU has fallen off the bus."));
    world.collect();
    assert!(world.events().contains(&format!("gpu.xid {}/xid-79", uuid(1))));
    for _ in 0..3 {
        world = world.restarted();
        world.tick(5);
        assert_eq!(world.events(), [""; 0]);
        assert_eq!((open_xid(&world), counted(&world, "79")), (Some(79.0), 1.0));
    }
}

#[test]
fn what_the_driver_asks_for_later_raises_what_is_open() {
    let mut world = World::new(node(2));
    world.collect();
    world.host.kernel_message(&xid(31, "pid=7, name=x, MMU Fault"));
    world.tick(1);
    let events = world.host.take_events();
    assert_eq!(event(&events, "gpu.xid").attribute("action"), Some("restart-app"));
    assert_eq!(world.health(1), "degraded");
    // A driver whose field is not read yet says it in the log.
    world.host.kernel_message(&xid(154, "GPU recovery action changed from 0x0 (None) to 0x2 (OS Reboot)"));
    world.document["devices"][1]["recovery_action"] = Value::Null;
    world.tick(1);
    let events = world.host.take_events();
    let raised: Vec<_> =
        events.iter().map(Event::view).filter(|e| e.key == format!("{}/xid-31", uuid(1))).collect();
    assert_eq!(raised.len(), 1, "{events:?}");
    assert_eq!(raised[0].attribute("action"), Some("reboot"));
    assert_eq!(raised[0].attribute("source"), Some("driver"));
    assert_eq!(world.health(1), "unhealthy");
    // It does not end by time while the driver asks for a reboot.
    world.tick(1000);
    world.tick(1000);
    assert!(!world.events().contains(&format!("end gpu.xid {}/xid-31", uuid(1))));
}

#[test]
fn a_row_of_the_site_decides_where_the_driver_does_not() {
    let mut world = World::new(node(2));
    world.configure(json!({"hostname": "gpu-01", "xids": [{"code": 43, "severity": "critical", "immediate": "reset-gpu"}]}));
    world.host.kernel_message(&xid(43, "pid=7, name=x, Ch 00000008"));
    world.collect();
    let events = world.host.take_events();
    let told = event(&events, "gpu.xid");
    assert_eq!((told.attribute("action"), told.attribute("source")), (Some("reset-gpu"), Some("site")));
}

#[test]
fn lines_of_long_ago_are_counted_and_not_told() {
    let mut world = World::new(node(2));
    world.host.kernel_message(&xid(31, "pid=7, name=x, MMU Fault"));
    world.host.kernel_message(&xid(119, "Timeout waiting for RPC from GSP!"));
    world.host.kernel_message("an unrelated line");
    world.host.kernel_message(&xid(0, ""));
    world.tick(86_400);
    // What would still hold is told; what passed by itself is not.
    assert_eq!(
        world.events(),
        [format!("gpu.xid {}/xid-119", uuid(1)), format!("gpu.health gpu/{}", uuid(1))]
    );
    assert_eq!((counted(&world, "31"), counted(&world, "119")), (1.0, 1.0));
}

#[test]
fn an_xid_of_a_gpu_that_nobody_knows_is_told_by_its_place() {
    let mut world = World::new(node(1));
    world.collect();
    world.host.kernel_message("NVRM: Xid (PCI:0000:ff:00): 79, GPU has fallen off the bus.");
    world.tick(1);
    assert_eq!(world.events(), ["gpu.xid 0000:ff:00/xid-79"]);
    assert_eq!(world.health(0), "healthy");
}

#[test]
fn errors_of_switches_and_of_pcie_are_events_too() {
    let mut world = World::new(node(2));
    world.collect();
    world
        .host
        .kernel_message("nvidia-nvswitch0: SXid (PCI:0000:c2:00.0): 20034, Fatal, Link 28 LTSSM Fault Up");
    world.host.kernel_message("nvidia-nvswitch0: SXid (PCI:0000:c2:00.0): 20034, Severity 1 Engine instance 28 Sub-engine instance 00");
    world.host.kernel_message("pcieport 0000:18:01.0: AER: Corrected error received: 0000:19:00.0");
    world.tick(1);
    let events = world.host.take_events();
    let switch = event(&events, "nvswitch.sxid");
    assert_eq!(switch.subject, ("nvswitch", "nvswitch0"));
    assert_eq!((switch.attribute("action"), switch.attribute("link")), (Some("reset-gpu"), Some("28")));
    let pcie = event(&events, "pcie.aer");
    assert_eq!(pcie.subject, ("pci", "0000:19:00.0"));
    assert_eq!(pcie.attribute("UUID"), Some(&*uuid(1)));
    assert_eq!(events.len(), 2);
    let labels =
        [("switch", "nvswitch0"), ("sxid", "20034"), ("action", "reset-gpu"), ("severity", "critical")];
    assert_eq!(world.host.value("picket_nvswitch_sxid_errors_total", &labels), Some(1.0));
    let labels = [("pci_bus_id", "0000:19:00.0"), ("severity", "corrected")];
    assert_eq!(world.host.value("picket_pcie_aer_errors_total", &labels), Some(1.0));
    world.tick(301);
    assert_eq!(world.events(), ["end pcie.aer 0000:19:00.0/aer-0"]);
}

/// The grant that the manifest asks for admits every kind of line that is read.
#[test]
fn the_manifest_asks_for_the_lines_that_are_read() {
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/plugin.toml")).unwrap();
    let list = manifest.lines().find_map(|l| l.strip_prefix("containing = ")).unwrap();
    let words: Vec<String> = picket_sdk::serde_json::from_str(list).unwrap();
    for line in [
        "NVRM: Xid (PCI:0000:3b:00): 79, x",
        "nvidia-nvswitch0: SXid (PCI:0000:c2:00.0): 20034, Fatal, x",
        "pcieport 0000:3a:01.0: AER: Corrected error received: 0000:3b:00.0",
        "nvidia 0000:3b:00.0: PCIe Bus Error: severity=Uncorrectable (Fatal), type=Inaccessible",
    ] {
        assert!(words.iter().any(|word| line.contains(word.as_str())), "{line}");
    }
}
