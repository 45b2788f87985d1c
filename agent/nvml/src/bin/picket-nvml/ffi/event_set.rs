//! XIDs as the driver tells them.

use std::ffi::c_uint;
use std::ptr::null_mut;
use std::time::Duration;

use nvml_wrapper_sys::bindings as sys;

use super::{Device, Session};
use crate::code::Code;

/// Where the driver puts events.
pub struct EventSet<'l> {
    session: Session<'l>,
    set: sys::nvmlEventSet_t,
}

/// An XID.
pub struct XidEvent<'l> {
    pub device: Device<'l>,
    pub xid: u64,
    pub gpu_instance_id: Option<u32>,
    pub compute_instance_id: Option<u32>,
}

const XID: u64 = sys::nvmlEventTypeXidCriticalError as u64;

impl<'l> EventSet<'l> {
    /// Listens for the XIDs of a device from now on.
    pub fn register(&self, device: &Device<'l>) -> Result<(), Code> {
        let supported = device.event_types()?;
        if supported & XID == 0 {
            return Err(Code::NOT_SUPPORTED);
        }
        call!(self.session, device.number, nvmlDeviceRegisterEvents(device.handle, XID, self.set))
    }

    /// The next event; [`Code::TIMEOUT`] where none came.
    pub fn wait(&self, within: Duration) -> Result<XidEvent<'l>, Code> {
        let mut data = sys::nvmlEventData_t {
            device: null_mut(),
            eventType: 0,
            eventData: 0,
            gpuInstanceId: u32::MAX,
            computeInstanceId: u32::MAX,
        };
        let milliseconds = c_uint::try_from(within.as_millis()).unwrap_or(c_uint::MAX);
        match &self.session.library.lib.nvmlEventSetWait_v2 {
            Ok(function) => {
                let _entered = self.session.slot.enter("nvmlEventSetWait_v2", None, within);
                // SAFETY: see the module's header.
                Code::check(unsafe { function(self.set, &mut data, milliseconds) })?;
            }
            Err(_) => return Err(Code::FUNCTION_NOT_FOUND),
        }
        if data.eventType & XID == 0 {
            return Err(Code::TIMEOUT);
        }
        // Both are 0 on a GPU that is not divided, all ones by older drivers.
        let some = |id: u32| Some(id).filter(|id| *id != u32::MAX);
        Ok(XidEvent {
            device: Device { session: self.session, handle: data.device, number: None },
            xid: data.eventData,
            gpu_instance_id: some(data.gpuInstanceId),
            compute_instance_id: some(data.computeInstanceId),
        })
    }
}

impl Drop for EventSet<'_> {
    fn drop(&mut self) {
        // Nothing can be done about a failure.
        let _ = call!(self.session, None, nvmlEventSetFree(self.set));
    }
}

impl<'l> Session<'l> {
    pub fn event_set(self) -> Result<EventSet<'l>, Code> {
        let mut set = null_mut();
        call!(self, None, nvmlEventSetCreate(&mut set))?;
        Ok(EventSet { session: self, set })
    }
}
