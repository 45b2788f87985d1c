//! The driver's library, loaded at run time: the one module of this crate that may write `unsafe`, with those below it.
//!
//! What is safe to call from outside is safe because each pointer that is handed over is to a local variable of the
//! function's own type, and each length is that variable's. A function that the library does not have is
//! [`Code::FUNCTION_NOT_FOUND`], so old and new drivers are read by the same program. Every call is entered in the
//! [`Watch`] under its own name, because any of them may never return.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::path::Path;
use std::ptr::null_mut;

use nvml_wrapper_sys::bindings as sys;
use sys::NvmlLib;

use crate::code::Code;
use crate::watch::{Slot, Watch};

/// Calls one function of the library, under watch.
macro_rules! call {
    ($session:expr, $device:expr, $function:ident($($argument:expr),*)) => {
        match &$session.library.lib.$function {
            Ok(function) => {
                let _entered = $session.slot.enter(stringify!($function), $device, std::time::Duration::ZERO);
                // SAFETY: see the module's header.
                crate::code::Code::check(unsafe { function($($argument),*) })
            }
            Err(_) => Err(crate::code::Code::FUNCTION_NOT_FOUND),
        }
    };
}

/// Getters that fill one variable.
macro_rules! getters {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $out:ty = $function:ident;)*) => {
        $(pub fn $name(&self, $($argument: $kind),*) -> Result<$out, Code> {
            let mut out = <$out>::default();
            call!(self.session, self.number, $function(self.handle, $($argument,)* &mut out))?;
            Ok(out)
        })*
    };
}

/// Getters that fill two variables.
macro_rules! pairs {
    ($($name:ident -> $out:ty = $function:ident;)*) => {
        $(pub fn $name(&self) -> Result<($out, $out), Code> {
            let (mut first, mut second) = <($out, $out)>::default();
            call!(self.session, self.number, $function(self.handle, &mut first, &mut second))?;
            Ok((first, second))
        })*
    };
}

/// Getters of a text, with the library's longest.
macro_rules! texts {
    ($($name:ident[$size:expr] = $function:ident;)*) => {
        $(pub fn $name(&self) -> Result<String, Code> {
            let mut text = [0; $size];
            call!(self.session, self.number, $function(self.handle, text.as_mut_ptr(), $size))?;
            owned(&text)
        })*
    };
}

mod event_set;
mod processes;
mod sample;

pub use event_set::EventSet;
pub use processes::Running;
pub use sample::Sample;

/// The loaded library.
pub struct Library {
    lib: NvmlLib,
}

/// Why the library could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be loaded: {why}")]
pub struct NotLoaded {
    path: String,
    why: String,
}

impl Library {
    pub fn open(path: &Path) -> Result<Self, NotLoaded> {
        // SAFETY: its initializers run. It is the library that the operator's system or configuration names.
        let lib = unsafe { NvmlLib::new(path) };
        let why =
            |e: &dyn std::error::Error| NotLoaded { path: path.display().to_string(), why: e.to_string() };
        lib.map(|lib| Self { lib }).map_err(|e| why(&e))
    }
}

/// One thread's way into the library.
#[derive(Clone, Copy)]
pub struct Session<'l> {
    library: &'l Library,
    slot: &'l Slot,
}

impl<'l> Session<'l> {
    pub fn new(library: &'l Library, watch: &'l Watch, slot: impl Fn(&'l Watch) -> &'l Slot) -> Self {
        Self { library, slot: slot(watch) }
    }

    pub fn init(self) -> Result<(), Code> {
        call!(self, None, nvmlInit_v2())
    }

    pub fn driver_version(self) -> Result<String, Code> {
        let mut text = [0; 80];
        call!(self, None, nvmlSystemGetDriverVersion(text.as_mut_ptr(), 80))?;
        owned(&text)
    }

    pub fn nvml_version(self) -> Result<String, Code> {
        let mut text = [0; 80];
        call!(self, None, nvmlSystemGetNVMLVersion(text.as_mut_ptr(), 80))?;
        owned(&text)
    }

    /// 12040 for 12.4
    pub fn cuda_version(self) -> Result<c_int, Code> {
        let mut version = 0;
        call!(self, None, nvmlSystemGetCudaDriverVersion_v2(&mut version))?;
        Ok(version)
    }

    pub fn device_count(self) -> Result<u32, Code> {
        let mut count = 0;
        call!(self, None, nvmlDeviceGetCount_v2(&mut count))?;
        Ok(count)
    }

    pub fn device(self, number: u32) -> Result<Device<'l>, Code> {
        let mut handle = null_mut();
        call!(self, Some(number), nvmlDeviceGetHandleByIndex_v2(number, &mut handle))?;
        Ok(Device { session: self, handle, number: Some(number) })
    }
}

/// A GPU or a MIG instance.
#[derive(Clone, Copy)]
pub struct Device<'l> {
    session: Session<'l>,
    handle: sys::nvmlDevice_t,
    /// The GPU's, for the watch.
    number: Option<u32>,
}

/// What [`Device::fields`] is asked for: the field's number and the link, `u32::MAX` for all, or 0.
pub type Field = (u32, u32);

impl Device<'_> {
    /// The same device has the same, in one process.
    pub fn key(&self) -> usize {
        self.handle.addr()
    }

    texts! {
        name[96] = nvmlDeviceGetName;
        uuid[96] = nvmlDeviceGetUUID;
        serial[30] = nvmlDeviceGetSerial;
        part_number[80] = nvmlDeviceGetBoardPartNumber;
        vbios_version[32] = nvmlDeviceGetVbiosVersion;
    }

    getters! {
        minor() -> u32 = nvmlDeviceGetMinorNumber;
        architecture() -> u32 = nvmlDeviceGetArchitecture;
        temperature_threshold(which: u32) -> u32 = nvmlDeviceGetTemperatureThreshold;
        power_usage() -> u32 = nvmlDeviceGetPowerUsage;
        power_limit() -> u32 = nvmlDeviceGetPowerManagementLimit;
        power_limit_default() -> u32 = nvmlDeviceGetPowerManagementDefaultLimit;
        power_limit_enforced() -> u32 = nvmlDeviceGetEnforcedPowerLimit;
        energy() -> u64 = nvmlDeviceGetTotalEnergyConsumption;
        clock(which: u32) -> u32 = nvmlDeviceGetClockInfo;
        clock_max(which: u32) -> u32 = nvmlDeviceGetMaxClockInfo;
        clock_application(which: u32) -> u32 = nvmlDeviceGetApplicationsClock;
        performance_state() -> u32 = nvmlDeviceGetPerformanceState;
        total_ecc_errors(corrected: u32, counter: u32) -> u64 = nvmlDeviceGetTotalEccErrors;
        pcie_generation() -> u32 = nvmlDeviceGetCurrPcieLinkGeneration;
        pcie_generation_max() -> u32 = nvmlDeviceGetMaxPcieLinkGeneration;
        pcie_width() -> u32 = nvmlDeviceGetCurrPcieLinkWidth;
        pcie_width_max() -> u32 = nvmlDeviceGetMaxPcieLinkWidth;
        pcie_replays() -> u32 = nvmlDeviceGetPcieReplayCounter;
        pcie_throughput(which: u32) -> u32 = nvmlDeviceGetPcieThroughput;
        persistence_mode() -> u32 = nvmlDeviceGetPersistenceMode;
        compute_mode() -> u32 = nvmlDeviceGetComputeMode;
        retired_pages_pending() -> u32 = nvmlDeviceGetRetiredPagesPendingStatus;
        nvlink_state(link: u32) -> u32 = nvmlDeviceGetNvLinkState;
        nvlink_version(link: u32) -> u32 = nvmlDeviceGetNvLinkVersion;
        nvlink_remote_type(link: u32) -> u32 = nvmlDeviceGetNvLinkRemoteDeviceType;
        nvlink_errors(link: u32, counter: u32) -> u64 = nvmlDeviceGetNvLinkErrorCounter;
        mig_count() -> u32 = nvmlDeviceGetMaxMigDeviceCount;
        gpu_instance_id() -> u32 = nvmlDeviceGetGpuInstanceId;
        compute_instance_id() -> u32 = nvmlDeviceGetComputeInstanceId;
        event_types() -> u64 = nvmlDeviceGetSupportedEventTypes;
    }

    pairs! {
        compute_capability -> c_int = nvmlDeviceGetCudaComputeCapability;
        power_limits -> u32 = nvmlDeviceGetPowerManagementLimitConstraints;
        ecc_mode -> u32 = nvmlDeviceGetEccMode;
        mig_mode -> u32 = nvmlDeviceGetMigMode;
        utilization_encoder -> u32 = nvmlDeviceGetEncoderUtilization;
        utilization_decoder -> u32 = nvmlDeviceGetDecoderUtilization;
    }

    /// Of the GPU and its memory.
    pub fn utilization(&self) -> Result<(u32, u32), Code> {
        let mut out = sys::nvmlUtilization_t { gpu: 0, memory: 0 };
        call!(self.session, self.number, nvmlDeviceGetUtilizationRates(self.handle, &mut out))?;
        Ok((out.gpu, out.memory))
    }

    /// Total, used, free, and reserved where the driver tells it apart.
    pub fn memory(&self) -> Result<(u64, u64, u64, Option<u64>), Code> {
        let mut out = sys::nvmlMemory_v2_t {
            version: version::<sys::nvmlMemory_v2_t>(2),
            total: 0,
            reserved: 0,
            free: 0,
            used: 0,
        };
        match call!(self.session, self.number, nvmlDeviceGetMemoryInfo_v2(self.handle, &mut out)) {
            Ok(()) => Ok((out.total, out.used, out.free, Some(out.reserved))),
            Err(Code::FUNCTION_NOT_FOUND | Code::ARGUMENT_VERSION_MISMATCH) => {
                let mut out = sys::nvmlMemory_t { total: 0, free: 0, used: 0 };
                call!(self.session, self.number, nvmlDeviceGetMemoryInfo(self.handle, &mut out))?;
                Ok((out.total, out.used, out.free, None))
            }
            Err(code) => Err(code),
        }
    }

    /// Total and used.
    pub fn bar1(&self) -> Result<(u64, u64), Code> {
        let mut out = sys::nvmlBAR1Memory_t { bar1Total: 0, bar1Free: 0, bar1Used: 0 };
        call!(self.session, self.number, nvmlDeviceGetBAR1MemoryInfo(self.handle, &mut out))?;
        Ok((out.bar1Total, out.bar1Used))
    }

    /// Of the die.
    pub fn temperature(&self) -> Result<i32, Code> {
        let mut out = 0;
        let sensor = sys::nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU;
        match call!(self.session, self.number, nvmlDeviceGetTemperature(self.handle, sensor, &mut out)) {
            Ok(()) => Ok(out.cast_signed()),
            // Newer libraries are free to leave the old function out.
            Err(Code::FUNCTION_NOT_FOUND | Code::DEPRECATED) => {
                let mut out = sys::nvmlTemperature_t {
                    version: version::<sys::nvmlTemperature_v1_t>(1),
                    sensorType: sensor,
                    temperature: 0,
                };
                call!(self.session, self.number, nvmlDeviceGetTemperatureV(self.handle, &mut out))?;
                Ok(out.temperature)
            }
            Err(code) => Err(code),
        }
    }

    /// The bits of why clocks are low.
    pub fn throttle_reasons(&self) -> Result<u64, Code> {
        let mut out = 0;
        match call!(self.session, self.number, nvmlDeviceGetCurrentClocksEventReasons(self.handle, &mut out))
        {
            Err(Code::FUNCTION_NOT_FOUND) => {
                let device = self.number;
                call!(
                    self.session,
                    device,
                    nvmlDeviceGetCurrentClocksThrottleReasons(self.handle, &mut out)
                )?;
                Ok(out)
            }
            result => result.map(|()| out),
        }
    }

    /// Nanoseconds.
    pub fn violation(&self, policy: u32) -> Result<u64, Code> {
        let mut out = sys::nvmlViolationTime_t { referenceTime: 0, violationTime: 0 };
        call!(self.session, self.number, nvmlDeviceGetViolationStatus(self.handle, policy, &mut out))?;
        Ok(out.violationTime)
    }

    /// Correctable, uncorrectable, pending, failed.
    pub fn remapped_rows(&self) -> Result<(u32, u32, bool, bool), Code> {
        let (mut corrected, mut uncorrected, mut pending, mut failed) = (0, 0, 0, 0);
        let (device, handle) = (self.number, self.handle);
        call!(
            self.session,
            device,
            nvmlDeviceGetRemappedRows(handle, &mut corrected, &mut uncorrected, &mut pending, &mut failed)
        )?;
        Ok((corrected, uncorrected, pending != 0, failed != 0))
    }

    /// Banks with max, high, partial, low and no spare rows.
    pub fn row_remap_banks(&self) -> Result<[u32; 5], Code> {
        let mut out = sys::nvmlRowRemapperHistogramValues_t { max: 0, high: 0, partial: 0, low: 0, none: 0 };
        call!(self.session, self.number, nvmlDeviceGetRowRemapperHistogram(self.handle, &mut out))?;
        Ok([out.max, out.high, out.partial, out.low, out.none])
    }

    pub fn pci_bus_id(&self) -> Result<String, Code> {
        let mut out = no_pci();
        call!(self.session, self.number, nvmlDeviceGetPciInfo_v3(self.handle, &mut out))?;
        owned(&out.busId)
    }

    pub fn nvlink_remote_pci_bus_id(&self, link: u32) -> Result<String, Code> {
        let mut out = no_pci();
        call!(self.session, self.number, nvmlDeviceGetNvLinkRemotePciInfo_v2(self.handle, link, &mut out))?;
        owned(&out.busId)
    }

    /// Streaming multiprocessors of a MIG instance.
    pub fn multiprocessors(&self) -> Result<u32, Code> {
        let mut out = sys::nvmlDeviceAttributes_t {
            multiprocessorCount: 0,
            sharedCopyEngineCount: 0,
            sharedDecoderCount: 0,
            sharedEncoderCount: 0,
            sharedJpegCount: 0,
            sharedOfaCount: 0,
            gpuInstanceSliceCount: 0,
            computeInstanceSliceCount: 0,
            memorySizeMB: 0,
        };
        call!(self.session, self.number, nvmlDeviceGetAttributes_v2(self.handle, &mut out))?;
        Ok(out.multiprocessorCount)
    }

    /// Each field by itself, in the order asked for; the outer error is the call's.
    pub fn fields(&self, asked: &[Field]) -> Result<Vec<Result<u64, Code>>, Code> {
        let mut values: Vec<sys::nvmlFieldValue_t> = asked
            .iter()
            .map(|(field, scope)| sys::nvmlFieldValue_t {
                fieldId: *field,
                scopeId: *scope,
                timestamp: 0,
                latencyUsec: 0,
                valueType: 0,
                nvmlReturn: Code::NOT_SUPPORTED.0,
                value: sys::nvmlValue_t { ullVal: 0 },
            })
            .collect();
        let count = c_int::try_from(values.len()).map_err(|_| Code::INVALID_ARGUMENT)?;
        let device = self.number;
        call!(self.session, device, nvmlDeviceGetFieldValues(self.handle, count, values.as_mut_ptr()))?;
        Ok(values.iter().map(field).collect())
    }

    pub fn mig_instance(&self, index: u32) -> Result<Self, Code> {
        let mut handle = null_mut();
        let device = self.number;
        call!(self.session, device, nvmlDeviceGetMigDeviceHandleByIndex(self.handle, index, &mut handle))?;
        Ok(Self { session: self.session, handle, number: self.number })
    }

    pub fn fabric(&self) -> Result<Fabric, Code> {
        let mut out = sys::nvmlGpuFabricInfo_v3_t {
            version: version::<sys::nvmlGpuFabricInfo_v3_t>(3),
            clusterUuid: [0; 16],
            status: 0,
            cliqueId: 0,
            state: 0,
            healthMask: 0,
            healthSummary: 0,
        };
        let device = self.number;
        let mut result = call!(self.session, device, nvmlDeviceGetGpuFabricInfoV(self.handle, &mut out));
        if matches!(result, Err(Code::ARGUMENT_VERSION_MISMATCH | Code::INVALID_ARGUMENT)) {
            // The second version is the third without its last member.
            out.version = version::<sys::nvmlGpuFabricInfo_v2_t>(2);
            result = call!(self.session, device, nvmlDeviceGetGpuFabricInfoV(self.handle, &mut out));
        }
        match result {
            Ok(()) => Ok(Fabric {
                state: out.state.into(),
                status: out.status,
                cluster: out.clusterUuid,
                clique: out.cliqueId,
                health_mask: Some(out.healthMask),
            }),
            Err(Code::FUNCTION_NOT_FOUND) => {
                let mut out =
                    sys::nvmlGpuFabricInfo_t { clusterUuid: [0; 16], status: 0, cliqueId: 0, state: 0 };
                call!(self.session, device, nvmlDeviceGetGpuFabricInfo(self.handle, &mut out))?;
                Ok(Fabric {
                    state: out.state.into(),
                    status: out.status,
                    cluster: out.clusterUuid,
                    clique: out.cliqueId,
                    health_mask: None,
                })
            }
            Err(code) => Err(code),
        }
    }
}

/// See [`Device::fabric`].
pub struct Fabric {
    pub state: u32,
    pub status: u32,
    pub cluster: [u8; 16],
    pub clique: u32,
    pub health_mask: Option<u32>,
}

/// NVML_STRUCT_VERSION of nvml.h.
fn version<T>(number: usize) -> c_uint {
    c_uint::try_from(size_of::<T>() | (number << 24)).unwrap_or(0)
}

fn no_pci() -> sys::nvmlPciInfo_t {
    sys::nvmlPciInfo_t {
        busIdLegacy: [0; 16],
        domain: 0,
        bus: 0,
        device: 0,
        pciDeviceId: 0,
        pciSubSystemId: 0,
        busId: [0; 32],
    }
}

fn field(value: &sys::nvmlFieldValue_t) -> Result<u64, Code> {
    Code::check(value.nvmlReturn)?;
    let v = &value.value;
    // SAFETY: all members are plain numbers and lie within the eight bytes that were set to 0 before the call.
    let number = unsafe {
        match value.valueType {
            0 if v.dVal >= 0.0 => v.dVal as u64,
            1 => u64::from(v.uiVal),
            2 | 3 => v.ullVal,
            4 => u64::try_from(v.sllVal).map_err(|_| Code::UNEXPECTED)?,
            5 => u64::try_from(v.siVal).map_err(|_| Code::UNEXPECTED)?,
            6 => u64::from(v.usVal),
            _ => return Err(Code::UNEXPECTED),
        }
    };
    Ok(number)
}

/// What stands before the first NUL; a library that wrote none is at fault.
fn owned(text: &[c_char]) -> Result<String, Code> {
    // A character of C is signed on one architecture and not on the other.
    let bytes: Vec<u8> = text.iter().flat_map(|c| c.to_ne_bytes()).collect();
    let text = CStr::from_bytes_until_nul(&bytes).map_err(|_| Code::UNEXPECTED)?;
    Ok(text.to_string_lossy().into_owned())
}
