//! The plugin under the SDK's own host: documents as the capability gives them, lines as the kernel logs them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // what fails here fails the test

mod common;

use common::{World, mig, node, uuid};
use picket_sdk::nvml::NvmlError;
use picket_sdk::serde_json::json;

/// The labels of GPU 3 on `gpu-01`.
fn third() -> Vec<(&'static str, String)> {
    [
        ("gpu", "3"),
        ("UUID", &uuid(3)),
        ("device", "nvidia3"),
        ("modelName", "NVIDIA H100 80GB HBM3"),
        ("pci_bus_id", "00000000:1B:00.0"),
        ("Hostname", "gpu-01"),
        ("hostname", "gpu-01"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into()
}

#[test]
fn dcgm_families_have_its_units_and_labels() {
    let mut world = World::new(node(8));
    world.collect();
    assert_eq!(world.host.failures(), []);
    let labels = third();
    let labels: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (*n, v.as_str())).collect();
    for (name, want) in [
        ("SM_CLOCK", 1980.0),
        ("MEM_CLOCK", 2619.0),
        ("GPU_TEMP", 63.0),
        ("MEMORY_TEMP", 71.0),
        ("POWER_USAGE", 512.345),
        ("POWER_MGMT_LIMIT", 700.0),
        ("ENFORCED_POWER_LIMIT", 700.0),
        ("TOTAL_ENERGY_CONSUMPTION", 9_000_000_003.0),
        ("PCIE_REPLAY_COUNTER", 4.0),
        ("GPU_UTIL", 93.0),
        ("MEM_COPY_UTIL", 41.0),
        ("ENC_UTIL", 0.0),
        ("DEC_UTIL", 0.0),
        ("XID_ERRORS", 0.0),
        ("FB_TOTAL", 81559.0),
        ("FB_USED", 70000.0),
        ("FB_FREE", 10997.0),
        ("FB_RESERVED", 562.0),
        ("NVLINK_BANDWIDTH_TOTAL", 18.0 * 3072.0),
        ("NVLINK_BANDWIDTH_L17", 3072.0),
        ("NVLINK_REPLAY_ERROR_COUNT_L2", 1.0),
        ("NVLINK_REPLAY_ERROR_COUNT_TOTAL", 18.0),
        ("UNCORRECTABLE_REMAPPED_ROWS", 1.0),
        ("CORRECTABLE_REMAPPED_ROWS", 2.0),
        ("ROW_REMAP_FAILURE", 0.0),
        ("ROW_REMAP_PENDING", 0.0),
        ("ECC_SBE_VOL_TOTAL", 5.0),
        ("ECC_DBE_VOL_TOTAL", 0.0),
        ("ECC_SBE_AGG_TOTAL", 15.0),
        ("ECC_DBE_AGG_TOTAL", 0.0),
        ("POWER_VIOLATION", 7_000_000.0),
        ("THERMAL_VIOLATION", 8_000_000.0),
        ("CLOCK_THROTTLE_REASONS", 4.0),
        ("PCIE_LINK_GEN", 5.0),
        ("PCIE_LINK_WIDTH", 16.0),
        ("PERSISTENCE_MODE", 1.0),
        ("FABRIC_MANAGER_STATUS", 3.0),
        ("MIG_MODE", 0.0),
        ("COMPUTE_MODE", 0.0),
        ("PSTATE", 0.0),
    ] {
        let name = format!("DCGM_FI_DEV_{name}");
        assert_eq!(world.host.value(&name, &labels), Some(want), "{name}");
    }
    for (name, want) in [
        ("GR_ENGINE_ACTIVE", 0.97),
        ("SM_ACTIVE", 0.91),
        ("PIPE_TENSOR_ACTIVE", 0.5),
        ("DRAM_ACTIVE", 0.4),
        ("PCIE_TX_BYTES", 1e9),
        ("NVLINK_RX_BYTES", 2e9),
    ] {
        let name = format!("DCGM_FI_PROF_{name}");
        assert_eq!(world.host.value(&name, &labels), Some(want), "{name}");
    }
    for (name, want) in [
        ("nvidia_gpu_utilization", 93.0),
        ("nvidia_gpu_memory_used_bytes", 70000.0 * 1_048_576.0),
        ("nvidia_gpu_memory_total_bytes", 81559.0 * 1_048_576.0),
        ("nvidia_gpu_temperature_celsius", 63.0),
        ("nvidia_gpu_power_watts", 512.345),
    ] {
        assert_eq!(world.host.value(name, &[("gpu_id", "3")]), Some(want), "{name}");
    }
    assert_eq!(world.host.value("picket_gpu_count", &[]), Some(8.0));
    assert_eq!(world.state("picket_gpu_driver_state", &[]), ["ok"]);
    let versions =
        [("driver_version", "550.54.15"), ("cuda_version", "12.4"), ("nvml_version", "12.550.54.15")];
    assert_eq!(world.host.value("picket_gpu_driver_info", &versions), Some(1.0));
    // A second reading is the same series.
    let registered = world.host.registered();
    world.collect();
    assert_eq!(world.host.registered(), registered);
}

/// A GPU of the generation whose links count by packets: DCGM's families over all links, ours for each.
#[test]
fn links_of_the_fifth_generation() {
    let mut document = node(1);
    let link = |link: u32, errors: u64, ratio: f64| {
        json!({
            "link": link, "active": true, "version": "5.0", "tx_packets": 10, "tx_bytes": 1280, "rx_packets": 20,
            "rx_bytes": 2560, "malformed_packet_errors": errors, "buffer_overrun_errors": errors + 1,
            "rx_errors": errors + 2, "rx_remote_errors": errors + 3, "rx_general_errors": errors + 4,
            "local_link_integrity_errors": errors + 5, "tx_discards": errors + 6,
            "link_recoveries_successful": errors + 7, "link_recoveries_failed": errors + 8,
            "link_recoveries": 2 * errors + 15, "effective_errors": errors + 9, "symbol_errors": errors + 10,
            "effective_bit_error_ratio": 0.0, "symbol_bit_error_ratio": ratio,
        })
    };
    document["devices"][0]["nvlinks"] = json!([link(0, 0, 2e-9), link(17, 100, 7e-7)]);
    let mut world = World::new(document);
    world.collect();
    assert_eq!(world.host.failures(), []);
    let id = uuid(0);
    let of_gpu = [("UUID", id.as_str()), ("gpu", "0")];
    for (name, want) in [
        ("TX_PACKETS", 20.0),
        ("TX_BYTES", 2560.0),
        ("RX_PACKETS", 40.0),
        ("RX_BYTES", 5120.0),
        ("RX_MALFORMED_PACKET_ERRORS", 100.0),
        ("RX_BUFFER_OVERRUN_ERRORS", 102.0),
        ("RX_ERRORS", 104.0),
        ("RX_REMOTE_ERRORS", 106.0),
        ("RX_GENERAL_ERRORS", 108.0),
        ("LOCAL_LINK_INTEGRITY_ERRORS", 110.0),
        ("TX_DISCARDS", 112.0),
        ("LINK_RECOVERY_SUCCESSFUL_EVENTS", 114.0),
        ("LINK_RECOVERY_FAILED_EVENTS", 116.0),
        ("LINK_RECOVERY_EVENTS", 230.0),
        ("RX_SYMBOL_ERRORS", 120.0),
        ("EFFECTIVE_ERRORS", 118.0),
    ] {
        let name = format!("DCGM_FI_DEV_NVLINK_COUNT_{name}");
        let samples = world.host.samples();
        let found: Vec<f64> = samples.iter().filter(|s| s.name == name).map(|s| s.value).collect();
        assert_eq!(found, [want], "{name}");
    }
    for (error, want) in [
        ("rx_malformed_packet", 100.0),
        ("rx_buffer_overrun", 101.0),
        ("rx", 102.0),
        ("rx_remote", 103.0),
        ("rx_general", 104.0),
        ("local_link_integrity", 105.0),
        ("tx_discard", 106.0),
        ("link_recovery_failed", 108.0),
        ("link_recovery", 215.0),
        ("effective", 109.0),
        ("rx_symbol", 110.0),
    ] {
        let labels = [of_gpu[0], of_gpu[1], ("link", "17"), ("error", error)];
        assert_eq!(world.host.value("picket_gpu_nvlink_errors_total", &labels), Some(want), "{error}");
    }
    assert_eq!(world.series("picket_gpu_nvlink_errors_total", "link").len(), 22);
    let ratio = |link, error| {
        let labels = [of_gpu[0], of_gpu[1], ("link", link), ("error", error)];
        world.host.value("picket_gpu_nvlink_bit_error_ratio", &labels)
    };
    assert_eq!((ratio("17", "rx_symbol"), ratio("0", "effective")), (Some(7e-7), Some(0.0)));
    // What the older generations counted is absent, and not 0.
    assert!(world.series("DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL", "gpu").is_empty());
    world.configure(json!({"hostname": "gpu-01", "nvlink_per_link": false}));
    world.collect();
    assert!(world.series("picket_gpu_nvlink_errors_total", "link").is_empty());
    assert!(!world.series("DCGM_FI_DEV_NVLINK_COUNT_RX_ERRORS", "gpu").is_empty());
}

/// The simulated GPUs of the plugin `mock` have the same names and types, so that a dashboard for one fits the other.
#[test]
fn a_name_of_the_simulation_is_a_name_here_with_the_same_type() {
    let world = World::new(node(1));
    let ours = world.host.families();
    let theirs = picket_sdk::testing::Host::<picket_plugin_mock::Mock>::new().families();
    let of_gpus = |name: &str| name.starts_with("DCGM_") || name.starts_with("nvidia_gpu_");
    let mut compared = 0;
    for family in theirs.iter().filter(|f| of_gpus(&f.name)) {
        let own = ours.iter().find(|f| f.name == family.name).unwrap_or_else(|| panic!("{}", family.name));
        assert_eq!((own.metric_type, &own.unit), (family.metric_type, &family.unit), "{}", family.name);
        // It says of itself that it is none.
        let labels = family.label_names.iter().filter(|l| *l != "simulated");
        let missing = labels.into_iter().find(|l| !own.label_names.contains(l));
        assert_eq!(missing, None, "{}", family.name);
        compared += 1;
    }
    assert!(compared >= 25, "{compared}");
}

#[test]
fn what_a_device_does_not_have_is_absent_and_what_fails_is_counted() {
    let mut document = node(2);
    let device = &mut document["devices"][0];
    for gone in ["temperature_memory_celsius", "profiling", "ecc_sbe_volatile", "retired_pages_sbe"] {
        device.as_object_mut().unwrap().remove(gone);
    }
    device["unreadable"] = json!({
        "profiling": "not-supported",
        "retired_pages_sbe": "not-supported",
        "temperature_memory_celsius": "unknown",
        "ecc_sbe_volatile": "timeout",
        "nvlinks.3.replay_errors": "timeout",
    });
    let mut world = World::new(document);
    world.collect();
    let gpus_with = |name: &str| world.series(name, "gpu");
    assert_eq!(gpus_with("DCGM_FI_DEV_MEMORY_TEMP"), ["1"]);
    assert_eq!(gpus_with("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL"), ["1"]);
    assert_eq!(gpus_with("DCGM_FI_PROF_SM_ACTIVE"), ["1"]);
    assert_eq!(gpus_with("DCGM_FI_DEV_GPU_UTIL"), ["0", "1"]);
    let mut reasons: Vec<String> = world.host.failures().into_iter().map(|(reason, _)| reason).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["timeout", "unknown"]);
}

#[test]
fn a_lost_gpu_hides_no_other_and_is_said_to_be_lost() {
    let mut world = World::new(node(8));
    world.collect();
    world.host.take_events();
    world.document["devices"][3] = json!({
        "kind": "gpu", "uuid": uuid(3), "index": 3, "minor": 3, "name": "NVIDIA H100 80GB HBM3",
        "pci_bus_id": "00000000:1B:00.0", "lost": "gpu-lost",
    });
    world.tick(5);
    assert_eq!(world.series("DCGM_FI_DEV_GPU_UTIL", "gpu"), ["0", "1", "2", "4", "5", "6", "7"]);
    assert_eq!(world.host.value("picket_gpu_count", &[]), Some(7.0));
    assert_eq!(world.host.value("picket_gpu_expected_count", &[]), Some(8.0));
    assert_eq!(world.health(3), "unhealthy");
    assert_eq!(world.health(4), "healthy");
    assert_eq!(world.state("picket_component_health", &[("component", "gpu-count")]), ["unhealthy"]);
    let reason = [("component", &*format!("gpu/{}", uuid(3))), ("reason", "gpu-lost"), ("source", "nvml")];
    assert_eq!(world.host.value("picket_component_health_reason_info", &reason), Some(1.0));
    assert_eq!(world.host.failures().len(), 1);
    assert_eq!(world.events(), [format!("gpu.health gpu/{}", uuid(3)), "gpu.health gpu-count".to_owned()]);
    // It comes back, but it is believed only after a while.
    world.document = node(8);
    world.tick(5);
    assert_eq!((world.health(3).as_str(), world.events().len()), ("unhealthy", 0));
    world.tick(61);
    assert_eq!(world.health(3), "healthy");
    assert_eq!(
        world.events(),
        [format!("end gpu.health gpu/{}", uuid(3)), "end gpu.health gpu-count".to_owned()]
    );
}

#[test]
fn fewer_gpus_than_there_were_is_a_fault_even_after_a_restart() {
    let mut world = World::new(node(8));
    world.collect();
    let devices = world.document["devices"].as_array_mut().unwrap();
    devices.remove(5);
    let mut world = world.restarted();
    world.tick(5);
    assert_eq!(world.health(5), "unhealthy");
    assert_eq!(world.host.value("picket_gpu_expected_count", &[]), Some(8.0));
    assert_eq!(world.events(), [format!("gpu.health gpu/{}", uuid(5)), "gpu.health gpu-count".to_owned()]);
    // Nothing more is said of it, restart or not.
    let mut world = world.restarted();
    world.tick(5);
    assert_eq!(world.events(), [""; 0]);
    // The operator says that seven are all.
    let mut world = world.restarted();
    world.configure(json!({"hostname": "gpu-01", "expected_gpus": 7}));
    world.tick(61);
    world.tick(61);
    assert_eq!(world.host.value("picket_gpu_expected_count", &[]), Some(7.0));
    let mut events = world.events();
    events.sort_unstable();
    assert_eq!(events, ["end gpu.health gpu-count".to_owned(), format!("end gpu.health gpu/{}", uuid(5))]);
}

#[test]
fn a_gpu_in_the_place_of_another_is_its_successor() {
    let mut world = World::new(node(2));
    world.collect();
    world.document["devices"][1]["uuid"] = json!(uuid(77));
    world.tick(5);
    assert_eq!(world.host.value("picket_gpu_expected_count", &[]), Some(2.0));
    assert_eq!(world.events(), [""; 0]);
}

#[test]
fn mig_instances_are_devices_of_their_own() {
    let mut document = node(2);
    let gpu = &mut document["devices"][0];
    gpu["mig_enabled"] = json!(true);
    gpu.as_object_mut().unwrap().remove("utilization_gpu_percent");
    gpu["unreadable"] = json!({"utilization_gpu_percent": "not-supported"});
    gpu["processes"] = json!([
        {"pid": 50, "kind": "compute", "used_memory_bytes": 1_048_576, "gpu_instance_id": 7, "compute_instance_id": 0},
    ]);
    let devices = document["devices"].as_array_mut().unwrap();
    devices.insert(1, mig(0, 7, "1g.10gb"));
    devices.insert(2, mig(0, 8, "2g.20gb"));
    let mut world = World::new(document);
    world.collect();
    assert_eq!(world.host.failures(), []);
    let mut labels: Vec<(&str, &str)> = vec![
        ("gpu", "0"),
        ("device", "nvidia0"),
        ("modelName", "NVIDIA H100 80GB HBM3"),
        ("pci_bus_id", "00000000:18:00.0"),
        ("Hostname", "gpu-01"),
        ("hostname", "gpu-01"),
    ];
    let (parent, first) = (uuid(0), [("GPU_I_PROFILE", "1g.10gb"), ("GPU_I_ID", "7")]);
    labels.push(("UUID", &parent));
    labels.extend(first);
    assert_eq!(world.host.value("DCGM_FI_DEV_FB_TOTAL", &labels), Some(9856.0));
    assert_eq!(world.series("DCGM_FI_DEV_FB_USED", "GPU_I_ID"), ["", "", "7", "8"]);
    assert_eq!(world.series("DCGM_FI_DEV_GPU_UTIL", "gpu"), ["1"]);
    assert_eq!(world.series("picket_gpu_mig_info", "mig_uuid"), ["MIG-0-7", "MIG-0-8"]);
    // The instance's process is its own alone.
    assert_eq!(world.series("picket_gpu_process_memory_bytes", "GPU_I_ID"), ["7"]);
    assert_eq!(world.host.value("picket_gpu_count", &[]), Some(2.0));
}

#[test]
fn no_driver_is_a_state_and_a_hung_one_an_event() {
    let mut world = World::new(node(2));
    world.answer = Err(NvmlError::NoDriver("libnvidia-ml.so.1 is not there".into()));
    for _ in 0..3 {
        world.tick(5);
        assert_eq!(world.host.failures(), []);
        assert_eq!(world.state("picket_gpu_driver_state", &[]), ["no-driver"]);
        assert_eq!(world.events(), [""; 0]);
    }
    world.answer = Ok(());
    world.tick(5);
    assert_eq!(world.state("picket_gpu_driver_state", &[]), ["ok"]);
    world.answer = Err(NvmlError::Hung("nvmlDeviceGetTemperature of GPU 3 for 12 s".into()));
    world.tick(5);
    assert_eq!(world.host.failures().len(), 1);
    assert_eq!(world.host.failures()[0].0, "hung");
    assert_eq!(world.state("picket_gpu_driver_state", &[]), ["hung"]);
    assert_eq!(world.health(0), "unknown");
    assert_eq!(world.events(), ["gpu.health gpu-driver"]);
    world.tick(5);
    assert_eq!(world.events(), [""; 0]);
    // An XID of that time is told all the same, of the GPU that was there.
    world
        .host
        .kernel_message("NVRM: Xid (PCI:0000:19:00): 119, pid=1, name=x, Timeout waiting for RPC from GSP!");
    world.tick(1);
    assert_eq!(world.events(), [format!("gpu.xid {}/xid-119", uuid(1))]);
    world.answer = Ok(());
    world.tick(5);
    world.tick(61);
    assert!(world.events().contains(&"end gpu.health gpu-driver".to_owned()));
    // A node that had GPUs and has no driver is not well.
    world.answer = Err(NvmlError::NoDriver("the driver was unloaded".into()));
    world.tick(5);
    assert_eq!(world.host.failures(), []);
    assert_eq!(world.events(), ["gpu.health gpu-driver"]);
}

#[test]
fn a_broken_kernel_log_hides_no_metric() {
    let mut world = World::new(node(2));
    world
        .host
        .broken_kmsg(Some(picket_sdk::kmsg::KmsgError::Unavailable("/dev/kmsg: permission denied".into())));
    world.tick(5);
    let failures = world.host.failures();
    assert_eq!(failures.iter().map(|(r, _)| r.as_str()).collect::<Vec<_>>(), ["unavailable"]);
    assert_eq!(world.series("DCGM_FI_DEV_GPU_UTIL", "gpu"), ["0", "1"]);
    world.host.broken_kmsg(None);
    world.host.lost_kernel_messages(9);
    world.tick(5);
    assert_eq!(world.host.failures().iter().map(|(r, _)| r.as_str()).collect::<Vec<_>>(), ["kmsg-lost"]);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for (settings, word) in [
        (json!({"idle": {"threshold_percent": 101}}), "threshold_percent"),
        (json!({"xids": [{"code": 1}, {"code": 1}]}), "twice"),
        (json!({"xids": [{"code": 1, "immediate": "explode"}]}), "explode"),
        (json!({"hostnam": "x"}), "hostnam"),
    ] {
        let mut world = World::new(node(1));
        let refused = world.host.configure(&settings).unwrap_err();
        assert!(refused.message.contains(word), "{refused}");
    }
}

#[test]
fn health_follows_what_the_hardware_says() {
    for (field, value, state, reason) in [
        ("row_remap_pending", json!(true), "degraded", "row-remap-pending"),
        ("row_remap_failure", json!(true), "unhealthy", "row-remap-failure"),
        ("retired_pages_pending", json!(true), "degraded", "retired-pages-pending"),
        ("ecc_dbe_volatile", json!(1), "degraded", "ecc-uncorrectable"),
        ("recovery_action", json!("gpu-reset"), "unhealthy", "gpu-reset"),
        ("recovery_action", json!("drain-p2p"), "degraded", "drain-p2p"),
        ("fabric_status", json!("error"), "unhealthy", "fabric-failed"),
        ("fabric_state", json!("in-progress"), "degraded", "fabric-not-ready"),
        ("throttle_reasons_active", json!(["hw_thermal_slowdown"]), "degraded", "hw-thermal-slowdown"),
        ("throttle_reasons_active", json!(["sw_power_cap"]), "healthy", ""),
        ("pcie_width", json!(8), "degraded", "pcie-width"),
        ("nvlinks", json!([{"link": 3, "active": false}]), "degraded", "nvlink-down"),
        ("nvlinks", json!([{"link": 20, "active": false}]), "healthy", ""),
    ] {
        let mut world = World::new(node(2));
        world.collect();
        world.document["devices"][1][field] = value.clone();
        world.tick(5);
        assert_eq!(world.health(1), state, "{field} {value}");
        assert_eq!(world.health(0), "healthy");
        let reasons = world.series("picket_component_health_reason_info", "reason");
        let wanted: Vec<&str> = Some(reason).into_iter().filter(|r| !r.is_empty()).collect();
        assert_eq!(reasons, wanted, "{field} {value}");
    }
}
