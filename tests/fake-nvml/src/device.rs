//! Functions that ask a GPU or a MIG instance.

use std::ffi::{c_char, c_int, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings as sys;
use sys::nvmlDevice_t;

use crate::export;
use crate::field::{field, nvlink};
use crate::scenario::{Code, INVALID_ARGUMENT, NOT_FOUND, OK, UNKNOWN, Values};
use crate::state::{Device, Handle, ask, chars, put, put_text};

/// Getters of one number under one key.
macro_rules! numbers {
    ($($name:ident($out:ty) = $key:literal as $how:ident;)*) => {
        export! {
            $(fn $name(device: nvmlDevice_t, out: *mut $out) {
                // SAFETY: the caller's promise.
                ask(stringify!($name), device, |d| unsafe { put(out, d.values()?.$how($key)?) })
            })*
        }
    };
}

/// Getters of one number under the key that a selector names.
macro_rules! selected {
    ($($name:ident($out:ty) = $keys:expr, $how:ident;)*) => {
        export! {
            $(fn $name(device: nvmlDevice_t, which: c_uint, out: *mut $out) {
                ask(stringify!($name), device, |d| {
                    let key = pick(&$keys, which)?;
                    // SAFETY: the caller's promise.
                    unsafe { put(out, d.values()?.$how(key)?) }
                })
            })*
        }
    };
}

macro_rules! texts {
    ($($name:ident = $key:literal;)*) => {
        export! {
            $(fn $name(device: nvmlDevice_t, out: *mut c_char, length: c_uint) {
                // SAFETY: the caller's promise.
                ask(stringify!($name), device, |d| unsafe { put_text(out, length, &d.values()?.text($key)?) })
            })*
        }
    };
}

macro_rules! pairs {
    ($($name:ident($out:ty) = $first:literal, $second:literal as $how:ident;)*) => {
        export! {
            $(fn $name(device: nvmlDevice_t, first: *mut $out, second: *mut $out) {
                ask(stringify!($name), device, |d| {
                    let values = d.values()?;
                    // SAFETY: the caller's promise.
                    unsafe {
                        put(first, values.$how($first)? as $out)?;
                        put(second, values.$how($second).unwrap_or_default() as $out)
                    }
                })
            })*
        }
    };
}

fn pick<'a>(keys: &[&'a str], which: c_uint) -> Result<&'a str, Code> {
    let key = usize::try_from(which).ok().and_then(|which| keys.get(which));
    key.copied().filter(|key| !key.is_empty()).ok_or(INVALID_ARGUMENT)
}

texts! {
    nvmlDeviceGetName = "name";
    nvmlDeviceGetUUID = "uuid";
    nvmlDeviceGetSerial = "serial";
    nvmlDeviceGetBoardPartNumber = "part_number";
    nvmlDeviceGetVbiosVersion = "vbios_version";
}

numbers! {
    nvmlDeviceGetMinorNumber(c_uint) = "minor" as u32;
    nvmlDeviceGetArchitecture(c_uint) = "architecture" as u32;
    nvmlDeviceGetPowerUsage(c_uint) = "power_usage_milliwatts" as u32;
    nvmlDeviceGetPowerManagementLimit(c_uint) = "power_limit_milliwatts" as u32;
    nvmlDeviceGetPowerManagementDefaultLimit(c_uint) = "power_limit_default_milliwatts" as u32;
    nvmlDeviceGetEnforcedPowerLimit(c_uint) = "power_limit_enforced_milliwatts" as u32;
    nvmlDeviceGetTotalEnergyConsumption(c_ulonglong) = "energy_millijoules" as u64;
    nvmlDeviceGetPerformanceState(c_uint) = "performance_state" as u32;
    nvmlDeviceGetCurrPcieLinkGeneration(c_uint) = "pcie_generation" as u32;
    nvmlDeviceGetMaxPcieLinkGeneration(c_uint) = "pcie_generation_max" as u32;
    nvmlDeviceGetCurrPcieLinkWidth(c_uint) = "pcie_width" as u32;
    nvmlDeviceGetMaxPcieLinkWidth(c_uint) = "pcie_width_max" as u32;
    nvmlDeviceGetPcieReplayCounter(c_uint) = "pcie_replays" as u32;
    nvmlDeviceGetPersistenceMode(c_uint) = "persistence_mode" as flag;
    nvmlDeviceGetComputeMode(c_uint) = "compute_mode" as u32;
    nvmlDeviceGetRetiredPagesPendingStatus(c_uint) = "retired_pages_pending" as flag;
    nvmlDeviceGetGpuInstanceId(c_uint) = "gpu_instance_id" as u32;
    nvmlDeviceGetComputeInstanceId(c_uint) = "compute_instance_id" as u32;
    nvmlDeviceGetCurrentClocksEventReasons(c_ulonglong) = "throttle_reasons" as u64;
    nvmlDeviceGetCurrentClocksThrottleReasons(c_ulonglong) = "throttle_reasons" as u64;
}

selected! {
    nvmlDeviceGetTemperature(c_uint) = ["temperature_gpu_celsius"], u32;
    nvmlDeviceGetTemperatureThreshold(c_uint) = [
        "threshold_shutdown_celsius",
        "threshold_slowdown_celsius",
        "threshold_memory_max_celsius",
        "threshold_gpu_max_celsius",
    ], u32;
    nvmlDeviceGetClockInfo(c_uint) =
        ["clock_graphics_mhz", "clock_sm_mhz", "clock_memory_mhz", "clock_video_mhz"], u32;
    nvmlDeviceGetMaxClockInfo(c_uint) =
        ["clock_graphics_max_mhz", "clock_sm_max_mhz", "clock_memory_max_mhz", "clock_video_max_mhz"], u32;
    nvmlDeviceGetApplicationsClock(c_uint) =
        ["clock_graphics_application_mhz", "", "clock_memory_application_mhz"], u32;
}

pairs! {
    nvmlDeviceGetCudaComputeCapability(c_int) = "compute_major", "compute_minor" as u32;
    nvmlDeviceGetPowerManagementLimitConstraints(c_uint) =
        "power_limit_min_milliwatts", "power_limit_max_milliwatts" as u32;
    nvmlDeviceGetEccMode(c_uint) = "ecc_enabled", "ecc_pending" as flag;
    nvmlDeviceGetMigMode(c_uint) = "mig_enabled", "mig_pending" as flag;
    nvmlDeviceGetEncoderUtilization(c_uint) = "utilization_encoder_percent", "sampling_us" as u32;
    nvmlDeviceGetDecoderUtilization(c_uint) = "utilization_decoder_percent", "sampling_us" as u32;
}

export! {
    fn nvmlDeviceGetTemperatureV(device: nvmlDevice_t, out: *mut sys::nvmlTemperature_t) {
        ask("nvmlDeviceGetTemperatureV", device, |d| {
            let temperature = d.values()?.u32("temperature_gpu_celsius")?.cast_signed();
            // SAFETY: the caller's promise.
            unsafe { (*out).temperature = temperature };
            Ok(())
        })
    }

    fn nvmlDeviceGetUtilizationRates(device: nvmlDevice_t, out: *mut sys::nvmlUtilization_t) {
        ask("nvmlDeviceGetUtilizationRates", device, |d| {
            let values = d.values()?;
            let rates = sys::nvmlUtilization_t {
                gpu: values.u32("utilization_gpu_percent")?,
                memory: values.u32("utilization_memory_percent")?,
            };
            // SAFETY: the caller's promise.
            unsafe { put(out, rates) }
        })
    }

    fn nvmlDeviceGetMemoryInfo(device: nvmlDevice_t, out: *mut sys::nvmlMemory_t) {
        ask("nvmlDeviceGetMemoryInfo", device, |d| {
            let (total, used, free, reserved) = memory(d.values()?)?;
            // The first version counts what is reserved as used.
            // SAFETY: the caller's promise.
            unsafe { put(out, sys::nvmlMemory_t { total, free, used: used + reserved }) }
        })
    }

    fn nvmlDeviceGetMemoryInfo_v2(device: nvmlDevice_t, out: *mut sys::nvmlMemory_v2_t) {
        ask("nvmlDeviceGetMemoryInfo_v2", device, |d| {
            // SAFETY: the caller's promise.
            let version = unsafe { versioned(out, |out| (*out).version) }?;
            if version != stamp::<sys::nvmlMemory_v2_t>(2) {
                return Err(sys::nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
            }
            let (total, used, free, reserved) = memory(d.values()?)?;
            // SAFETY: the caller's promise.
            unsafe { put(out, sys::nvmlMemory_v2_t { version, total, reserved, free, used }) }
        })
    }

    fn nvmlDeviceGetBAR1MemoryInfo(device: nvmlDevice_t, out: *mut sys::nvmlBAR1Memory_t) {
        ask("nvmlDeviceGetBAR1MemoryInfo", device, |d| {
            let values = d.values()?;
            let (total, used) = (values.u64("bar1_total_bytes")?, values.u64("bar1_used_bytes")?);
            let info = sys::nvmlBAR1Memory_t { bar1Total: total, bar1Free: total - used, bar1Used: used };
            // SAFETY: the caller's promise.
            unsafe { put(out, info) }
        })
    }

    fn nvmlDeviceGetViolationStatus(
        device: nvmlDevice_t,
        policy: sys::nvmlPerfPolicyType_t,
        out: *mut sys::nvmlViolationTime_t,
    ) {
        ask("nvmlDeviceGetViolationStatus", device, |d| {
            let key = match policy {
                0 => "violation_power_nanoseconds",
                1 => "violation_thermal_nanoseconds",
                2 => "violation_sync_boost_nanoseconds",
                3 => "violation_board_limit_nanoseconds",
                4 => "violation_low_utilization_nanoseconds",
                5 => "violation_reliability_nanoseconds",
                10 => "violation_application_clocks_nanoseconds",
                11 => "violation_base_clocks_nanoseconds",
                _ => return Err(INVALID_ARGUMENT),
            };
            let time = sys::nvmlViolationTime_t { referenceTime: 0, violationTime: d.values()?.u64(key)? };
            // SAFETY: the caller's promise.
            unsafe { put(out, time) }
        })
    }

    fn nvmlDeviceGetTotalEccErrors(
        device: nvmlDevice_t,
        kind: sys::nvmlMemoryErrorType_t,
        counter: sys::nvmlEccCounterType_t,
        out: *mut c_ulonglong,
    ) {
        ask("nvmlDeviceGetTotalEccErrors", device, |d| {
            let key = match (kind, counter) {
                (0, 0) => "ecc_sbe_volatile",
                (1, 0) => "ecc_dbe_volatile",
                (0, 1) => "ecc_sbe_aggregate",
                (1, 1) => "ecc_dbe_aggregate",
                _ => return Err(INVALID_ARGUMENT),
            };
            // SAFETY: the caller's promise.
            unsafe { put(out, d.values()?.u64(key)?) }
        })
    }

    fn nvmlDeviceGetRemappedRows(
        device: nvmlDevice_t,
        corrected: *mut c_uint,
        uncorrected: *mut c_uint,
        pending: *mut c_uint,
        failed: *mut c_uint,
    ) {
        ask("nvmlDeviceGetRemappedRows", device, |d| {
            let values = d.values()?;
            // SAFETY: the caller's promise.
            unsafe {
                put(corrected, values.u32("remapped_rows_correctable")?)?;
                put(uncorrected, values.u32("remapped_rows_uncorrectable")?)?;
                put(pending, values.flag("row_remap_pending")?)?;
                put(failed, values.flag("row_remap_failure")?)
            }
        })
    }

    fn nvmlDeviceGetRowRemapperHistogram(
        device: nvmlDevice_t,
        out: *mut sys::nvmlRowRemapperHistogramValues_t,
    ) {
        ask("nvmlDeviceGetRowRemapperHistogram", device, |d| {
            let banks = d.values()?.inner("row_remap_banks")?;
            let values = sys::nvmlRowRemapperHistogramValues_t {
                max: banks.u32("max")?,
                high: banks.u32("high")?,
                partial: banks.u32("partial")?,
                low: banks.u32("low")?,
                none: banks.u32("none")?,
            };
            // SAFETY: the caller's promise.
            unsafe { put(out, values) }
        })
    }

    fn nvmlDeviceGetPciInfo_v3(device: nvmlDevice_t, out: *mut sys::nvmlPciInfo_t) {
        ask("nvmlDeviceGetPciInfo_v3", device, |d| {
            // SAFETY: the caller's promise.
            unsafe { put(out, pci(&d.values()?.text("pci_bus_id")?)) }
        })
    }

    fn nvmlDeviceGetPcieThroughput(
        device: nvmlDevice_t,
        counter: sys::nvmlPcieUtilCounter_t,
        out: *mut c_uint,
    ) {
        ask("nvmlDeviceGetPcieThroughput", device, |d| {
            let key = pick(&["pcie_tx_bytes_per_second", "pcie_rx_bytes_per_second"], counter)?;
            let kib = d.values()?.u64(key)? / 1024;
            // The real one measures for so long.
            std::thread::sleep(std::time::Duration::from_millis(20));
            // SAFETY: the caller's promise.
            unsafe { put(out, c_uint::try_from(kib).unwrap_or(c_uint::MAX)) }
        })
    }

    fn nvmlDeviceGetFieldValues(device: nvmlDevice_t, count: c_int, values: *mut sys::nvmlFieldValue_t) {
        ask("nvmlDeviceGetFieldValues", device, |d| {
            let count = usize::try_from(count).ok().filter(|n| *n > 0).ok_or(INVALID_ARGUMENT)?;
            if values.is_null() {
                return Err(INVALID_ARGUMENT);
            }
            // SAFETY: the caller's promise.
            for value in unsafe { std::slice::from_raw_parts_mut(values, count) } {
                let gpu = u32::try_from(d.handle.gpu).ok();
                let fault = d.scenario.fault("nvmlDeviceGetFieldValues", gpu, Some(value.fieldId));
                let found = match fault.map(|fault| fault.code) {
                    Some(code) if code != OK => Err(code),
                    _ => field(d, value.fieldId, value.scopeId),
                };
                value.valueType = sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
                match found {
                    Ok(number) => {
                        value.nvmlReturn = OK;
                        value.value = sys::nvmlValue_t { ullVal: number };
                    }
                    Err(code) => value.nvmlReturn = code,
                }
            }
            Ok(())
        })
    }

    fn nvmlDeviceGetNvLinkState(device: nvmlDevice_t, link: c_uint, out: *mut sys::nvmlEnableState_t) {
        // SAFETY: the caller's promise.
        ask("nvmlDeviceGetNvLinkState", device, |d| unsafe { put(out, nvlink(d, link)?.flag("active")?) })
    }

    fn nvmlDeviceGetNvLinkVersion(device: nvmlDevice_t, link: c_uint, out: *mut c_uint) {
        // SAFETY: the caller's promise.
        ask("nvmlDeviceGetNvLinkVersion", device, |d| unsafe { put(out, nvlink(d, link)?.u32("version")?) })
    }

    fn nvmlDeviceGetNvLinkRemoteDeviceType(
        device: nvmlDevice_t,
        link: c_uint,
        out: *mut sys::nvmlIntNvLinkDeviceType_t,
    ) {
        ask("nvmlDeviceGetNvLinkRemoteDeviceType", device, |d| {
            // SAFETY: the caller's promise.
            unsafe { put(out, nvlink(d, link)?.u32("remote_type")?) }
        })
    }

    fn nvmlDeviceGetNvLinkRemotePciInfo_v2(
        device: nvmlDevice_t,
        link: c_uint,
        out: *mut sys::nvmlPciInfo_t,
    ) {
        ask("nvmlDeviceGetNvLinkRemotePciInfo_v2", device, |d| {
            // SAFETY: the caller's promise.
            unsafe { put(out, pci(&nvlink(d, link)?.text("remote_pci_bus_id")?)) }
        })
    }

    fn nvmlDeviceGetNvLinkErrorCounter(
        device: nvmlDevice_t,
        link: c_uint,
        counter: sys::nvmlNvLinkErrorCounter_t,
        out: *mut c_ulonglong,
    ) {
        ask("nvmlDeviceGetNvLinkErrorCounter", device, |d| {
            let keys = ["replay_errors", "recovery_errors", "crc_flit_errors", "crc_data_errors"];
            // SAFETY: the caller's promise.
            unsafe { put(out, nvlink(d, link)?.u64(pick(&keys, counter)?)?) }
        })
    }

    fn nvmlDeviceGetMaxMigDeviceCount(device: nvmlDevice_t, out: *mut c_uint) {
        ask("nvmlDeviceGetMaxMigDeviceCount", device, |d| {
            d.values()?.flag("mig_enabled")?;
            // SAFETY: the caller's promise.
            unsafe { put(out, 7) }
        })
    }

    fn nvmlDeviceGetMigDeviceHandleByIndex(device: nvmlDevice_t, index: c_uint, out: *mut nvmlDevice_t) {
        ask("nvmlDeviceGetMigDeviceHandleByIndex", device, |d| {
            let instance = usize::try_from(index).unwrap_or(usize::MAX);
            if instance >= d.gpu()?.instances.len() {
                return Err(NOT_FOUND);
            }
            // SAFETY: the caller's promise.
            unsafe { put(out, Handle { gpu: d.handle.gpu, instance: Some(instance) }.pointer()) }
        })
    }

    fn nvmlDeviceGetAttributes_v2(device: nvmlDevice_t, out: *mut sys::nvmlDeviceAttributes_t) {
        ask("nvmlDeviceGetAttributes_v2", device, |d| {
            let values = d.values()?;
            let attributes = sys::nvmlDeviceAttributes_t {
                multiprocessorCount: values.u32("multiprocessors")?,
                sharedCopyEngineCount: 1,
                sharedDecoderCount: 1,
                sharedEncoderCount: 0,
                sharedJpegCount: 1,
                sharedOfaCount: 0,
                gpuInstanceSliceCount: 1,
                computeInstanceSliceCount: 1,
                memorySizeMB: values.u64("memory_total_bytes")? >> 20,
            };
            // SAFETY: the caller's promise.
            unsafe { put(out, attributes) }
        })
    }

    fn nvmlDeviceGetGpuFabricInfoV(device: nvmlDevice_t, out: *mut sys::nvmlGpuFabricInfoV_t) {
        ask("nvmlDeviceGetGpuFabricInfoV", device, |d| {
            // SAFETY: the caller's promise.
            let version = unsafe { versioned(out, |out| (*out).version) }?;
            let second = version == stamp::<sys::nvmlGpuFabricInfo_v2_t>(2);
            let third = version == stamp::<sys::nvmlGpuFabricInfo_v3_t>(3);
            let newest = d.scenario.system.u32("fabric_version").unwrap_or(3);
            if !(second || third && newest >= 3) {
                return Err(sys::nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
            }
            let fabric = d.values()?.inner("fabric")?;
            // SAFETY: the caller's promise; the second version ends before `healthSummary`.
            unsafe {
                (*out).clusterUuid = [0xab; 16];
                (*out).status = fabric.u32("status")?;
                (*out).cliqueId = fabric.u32("clique_id")?;
                (*out).state = u8::try_from(fabric.u32("state")?).map_err(|_| UNKNOWN)?;
                (*out).healthMask = fabric.u32("health_mask")?;
                if third {
                    (*out).healthSummary = 1;
                }
            }
            Ok(())
        })
    }

    fn nvmlDeviceGetComputeRunningProcesses_v3(
        device: nvmlDevice_t,
        count: *mut c_uint,
        list: *mut sys::nvmlProcessInfo_t,
    ) {
        // SAFETY: the caller's promise.
        ask("nvmlDeviceGetComputeRunningProcesses_v3", device, |d| unsafe { processes(d, "compute", count, list) })
    }

    fn nvmlDeviceGetGraphicsRunningProcesses_v3(
        device: nvmlDevice_t,
        count: *mut c_uint,
        list: *mut sys::nvmlProcessInfo_t,
    ) {
        // SAFETY: the caller's promise.
        ask("nvmlDeviceGetGraphicsRunningProcesses_v3", device, |d| unsafe {
            processes(d, "graphics", count, list)
        })
    }

    fn nvmlDeviceGetMPSComputeRunningProcesses_v3(
        device: nvmlDevice_t,
        count: *mut c_uint,
        list: *mut sys::nvmlProcessInfo_t,
    ) {
        // SAFETY: the caller's promise.
        ask("nvmlDeviceGetMPSComputeRunningProcesses_v3", device, |d| unsafe { processes(d, "mps", count, list) })
    }
}

/// NVML_STRUCT_VERSION of nvml.h.
fn stamp<T>(number: usize) -> c_uint {
    c_uint::try_from(size_of::<T>() | (number << 24)).unwrap_or(0)
}

/// The version that the caller wrote into its struct.
///
/// # Safety
/// The pointer is null or valid.
unsafe fn versioned<T>(out: *mut T, version: impl FnOnce(*mut T) -> c_uint) -> Result<c_uint, Code> {
    if out.is_null() { Err(INVALID_ARGUMENT) } else { Ok(version(out)) }
}

fn memory(values: &Values) -> Result<(u64, u64, u64, u64), Code> {
    let total = values.u64("memory_total_bytes")?;
    let used = values.u64("memory_used_bytes")?;
    let reserved = values.u64("memory_reserved_bytes").unwrap_or(0);
    Ok((total, used, total.saturating_sub(used).saturating_sub(reserved), reserved))
}

fn pci(text: &str) -> sys::nvmlPciInfo_t {
    // `00000000:1B:00.0`
    let hex = |part: Option<&str>| part.and_then(|p| u32::from_str_radix(p, 16).ok()).unwrap_or(0);
    let mut parts = text.split([':', '.']);
    let (domain, bus, device) = (hex(parts.next()), hex(parts.next()), hex(parts.next()));
    sys::nvmlPciInfo_t {
        busIdLegacy: chars(text.strip_prefix("0000").unwrap_or(text)),
        domain,
        bus,
        device,
        pciDeviceId: 0x2330_10de,
        pciSubSystemId: 0x16c1_10de,
        busId: chars(text),
    }
}

/// # Safety
/// The pointers are valid, the list for as many as the count says.
unsafe fn processes(
    device: &Device,
    kind: &str,
    count: *mut c_uint,
    list: *mut sys::nvmlProcessInfo_t,
) -> Result<(), Code> {
    let instance = device.handle.instance.map(|_| device.values()?.u32("gpu_instance_id")).transpose()?;
    let found: Vec<&Values> = device
        .gpu()?
        .processes
        .iter()
        .filter(|p| p.text("kind").unwrap_or_else(|_| "compute".to_owned()) == kind)
        .filter(|p| instance.is_none() || p.u32("gpu_instance_id").ok() == instance)
        .collect();
    if count.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: the caller's promise.
    let room = unsafe { count.read() };
    let length = c_uint::try_from(found.len()).unwrap_or(c_uint::MAX);
    // SAFETY: the caller's promise.
    unsafe { count.write(length) };
    if length > room {
        return Err(sys::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE);
    }
    for (place, process) in found.iter().enumerate() {
        let info = sys::nvmlProcessInfo_t {
            pid: process.u32("pid")?,
            usedGpuMemory: process.u64("used_memory_bytes").unwrap_or(u64::MAX),
            gpuInstanceId: process.u32("gpu_instance_id").unwrap_or(u32::MAX),
            computeInstanceId: process.u32("compute_instance_id").unwrap_or(u32::MAX),
        };
        // SAFETY: the caller's promise, and the room was compared.
        unsafe { list.add(place).write(info) };
    }
    Ok(())
}
