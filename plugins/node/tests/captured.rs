//! Captured and broken texts, without node_exporter.
#![allow(clippy::unwrap_used)] // what fails here fails the test

use std::time::Duration;

use picket_plugin_node::Node;
use picket_sdk::files::{FileSystem, FilesError};
use picket_sdk::serde_json::json;
use picket_sdk::system::Uname;
use picket_sdk::testing::Host;

fn host() -> Host<Node> {
    host_at(format!("{}/tests/fixtures/server", env!("CARGO_MANIFEST_DIR")), "")
}

/// The captured machine, its root at `root` below the folder.
fn host_at(folder: String, root: &str) -> Host<Node> {
    let mut host = Host::<Node>::new().files_root(folder);
    let full = FileSystem {
        size_bytes: 1 << 40,
        free_bytes: 1 << 30,
        available_bytes: 1 << 29,
        files: 1000,
        files_free: 10,
        read_only: false,
    };
    let at = |mount: &str| {
        if mount == "/" && !root.is_empty() { root.to_owned() } else { format!("{root}{mount}") }
    };
    for mount in ["/", "/run", "/boot/efi", "/var/lib/kubelet"] {
        host.file_system(&at(mount), Ok(full));
    }
    host.file_system(
        &at("/picket-none/scratch"),
        Err(FilesError::TimedOut("/picket-none/scratch: no answer".into())),
    );
    let broken = "/picket-none/with blank: Input/output error (os error 5)";
    host.file_system(&at("/picket-none/with blank"), Err(FilesError::Io(broken.into())));
    host.uname(Uname {
        sysname: "Linux".into(),
        nodename: "gpu-01".into(),
        release: "6.8.0".into(),
        version: "#1 SMP".into(),
        machine: "x86_64".into(),
        domainname: "(none)".into(),
    });
    host.time_zone("CEST", 7200);
    host.configure(&json!({})).unwrap();
    host
}

/// What a collect reads ahead is what is there then, not what was.
#[test]
fn a_file_that_changes_goes_and_comes_back() {
    let mut host = host();
    host.collect().unwrap();
    for load in ["1.5", "2.5"] {
        host.file("/proc/loadavg", format!("{load} 0.2 0.1 1/100 4242\n"));
        host.collect().unwrap();
        assert_eq!(host.value("node_load1", &[]), Some(load.parse().unwrap()));
    }
    host.broken_file("/proc/loadavg", FilesError::NotFound("/proc/loadavg".into()));
    host.collect().unwrap();
    assert_eq!(host.value("node_load1", &[]), None);
    host.file("/proc/loadavg", "3.5 0.2 0.1 1/100 4242\n");
    host.collect().unwrap();
    assert_eq!(host.value("node_load1", &[]), Some(3.5));
}

/// The whole page of the captured machine. After a wanted change: `PICKET_BLESS=1 cargo test`.
#[test]
fn the_page_of_a_captured_machine() {
    let mut host = host();
    host.collect().unwrap();
    assert_eq!(host.failures(), []);
    let path = format!("{}/tests/fixtures/server.prom", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("PICKET_BLESS").is_some() {
        std::fs::write(&path, host.text()).unwrap();
    }
    let want = std::fs::read_to_string(&path).unwrap();
    for (ours, want) in host.text().lines().zip(want.lines()) {
        assert_eq!(ours, want);
    }
    assert_eq!(host.text().len(), want.len());
}

/// A container sees its host's root below a folder; the host's own paths are what is told.
#[test]
fn the_page_is_the_same_where_the_root_is_a_folder() {
    let folder = format!("{}/tests/fixtures", env!("CARGO_MANIFEST_DIR"));
    let mut host = host_at(folder, "/server");
    host.configure(&json!({ "root": "/server/" })).unwrap();
    host.collect().unwrap();
    assert_eq!(host.failures(), []);
    let want = include_str!("fixtures/server.prom");
    for (ours, want) in host.text().lines().zip(want.lines()) {
        assert_eq!(ours, want);
    }
    assert_eq!(host.text().len(), want.len());
    assert_eq!(host.configure(&json!({ "root": "server" })).unwrap_err().reason, "settings");
}

#[test]
fn sensors_come_and_go() {
    let mut host = host();
    let hot = |host: &Host<Node>| {
        host.value("node_hwmon_temp_celsius", &[("chip", "platform_coretemp_0"), ("sensor", "temp2")])
    };
    let label = |host: &Host<Node>| {
        let labels = [("chip", "platform_coretemp_0"), ("sensor", "temp2"), ("label", "Core 0")];
        host.value("node_hwmon_sensor_label", &labels)
    };
    host.collect().unwrap();
    assert_eq!((hot(&host), label(&host)), (Some(43.0), Some(1.0)));
    let file = "/sys/class/hwmon/hwmon0/temp2_input";
    host.file(file, "51500\n");
    host.collect().unwrap();
    assert_eq!(hot(&host), Some(51.5));
    // What does not answer is absent, whatever it said before, and no failure: many a sensor never does.
    for broken in [FilesError::Io("ENODATA".into()), FilesError::NotFound(file.into())] {
        host.broken_file(file, broken);
        host.collect().unwrap();
        assert_eq!((hot(&host), label(&host)), (None, Some(1.0)));
    }
    host.file(file, "N/A\n");
    host.collect().unwrap();
    assert_eq!((hot(&host), host.failures()), (None, Vec::new()));
    host.file(file, "40000\n");
    host.collect().unwrap();
    assert_eq!(hot(&host), Some(40.0));
    // A label is read anew after a minute.
    host.file("/sys/class/hwmon/hwmon0/temp2_label", "Core 7\n");
    host.advance(Duration::from_secs(59)).collect().unwrap();
    assert_eq!(label(&host), Some(1.0));
    host.advance(Duration::from_secs(1)).collect().unwrap();
    assert_eq!(label(&host), None);
    host.configure(
        &json!({ "hwmon": { "sensor_exclude": "^platform_coretemp_0;temp2$", "chip_exclude": "nvme" } }),
    )
    .unwrap();
    host.collect().unwrap();
    let samples = host.samples();
    let chips: Vec<&str> = samples
        .iter()
        .filter(|s| s.name == "node_hwmon_temp_celsius")
        .filter_map(|s| s.label("chip"))
        .collect();
    assert_eq!((hot(&host), chips.contains(&"nvme_nvme0")), (None, false));
    assert!(chips.contains(&"platform_coretemp_0"));
    // No such class on a machine without sensors.
    host.broken_file("/sys/class/hwmon", FilesError::NotFound("/sys/class/hwmon".into()));
    host.collect().unwrap();
    assert_eq!(host.failures(), []);
    assert!(!host.text().contains("node_hwmon_temp_celsius{"));
}

#[test]
fn a_second_reading_registers_nothing_new() {
    let mut host = host();
    host.collect().unwrap();
    let (registered, text) = (host.registered(), host.text());
    host.collect().unwrap();
    assert_eq!((host.registered(), host.text()), (registered, text));
    assert!(registered > 300, "{registered}");
}

/// Each case: a file, what it is replaced by, a series that must go, one that must stay, and the failure's reason.
#[test]
fn what_is_broken_is_left_out_and_the_rest_stays() {
    let load = ("node_load1", "");
    let user = ("node_cpu_seconds_total", "cpu=0,mode=user");
    for (file, content, gone, stays, reason) in [
        (
            "/proc/stat",
            "cpu  1 2\ncpu0 1 x 3 4\ncpu1 9 9 9 9\nbtime 12\n",
            user,
            ("node_boot_time_seconds", ""),
            "parse",
        ),
        ("/proc/stat", "cpu0 1\nctxt\nintr x\n", user, load, "parse"),
        ("/proc/stat", "", user, load, "parse"),
        ("/proc/loadavg", "0.1 y 0.3", ("node_load5", ""), user, "parse"),
        ("/proc/loadavg", "", load, user, "parse"),
        (
            "/proc/meminfo",
            "MemTotal: 1 MB\nMemFree: 2 kB\n",
            ("node_memory_MemTotal_bytes", ""),
            ("node_memory_MemFree_bytes", ""),
            "parse",
        ),
        ("/proc/meminfo", "MemTotal 1 kB\n: \n\u{0}\n", ("node_memory_MemTotal_bytes", ""), load, "parse"),
        (
            "/proc/meminfo",
            "MemTotal: 99999999999999999999 kB\n",
            ("node_memory_MemTotal_bytes", ""),
            load,
            "parse",
        ),
        (
            "/proc/diskstats",
            "8 0 sda 1 2 x 4\n",
            ("node_disk_read_bytes_total", "device=sda"),
            ("node_disk_reads_merged_total", "device=sda"),
            "parse",
        ),
        (
            "/proc/diskstats",
            "8 0\nx 0 sda 1\n",
            ("node_disk_reads_merged_total", "device=sda"),
            load,
            "parse",
        ),
        (
            "/proc/net/dev",
            "a\nb\neno1: 1 2 3\n",
            ("node_network_receive_drop_total", "device=eno1"),
            ("node_network_receive_errs_total", "device=eno1"),
            "parse",
        ),
        (
            "/proc/net/dev",
            "a\nb\n : 1\neno1 1\n",
            ("node_network_receive_bytes_total", "device=eno1"),
            load,
            "parse",
        ),
        (
            "/proc/vmstat",
            "pgfault\noom_kill 3\n",
            ("node_vmstat_pgfault", ""),
            ("node_vmstat_oom_kill", ""),
            "parse",
        ),
        (
            "/proc/pressure/io",
            "some avg10=0.00\n",
            ("node_pressure_io_waiting_seconds_total", ""),
            ("node_pressure_cpu_waiting_seconds_total", ""),
            "parse",
        ),
        (
            "/proc/1/mountinfo",
            "nonsense\n1 2 x:y / / rw - ext4 /dev/x rw\n",
            ("node_filesystem_size_bytes", "device=/dev/mapper/vg0-root,fstype=ext4,mountpoint=/"),
            load,
            "parse",
        ),
    ] {
        let mut host = host();
        host.file(file, content);
        host.collect().unwrap();
        let value = |(name, labels): (&str, &str)| {
            let pairs: Vec<_> = labels.split(',').filter_map(|pair| pair.split_once('=')).collect();
            host.value(name, &pairs)
        };
        assert_eq!(value(gone), None, "{file}: {content:?}");
        assert!(value(stays).is_some(), "{file}: {content:?}");
        let reasons: Vec<String> = host.failures().into_iter().map(|(reason, _)| reason).collect();
        assert!(reasons.iter().any(|r| r == reason), "{file}: {reasons:?}");
    }
}

#[test]
fn an_unreadable_file_is_named() {
    for file in [
        "/proc/stat",
        "/proc/loadavg",
        "/proc/meminfo",
        "/proc/diskstats",
        "/proc/net/dev",
        "/proc/vmstat",
        "/proc/pressure/io",
        "/sys/devices/system/cpu",
        "/sys/devices/system/clocksource",
    ] {
        let mut host = host();
        host.broken_file(file, FilesError::Denied(file.into()));
        host.collect().unwrap();
        let failures = host.failures();
        assert!(
            failures.iter().any(|(reason, text)| reason == "denied" && text.contains(file)),
            "{failures:?}"
        );
        assert!(host.samples().len() > 200, "{file}");
    }
}

#[test]
fn what_a_kernel_does_not_have_is_no_failure() {
    let mut host = host();
    for file in ["/proc/pressure/cpu", "/proc/pressure/io", "/proc/pressure/memory", "/proc/pressure/irq"] {
        host.broken_file(file, FilesError::NotFound(file.into()));
    }
    host.broken_file("/proc/1/mountinfo", FilesError::NotFound("/proc/1/mountinfo".into()));
    host.file("/proc/self/mountinfo", "33 26 0:30 / /var/lib/kubelet rw - zfs tank/kubelet rw\n");
    host.collect().unwrap();
    assert_eq!(host.failures(), []);
    let labels = [("device", "tank/kubelet"), ("fstype", "zfs"), ("mountpoint", "/var/lib/kubelet")];
    assert_eq!(host.value("node_filesystem_files", &labels), Some(1000.0));
}

#[test]
fn idle_time_never_goes_back_unless_the_cpu_is_another() {
    let mut host = host();
    let cpu0 = |idle: u32, iowait: u32| format!("cpu0 10 0 10 {idle} {iowait} 0 0 0 0 0\n");
    for (idle, iowait, want) in [
        (1000, 50, (10.0, 0.5)),
        // Back a little: held.
        (990, 49, (10.0, 0.5)),
        (1010, 51, (10.1, 0.51)),
        // Back by more than three seconds: another CPU.
        (100, 3, (1.0, 0.03)),
    ] {
        host.file("/proc/stat", cpu0(idle, iowait));
        host.collect().unwrap();
        let seconds = |mode| host.value("node_cpu_seconds_total", &[("cpu", "0"), ("mode", mode)]);
        assert_eq!((seconds("idle"), seconds("iowait")), (Some(want.0), Some(want.1)));
    }
}

#[test]
fn a_cpu_that_goes_offline_takes_its_series_with_it() {
    let mut host = host();
    host.collect().unwrap();
    let core =
        |host: &Host<Node>| host.value("node_cpu_core_throttles_total", &[("package", "1"), ("core", "2")]);
    let online = |host: &Host<Node>| host.value("node_cpu_online", &[("cpu", "10")]);
    assert_eq!((core(&host), online(&host)), (Some(31.0), Some(1.0)));
    host.file("/proc/stat", "cpu0 1 1 1 1\ncpu1 1 1 1 1\ncpu2 1 1 1 1\ncpu3 1 1 1 1\n");
    let gone = "/sys/devices/system/cpu/cpu10/topology/core_id";
    host.broken_file(gone, FilesError::NotFound(gone.into()));
    host.file("/sys/devices/system/cpu/cpu10/online", "0\n");
    host.collect().unwrap();
    assert_eq!((core(&host), online(&host)), (None, Some(0.0)));
    assert_eq!(host.value("node_cpu_seconds_total", &[("cpu", "10"), ("mode", "user")]), None);
}

#[test]
fn facts_of_disks_are_read_anew_after_a_minute() {
    let mut host = host();
    let model = |host: &Host<Node>| {
        let samples = host.samples();
        let info = samples.iter().find(|s| s.name == "node_disk_info" && s.label("device") == Some("sda"));
        info.and_then(|s| s.label("model")).map(str::to_owned)
    };
    host.collect().unwrap();
    assert_eq!(model(&host).as_deref(), Some("EXAMPLE_DISK=2"));
    host.file("/run/udev/data/b8:0", "E:ID_MODEL=NEW\n");
    host.advance(Duration::from_secs(59)).collect().unwrap();
    assert_eq!(model(&host).as_deref(), Some("EXAMPLE_DISK=2"));
    host.advance(Duration::from_secs(1)).collect().unwrap();
    assert_eq!(model(&host).as_deref(), Some("NEW"));
}

#[test]
fn settings() {
    let mut host = host();
    host.configure(&json!({
        "cpu": { "guest": false },
        "diskstats": { "device_exclude": "", "device_include": "^sda" },
        "filesystem": { "fs_types_exclude": "^(ext4|xfs)$" },
        "meminfo": { "enabled": false },
        "netdev": { "device_exclude": "^(lo|veth.*)$" },
        "vmstat": { "fields": "^nr_" },
    }))
    .unwrap();
    host.collect().unwrap();
    let of = |name: &str, label: &str| {
        let samples = host.samples();
        let mut values: Vec<String> = samples
            .iter()
            .filter(|s| s.name == name)
            .filter_map(|s| s.label(label).map(str::to_owned))
            .collect();
        values.sort_unstable();
        values
    };
    assert_eq!(of("node_disk_io_now", "device"), ["sda", "sda1"]);
    assert_eq!(of("node_network_receive_bytes_total", "device"), ["eno1", "eno2", "ibs3"]);
    assert!(!of("node_filesystem_size_bytes", "fstype").contains(&"ext4".to_owned()));
    assert!(of("node_filesystem_size_bytes", "fstype").contains(&"zfs".to_owned()));
    assert_eq!(host.value("node_vmstat_nr_free_pages", &[]), Some(977_769.0));
    assert_eq!(host.value("node_vmstat_pgfault", &[]), None);
    assert_eq!(host.value("node_memory_MemTotal_bytes", &[]), None);
    assert!(of("node_cpu_guest_seconds_total", "cpu").is_empty());

    for wrong in [
        json!({ "cpus": {} }),
        json!({ "cpu": { "enable": true } }),
        json!({ "vmstat": { "fields": "(" } }),
        json!({ "netdev": { "device_exclude": 1 } }),
    ] {
        assert_eq!(host.configure(&wrong).unwrap_err().reason, "settings", "{wrong}");
    }
}

mod foreign_bytes {
    use super::*;
    use proptest::prelude::*;

    /// Texts that look right for a while.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            "[a-z]{1,6}",
            "[0-9]{1,22}",
            Just("cpu0".to_owned()),
            Just("eno1:".to_owned()),
            Just("MemTotal:".to_owned()),
            Just("kB".to_owned()),
            Just("some".to_owned()),
            Just("total=5".to_owned()),
            Just("8:0".to_owned()),
            Just("-".to_owned()),
            Just("\\040".to_owned()),
            Just("E:ID_FS_TYPE=".to_owned()),
            Just("\u{e4}".to_owned()),
        ];
        let line = prop::collection::vec(word, 0..14).prop_map(|words| words.join(" "));
        let lines = prop::collection::vec(line, 0..8).prop_map(|lines| lines.join("\n").into_bytes());
        prop_oneof![3 => lines, 1 => prop::collection::vec(any::<u8>(), 0..200)]
    }

    proptest! {
        #[test]
        fn never_panic(texts in prop::collection::vec(text(), 14)) {
            let mut host = host();
            let files = [
                "/proc/stat", "/proc/loadavg", "/proc/meminfo", "/proc/diskstats", "/proc/net/dev", "/proc/vmstat",
                "/proc/pressure/io", "/proc/1/mountinfo", "/run/udev/data/b8:0", "/sys/block/sda/queue/rotational",
                "/sys/devices/system/cpu/isolated", "/sys/devices/system/cpu/cpu0/topology/core_id",
                "/sys/devices/system/clocksource/clocksource0/available_clocksource",
                "/sys/devices/system/cpu/cpu0/online",
            ];
            for (file, text) in files.iter().zip(texts) {
                host.file(file, text);
            }
            host.collect().unwrap();
            host.collect().unwrap();
        }
    }
}

/// Each step: the state, the adapter's own count of times that the link went down, seconds to wait before, and the
/// events that must come of it, as clear or not.
#[test]
fn a_flapping_link_is_one_event_with_an_end() {
    let port = "/sys/class/infiniband/mlx5_0/ports/1";
    let mut host = host();
    let mut step = |state: &str, downed: u64, wait: u64| {
        host.advance(Duration::from_secs(wait));
        host.file(&format!("{port}/state"), format!("{state}\n"));
        host.file(&format!("{port}/counters/link_downed"), format!("{downed}\n"));
        host.collect().unwrap();
        assert_eq!(host.failures(), []);
        let events = host.take_events();
        events.iter().filter(|e| e.view().key == "mlx5_0/1").map(|e| e.view().clear).collect::<Vec<_>>()
    };
    for (state, downed, wait, want) in [
        // What was open before a restart ends with the first look.
        ("4: ACTIVE", 7, 15, &[true][..]),
        ("4: ACTIVE", 7, 15, &[]),
        ("1: DOWN", 7, 15, &[false]),
        ("1: DOWN", 8, 15, &[]),
        ("4: ACTIVE", 8, 15, &[]),
        ("2: INIT", 9, 15, &[]),
        ("4: ACTIVE", 9, 15, &[]),
        ("4: ACTIVE", 9, 30, &[]),
        ("4: ACTIVE", 9, 31, &[true]),
        // Too short to be seen, but counted.
        ("4: ACTIVE", 10, 15, &[false]),
        ("4: ACTIVE", 10, 59, &[]),
        ("4: ACTIVE", 10, 2, &[true]),
        // A counter that was reset says nothing.
        ("4: ACTIVE", 0, 15, &[]),
    ] {
        assert_eq!(step(state, downed, wait), want, "{state} {downed} after {wait} s");
    }
}

/// A port that was never active is one that nobody plugged in; one whose adapter vanishes went down.
#[test]
fn a_port_that_was_never_up_is_no_event_and_a_lost_adapter_is_one() {
    let mut host = host();
    host.collect().unwrap();
    let events = host.take_events();
    let keys: Vec<&str> = events.iter().map(|e| e.view().key).collect();
    assert!(!keys.iter().any(|k| k.starts_with("mlx4_0")), "{keys:?}");
    host.broken_file("/sys/class/infiniband", FilesError::NotFound("/sys/class/infiniband".into()));
    host.collect().unwrap();
    let events = host.take_events();
    let mut lost: Vec<&str> = events.iter().map(|e| e.view()).filter(|e| !e.clear).map(|e| e.key).collect();
    lost.sort_unstable();
    assert_eq!(lost, ["irdma0/1", "mlx5_0/1", "mlx5_bond_0/1"]);
}
