//! Functions that ask no device.

use std::ffi::{c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings as sys;

use crate::export;
use crate::scenario::{INVALID_ARGUMENT, LOST};
use crate::state::{Handle, answer, initialized, put, put_text};

export! {
    fn nvmlInit_v2() {
        answer("nvmlInit_v2", |_| {
            initialized(true);
            Ok(())
        })
    }

    fn nvmlInitWithFlags(flags: c_uint) {
        let _ = flags;
        answer("nvmlInit_v2", |_| {
            initialized(true);
            Ok(())
        })
    }

    fn nvmlShutdown() {
        answer("nvmlShutdown", |_| {
            initialized(false);
            Ok(())
        })
    }

    fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) {
        answer("nvmlSystemGetDriverVersion", |scenario| {
            // SAFETY: the caller's promise.
            unsafe { put_text(version, length, &scenario.system.text("driver_version")?) }
        })
    }

    fn nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint) {
        answer("nvmlSystemGetNVMLVersion", |scenario| {
            // SAFETY: the caller's promise.
            unsafe { put_text(version, length, &scenario.system.text("nvml_version")?) }
        })
    }

    fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) {
        answer("nvmlSystemGetCudaDriverVersion_v2", |scenario| {
            let number = scenario.system.u32("cuda_version")?.cast_signed();
            // SAFETY: the caller's promise.
            unsafe { put(version, number) }
        })
    }

    fn nvmlDeviceGetCount_v2(count: *mut c_uint) {
        answer("nvmlDeviceGetCount_v2", |scenario| {
            let number = c_uint::try_from(scenario.gpus.len()).unwrap_or(c_uint::MAX);
            // SAFETY: the caller's promise.
            unsafe { put(count, number) }
        })
    }

    fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut sys::nvmlDevice_t) {
        answer("nvmlDeviceGetHandleByIndex_v2", |scenario| {
            let gpu = usize::try_from(index).unwrap_or(usize::MAX);
            let found = scenario.gpus.get(gpu).ok_or(INVALID_ARGUMENT)?;
            if let Some(fault) = scenario.fault("nvmlDeviceGetHandleByIndex_v2", Some(index), None)
                && fault.code != 0
            {
                return Err(fault.code);
            }
            if found.values.flag("lost_at_start") == Ok(1) {
                return Err(LOST);
            }
            // SAFETY: the caller's promise.
            unsafe { put(device, Handle { gpu, instance: None }.pointer()) }
        })
    }
}

const MESSAGE: &std::ffi::CStr = c"an error of the fake NVML";

/// As nvml.h says; one text for all.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(_: sys::nvmlReturn_t) -> *const c_char {
    MESSAGE.as_ptr()
}
