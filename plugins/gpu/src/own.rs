//! The families that DCGM has no name for.

use picket_sdk::nvml::{Device, DeviceKind, Snapshot};
use picket_sdk::{CounterFamily, Describe, GaugeFamily, InfoFamily, StateSetFamily};

use crate::catalogue::Recovery;
use crate::families::Labels;
use crate::faults::Kind;
use crate::health::{Problem, State};
use crate::memory::Memory;
use crate::owners::Owner;

/// What the driver is.
pub const DRIVER: [&str; 4] = ["ok", "no-driver", "hung", "error"];
const FABRIC: [&str; 4] = ["not-supported", "not-started", "in-progress", "completed"];
const THROTTLES: [&str; 9] = [
    "gpu_idle",
    "applications_clocks_setting",
    "sw_power_cap",
    "hw_slowdown",
    "sync_boost",
    "sw_thermal_slowdown",
    "hw_thermal_slowdown",
    "hw_power_brake_slowdown",
    "display_clock_setting",
];

pub struct Own {
    driver: StateSetFamily,
    versions: InfoFamily<3>,
    present: GaugeFamily,
    expected: GaugeFamily,
    info: InfoFamily<9>,
    mig: InfoFamily<6>,
    xid: GaugeFamily<9>,
    xid_errors: CounterFamily<5>,
    xid_last: GaugeFamily<3>,
    sxid_errors: CounterFamily<4>,
    aer_errors: CounterFamily<2>,
    health: GaugeFamily<2>,
    reasons: InfoFamily<3>,
    recovery: StateSetFamily<2>,
    fabric: StateSetFamily<2>,
    link_up: GaugeFamily<3>,
    throttles: GaugeFamily<3>,
    banks: GaugeFamily<3>,
    pcie_tx: CounterFamily<2>,
    pcie_rx: CounterFamily<2>,
    process_memory: GaugeFamily<7>,
    jobs: InfoFamily<6>,
    idle: GaugeFamily<6>,
}

impl Own {
    pub fn declare(d: &mut Describe) -> Self {
        let gpu = ["UUID", "gpu"];
        let owner = ["UUID", "GPU_I_ID", "gpu", "slurm_job_id", "user", "container"];
        Self {
            driver: d.state_set(
                "picket_gpu_driver_state",
                "Whether the NVIDIA driver answers.",
                "state",
                &DRIVER,
            ),
            versions: d.info("picket_gpu_driver_info", "Versions of the NVIDIA driver.").labels(&[
                "driver_version",
                "cuda_version",
                "nvml_version",
            ]),
            present: d.gauge("picket_gpu_count", "GPUs that answer."),
            expected: d.gauge("picket_gpu_expected_count", "GPUs that there must be."),
            info: d.info("picket_gpu_info", "What each GPU is.").labels(&[
                "UUID",
                "gpu",
                "modelName",
                "pci_bus_id",
                "serial",
                "part_number",
                "vbios_version",
                "architecture",
                "compute_capability",
            ]),
            mig: d.info("picket_gpu_mig_info", "The MIG instances of each GPU.").labels(&[
                "UUID",
                "gpu",
                "GPU_I_ID",
                "GPU_I_PROFILE",
                "compute_instance_id",
                "mig_uuid",
            ]),
            xid: d
                .gauge("DCGM_FI_DEV_XID_ERRORS", "Value of the last XID error that is not cleared.")
                .labels(&crate::families::LABELS),
            xid_errors: d
                .counter("picket_gpu_xid_errors_total", "XID errors, with what each asks for.")
                .labels(&["UUID", "gpu", "xid", "action", "severity"]),
            xid_last: d
                .gauge("picket_gpu_xid_last_timestamp_seconds", "When an XID error came last.")
                .unit("seconds")
                .labels(&["UUID", "gpu", "xid"]),
            sxid_errors: d
                .counter(
                    "picket_nvswitch_sxid_errors_total",
                    "SXID errors of NVSwitches, with what each asks for.",
                )
                .labels(&["switch", "sxid", "action", "severity"]),
            aer_errors: d
                .counter("picket_pcie_aer_errors_total", "PCIe errors (AER) that the kernel logged.")
                .labels(&["pci_bus_id", "severity"]),
            // The agent has a family of this name for its own parts, a gauge for each state.
            health: d
                .gauge("picket_component_health", "Whether a component does what it should: 1 for its state.")
                .labels(&["component", "state"]),
            reasons: d
                .info("picket_component_health_reason_info", "Why a component is not well, and who says so.")
                .labels(&["component", "reason", "source"]),
            recovery: d
                .state_set(
                    "picket_gpu_recovery_action",
                    "What the driver itself asks for.",
                    "action",
                    &Recovery::WORDS,
                )
                .labels(&gpu),
            fabric: d
                .state_set(
                    "picket_gpu_fabric_state",
                    "How far the GPU has joined the fabric.",
                    "state",
                    &FABRIC,
                )
                .labels(&gpu),
            link_up: d
                .gauge("picket_gpu_nvlink_up", "Whether an NVLink is up.")
                .labels(&["UUID", "gpu", "link"]),
            throttles: d
                .gauge("picket_gpu_throttle_active", "Whether clocks are held down for this reason.")
                .labels(&["UUID", "gpu", "reason"]),
            banks: d
                .gauge("picket_gpu_row_remap_banks", "Memory banks by how many spare rows they have left.")
                .labels(&["UUID", "gpu", "availability"]),
            pcie_tx: d
                .counter("picket_gpu_pcie_tx_bytes_total", "Bytes sent over PCIe.")
                .unit("bytes")
                .labels(&gpu),
            pcie_rx: d
                .counter("picket_gpu_pcie_rx_bytes_total", "Bytes received over PCIe.")
                .unit("bytes")
                .labels(&gpu),
            process_memory: d
                .gauge("picket_gpu_process_memory_bytes", "GPU memory that a process holds.")
                .unit("bytes")
                .labels(&["UUID", "GPU_I_ID", "gpu", "pid", "slurm_job_id", "user", "container"]),
            jobs: d.info("picket_gpu_job_info", "Who has processes on a GPU.").labels(&owner),
            idle: d
                .gauge(
                    "picket_gpu_held_idle_seconds",
                    "For how long a GPU is held by processes and not used.",
                )
                .unit("seconds")
                .labels(&owner),
        }
    }

    pub fn driver(&self, state: &str) {
        self.driver.set(state);
    }

    pub fn counts(&self, present: usize, expected: usize) {
        self.present.set(present as f64);
        self.expected.set(expected as f64);
    }

    pub fn node(&self, snapshot: &Snapshot) {
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        let versions =
            [text(&snapshot.driver_version), text(&snapshot.cuda_version), text(&snapshot.nvml_version)];
        self.versions.with(&[&versions[0], &versions[1], &versions[2]]).set();
    }

    /// One device; `xid` is the last code of the GPU that is not over.
    pub fn device(&self, device: &Device, labels: &Labels, host: &str, xid: Option<u32>) {
        let gpu = [labels.uuid.as_str(), labels.gpu.as_str()];
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        if device.kind == DeviceKind::Mig {
            let instance = device.compute_instance_id.map(|id| id.to_string()).unwrap_or_default();
            let profile = text(&device.mig_profile);
            let values = [gpu[0], gpu[1], &labels.instance, &profile, &instance, &device.uuid];
            return self.mig.with(&values).set();
        }
        self.xid.with(&labels.all(host)).set(xid.map_or(0.0, f64::from));
        let facts = [
            text(&device.name),
            text(&device.pci_bus_id),
            text(&device.serial),
            text(&device.part_number),
            text(&device.vbios_version),
            text(&device.architecture),
            text(&device.compute_capability),
        ];
        let [name, pci, serial, part, vbios, architecture, capability] = &facts;
        self.info.with(&[gpu[0], gpu[1], name, pci, serial, part, vbios, architecture, capability]).set();
        if let Some(recovery) = device.recovery_action.as_deref() {
            self.recovery.with(&gpu).set(Recovery::of(recovery).word());
        }
        if let Some(state) = device.fabric_state.as_deref().filter(|s| FABRIC.contains(s)) {
            self.fabric.with(&gpu).set(state);
        }
        for link in &device.nvlinks {
            if let Some(up) = link.active {
                let number = link.link.to_string();
                self.link_up.with(&[gpu[0], gpu[1], &number]).set(f64::from(u8::from(up)));
            }
        }
        if let Some(active) = &device.throttle_reasons_active {
            for reason in THROTTLES {
                let is = active.iter().any(|a| a == reason);
                self.throttles.with(&[gpu[0], gpu[1], reason]).set(f64::from(u8::from(is)));
            }
        }
        if let Some(banks) = device.row_remap_banks {
            for (word, count) in [
                ("max", banks.max),
                ("high", banks.high),
                ("partial", banks.partial),
                ("low", banks.low),
                ("none", banks.none),
            ] {
                self.banks.with(&[gpu[0], gpu[1], word]).set(f64::from(count));
            }
        }
        if let Some(bytes) = device.pcie_tx_bytes {
            self.pcie_tx.with(&gpu).set_total(bytes as f64);
        }
        if let Some(bytes) = device.pcie_rx_bytes {
            self.pcie_rx.with(&gpu).set_total(bytes as f64);
        }
    }

    pub fn health(&self, component: &str, state: &str, problems: &[Problem]) {
        for word in State::WORDS {
            self.health.with(&[component, word]).set(f64::from(u8::from(word == state)));
        }
        for (at, problem) in problems.iter().enumerate() {
            let said = |p: &Problem| p.reason == problem.reason && p.source == problem.source;
            if problems.iter().position(said) == Some(at) {
                self.reasons.with(&[component, &problem.reason, &problem.source]).set();
            }
        }
    }

    /// What was counted; `index_of` gives the driver's number of a GPU.
    pub fn errors(&self, memory: &Memory, index_of: impl Fn(&str) -> String) {
        let mut last: Vec<(&str, u32, u64)> = Vec::new();
        for count in &memory.counts {
            let (device, code) = (count.device.as_str(), count.code.to_string());
            let (action, severity) = (count.action.word(), count.severity.word());
            let total = count.times as f64;
            match count.kind {
                Kind::Xid => {
                    let labels = [device, &index_of(device), &code, action, severity];
                    self.xid_errors.with(&labels).set_total(total);
                    match last.iter_mut().find(|(d, c, _)| *d == device && *c == count.code) {
                        Some((.., at)) => *at = (*at).max(count.last_ms),
                        None => last.push((device, count.code, count.last_ms)),
                    }
                }
                Kind::Sxid => self.sxid_errors.with(&[device, &code, action, severity]).set_total(total),
                Kind::Aer => {
                    let word = crate::errors::aer_word(count.code);
                    self.aer_errors.with(&[device, word]).set_total(total);
                }
            }
        }
        for (device, code, at) in last {
            let labels = [device, &index_of(device), &code.to_string()];
            self.xid_last.with(&labels).set(at as f64 / 1000.0);
        }
    }

    pub fn process(&self, labels: &Labels, pid: u32, bytes: u64, owner: &Owner) {
        let values = [
            &labels.uuid,
            &labels.instance,
            &labels.gpu,
            &pid.to_string(),
            &owner.job,
            &owner.user,
            &owner.container,
        ];
        self.process_memory.with(&values.map(String::as_str)).set(bytes as f64);
    }

    /// `idle_ms`: for how long it was not used, where that is known.
    pub fn held(&self, labels: &Labels, owner: &Owner, idle_ms: Option<u64>) {
        let values = [&labels.uuid, &labels.instance, &labels.gpu, &owner.job, &owner.user, &owner.container]
            .map(String::as_str);
        self.jobs.with(&values).set();
        if let Some(idle) = idle_ms {
            self.idle.with(&values).set(idle as f64 / 1000.0);
        }
    }
}
