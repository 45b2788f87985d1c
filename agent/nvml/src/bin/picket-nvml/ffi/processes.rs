//! Who uses a device.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings as sys;

use super::Device;
use crate::code::Code;

/// A process on a device.
pub struct Running {
    pub pid: u32,
    pub used_memory: Option<u64>,
    pub gpu_instance_id: Option<u32>,
    pub compute_instance_id: Option<u32>,
}

impl From<&sys::nvmlProcessInfo_t> for Running {
    fn from(p: &sys::nvmlProcessInfo_t) -> Self {
        let some = |id: u32| Some(id).filter(|id| *id != u32::MAX);
        Self {
            pid: p.pid,
            used_memory: Some(p.usedGpuMemory).filter(|bytes| *bytes != u64::MAX),
            gpu_instance_id: some(p.gpuInstanceId),
            compute_instance_id: some(p.computeInstanceId),
        }
    }
}

impl Device<'_> {
    pub fn compute_processes(&self, most: usize) -> Result<Vec<Running>, Code> {
        self.processes(most, |handle, count, list| {
            let device = self.number;
            call!(self.session, device, nvmlDeviceGetComputeRunningProcesses_v3(handle, count, list))
        })
    }

    pub fn graphics_processes(&self, most: usize) -> Result<Vec<Running>, Code> {
        self.processes(most, |handle, count, list| {
            let device = self.number;
            call!(self.session, device, nvmlDeviceGetGraphicsRunningProcesses_v3(handle, count, list))
        })
    }

    pub fn mps_processes(&self, most: usize) -> Result<Vec<Running>, Code> {
        self.processes(most, |handle, count, list| {
            let device = self.number;
            call!(self.session, device, nvmlDeviceGetMPSComputeRunningProcesses_v3(handle, count, list))
        })
    }

    /// In one call where they fit into the usual size, else with what the library says that it needs.
    fn processes(
        &self,
        most: usize,
        list: impl Fn(sys::nvmlDevice_t, *mut c_uint, *mut sys::nvmlProcessInfo_t) -> Result<(), Code>,
    ) -> Result<Vec<Running>, Code> {
        let none = sys::nvmlProcessInfo_t {
            pid: 0,
            usedGpuMemory: 0,
            gpuInstanceId: u32::MAX,
            computeInstanceId: u32::MAX,
        };
        let mut size = 32.min(most);
        loop {
            let mut found = vec![none; size];
            let mut count = c_uint::try_from(size).unwrap_or(c_uint::MAX);
            match list(self.handle, &mut count, found.as_mut_ptr()) {
                Ok(()) => {
                    found.truncate(usize::try_from(count).unwrap_or(usize::MAX));
                    return Ok(found.iter().map(Running::from).collect());
                }
                // Some may start in between.
                Err(Code::INSUFFICIENT_SIZE) if size < most => {
                    let needed = usize::try_from(count).unwrap_or(usize::MAX).saturating_add(8);
                    size = needed.clamp(size.saturating_mul(2), most.max(size.saturating_mul(2))).min(most);
                }
                Err(code) => return Err(code),
            }
        }
    }
}
