//! GPM: a sample is the moment in which it was taken; two give what the scenario says.

use std::ffi::c_uint;
use std::sync::Mutex;

use nvml_wrapper_sys::bindings as sys;
use sys::{nvmlDevice_t, nvmlGpmSample_t};

use crate::export;
use crate::scenario::{INVALID_ARGUMENT, NOT_SUPPORTED, OK, Values};
use crate::state::{answer, ask};

const MIB: f64 = 1_048_576.0;

/// What a sample's handle points to: what the device showed when it was taken.
struct Sample(Mutex<Option<Values>>);

export! {
    fn nvmlGpmQueryDeviceSupport(device: nvmlDevice_t, out: *mut sys::nvmlGpmSupport_t) {
        ask("nvmlGpmQueryDeviceSupport", device, |d| {
            if out.is_null() {
                return Err(INVALID_ARGUMENT);
            }
            let supported = u32::from(d.gpu()?.values.inner("profiling").is_ok());
            // SAFETY: the caller's promise.
            unsafe { (*out).isSupportedDevice = supported };
            Ok(())
        })
    }

    fn nvmlGpmSampleAlloc(out: *mut nvmlGpmSample_t) {
        answer("nvmlGpmSampleAlloc", |_| {
            let sample = Box::into_raw(Box::new(Sample(Mutex::default())));
            // SAFETY: the caller's promise.
            unsafe { crate::state::put(out, sample.cast()) }
        })
    }

    fn nvmlGpmSampleFree(sample: nvmlGpmSample_t) {
        answer("nvmlGpmSampleFree", |_| {
            if sample.is_null() {
                return Err(INVALID_ARGUMENT);
            }
            // SAFETY: a handle of nvmlGpmSampleAlloc that was not freed.
            drop(unsafe { Box::from_raw(sample.cast::<Sample>()) });
            Ok(())
        })
    }

    fn nvmlGpmSampleGet(device: nvmlDevice_t, sample: nvmlGpmSample_t) {
        ask("nvmlGpmSampleGet", device, |d| {
            let values = d.gpu()?.values.inner("profiling")?;
            // SAFETY: a handle of nvmlGpmSampleAlloc that was not freed.
            unsafe { fill(sample, values) }
        })
    }

    fn nvmlGpmMigSampleGet(device: nvmlDevice_t, instance: c_uint, sample: nvmlGpmSample_t) {
        ask("nvmlGpmMigSampleGet", device, |d| {
            let instances = &d.gpu()?.instances;
            let found = instances.iter().find(|i| i.u32("gpu_instance_id") == Ok(instance));
            let values = found.ok_or(INVALID_ARGUMENT)?.inner("profiling")?;
            // SAFETY: a handle of nvmlGpmSampleAlloc that was not freed.
            unsafe { fill(sample, values) }
        })
    }

    fn nvmlGpmMetricsGet(out: *mut sys::nvmlGpmMetricsGet_t) {
        answer("nvmlGpmMetricsGet", |_| {
            if out.is_null() {
                return Err(INVALID_ARGUMENT);
            }
            // SAFETY: the caller's promise.
            let request = unsafe { &mut *out };
            let count = usize::try_from(request.numMetrics).unwrap_or(usize::MAX);
            if request.version != sys::NVML_GPM_METRICS_GET_VERSION || count > request.metrics.len() {
                return Err(INVALID_ARGUMENT);
            }
            // SAFETY: handles of nvmlGpmSampleAlloc that were not freed.
            let (earlier, later) = unsafe { (read(request.sample1)?, read(request.sample2)?) };
            let _ = earlier;
            for metric in request.metrics.iter_mut().take(count) {
                match key(metric.metricId).ok_or(NOT_SUPPORTED).and_then(|(key, f)| Ok(later.number(key)? * f)) {
                    Ok(value) => {
                        metric.nvmlReturn = OK;
                        metric.value = value;
                    }
                    Err(code) => metric.nvmlReturn = code,
                }
            }
            Ok(())
        })
    }
}

/// # Safety
/// The handle is null or of a sample.
unsafe fn fill(sample: nvmlGpmSample_t, values: Values) -> Result<(), u32> {
    if sample.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: the caller's promise.
    let sample = unsafe { &*sample.cast::<Sample>() };
    *sample.0.lock().map_err(|_| INVALID_ARGUMENT)? = Some(values);
    Ok(())
}

/// # Safety
/// The handle is null or of a sample.
unsafe fn read(sample: nvmlGpmSample_t) -> Result<Values, u32> {
    if sample.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: the caller's promise.
    let sample = unsafe { &*sample.cast::<Sample>() };
    sample.0.lock().map_err(|_| INVALID_ARGUMENT)?.clone().ok_or(INVALID_ARGUMENT)
}

/// The scenario's key, and the factor to the library's unit.
fn key(metric: c_uint) -> Option<(&'static str, f64)> {
    Some(match metric {
        1 => ("graphics_ratio", 100.0),
        2 => ("sm_ratio", 100.0),
        3 => ("sm_occupancy_ratio", 100.0),
        5 => ("tensor_ratio", 100.0),
        6 => ("tensor_dfma_ratio", 100.0),
        7 => ("tensor_hmma_ratio", 100.0),
        9 => ("tensor_imma_ratio", 100.0),
        10 => ("dram_ratio", 100.0),
        11 => ("fp64_ratio", 100.0),
        12 => ("fp32_ratio", 100.0),
        13 => ("fp16_ratio", 100.0),
        20 => ("pcie_tx_bytes_per_second", 1.0 / MIB),
        21 => ("pcie_rx_bytes_per_second", 1.0 / MIB),
        60 => ("nvlink_rx_bytes_per_second", 1.0 / MIB),
        61 => ("nvlink_tx_bytes_per_second", 1.0 / MIB),
        _ => return None,
    })
}
