//! NVIDIA GPUs: DCGM's families, health with its reason, errors as events with an end, and who uses what.
//!
//! One snapshot of NVML a collect, and what the kernel logged since the last one. A message of the kernel and an event
//! of NVML wake the plugin, so an error is told at once; the interval is for the counters.
//!
//! No driver is a state of the node, not a failure. A driver that hangs is a state, an event and a counted failure, and
//! the kernel's log is read all the same. A GPU that is lost hides no other.

mod catalogue;
mod errors;
mod families;
mod faults;
mod health;
mod idle;
mod kernel;
mod links;
mod memory;
mod occurrences;
mod own;
mod owners;
mod settings;

use std::collections::BTreeMap;
use std::time::Duration;

use picket_sdk::nvml::{self, Device, DeviceKind, NOT_SUPPORTED, NvmlError, Snapshot};
use picket_sdk::{Collect, Describe, Failure, Source, clock, files, system};

pub use settings::Settings;

use catalogue::Catalogue;
use errors::{Around, Errors};
use families::{Families, Labels};
use faults::Times;
use health::{Problem, State};
use links::Links;
use memory::Kept;
use own::Own;
use owners::{Owner, Owners};

/// A snapshot that was taken for another plugin is as good.
const MAX_AGE: Duration = Duration::from_secs(1);
/// Processes of one device that are looked at.
const PROCESSES: usize = 1024;
const DRIVER: &str = "gpu-driver";
const COUNT: &str = "gpu-count";

/// The plugin.
pub struct Gpu {
    families: Families,
    links: Links,
    own: Own,
    settings: Settings,
    catalogue: Catalogue,
    errors: Errors,
    owners: Owners,
    kept: Kept,
    host: String,
    boot: String,
}

impl Source for Gpu {
    type Settings = Settings;

    fn describe(d: &mut Describe) -> Self {
        Self {
            families: Families::declare(d),
            links: Links::declare(d),
            own: Own::declare(d),
            settings: Settings::default(),
            catalogue: Catalogue::default(),
            errors: Errors::default(),
            owners: Owners::default(),
            kept: Kept::default(),
            host: String::new(),
            boot: String::new(),
        }
    }

    fn configure(&mut self, settings: Settings) -> Result<(), Failure> {
        settings.check()?;
        self.catalogue =
            Catalogue::new(settings.xids.clone()).map_err(|message| Failure::new("settings", message))?;
        self.settings = settings;
        self.host.clear();
        Ok(())
    }

    fn collect(&mut self, c: &mut Collect<'_>) -> Result<(), Failure> {
        self.kept.load(c);
        self.learn_node(c);
        let now_ms = clock::now_ms();
        let snapshot = self.snapshot(c, now_ms);
        let reset = snapshot.as_ref().map(|s| self.compare(s)).unwrap_or_default();

        let mut around = Around {
            memory: &mut self.kept.now,
            owners: &mut self.owners,
            catalogue: &self.catalogue,
            snapshot: snapshot.as_ref(),
            boot: &self.boot,
            now_ms,
            times: self.settings.times(),
        };
        self.errors.kernel(c, &mut around);
        self.errors.nvml(c, &mut around);
        self.errors.settle(c, &mut around, &reset);

        match &snapshot {
            Some(snapshot) => self.export(c, snapshot, now_ms),
            None => {
                for uuid in self.kept.now.baseline.keys() {
                    self.own.health(&component(uuid), "unknown", &[]);
                }
            }
        }
        let memory = &self.kept.now;
        self.own.errors(memory, |uuid| {
            let index = memory.baseline.get(uuid).and_then(|known| known.index);
            index.map(|i| i.to_string()).unwrap_or_default()
        });
        self.kept.save(c, now_ms);
        Ok(())
    }
}

fn component(uuid: &str) -> String {
    format!("gpu/{uuid}")
}

impl Gpu {
    fn learn_node(&mut self, c: &mut Collect<'_>) {
        if self.host.is_empty() {
            self.host = match self.settings.hostname.as_str() {
                "" => system::uname().nodename,
                name => name.to_owned(),
            };
        }
        if self.boot.is_empty() {
            match files::read("/proc/sys/kernel/random/boot_id") {
                Ok(text) => self.boot = String::from_utf8_lossy(text.trim_ascii()).into_owned(),
                Err(error) => c.failed(error),
            }
        }
    }

    /// What the driver says, and how the driver is.
    fn snapshot(&mut self, c: &mut Collect<'_>, now_ms: u64) -> Option<Snapshot> {
        let known = !self.kept.now.baseline.is_empty();
        let (snapshot, state, problem) = match nvml::snapshot(MAX_AGE) {
            Ok(snapshot) => (Some(snapshot), "ok", None),
            // A node without GPUs is well; one that had some is not.
            Err(NvmlError::NoDriver(_)) => (None, "no-driver", known.then_some(State::Unhealthy)),
            Err(error) => {
                let hung = matches!(error, NvmlError::Hung(_));
                c.failed(error);
                let state = if hung { State::Unhealthy } else { State::Degraded };
                (None, if hung { "hung" } else { "error" }, Some(state))
            }
        };
        self.own.driver(state);
        if snapshot.is_some() || problem.is_some() {
            let problems: Vec<Problem> =
                problem.into_iter().map(|p| Problem::new(p, state, "nvml")).collect();
            let clear_after = self.settings.times().clear_after_ms;
            let shown = self.kept.now.health.see(c, DRIVER, ("node", ""), &problems, now_ms, clear_after);
            self.own.health(DRIVER, shown.word(), &problems);
        }
        snapshot
    }

    /// Learns which GPUs there are; gives those that were reset since the last look.
    fn compare(&mut self, snapshot: &Snapshot) -> Vec<String> {
        let memory = &mut self.kept.now;
        let mut reset = Vec::new();
        for gpu in gpus(snapshot).filter(|g| g.lost.is_none()) {
            if let Some(energy) = gpu.energy_millijoules {
                let before = memory.energy.insert(gpu.uuid.clone(), energy);
                if before.is_some_and(|before| energy < before) {
                    reset.push(gpu.uuid.clone());
                }
            }
            let known = memory.baseline.entry(gpu.uuid.clone()).or_default();
            known.index = gpu.index;
            known.name = gpu.name.clone().unwrap_or_default();
            known.pci = gpu.pci_bus_id.clone().unwrap_or_default();
            known.pcie_width = known.pcie_width.max(gpu.pcie_width);
            for link in gpu.nvlinks.iter().filter(|l| l.active == Some(true)) {
                known.links |= health::bit(link.link);
            }
        }
        // Another GPU in the place of one is its successor; as many as the operator expects are all.
        let present: Vec<(&str, &str)> =
            gpus(snapshot).map(|g| (g.uuid.as_str(), g.pci_bus_id.as_deref().unwrap_or_default())).collect();
        let complete = self.settings.expected_gpus == Some(present.len());
        memory.baseline.retain(|uuid, known| {
            let here = present.iter().any(|(p, _)| p == uuid);
            let replaced = present.iter().any(|(_, pci)| !pci.is_empty() && *pci == known.pci);
            here || !complete && !replaced
        });
        let baseline = &memory.baseline;
        memory.energy.retain(|uuid, _| baseline.contains_key(uuid));
        reset
    }

    fn export(&mut self, c: &mut Collect<'_>, snapshot: &Snapshot, now_ms: u64) {
        self.own.node(snapshot);
        let parents: BTreeMap<&str, &Device> = gpus(snapshot).map(|g| (g.uuid.as_str(), g)).collect();
        let mut pids = Vec::new();
        let mut held = Vec::new();
        for device in &snapshot.devices {
            unreadable(c, device);
            if device.uuid.is_empty() {
                continue;
            }
            let parent = device.parent_uuid.as_deref().and_then(|uuid| parents.get(uuid)).copied();
            let labels = Labels::new(device, parent);
            let xid = self.kept.now.faults.last_xid(&device.uuid);
            self.families.export(device, &labels.all(&self.host), self.settings.nvlink_per_link);
            self.links.export(device, &labels, &self.host, self.settings.nvlink_per_link);
            if self.settings.simple_view {
                self.families.export_simple(device);
            }
            self.own.device(device, &labels, &self.host, xid);
            if self.settings.processes {
                pids.extend(device.processes.iter().map(|p| p.pid));
                held.extend(self.processes(c, device, &labels, now_ms));
            }
        }
        for (field, why) in snapshot.unreadable.iter().filter(|(_, why)| *why != NOT_SUPPORTED) {
            c.fail(why, &format!("{field}: {why}"));
        }
        self.kept.now.idle.keep(c, &held);
        self.owners.keep(|pid| pids.contains(&pid));
        self.judge(c, snapshot, now_ms);
    }

    /// Who is on a device; gives its place where somebody is.
    fn processes(
        &mut self,
        c: &mut Collect<'_>,
        device: &Device,
        labels: &Labels,
        now_ms: u64,
    ) -> Option<idle::Place> {
        // A divided GPU's processes are those of its instances.
        let own = |instance: Option<u32>| device.kind == DeviceKind::Mig || instance.is_none();
        let mut memory: BTreeMap<u32, Option<u64>> = BTreeMap::new();
        for process in device.processes.iter().filter(|p| own(p.gpu_instance_id)).take(PROCESSES) {
            let bytes = memory.entry(process.pid).or_default();
            *bytes = (*bytes).max(process.used_memory_bytes);
        }
        let mut owners: Vec<Owner> = Vec::new();
        for (pid, bytes) in memory {
            let owner = self.owners.of(pid, now_ms);
            if let Some(bytes) = bytes {
                self.own.process(labels, pid, bytes, &owner);
            }
            owners.push(owner);
        }
        if owners.is_empty() {
            return None;
        }
        owners.sort_unstable();
        owners.dedup();
        let place = (labels.uuid.clone(), labels.instance.clone());
        let limit = idle::Limit {
            threshold_percent: self.settings.idle.threshold_percent,
            after_ms: self.settings.idle.after_minutes.saturating_mul(60_000),
        };
        let idle =
            busy(device).map(|percent| self.kept.now.idle.see(c, &place, &owners, percent, now_ms, limit));
        for owner in &owners {
            self.own.held(labels, owner, idle);
        }
        Some(place)
    }

    /// How well each GPU is, and whether all are there.
    fn judge(&mut self, c: &mut Collect<'_>, snapshot: &Snapshot, now_ms: u64) {
        let clear_after = self.settings.times().clear_after_ms;
        let memory = &mut self.kept.now;
        for (uuid, known) in &memory.baseline {
            let device = gpus(snapshot).find(|g| g.uuid == *uuid);
            let problems = match device {
                Some(device) => {
                    let faults = memory.faults.iter().filter(|f| f.device == *uuid);
                    health::problems(device, Some(known), faults)
                }
                None => vec![Problem::new(State::Unhealthy, "missing", "baseline")],
            };
            let name = component(uuid);
            let shown = memory.health.see(c, &name, ("gpu", uuid), &problems, now_ms, clear_after);
            self.own.health(&name, shown.word(), &problems);
        }
        let answering = gpus(snapshot).filter(|g| g.lost.is_none()).count();
        let expected = self.settings.expected_gpus.unwrap_or(memory.baseline.len());
        self.own.counts(answering, expected);
        let mut problems = Vec::new();
        if answering < expected {
            let source = if self.settings.expected_gpus.is_some() { "settings" } else { "baseline" };
            problems.push(Problem::new(State::Unhealthy, "gpus-missing", source));
        }
        let shown = memory.health.see(c, COUNT, ("node", ""), &problems, now_ms, clear_after);
        self.own.health(COUNT, shown.word(), &problems);
        let baseline = &memory.baseline;
        memory.health.retain(c, |name| {
            name == DRIVER || name == COUNT || baseline.keys().any(|uuid| component(uuid) == name)
        });
    }
}

impl Settings {
    fn times(&self) -> Times {
        Times {
            clear_after_ms: self.clear_after_seconds.saturating_mul(1000),
            transient_after_ms: self.transient_after_seconds.saturating_mul(1000),
        }
    }
}

/// The whole ones that are known by name.
fn gpus(snapshot: &Snapshot) -> impl Iterator<Item = &Device> {
    snapshot.devices.iter().filter(|d| d.kind == DeviceKind::Gpu && !d.uuid.is_empty())
}

/// How busy it was, in percent: the hardware's own average since the last snapshot where there is one, which misses no
/// burst, and the driver's last sample.
fn busy(device: &Device) -> Option<f64> {
    let sampled = device.utilization_gpu_percent.map(f64::from);
    let measured = device.profiling.as_ref().and_then(|p| p.sm_ratio.or(p.graphics_ratio)).map(|r| r * 100.0);
    match (sampled, measured) {
        (Some(a), Some(b)) => Some(a.max(b)),
        (a, b) => a.or(b),
    }
}

/// What could not be read, once a reason. What a device does not have is no failure.
fn unreadable(c: &mut Collect<'_>, device: &Device) {
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (field, why) in device.unreadable.iter().filter(|(_, why)| *why != NOT_SUPPORTED) {
        by_reason.entry(why).or_default().push(field);
    }
    if let Some(why) = device.lost.as_deref() {
        by_reason.entry(why).or_default();
    }
    for (why, fields) in by_reason {
        let what = match fields.as_slice() {
            [] => "it does not answer".to_owned(),
            fields if fields.len() > 8 => {
                format!(
                    "{} and {} more",
                    fields.iter().take(8).copied().collect::<Vec<_>>().join(", "),
                    fields.len() - 8
                )
            }
            fields => fields.join(", "),
        };
        let index = device.index.map(|i| i.to_string()).unwrap_or_default();
        c.fail(why, &format!("GPU {index} {}: {why}: {what}", device.uuid));
    }
}

picket_sdk::export!(Gpu);
