//! Events.

use std::collections::BTreeSet;
use std::ffi::{c_uint, c_ulonglong};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings as sys;
use sys::{nvmlDevice_t, nvmlEventSet_t};

use crate::export;
use crate::scenario::{INVALID_ARGUMENT, NOT_SUPPORTED};
use crate::state::{Handle, answer, ask, event, put};

const XID: c_ulonglong = sys::nvmlEventTypeXidCriticalError as c_ulonglong;
/// How often the scenario is looked at while somebody waits.
const LOOK: Duration = Duration::from_millis(10);

/// The GPUs of a set: what its handle points to.
struct Set(Mutex<BTreeSet<usize>>);

export! {
    fn nvmlEventSetCreate(out: *mut nvmlEventSet_t) {
        answer("nvmlEventSetCreate", |_| {
            let set = Box::into_raw(Box::new(Set(Mutex::default())));
            // SAFETY: the caller's promise.
            unsafe { put(out, set.cast()) }
        })
    }

    fn nvmlDeviceGetSupportedEventTypes(device: nvmlDevice_t, out: *mut c_ulonglong) {
        ask("nvmlDeviceGetSupportedEventTypes", device, |d| {
            let lacking = d.values()?.flag("no_events") == Ok(1);
            // SAFETY: the caller's promise.
            unsafe { put(out, if lacking { 0 } else { XID | 1 | 2 }) }
        })
    }

    fn nvmlDeviceRegisterEvents(device: nvmlDevice_t, kinds: c_ulonglong, set: nvmlEventSet_t) {
        ask("nvmlDeviceRegisterEvents", device, |d| {
            if kinds & XID == 0 {
                return Err(NOT_SUPPORTED);
            }
            if set.is_null() {
                return Err(INVALID_ARGUMENT);
            }
            // SAFETY: a handle of nvmlEventSetCreate that was not freed.
            let set = unsafe { &*set.cast::<Set>() };
            set.0.lock().unwrap_or_else(PoisonError::into_inner).insert(d.handle.gpu);
            Ok(())
        })
    }

    fn nvmlEventSetWait_v2(set: nvmlEventSet_t, out: *mut sys::nvmlEventData_t, timeout_ms: c_uint) {
        answer("nvmlEventSetWait_v2", |_| {
            if set.is_null() {
                return Err(INVALID_ARGUMENT);
            }
            // SAFETY: a handle of nvmlEventSetCreate that was not freed.
            let registered = unsafe { &*set.cast::<Set>() };
            let registered = registered.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let until = Instant::now() + Duration::from_millis(timeout_ms.into());
            loop {
                if let Some((gpu, xid, instance)) = event(&registered) {
                    let data = sys::nvmlEventData_t {
                        device: Handle { gpu, instance: None }.pointer(),
                        eventType: XID,
                        eventData: xid,
                        gpuInstanceId: instance.unwrap_or(u32::MAX),
                        computeInstanceId: u32::MAX,
                    };
                    // SAFETY: the caller's promise.
                    return unsafe { put(out, data) };
                }
                if Instant::now() >= until {
                    return Err(sys::nvmlReturn_enum_NVML_ERROR_TIMEOUT);
                }
                std::thread::sleep(LOOK);
            }
        })
    }

    fn nvmlEventSetFree(set: nvmlEventSet_t) {
        answer("nvmlEventSetFree", |_| {
            if set.is_null() {
                return Err(INVALID_ARGUMENT);
            }
            // SAFETY: a handle of nvmlEventSetCreate that was not freed.
            drop(unsafe { Box::from_raw(set.cast::<Set>()) });
            Ok(())
        })
    }
}
