//! Functions that fail, hang, or are not there.

use std::path::Path;
use std::time::{Duration, Instant};

use picket_agent_nvml::Tell;
use serde_json::json;

use crate::support::{CALL_TIMEOUT, Helper, Scenario, helper, library, shipped};

/// All error codes of nvml.h, and one that no header knows.
const CODES: [u32; 32] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28,
    29, 30, 999, 4711,
];

/// Every function that the helper calls for a device, with a field that it alone fills.
const CALLS: [(&str, &str); 47] = [
    ("nvmlDeviceGetName", "name"),
    ("nvmlDeviceGetSerial", "serial"),
    ("nvmlDeviceGetBoardPartNumber", "part_number"),
    ("nvmlDeviceGetVbiosVersion", "vbios_version"),
    ("nvmlDeviceGetMinorNumber", "minor"),
    ("nvmlDeviceGetPciInfo_v3", "pci_bus_id"),
    ("nvmlDeviceGetArchitecture", "architecture"),
    ("nvmlDeviceGetCudaComputeCapability", "compute_capability"),
    ("nvmlDeviceGetTemperatureThreshold", "threshold_slowdown_celsius"),
    ("nvmlDeviceGetPowerManagementDefaultLimit", "power_limit_default_milliwatts"),
    ("nvmlDeviceGetPowerManagementLimitConstraints", "power_limit_max_milliwatts"),
    ("nvmlDeviceGetMaxClockInfo", "clock_sm_max_mhz"),
    ("nvmlDeviceGetMaxPcieLinkGeneration", "pcie_generation_max"),
    ("nvmlDeviceGetMaxPcieLinkWidth", "pcie_width_max"),
    ("nvmlDeviceGetUtilizationRates", "utilization_gpu_percent"),
    ("nvmlDeviceGetEncoderUtilization", "utilization_encoder_percent"),
    ("nvmlDeviceGetDecoderUtilization", "utilization_decoder_percent"),
    ("nvmlDeviceGetBAR1MemoryInfo", "bar1_total_bytes"),
    ("nvmlDeviceGetPowerUsage", "power_usage_milliwatts"),
    ("nvmlDeviceGetPowerManagementLimit", "power_limit_milliwatts"),
    ("nvmlDeviceGetEnforcedPowerLimit", "power_limit_enforced_milliwatts"),
    ("nvmlDeviceGetTotalEnergyConsumption", "energy_millijoules"),
    ("nvmlDeviceGetClockInfo", "clock_sm_mhz"),
    ("nvmlDeviceGetApplicationsClock", "clock_graphics_application_mhz"),
    ("nvmlDeviceGetPerformanceState", "performance_state"),
    ("nvmlDeviceGetViolationStatus", "violation_power_nanoseconds"),
    ("nvmlDeviceGetEccMode", "ecc_enabled"),
    ("nvmlDeviceGetTotalEccErrors", "ecc_dbe_aggregate"),
    ("nvmlDeviceGetRemappedRows", "remapped_rows_correctable"),
    ("nvmlDeviceGetRowRemapperHistogram", "row_remap_banks"),
    ("nvmlDeviceGetFieldValues", "temperature_memory_celsius"),
    ("nvmlDeviceGetPersistenceMode", "persistence_mode"),
    ("nvmlDeviceGetComputeMode", "compute_mode"),
    ("nvmlDeviceGetGpuFabricInfoV", "fabric_state"),
    ("nvmlDeviceGetCurrPcieLinkGeneration", "pcie_generation"),
    ("nvmlDeviceGetCurrPcieLinkWidth", "pcie_width"),
    ("nvmlDeviceGetPcieReplayCounter", "pcie_replays"),
    ("nvmlDeviceGetMigMode", "mig_enabled"),
    ("nvmlDeviceGetNvLinkState", "nvlinks"),
    ("nvmlDeviceGetNvLinkVersion", "nvlinks.0.version"),
    ("nvmlDeviceGetNvLinkRemoteDeviceType", "nvlinks.0.remote_type"),
    ("nvmlDeviceGetNvLinkRemotePciInfo_v2", "nvlinks.0.remote_pci_bus_id"),
    ("nvmlDeviceGetNvLinkErrorCounter", "nvlinks.0.replay_errors"),
    ("nvmlDeviceGetComputeRunningProcesses_v3", "processes.compute"),
    ("nvmlDeviceGetGraphicsRunningProcesses_v3", "processes.graphics"),
    ("nvmlGpmQueryDeviceSupport", "profiling"),
    ("nvmlGpmSampleGet", "profiling"),
];

/// Those after which another function or version is tried, so that one failure alone leaves the value there.
const RETRIED: [(&str, &str, &[u32]); 3] = [
    ("nvmlDeviceGetMemoryInfo_v2", "memory_total_bytes", &[13, 25]),
    ("nvmlDeviceGetTemperature", "temperature_gpu_celsius", &[13, 26]),
    ("nvmlDeviceGetCurrentClocksEventReasons", "throttle_reasons", &[13]),
];

fn base() -> String {
    shipped("8xh100").replace("count = 8", "count = 2")
}

fn faulty(call: &str, code: u32) -> String {
    format!("{}\n[[faults]]\ncall = \"{call}\"\ngpu = 1\ncode = {code}\n", base())
}

/// Whether the two GPUs are as they must be while one function fails on the second.
fn check(devices: &[serde_json::Value], call: &str, code: u32, field: &str, there: bool) {
    let what = format!("{call} returns {code}: {}", devices.get(1).cloned().unwrap_or_default());
    assert_eq!(devices.len(), 2, "{what}");
    assert_eq!(devices[0]["power_usage_milliwatts"], 612_345, "{what}");
    assert!(devices[0].get("lost").is_none(), "{what}");
    let unreadable = devices[1]["unreadable"].as_object().expect("no unreadable");
    let note = unreadable.get(field);
    // Three calls in a row that say so, and the device is lost: some functions are called that often.
    if devices[1].get("lost").is_some() {
        assert!([15, 16].contains(&code), "{what}");
        return;
    }
    assert_eq!(note.is_none(), there, "{what}");
    let lack = [3, 13, 22, 24, 30].contains(&code);
    if let Some(note) = note {
        assert_eq!(note == "not-supported", lack, "{what}");
    }
    // The rest of the same device goes on.
    let other = if call == "nvmlDeviceGetUtilizationRates" {
        "energy_millijoules"
    } else {
        "utilization_gpu_percent"
    };
    assert!(devices[1].get(other).is_some(), "{what}");
}

#[test]
fn every_function_with_every_error_leaves_the_other_values() {
    for (call, field) in CALLS {
        let scenario = Scenario::new(&base());
        let mut helper: Option<Helper> = None;
        for code in CODES {
            scenario.set(&faulty(call, code));
            // What is asked once is asked by a helper that never asked before.
            let helper = match &mut helper {
                Some(helper) if !is_kept(call) => helper,
                helper => helper.insert(Helper::start(&scenario.path())),
            };
            let devices = helper.snapshot().unwrap_or_else(|told| panic!("{call} {code}: {told:?}"));
            // A link that the device does not have is no error.
            let no_link = call == "nvmlDeviceGetNvLinkState" && [2, 3, 13, 22, 24, 30].contains(&code);
            check(&devices, call, code, field, no_link);
        }
    }
    for (call, field, retried) in RETRIED {
        let scenario = Scenario::new(&base());
        let mut helper = Helper::start(&scenario.path());
        for code in CODES {
            scenario.set(&faulty(call, code));
            check(&helper.snapshot().unwrap(), call, code, field, retried.contains(&code));
        }
    }
}

fn is_kept(call: &str) -> bool {
    let fixed = CALLS.iter().take(14).any(|(fixed, _)| *fixed == call);
    fixed || call.contains("NvLinkVersion") || call.contains("NvLinkRemote") || call.contains("NvLinkState")
}

#[test]
fn the_whole_library_may_fail_and_says_how() {
    for (fault, expected) in [
        ("call = \"nvmlInit_v2\"\ncode = 9", "no driver"),
        ("call = \"nvmlInit_v2\"\ncode = 12", "no driver"),
        ("call = \"nvmlInit_v2\"\ncode = 18", "of different versions"),
        ("call = \"nvmlInit_v2\"\ncode = 4", "/dev/nvidiactl"),
        ("call = \"nvmlInit_v2\"\ncode = 999", "nvmlInit: unknown"),
        ("call = \"nvmlDeviceGetCount_v2\"\ncode = 1", "nvmlDeviceGetCount failed: uninitialized"),
    ] {
        let scenario = Scenario::new(&format!("{}\n[[faults]]\n{fault}\n", base()));
        let mut helper = Helper::start(&scenario.path());
        let told = helper.snapshot().unwrap_err();
        match &told {
            Tell::NoDriver(_) if expected == "no driver" => {}
            Tell::Failed(why) if why.contains(expected) => {}
            _ => panic!("{fault}: {told:?}"),
        }
        assert!(helper.ends_within(Duration::from_secs(5)), "{fault}: it stays");
    }
}

#[test]
fn without_library_or_driver() {
    let told = Helper::with(Path::new("/nowhere/libnvidia-ml.so.1"), None).snapshot().unwrap_err();
    assert!(matches!(&told, Tell::NoDriver(why) if why.contains("/nowhere/libnvidia-ml.so.1")), "{told:?}");
    let told = Helper::with(&library(), None).snapshot().unwrap_err();
    assert!(matches!(&told, Tell::NoDriver(why) if why.contains("driver-not-loaded")), "{told:?}");
    // A library that is another one: every function is missing.
    let told = Helper::with(Path::new("libc.so.6"), None).snapshot().unwrap_err();
    assert!(matches!(&told, Tell::Failed(why) if why.contains("has no nvmlInit_v2")), "{told:?}");
}

#[test]
fn a_call_that_does_not_return_is_named_with_its_device() {
    for (fault, call, device) in [
        ("call = \"nvmlDeviceGetPowerUsage\"\ngpu = 1\nhang = true", "nvmlDeviceGetPowerUsage", "GPU 1"),
        ("call = \"nvmlInit_v2\"\nhang = true", "nvmlInit_v2", ""),
        ("call = \"nvmlDeviceGetCount_v2\"\nhang = true", "nvmlDeviceGetCount_v2", ""),
    ] {
        let scenario = Scenario::new(&format!("{}\n[[faults]]\n{fault}\n", base()));
        let mut helper = Helper::start(&scenario.path());
        let began = Instant::now();
        let told = helper.snapshot().unwrap_err();
        let Tell::Hung { call: hung, device: of, for_ms } = &told else { panic!("{fault}: {told:?}") };
        assert_eq!(hung, call);
        assert!(of.starts_with(device), "{of}");
        assert!(*for_ms >= 500, "{for_ms}");
        assert!(began.elapsed() < CALL_TIMEOUT * 4, "{:?}", began.elapsed());
        assert!(helper.ends_within(Duration::from_secs(5)), "{fault}: it stays");
    }
}

#[test]
fn slow_is_not_hung() {
    let fault = "call = \"nvmlDeviceGetPowerUsage\"\ntakes_ms = 250";
    let scenario = Scenario::new(&format!("{}\n[[faults]]\n{fault}\n", base()));
    let devices = Helper::start(&scenario.path()).snapshot().unwrap();
    assert_eq!(devices[1]["power_usage_milliwatts"], json!(612_345));
}

#[test]
fn it_ends_when_the_agent_has_gone_even_while_the_driver_hangs() {
    let scenario = Scenario::new(&base());
    let mut idle = Helper::start(&scenario.path());
    idle.snapshot().unwrap();
    idle.close();
    assert!(idle.ends_within(Duration::from_secs(5)));
    scenario.set(&format!("{}\n[[faults]]\ncall = \"nvmlDeviceGetPowerUsage\"\nhang = true\n", base()));
    let mut hung = Helper::start(&scenario.path());
    hung.ask();
    hung.close();
    assert!(hung.ends_within(Duration::from_secs(5)));
}

#[test]
fn what_it_is_started_with_is_checked() {
    for wrong in
        [&["--librari", "x"][..], &["--timeout-ms", "0"], &["--timeout-ms", "soon"], &["--library"], &["x"]]
    {
        let output = std::process::Command::new(helper()).args(wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("usage: picket-nvml"), "{wrong:?}");
    }
    let version = std::process::Command::new(helper()).arg("--version").output().unwrap();
    assert!(version.status.success() && version.stdout.starts_with(b"picket-nvml "));
}
