//! The scenario in force, handles, and how a call is answered.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::ptr::without_provenance_mut;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nvml_wrapper_sys::bindings as sys;

use crate::scenario::{Code, Gpu, INVALID_ARGUMENT, LOST, OK, Scenario, UNKNOWN, Values};

const UNINITIALIZED: Code = sys::nvmlReturn_enum_NVML_ERROR_UNINITIALIZED;
const NO_DRIVER: Code = sys::nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED;

/// What a handle stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle {
    pub gpu: usize,
    pub instance: Option<usize>,
}

impl Handle {
    pub fn pointer(self) -> sys::nvmlDevice_t {
        without_provenance_mut(0x1_0000 * (self.gpu + 1) + 0x10 * self.instance.map_or(0, |i| i + 1))
    }

    fn of(pointer: sys::nvmlDevice_t) -> Option<Self> {
        let address = pointer.addr();
        let gpu = (address / 0x1_0000).checked_sub(1)?;
        let place = address % 0x1_0000;
        place.is_multiple_of(0x10).then(|| Self { gpu, instance: (place / 0x10).checked_sub(1) })
    }
}

/// The scenario with the handle's own part of it.
pub struct Device {
    pub scenario: Arc<Scenario>,
    pub handle: Handle,
}

impl Device {
    pub fn gpu(&self) -> Result<&Gpu, Code> {
        self.scenario.gpus.get(self.handle.gpu).ok_or(INVALID_ARGUMENT)
    }

    /// Of the MIG instance, or of the GPU.
    pub fn values(&self) -> Result<&Values, Code> {
        let gpu = self.gpu()?;
        match self.handle.instance {
            None => Ok(&gpu.values),
            Some(index) => gpu.instances.get(index).ok_or(INVALID_ARGUMENT),
        }
    }
}

#[derive(Default)]
struct Global {
    scenario: Option<Arc<Scenario>>,
    /// What tells one version of the file from another.
    version: Option<(u64, u64, SystemTime)>,
    looked: Option<Instant>,
    initialized: bool,
    began: Option<Instant>,
    told: BTreeSet<i64>,
}

static GLOBAL: Mutex<Option<Global>> = Mutex::new(None);

fn with<R>(f: impl FnOnce(&mut Global) -> R) -> R {
    let mut global = GLOBAL.lock().unwrap_or_else(PoisonError::into_inner);
    f(global.get_or_insert_default())
}

impl Global {
    fn refresh(&mut self) -> Option<Arc<Scenario>> {
        if self.looked.is_some_and(|looked| looked.elapsed() < Duration::from_millis(5)) {
            return self.scenario.clone();
        }
        self.looked = Some(Instant::now());
        let file = PathBuf::from(std::env::var_os("FAKE_NVML_SCENARIO")?);
        let meta = std::fs::metadata(&file).ok()?;
        let written = meta.modified().ok()?;
        let version = Some((meta.ino(), meta.len(), written));
        if version != self.version {
            let read = std::fs::read_to_string(&file).map_err(|error| error.to_string());
            match read.and_then(|text| Scenario::parse(&text, written)) {
                Ok(scenario) => {
                    self.scenario = Some(Arc::new(scenario));
                    self.began = Some(Instant::now());
                    self.version = version;
                }
                Err(error) => eprintln!("fake-nvml: {}: {error}", file.display()),
            }
        }
        self.scenario.clone()
    }
}

/// Answers a call that asks no device.
pub fn answer(call: &str, work: impl FnOnce(&Arc<Scenario>) -> Result<(), Code>) -> Code {
    code(enter(call, None).and_then(|scenario| work(&scenario)))
}

/// Answers a call that asks a device.
pub fn ask(call: &str, pointer: sys::nvmlDevice_t, work: impl FnOnce(&Device) -> Result<(), Code>) -> Code {
    let found = Handle::of(pointer).ok_or(INVALID_ARGUMENT).and_then(|handle| {
        let scenario = enter(call, u32::try_from(handle.gpu).ok())?;
        let device = Device { scenario, handle };
        // What the real one still knows of a device that is lost.
        let known = matches!(call, "nvmlDeviceGetUUID" | "nvmlDeviceGetName" | "nvmlDeviceGetIndex");
        if device.gpu()?.values.flag("lost") == Ok(1) && !known {
            return Err(LOST);
        }
        Ok(device)
    });
    code(found.and_then(|device| work(&device)))
}

fn code(result: Result<(), Code>) -> Code {
    match result {
        Ok(()) => OK,
        Err(code) => code,
    }
}

/// The scenario of now, after what it says of this call.
fn enter(call: &str, gpu: Option<u32>) -> Result<Arc<Scenario>, Code> {
    let (scenario, initialized) = with(|global| (global.refresh(), global.initialized));
    if call == "nvmlInit_v2" {
        scenario.as_ref().ok_or(NO_DRIVER)?;
    } else if !initialized {
        return Err(UNINITIALIZED);
    }
    let scenario = scenario.ok_or(UNKNOWN)?;
    if let Some(fault) = scenario.fault(call, gpu, None) {
        if fault.hang {
            loop {
                std::thread::sleep(Duration::from_secs(3600));
            }
        }
        std::thread::sleep(fault.takes);
        if fault.code != OK {
            return Err(fault.code);
        }
    }
    Ok(scenario)
}

pub fn initialized(yes: bool) {
    with(|global| global.initialized = yes);
}

/// The next event that is due and was not told, at most once a process.
pub fn event(registered: &BTreeSet<usize>) -> Option<(usize, u64, Option<u32>)> {
    with(|global| {
        let scenario = global.refresh()?;
        let passed = global.began?.elapsed();
        let event = scenario.events.iter().find(|event| {
            !global.told.contains(&event.id)
                && event.after <= passed
                && usize::try_from(event.gpu).is_ok_and(|gpu| registered.contains(&gpu))
        })?;
        global.told.insert(event.id);
        Some((usize::try_from(event.gpu).ok()?, event.xid, event.gpu_instance_id))
    })
}

/// Writes what was found where the caller wants it.
///
/// # Safety
/// The pointer is null or valid for writing.
pub unsafe fn put<T>(out: *mut T, value: T) -> Result<(), Code> {
    if out.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: the caller's promise.
    unsafe { out.write(value) };
    Ok(())
}

/// Writes a text with its NUL, where it fits.
///
/// # Safety
/// The pointer is null or valid for writing this many bytes.
pub unsafe fn put_text(out: *mut std::ffi::c_char, length: u32, text: &str) -> Result<(), Code> {
    let length = usize::try_from(length).unwrap_or(0);
    if out.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    if text.len() >= length {
        return Err(sys::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE);
    }
    // SAFETY: the caller's promise, and the length was compared.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), out, text.len());
        out.add(text.len()).write(0);
    }
    Ok(())
}

/// A text as a field of a struct holds it.
pub fn chars<const N: usize>(text: &str) -> [std::ffi::c_char; N] {
    let mut field = [0; N];
    for (place, byte) in field.iter_mut().zip(text.bytes().take(N.saturating_sub(1))) {
        *place = std::ffi::c_char::from_ne_bytes([byte]);
    }
    field
}
