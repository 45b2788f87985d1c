//! What each shipped scenario looks like in the document.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use picket_agent_nvml::Tell;
use serde_json::{Value, json};

use crate::support::{Helper, Scenario, at, shipped};

/// Two snapshots of a scenario, and what is expected of the second.
#[track_caller]
fn check(scenario: &str, expected: &[(&str, Value)]) -> Vec<Value> {
    let scenario = Scenario::new(&shipped(scenario));
    let mut helper = Helper::start(&scenario.path());
    let first = helper.snapshot().unwrap();
    std::thread::sleep(Duration::from_millis(150));
    let second = helper.snapshot().unwrap();
    assert_eq!(first.len(), second.len());
    let all = Value::Array(second.clone());
    for (path, value) in expected {
        assert_eq!(at(&all, path), value, "{path}");
    }
    second
}

#[test]
fn eight_h100() {
    let devices = check(
        "8xh100",
        &[
            ("0.uuid", json!("GPU-6f3a1c00-0000-4000-8000-000000000000")),
            ("0.architecture", json!("hopper")),
            ("0.compute_capability", json!("9.0")),
            ("7.pci_bus_id", json!("00000000:8B:00.0")),
            ("7.minor", json!(7)),
            ("3.utilization_gpu_percent", json!(93)),
            ("3.memory_total_bytes", json!(85_520_809_984u64)),
            ("3.memory_free_bytes", json!(85_520_809_984u64 - 68_719_476_736 - 665_845_760)),
            ("3.temperature_memory_celsius", json!(72)),
            ("3.threshold_slowdown_celsius", json!(89)),
            ("3.power_usage_milliwatts", json!(612_345)),
            ("3.clock_memory_application_mhz", json!(2619)),
            ("3.throttle_reasons_active", json!(["sw_power_cap"])),
            ("3.ecc_enabled", json!(true)),
            ("3.pcie_generation", json!(5)),
            ("3.nvlinks.17.link", json!(17)),
            ("3.nvlinks.17.active", json!(true)),
            ("3.nvlinks.17.version", json!("4.0")),
            ("3.nvlinks.17.remote_type", json!("switch")),
            ("3.fabric_state", json!("completed")),
            ("3.fabric_status", json!("ok")),
            ("3.recovery_action", json!("none")),
            (
                "3.processes.0",
                json!({"pid": 4711, "kind": "compute", "used_memory_bytes": 68_000_000_000u64}),
            ),
            ("3.profiling.sm_ratio", json!(0.91)),
            ("3.profiling.pcie_tx_bytes_per_second", json!(52_428_800)),
            (
                "3.unreadable",
                json!({
                    "retired_pages_pending": "not-supported",
                    "retired_pages_sbe": "not-supported",
                    "retired_pages_dbe": "not-supported",
                }),
            ),
        ],
    );
    assert_eq!(devices.len(), 8);
}

/// Links of the fifth generation count by packets, in fields of their own; what older ones had is not there.
#[test]
fn eight_b200() {
    let devices = check(
        "8xb200",
        &[
            ("0.architecture", json!("blackwell")),
            ("5.nvlinks.17.version", json!("5.0")),
            ("5.nvlinks.3.malformed_packet_errors", json!(1)),
            ("5.nvlinks.3.buffer_overrun_errors", json!(2)),
            ("5.nvlinks.3.rx_errors", json!(3)),
            ("5.nvlinks.3.rx_remote_errors", json!(4)),
            ("5.nvlinks.3.rx_general_errors", json!(5)),
            ("5.nvlinks.3.local_link_integrity_errors", json!(6)),
            ("5.nvlinks.3.tx_discards", json!(7)),
            ("5.nvlinks.3.link_recoveries_successful", json!(8)),
            ("5.nvlinks.3.link_recoveries_failed", json!(9)),
            ("5.nvlinks.3.link_recoveries", json!(17)),
            ("5.nvlinks.3.effective_errors", json!(11)),
            ("5.nvlinks.3.effective_bit_error_ratio", json!(3e-12)),
            ("5.nvlinks.3.symbol_errors", json!(4000)),
            ("5.nvlinks.3.symbol_bit_error_ratio", json!(7e-7)),
            ("5.nvlinks.4.symbol_errors", json!(12)),
            ("5.nvlinks.4.effective_bit_error_ratio", json!(0.0)),
        ],
    );
    assert_eq!(devices.len(), 8);
    let link = &devices[5]["nvlinks"][3];
    assert!(
        link["tx_bytes"].as_u64() >= Some(640_000) && link["rx_packets"].as_u64() >= Some(6_000),
        "{link}"
    );
    assert_eq!(devices[5]["unreadable"]["nvlinks.3.replay_errors"], "not-supported");
    // Links that don't count so are not asked.
    let older = check("8xh100", &[]);
    assert!(older.iter().all(|d| d["unreadable"].get("nvlinks.0.rx_errors").is_none()));
}

#[test]
fn counters_move_with_time_and_are_the_same_in_every_helper() {
    let scenario = Scenario::new(&shipped("8xh100"));
    let energy = |helper: &mut Helper| helper.snapshot().unwrap()[0]["energy_millijoules"].as_u64().unwrap();
    let mut helper = Helper::start(&scenario.path());
    let first = energy(&mut helper);
    std::thread::sleep(Duration::from_millis(100));
    let second = energy(&mut helper);
    // 612 W
    assert!(second - first >= 61_000, "{first} {second}");
    let third = energy(&mut Helper::start(&scenario.path()));
    assert!(third >= second, "{second} {third}");
}

#[test]
fn mig_instances_are_devices_of_their_own() {
    let devices = check(
        "mig",
        &[
            ("0.mig_enabled", json!(false)),
            ("1.mig_enabled", json!(true)),
            ("1.unreadable.utilization_gpu_percent", json!("not-supported")),
            ("1.processes.1.gpu_instance_id", json!(2)),
            ("2.kind", json!("mig")),
            ("2.uuid", json!("MIG-11111111-0000-5000-8000-000000000001")),
            ("2.parent_uuid", json!("GPU-6f3a1c00-0000-4000-8000-000000000001")),
            ("2.mig_profile", json!("1g.10gb")),
            ("2.gpu_instance_id", json!(7)),
            ("2.multiprocessors", json!(16)),
            ("2.memory_used_bytes", json!(4_100_000_000u64)),
            ("2.processes.0.pid", json!(5001)),
            ("2.profiling.sm_ratio", json!(0.5)),
            ("3.processes", json!([])),
            ("4.mig_profile", json!("3g.40gb")),
            ("4.processes.0.pid", json!(5002)),
            ("4.profiling.dram_ratio", json!(0.6)),
        ],
    );
    assert_eq!(devices.len(), 5);
}

#[test]
fn memory_errors() {
    check(
        "ecc",
        &[
            ("2.ecc_dbe_volatile", json!(1)),
            ("2.row_remap_pending", json!(true)),
            ("2.row_remap_banks", json!({"max": 2558, "high": 1, "partial": 1, "low": 0, "none": 0})),
            ("2.recovery_action", json!("gpu-reset")),
            ("5.row_remap_failure", json!(true)),
            ("5.recovery_action", json!("node-reboot")),
            ("0.ecc_dbe_volatile", json!(0)),
        ],
    );
}

#[test]
fn what_a_card_does_not_have_is_absent_and_named() {
    let devices = check(
        "workstation",
        &[
            ("0.architecture", json!("ampere")),
            ("0.unreadable.temperature_memory_celsius", json!("not-supported")),
            ("0.unreadable.ecc_enabled", json!("not-supported")),
            ("0.unreadable.energy_millijoules", json!("not-supported")),
            ("0.unreadable.profiling", json!("not-supported")),
            ("0.unreadable.fabric_state", json!("not-supported")),
            ("0.nvlinks", json!([])),
            ("0.performance_state", json!(8)),
            ("0.processes.0.kind", json!("graphics")),
            // Measured by the library, because there is no counter.
            ("0.pcie_tx_bytes_per_second", json!(2_048_000)),
        ],
    );
    for name in
        ["temperature_memory_celsius", "ecc_enabled", "ecc_sbe_volatile", "energy_millijoules", "profiling"]
    {
        assert!(devices[0].get(name).is_none(), "{name}");
    }
}

#[test]
fn a_lost_gpu_is_told_with_what_was_known_and_hides_no_other() {
    let scenario = Scenario::new(&shipped("8xh100"));
    let mut helper = Helper::start(&scenario.path());
    assert_eq!(helper.snapshot().unwrap().len(), 8);
    scenario.set(&shipped("lost"));
    let devices = helper.snapshot().unwrap();
    assert_eq!(devices.len(), 8);
    assert_eq!(devices[6]["lost"], "gpu-lost");
    assert_eq!(devices[6]["uuid"], "GPU-6f3a1c00-0000-4000-8000-000000000006");
    assert_eq!(devices[6]["pci_bus_id"], "00000000:7B:00.0");
    assert!(devices[6].get("temperature_gpu_celsius").is_none());
    for number in [0, 5, 7] {
        assert_eq!(
            (&devices[number]["temperature_gpu_celsius"], devices[number].get("lost")),
            (&json!(61), None)
        );
    }
    // A helper that starts now never saw either of them well.
    let devices = Helper::start(&scenario.path()).snapshot().unwrap();
    assert_eq!(
        (&devices[7]["lost"], &devices[7]["uuid"], &devices[7]["index"]),
        (&json!("gpu-lost"), &json!(""), &json!(7))
    );
    assert_eq!(devices[6]["lost"], "gpu-lost");
    assert_eq!(devices[5]["temperature_gpu_celsius"], 61);
    // Back again.
    scenario.set(&shipped("8xh100"));
    let devices = helper.snapshot().unwrap();
    assert_eq!((&devices[6]["temperature_gpu_celsius"], devices[6].get("lost")), (&json!(61), None));
}

#[test]
fn xids_are_told_within_a_moment() {
    let scenario = Scenario::new(&shipped("xid"));
    let mut helper = Helper::start(&scenario.path());
    helper.snapshot().unwrap();
    let mut xids = Vec::new();
    while xids.len() < 2 {
        match helper.told.pop().or_else(|| helper.told()) {
            Some(Tell::Xid(event)) => xids.push((event.uuid, event.xid)),
            other => panic!("{other:?}"),
        }
    }
    let uuid = "GPU-6f3a1c00-0000-4000-8000-000000000003";
    assert_eq!(xids, [(uuid.to_owned(), 31), (uuid.to_owned(), 79)]);
}

#[test]
fn a_card_without_events_says_so() {
    let scenario = Scenario::new(&shipped("workstation"));
    let mut helper = Helper::start(&scenario.path());
    helper.snapshot().unwrap();
    let told = helper.told.pop().or_else(|| helper.told());
    assert!(matches!(&told, Some(Tell::NoEvents(why)) if why.contains("not-supported")), "{told:?}");
}

#[test]
fn more_processes_than_usual_are_all_there() {
    let list: Vec<String> =
        (1..=150).map(|pid| format!("{{ pid = {pid}, used_memory_bytes = {pid} }}")).collect();
    let text = format!("[system]\n[gpu]\ncount = 1\nuuid = \"GPU-a\"\nprocesses = [{}]\n", list.join(", "));
    let scenario = Scenario::new(&text);
    let devices = Helper::start(&scenario.path()).snapshot().unwrap();
    assert_eq!(devices[0]["processes"].as_array().unwrap().len(), 150);
}

/// The names that the SDK reads are the names that the helper writes, and the other way round.
#[test]
fn the_sdk_knows_every_field_and_every_field_comes() {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/src/nvml.rs");
    let sdk = std::fs::read_to_string(sdk).unwrap();
    let fields = |name: &str| -> BTreeSet<String> {
        let (_, body) = sdk.split_once(&format!("pub struct {name} {{")).unwrap();
        let (body, _) = body.split_once("\n}").unwrap();
        let fields = body.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':'));
        fields.map(|(field, _)| field.to_owned()).collect()
    };
    let mut written: [BTreeSet<String>; 4] = Default::default();
    let mut named = BTreeSet::new();
    for name in ["8xh100", "8xb200", "mig", "workstation", "lost"] {
        for device in check(name, &[]) {
            let mut add = |place: usize, object: &Value| {
                written[place].extend(object.as_object().unwrap().keys().cloned());
            };
            add(0, &device);
            device["nvlinks"].as_array().into_iter().flatten().for_each(|link| add(1, link));
            device["processes"].as_array().into_iter().flatten().for_each(|process| add(2, process));
            if let Some(profiling) = device.get("profiling") {
                add(3, profiling);
            }
            named.extend(device["unreadable"].as_object().unwrap().keys().cloned());
        }
    }
    for (place, name) in ["Device", "NvLink", "Process", "Profiling"].iter().enumerate() {
        let known = fields(name);
        let unknown: Vec<_> = written[place].difference(&known).collect();
        assert!(unknown.is_empty(), "the SDK's {name} has no {unknown:?}");
        let missing: Vec<_> =
            known.difference(&written[place]).filter(|field| place > 0 || !named.contains(*field)).collect();
        assert!(missing.is_empty(), "no scenario shows {name}'s {missing:?}");
    }
}
