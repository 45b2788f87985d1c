//! A snapshot: every device asked for everything, once.
//!
//! What does not change (names, limits) is asked once and kept; what failed in another way than that the device has no
//! such thing is asked again. A device that is lost is told as such, with what was known of it, and the others go on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use picket_agent_nvml::{DeviceText, Tell};

use crate::code::Code;
use crate::ffi::{Device, Session};
use crate::gpu;
use crate::links::{self, Fixed};
use crate::profiling::Profiler;
use crate::sheet::{Sheet, quoted};

/// A node has sixteen at most today; a library that says more than this is at fault.
const MAX_DEVICES: u32 = 128;
/// Kept values are asked again after so long: an operator may have changed a limit.
const KEPT_FOR: Duration = Duration::from_secs(600);

/// Reads snapshots, one after the other.
pub struct Reader<'l> {
    session: Session<'l>,
    system: Sheet,
    known: BTreeMap<u32, Known<'l>>,
    profiler: Profiler<'l>,
}

/// What is kept of a GPU.
struct Known<'l> {
    device: Device<'l>,
    uuid: String,
    identity: Sheet,
    /// None: to be asked again.
    fixed: Option<(Instant, Sheet)>,
    links: Option<Vec<u32>>,
    fixed_links: BTreeMap<u32, Fixed>,
    counts_pcie: Option<bool>,
}

/// A group of values that is asked of a device.
type Step = fn(&Device<'_>, &mut Sheet);

/// The library fails as a whole.
#[derive(Debug, thiserror::Error)]
#[error("{call} failed: {}", .code.word())]
pub struct Failed {
    pub call: &'static str,
    pub code: Code,
}

impl<'l> Reader<'l> {
    pub fn new(session: Session<'l>) -> Self {
        let mut system = Sheet::default();
        system.text("driver_version", session.driver_version());
        system.text("nvml_version", session.nvml_version());
        let cuda = |v: i32| format!("{}.{}", v / 1000, v % 1000 / 10);
        system.text("cuda_version", session.cuda_version().map(cuda));
        Self { session, system, known: BTreeMap::new(), profiler: Profiler::default() }
    }

    /// As a person knows the device.
    pub fn label(known: &BTreeMap<u32, String>, number: u32) -> String {
        match known.get(&number) {
            Some(uuid) => format!("GPU {number} ({uuid})"),
            None => format!("GPU {number}"),
        }
    }

    /// The UUIDs by number, as far as they are known.
    pub fn uuids(&self) -> BTreeMap<u32, String> {
        self.known.iter().map(|(number, known)| (*number, known.uuid.clone())).collect()
    }

    pub fn snapshot(&mut self) -> Result<Tell, Failed> {
        let count = self
            .session
            .device_count()
            .map_err(|code| Failed { call: "nvmlDeviceGetCount", code })?
            .min(MAX_DEVICES);
        self.known.retain(|number, _| *number < count);
        self.profiler.begin();
        let mut devices = Vec::new();
        for number in 0..count {
            match self.find(number) {
                Ok(()) => self.read(number, &mut devices),
                Err(code) => devices.push(self.lost(number, code)),
            }
        }
        self.profiler.end();
        Ok(Tell::Snapshot { system: self.system.clone().members(), devices })
    }

    /// Sees to it that the GPU of this number is known.
    fn find(&mut self, number: u32) -> Result<(), Code> {
        if self.known.contains_key(&number) {
            return Ok(());
        }
        let device = self.session.device(number)?;
        let uuid = device.uuid()?;
        let mut identity = Sheet::default();
        identity.raw("kind", "\"gpu\"");
        identity.raw("uuid", &quoted(&uuid));
        identity.raw("index", &number.to_string());
        let known = Known {
            device,
            uuid,
            identity,
            fixed: None,
            links: None,
            fixed_links: BTreeMap::new(),
            counts_pcie: None,
        };
        self.known.insert(number, known);
        Ok(())
    }

    fn lost(&self, number: u32, code: Code) -> DeviceText {
        let mut sheet = Sheet::default();
        let known = self.known.get(&number);
        match known {
            Some(known) => {
                sheet.append(&known.identity);
                if let Some((_, fixed)) = &known.fixed {
                    sheet.append(fixed);
                }
            }
            None => {
                sheet.raw("kind", "\"gpu\"");
                sheet.raw("uuid", "\"\"");
                sheet.raw("index", &number.to_string());
            }
        }
        sheet.raw("lost", &quoted(&code.word()));
        let gpu = known.map(|known| known.uuid.clone()).unwrap_or_default();
        DeviceText { gpu, json: format!("{{{}}}", sheet.members()) }
    }

    fn read(&mut self, number: u32, devices: &mut Vec<DeviceText>) {
        let Some(known) = self.known.get_mut(&number) else { return };
        let device = known.device;
        if known.fixed.as_ref().is_none_or(|(read, sheet)| sheet.failed() || read.elapsed() > KEPT_FOR) {
            let mut sheet = Sheet::default();
            gpu::fixed(&device, &mut sheet);
            // What was known before stays known of a device that is lost.
            if sheet.lost().is_none() || known.fixed.is_none() {
                known.fixed = Some((Instant::now(), sheet));
            }
        }
        let mut sheet = Sheet::default();
        let mut mig = false;
        let lost = 'read: {
            let steps: [Step; 5] =
                [gpu::load, gpu::power_and_clocks, gpu::throttling, gpu::memory_errors, gpu::state];
            for step in steps {
                step(&device, &mut sheet);
                if sheet.lost().is_some() {
                    break 'read sheet.lost();
                }
            }
            known.counts_pcie = Some(gpu::pcie(&device, &mut sheet, known.counts_pcie));
            let modes = device.mig_mode().map(|(enabled, pending)| (enabled == 1, pending == 1));
            mig = modes.is_ok_and(|(enabled, _)| enabled);
            sheet.numbers(("mig_enabled", "mig_pending"), modes);
            if known.links.is_none() {
                match links::find(&device) {
                    Ok(found) => known.links = Some(found),
                    Err(code) => sheet.note("nvlinks", code),
                }
            }
            let links = known.links.as_deref().unwrap_or_default();
            links::read(&device, links, &mut known.fixed_links, &mut sheet);
            gpu::processes(&device, &mut sheet, true);
            self.profiler.read(&device, None, &known.uuid, &mut sheet);
            sheet.lost()
        };
        if let Some(code) = lost {
            let text = self.lost(number, code);
            devices.push(text);
            return;
        }
        let mut whole = known.identity.clone();
        if let Some((_, fixed)) = &known.fixed {
            whole.append(fixed);
        }
        whole.append(&sheet);
        let uuid = known.uuid.clone();
        devices.push(DeviceText { gpu: uuid.clone(), json: format!("{{{}}}", whole.members()) });
        if mig {
            self.instances(&device, &uuid, devices);
        }
    }

    fn instances(&mut self, parent: &Device<'l>, gpu: &str, devices: &mut Vec<DeviceText>) {
        let most = parent.mig_count().unwrap_or(0).min(64);
        let mut sampled = BTreeSet::new();
        for index in 0..most {
            // Places that nothing was made in are `not-found`.
            let Ok(instance) = parent.mig_instance(index) else { continue };
            let mut sheet = Sheet::default();
            sheet.raw("kind", "\"mig\"");
            sheet.raw("index", &index.to_string());
            sheet.raw("parent_uuid", &quoted(gpu));
            let uuid = sheet.take("uuid", instance.uuid());
            sheet.raw("uuid", &quoted(uuid.as_deref().unwrap_or_default()));
            let gpu_instance = gpu::instance(&instance, &mut sheet);
            gpu::processes(&instance, &mut sheet, false);
            // The counters are the GPU instance's; its compute instances share them.
            if let (Some(id), Some(uuid)) = (gpu_instance, &uuid)
                && sampled.insert(id)
            {
                self.profiler.read(parent, Some(id), uuid, &mut sheet);
            }
            devices.push(DeviceText { gpu: gpu.to_owned(), json: format!("{{{}}}", sheet.members()) });
        }
    }
}
