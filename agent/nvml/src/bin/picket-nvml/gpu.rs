//! What is asked of a device, group by group. The names are those of the document.

use std::fmt::Write;

use nvml_wrapper_sys::bindings as sys;
use sys::field_id as id;

use crate::code::Code;
use crate::ffi::{Device, Field, Running};
use crate::sheet::{Sheet, quoted};

/// More processes than these on a device are an error: a document has its bounds.
const MAX_PROCESSES: usize = 4096;
const ALL_LINKS: u32 = u32::MAX;

const GRAPHICS: u32 = sys::nvmlClockType_enum_NVML_CLOCK_GRAPHICS;
const SM: u32 = sys::nvmlClockType_enum_NVML_CLOCK_SM;
const MEMORY: u32 = sys::nvmlClockType_enum_NVML_CLOCK_MEM;
const VIDEO: u32 = sys::nvmlClockType_enum_NVML_CLOCK_VIDEO;

/// What does not change while the driver runs, or hardly ever.
pub fn fixed(device: &Device<'_>, sheet: &mut Sheet) {
    sheet.text("name", device.name());
    sheet.number("minor", device.minor());
    sheet.text("pci_bus_id", device.pci_bus_id());
    sheet.text("serial", device.serial());
    sheet.text("part_number", device.part_number());
    sheet.text("vbios_version", device.vbios_version());
    sheet.text("architecture", device.architecture().map(architecture));
    sheet.text("compute_capability", device.compute_capability().map(|(a, b)| format!("{a}.{b}")));
    for (name, which) in [
        ("threshold_shutdown_celsius", 0),
        ("threshold_slowdown_celsius", 1),
        ("threshold_memory_max_celsius", 2),
        ("threshold_gpu_max_celsius", 3),
    ] {
        sheet.number(name, device.temperature_threshold(which));
    }
    sheet.number("power_limit_default_milliwatts", device.power_limit_default());
    sheet.numbers(("power_limit_min_milliwatts", "power_limit_max_milliwatts"), device.power_limits());
    for (name, which) in [
        ("clock_graphics_max_mhz", GRAPHICS),
        ("clock_sm_max_mhz", SM),
        ("clock_memory_max_mhz", MEMORY),
        ("clock_video_max_mhz", VIDEO),
    ] {
        sheet.number(name, device.clock_max(which));
    }
    sheet.number("pcie_generation_max", device.pcie_generation_max());
    sheet.number("pcie_width_max", device.pcie_width_max());
}

/// How busy and how full it is, and how warm.
pub fn load(device: &Device<'_>, sheet: &mut Sheet) {
    sheet.numbers(("utilization_gpu_percent", "utilization_memory_percent"), device.utilization());
    sheet.number("utilization_encoder_percent", device.utilization_encoder().map(|(percent, _)| percent));
    sheet.number("utilization_decoder_percent", device.utilization_decoder().map(|(percent, _)| percent));
    memory(device, sheet);
    sheet.numbers(("bar1_total_bytes", "bar1_used_bytes"), device.bar1());
    sheet.number("temperature_gpu_celsius", device.temperature());
}

fn memory(device: &Device<'_>, sheet: &mut Sheet) {
    let names = ["memory_total_bytes", "memory_used_bytes", "memory_free_bytes", "memory_reserved_bytes"];
    if let Some((total, used, free, reserved)) = sheet.group(&names, device.memory()) {
        sheet.number("memory_total_bytes", Ok(total));
        sheet.number("memory_used_bytes", Ok(used));
        sheet.number("memory_free_bytes", Ok(free));
        sheet.number("memory_reserved_bytes", reserved.ok_or(Code::NOT_SUPPORTED));
    }
}

pub fn power_and_clocks(device: &Device<'_>, sheet: &mut Sheet) {
    sheet.number("power_usage_milliwatts", device.power_usage());
    sheet.number("power_limit_milliwatts", device.power_limit());
    sheet.number("power_limit_enforced_milliwatts", device.power_limit_enforced());
    sheet.number("energy_millijoules", device.energy());
    for (name, which) in [
        ("clock_graphics_mhz", GRAPHICS),
        ("clock_sm_mhz", SM),
        ("clock_memory_mhz", MEMORY),
        ("clock_video_mhz", VIDEO),
    ] {
        sheet.number(name, device.clock(which));
    }
    sheet.number("clock_graphics_application_mhz", device.clock_application(GRAPHICS));
    sheet.number("clock_memory_application_mhz", device.clock_application(MEMORY));
    // 32: the library does not know.
    let state =
        device.performance_state().and_then(|p| if p < 16 { Ok(p) } else { Err(Code::NOT_SUPPORTED) });
    sheet.number("performance_state", state);
}

pub fn throttling(device: &Device<'_>, sheet: &mut Sheet) {
    let names = ["throttle_reasons", "throttle_reasons_active"];
    if let Some(bits) = sheet.group(&names, device.throttle_reasons()) {
        sheet.number("throttle_reasons", Ok(bits));
        let words: Vec<String> = reasons(bits).iter().map(|word| quoted(word)).collect();
        sheet.raw("throttle_reasons_active", &format!("[{}]", words.join(",")));
    }
    for (name, policy) in [
        ("violation_power_nanoseconds", 0),
        ("violation_thermal_nanoseconds", 1),
        ("violation_sync_boost_nanoseconds", 2),
        ("violation_board_limit_nanoseconds", 3),
        ("violation_low_utilization_nanoseconds", 4),
        ("violation_reliability_nanoseconds", 5),
        ("violation_application_clocks_nanoseconds", 10),
        ("violation_base_clocks_nanoseconds", 11),
    ] {
        sheet.number(name, device.violation(policy));
    }
}

/// ECC, retired pages, remapped rows.
pub fn memory_errors(device: &Device<'_>, sheet: &mut Sheet) {
    let modes = device.ecc_mode().map(|(enabled, pending)| (enabled == 1, pending == 1));
    sheet.numbers(("ecc_enabled", "ecc_pending"), modes);
    let (corrected, uncorrected, volatile, aggregate) = (0, 1, 0, 1);
    for (name, kind, counter) in [
        ("ecc_sbe_volatile", corrected, volatile),
        ("ecc_dbe_volatile", uncorrected, volatile),
        ("ecc_sbe_aggregate", corrected, aggregate),
        ("ecc_dbe_aggregate", uncorrected, aggregate),
    ] {
        sheet.number(name, device.total_ecc_errors(kind, counter));
    }
    let names = [
        "remapped_rows_correctable",
        "remapped_rows_uncorrectable",
        "row_remap_pending",
        "row_remap_failure",
    ];
    if let Some((correctable, uncorrectable, pending, failed)) = sheet.group(&names, device.remapped_rows()) {
        sheet.number("remapped_rows_correctable", Ok(correctable));
        sheet.number("remapped_rows_uncorrectable", Ok(uncorrectable));
        sheet.number("row_remap_pending", Ok(pending));
        sheet.number("row_remap_failure", Ok(failed));
    }
    if let Some([max, high, partial, low, none]) = sheet.take("row_remap_banks", device.row_remap_banks()) {
        let json = format!(r#"{{"max":{max},"high":{high},"partial":{partial},"low":{low},"none":{none}}}"#);
        sheet.raw("row_remap_banks", &json);
    }
    sheet.number("retired_pages_pending", device.retired_pages_pending().map(|pending| pending == 1));
    fields(
        device,
        sheet,
        &[
            ("temperature_memory_celsius", (id::NVML_FI_DEV_MEMORY_TEMP, 0)),
            ("retired_pages_sbe", (id::NVML_FI_DEV_RETIRED_SBE, 0)),
            ("retired_pages_dbe", (id::NVML_FI_DEV_RETIRED_DBE, 0)),
            ("nvlink_tx_kib", (id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, ALL_LINKS)),
            ("nvlink_rx_kib", (id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, ALL_LINKS)),
        ],
    );
}

/// Modes, and what the driver says of the device's health.
pub fn state(device: &Device<'_>, sheet: &mut Sheet) {
    sheet.number("persistence_mode", device.persistence_mode().map(|mode| mode == 1));
    sheet.text("compute_mode", device.compute_mode().map(compute_mode));
    if let Some(fabric) = sheet.take("fabric_state", device.fabric()) {
        let state = match fabric.state {
            sys::NVML_GPU_FABRIC_STATE_NOT_SUPPORTED => "not-supported".to_owned(),
            sys::NVML_GPU_FABRIC_STATE_NOT_STARTED => "not-started".to_owned(),
            sys::NVML_GPU_FABRIC_STATE_IN_PROGRESS => "in-progress".to_owned(),
            sys::NVML_GPU_FABRIC_STATE_COMPLETED => "completed".to_owned(),
            other => format!("state-{other}"),
        };
        let joined = state == "completed";
        sheet.text("fabric_state", Ok(state));
        if joined {
            let status = Code::check(fabric.status).map_or_else(Code::word, |()| "ok".to_owned());
            sheet.text("fabric_status", Ok(status));
            sheet.text("fabric_cluster_uuid", Ok(uuid(fabric.cluster)));
            sheet.number("fabric_clique_id", Ok(fabric.clique));
            if let Some(mask) = fabric.health_mask {
                sheet.number("fabric_health_mask", Ok(mask));
            }
        }
    }
    let answers = device.fields(&[(id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, 0)]);
    let action = answers.and_then(|a| a.into_iter().next().unwrap_or(Err(Code::NO_DATA)));
    sheet.text("recovery_action", action.map(recovery_action));
}

/// True where the device counts its bytes. The throughput is asked only where it doesn't: that takes 20 ms a call.
pub fn pcie(device: &Device<'_>, sheet: &mut Sheet, counts: Option<bool>) -> bool {
    sheet.number("pcie_generation", device.pcie_generation());
    sheet.number("pcie_width", device.pcie_width());
    sheet.number("pcie_replays", device.pcie_replays());
    let asked = [(id::NVML_FI_DEV_PCIE_COUNT_TX_BYTES, 0), (id::NVML_FI_DEV_PCIE_COUNT_RX_BYTES, 0)];
    let answers = match device.fields(&asked) {
        Ok(answers) => answers,
        Err(code) => vec![Err(code); 2],
    };
    let lacking = answers.iter().all(|answer| answer.is_err_and(Code::is_lack));
    for (name, answer) in ["pcie_tx_bytes", "pcie_rx_bytes"].iter().zip(answers) {
        match answer {
            Ok(bytes) => sheet.number(name, Ok(bytes)),
            Err(code) => sheet.note(name, code),
        }
    }
    let counts = counts.unwrap_or(!lacking);
    if !counts {
        for (name, which) in [("pcie_tx_bytes_per_second", 0), ("pcie_rx_bytes_per_second", 1)] {
            sheet.number(name, device.pcie_throughput(which).map(|kib| u64::from(kib).saturating_mul(1024)));
        }
    }
    counts
}

/// A process may stand in the list once a kind. MPS has none of its own on a MIG instance.
pub fn processes(device: &Device<'_>, sheet: &mut Sheet, mps: bool) {
    let mut list = String::from("[");
    let mut kinds = vec![
        ("compute", device.compute_processes(MAX_PROCESSES)),
        ("graphics", device.graphics_processes(MAX_PROCESSES)),
    ];
    if mps {
        kinds.push(("mps", device.mps_processes(MAX_PROCESSES)));
    }
    for (kind, found) in kinds {
        for process in sheet.take(&format!("processes.{kind}"), found).unwrap_or_default() {
            let comma = if list.len() > 1 { "," } else { "" };
            let _ = write!(list, "{comma}{}", process_text(kind, &process));
        }
    }
    list.push(']');
    sheet.raw("processes", &list);
}

fn process_text(kind: &str, process: &Running) -> String {
    let mut text = format!("{{\"pid\":{},\"kind\":\"{kind}\"", process.pid);
    for (name, value) in [
        ("used_memory_bytes", process.used_memory),
        ("gpu_instance_id", process.gpu_instance_id.map(u64::from)),
        ("compute_instance_id", process.compute_instance_id.map(u64::from)),
    ] {
        if let Some(value) = value {
            let _ = write!(text, ",\"{name}\":{value}");
        }
    }
    text.push('}');
    text
}

/// Of a MIG instance; gives its GPU instance's number.
pub fn instance(device: &Device<'_>, sheet: &mut Sheet) -> Option<u32> {
    if let Some(name) = sheet.take("name", device.name()) {
        // `NVIDIA H100 80GB HBM3 MIG 1g.10gb`
        if let Some((_, profile)) = name.rsplit_once("MIG ") {
            sheet.text("mig_profile", Ok(profile));
        }
        sheet.text("name", Ok(name));
    }
    let gpu_instance = sheet.take("gpu_instance_id", device.gpu_instance_id());
    if let Some(id) = gpu_instance {
        sheet.number("gpu_instance_id", Ok(id));
    }
    sheet.number("compute_instance_id", device.compute_instance_id());
    sheet.number("multiprocessors", device.multiprocessors());
    memory(device, sheet);
    gpu_instance
}

/// Fields of one call, each by itself.
fn fields(device: &Device<'_>, sheet: &mut Sheet, asked: &[(&str, Field)]) {
    let list: Vec<Field> = asked.iter().map(|(_, field)| *field).collect();
    let answers = match device.fields(&list) {
        Ok(answers) => answers,
        Err(code) => vec![Err(code); list.len()],
    };
    for ((name, _), answer) in asked.iter().zip(answers) {
        match answer {
            Ok(value) => sheet.number(name, Ok(value)),
            // Not a call: it says nothing of the device's loss.
            Err(code) => sheet.note(name, code),
        }
    }
}

fn architecture(number: u32) -> String {
    match number {
        sys::NVML_DEVICE_ARCH_KEPLER => "kepler",
        sys::NVML_DEVICE_ARCH_MAXWELL => "maxwell",
        sys::NVML_DEVICE_ARCH_PASCAL => "pascal",
        sys::NVML_DEVICE_ARCH_VOLTA => "volta",
        sys::NVML_DEVICE_ARCH_TURING => "turing",
        sys::NVML_DEVICE_ARCH_AMPERE => "ampere",
        sys::NVML_DEVICE_ARCH_ADA => "ada",
        sys::NVML_DEVICE_ARCH_HOPPER => "hopper",
        sys::NVML_DEVICE_ARCH_BLACKWELL => "blackwell",
        other => return format!("architecture-{other}"),
    }
    .to_owned()
}

fn compute_mode(number: u32) -> String {
    match number {
        0 => "default",
        1 => "exclusive-thread",
        2 => "prohibited",
        3 => "exclusive-process",
        other => return format!("mode-{other}"),
    }
    .to_owned()
}

fn recovery_action(number: u64) -> String {
    match number {
        0 => "none",
        1 => "gpu-reset",
        2 => "node-reboot",
        3 => "drain-p2p",
        4 => "drain-and-reset",
        other => return other.to_string(),
    }
    .to_owned()
}

fn reasons(bits: u64) -> Vec<String> {
    const WORDS: [&str; 9] = [
        "gpu_idle",
        "applications_clocks_setting",
        "sw_power_cap",
        "hw_slowdown",
        "sync_boost",
        "sw_thermal_slowdown",
        "hw_thermal_slowdown",
        "hw_power_brake_slowdown",
        "display_clock_setting",
    ];
    (0..64)
        .filter(|bit| bits >> bit & 1 == 1)
        .map(|bit: usize| WORDS.get(bit).map_or_else(|| format!("bit_{bit}"), |word| (*word).to_owned()))
        .collect()
}

fn uuid(bytes: [u8; 16]) -> String {
    let mut text = String::new();
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(reasons(0), Vec::<String>::new());
        assert_eq!(reasons(0x4 | 0x40 | 1 << 40), ["sw_power_cap", "hw_thermal_slowdown", "bit_40"]);
        assert_eq!(uuid([0xab; 16]), "abababab-abab-abab-abab-abababababab");
        assert_eq!(recovery_action(2), "node-reboot");
        assert_eq!(recovery_action(77), "77");
        assert_eq!(architecture(9), "hopper");
        assert_eq!(architecture(4711), "architecture-4711");
    }
}
