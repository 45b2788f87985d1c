//! NVIDIA GPUs as the driver's own library (NVML) sees them. Grant: `nvml`.
//!
//! One [`snapshot`] a collect holds everything. A value that could not be read is `None`, and `unreadable` says why: by
//! the name of the field, and [`NOT_SUPPORTED`] where the device has no such thing, else the library's error. Counters
//! are the driver's: they begin anew when it is reloaded or the device is reset.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{Failure, sys};

/// The reason in [`Device::unreadable`] of what the device or the driver does not have. Any other reason is an error.
pub const NOT_SUPPORTED: &str = "not-supported";

/// Why there is no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NvmlError {
    /// No driver or no library: a state of the node, looked at again from time to time.
    #[error("no NVIDIA driver: {0}")]
    NoDriver(String),
    /// The driver does not return from a call; the text says from which, of which device, and since when.
    #[error("the NVIDIA driver hangs: {0}")]
    Hung(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<NvmlError> for Failure {
    fn from(error: NvmlError) -> Self {
        let reason = match error {
            NvmlError::NoDriver(_) => "no-driver",
            NvmlError::Hung(_) => "hung",
            NvmlError::Other(_) => "nvml",
        };
        Self::new(reason, error.to_string())
    }
}

/// All devices at one time.
///
/// # Errors
/// Any [`NvmlError`]. A device that is lost is no error: see [`Device::lost`].
pub fn snapshot(max_age: std::time::Duration) -> Result<Snapshot, NvmlError> {
    let max_age = u32::try_from(max_age.as_millis()).unwrap_or(u32::MAX);
    let (timestamp_ms, document) = sys::nvml_snapshot(max_age)?;
    let mut snapshot = Snapshot::parse(&document)?;
    snapshot.timestamp_ms = timestamp_ms;
    Ok(snapshot)
}

/// See [`snapshot`].
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Snapshot {
    /// When it was taken, milliseconds since the Unix epoch.
    #[serde(skip)]
    pub timestamp_ms: u64,
    /// `550.54.15`
    pub driver_version: Option<String>,
    /// Of the driver: `12.4`
    pub cuda_version: Option<String>,
    /// `12.550.54.15`
    pub nvml_version: Option<String>,
    /// GPUs in the driver's order, each followed by its MIG instances.
    pub devices: Vec<Device>,
    /// The XIDs that the driver reported since the agent's start, oldest first; at most the last 1,024.
    pub events: Vec<XidEvent>,
    /// Whose sequence numbers these are: when it changes (the agent was restarted), they begin at 1 again.
    pub events_life: String,
    /// Why events cannot be listened for; the kernel's log is then the only source of XIDs.
    pub events_error: Option<String>,
    /// What of this level could not be read, and why.
    pub unreadable: BTreeMap<String, String>,
}

impl Snapshot {
    /// Of the document that the capability gives. Unknown fields are ignored.
    ///
    /// # Errors
    /// [`NvmlError::Other`]: it is not that document.
    pub fn parse(document: &str) -> Result<Self, NvmlError> {
        serde_json::from_str(document)
            .map_err(|e| NvmlError::Other(format!("the snapshot is not the expected JSON: {e}")))
    }
}

/// An XID that the driver reported by NVML. The kernel's log tells more, but may be unreadable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct XidEvent {
    /// 1, 2, 3 … within [`Snapshot::events_life`].
    pub sequence: u64,
    /// When it was received, milliseconds since the Unix epoch.
    pub timestamp_ms: u64,
    /// The GPU's.
    pub uuid: String,
    /// The code.
    pub xid: u64,
    /// Of the MIG instance, where it can be told.
    pub gpu_instance_id: Option<u32>,
    /// Of the MIG instance, where it can be told.
    pub compute_instance_id: Option<u32>,
}

/// What a [`Device`] is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DeviceKind {
    /// A whole GPU.
    #[default]
    Gpu,
    /// A MIG instance of one.
    Mig,
    /// Something that this version of the SDK does not know.
    #[serde(other)]
    Other,
}

/// A GPU or a MIG instance.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Device {
    /// What it is.
    pub kind: DeviceKind,
    /// `GPU-…` or `MIG-…`. Empty where the device was lost before it could be asked.
    pub uuid: String,
    /// The driver's number of the GPU; a MIG instance has its number within its GPU. Not stable over reboots.
    pub index: Option<u32>,
    /// The GPU is not there any more, or answers nothing before a reset: the library's error (`gpu-lost`,
    /// `reset-required`). What stands beside it is what was known before.
    pub lost: Option<String>,
    /// What could not be read, by field (`nvlinks.3.replay_errors`), and why.
    pub unreadable: BTreeMap<String, String>,

    /// N of `/dev/nvidiaN`.
    pub minor: Option<u32>,
    /// `NVIDIA H100 80GB HBM3`; of a MIG instance with its profile.
    pub name: Option<String>,
    /// `00000000:1B:00.0`
    pub pci_bus_id: Option<String>,
    /// Of the board.
    pub serial: Option<String>,
    /// Of the board.
    pub part_number: Option<String>,
    /// Of the firmware.
    pub vbios_version: Option<String>,
    /// `hopper`
    pub architecture: Option<String>,
    /// `9.0`
    pub compute_capability: Option<String>,

    /// Of a GPU: it is divided.
    pub mig_enabled: Option<bool>,
    /// Of a GPU: what the next reset makes of it.
    pub mig_pending: Option<bool>,
    /// Of a MIG instance: its GPU.
    pub parent_uuid: Option<String>,
    /// Of a MIG instance.
    pub gpu_instance_id: Option<u32>,
    /// Of a MIG instance.
    pub compute_instance_id: Option<u32>,
    /// Of a MIG instance: `1g.10gb`
    pub mig_profile: Option<String>,
    /// Of a MIG instance: its streaming multiprocessors.
    pub multiprocessors: Option<u32>,

    /// Time in which a kernel ran, of the driver's last sampling period.
    pub utilization_gpu_percent: Option<u32>,
    /// Time in which device memory was read or written.
    pub utilization_memory_percent: Option<u32>,
    /// Of the video encoders.
    pub utilization_encoder_percent: Option<u32>,
    /// Of the video decoders.
    pub utilization_decoder_percent: Option<u32>,

    /// Device memory, reserved included.
    pub memory_total_bytes: Option<u64>,
    /// Allocated by processes.
    pub memory_used_bytes: Option<u64>,
    /// Free.
    pub memory_free_bytes: Option<u64>,
    /// By the driver and the firmware.
    pub memory_reserved_bytes: Option<u64>,
    /// The window of PCIe.
    pub bar1_total_bytes: Option<u64>,
    /// The window of PCIe.
    pub bar1_used_bytes: Option<u64>,

    /// Of the die.
    pub temperature_gpu_celsius: Option<i32>,
    /// Of the memory.
    pub temperature_memory_celsius: Option<i32>,
    /// The hardware switches off.
    pub threshold_shutdown_celsius: Option<i32>,
    /// The hardware slows down.
    pub threshold_slowdown_celsius: Option<i32>,
    /// The memory's limit.
    pub threshold_memory_max_celsius: Option<i32>,
    /// Above it the driver slows the GPU down.
    pub threshold_gpu_max_celsius: Option<i32>,

    /// Drawn now (on Ampere and later the average of a second).
    pub power_usage_milliwatts: Option<u64>,
    /// Set by an operator.
    pub power_limit_milliwatts: Option<u64>,
    /// The lowest of all limits in force.
    pub power_limit_enforced_milliwatts: Option<u64>,
    /// After a start.
    pub power_limit_default_milliwatts: Option<u64>,
    /// The lowest that may be set.
    pub power_limit_min_milliwatts: Option<u64>,
    /// The highest that may be set.
    pub power_limit_max_milliwatts: Option<u64>,
    /// A counter since the driver was loaded.
    pub energy_millijoules: Option<u64>,

    /// Now.
    pub clock_graphics_mhz: Option<u32>,
    /// Now.
    pub clock_sm_mhz: Option<u32>,
    /// Now.
    pub clock_memory_mhz: Option<u32>,
    /// Now.
    pub clock_video_mhz: Option<u32>,
    /// The highest.
    pub clock_graphics_max_mhz: Option<u32>,
    /// The highest.
    pub clock_sm_max_mhz: Option<u32>,
    /// The highest.
    pub clock_memory_max_mhz: Option<u32>,
    /// The highest.
    pub clock_video_max_mhz: Option<u32>,
    /// Set for applications.
    pub clock_graphics_application_mhz: Option<u32>,
    /// Set for applications.
    pub clock_memory_application_mhz: Option<u32>,
    /// P0 (fastest) to P15.
    pub performance_state: Option<u32>,

    /// Why clocks are lower than they could be: the library's bit mask.
    pub throttle_reasons: Option<u64>,
    /// The same in words: `gpu_idle`, `applications_clocks_setting`, `sw_power_cap`, `hw_slowdown`, `sync_boost`,
    /// `sw_thermal_slowdown`, `hw_thermal_slowdown`, `hw_power_brake_slowdown`, `display_clock_setting`; `bit_N` else.
    pub throttle_reasons_active: Option<Vec<String>>,
    /// Counters of the time in which clocks were held down, by its reason.
    pub violation_power_nanoseconds: Option<u64>,
    #[allow(missing_docs)]
    pub violation_thermal_nanoseconds: Option<u64>,
    #[allow(missing_docs)]
    pub violation_sync_boost_nanoseconds: Option<u64>,
    #[allow(missing_docs)]
    pub violation_board_limit_nanoseconds: Option<u64>,
    #[allow(missing_docs)]
    pub violation_low_utilization_nanoseconds: Option<u64>,
    #[allow(missing_docs)]
    pub violation_reliability_nanoseconds: Option<u64>,
    #[allow(missing_docs)]
    pub violation_application_clocks_nanoseconds: Option<u64>,
    #[allow(missing_docs)]
    pub violation_base_clocks_nanoseconds: Option<u64>,

    /// In force.
    pub ecc_enabled: Option<bool>,
    /// After the next reset.
    pub ecc_pending: Option<bool>,
    /// Single-bit (corrected) errors since the driver was loaded.
    pub ecc_sbe_volatile: Option<u64>,
    /// Double-bit (uncorrected) errors since the driver was loaded.
    pub ecc_dbe_volatile: Option<u64>,
    /// Single-bit (corrected) errors of the device's life.
    pub ecc_sbe_aggregate: Option<u64>,
    /// Double-bit (uncorrected) errors of the device's life.
    pub ecc_dbe_aggregate: Option<u64>,
    /// Before Ampere: pages retired for single-bit errors.
    pub retired_pages_sbe: Option<u64>,
    /// Before Ampere: pages retired for a double-bit error.
    pub retired_pages_dbe: Option<u64>,
    /// Before Ampere: pages wait for a reboot to be retired.
    pub retired_pages_pending: Option<bool>,
    /// From Ampere on: rows remapped for correctable errors.
    pub remapped_rows_correctable: Option<u64>,
    /// From Ampere on: rows remapped for uncorrectable errors.
    pub remapped_rows_uncorrectable: Option<u64>,
    /// Rows wait for a reset to be remapped.
    pub row_remap_pending: Option<bool>,
    /// A row could not be remapped: the board is to be replaced.
    pub row_remap_failure: Option<bool>,
    /// How many banks have how many spare rows left.
    pub row_remap_banks: Option<RowRemapBanks>,

    /// Of the link now.
    pub pcie_generation: Option<u32>,
    /// That device and slot can.
    pub pcie_generation_max: Option<u32>,
    /// Lanes now.
    pub pcie_width: Option<u32>,
    /// Lanes that device and slot can.
    pub pcie_width_max: Option<u32>,
    /// A counter.
    pub pcie_replays: Option<u64>,
    /// A counter of bytes sent, where the device has one.
    pub pcie_tx_bytes: Option<u64>,
    /// A counter of bytes received, where the device has one.
    pub pcie_rx_bytes: Option<u64>,
    /// Of the last 20 ms; read only where there is no counter, because it takes that long.
    pub pcie_tx_bytes_per_second: Option<u64>,
    /// Of the last 20 ms; read only where there is no counter, because it takes that long.
    pub pcie_rx_bytes_per_second: Option<u64>,

    /// One a link that the device has.
    pub nvlinks: Vec<NvLink>,
    /// A counter over all links, payload, KiB.
    pub nvlink_tx_kib: Option<u64>,
    /// A counter over all links, payload, KiB.
    pub nvlink_rx_kib: Option<u64>,

    /// The driver stays loaded without a client.
    pub persistence_mode: Option<bool>,
    /// `default`, `exclusive-process`, `prohibited`, `exclusive-thread`
    pub compute_mode: Option<String>,
    /// Of an NVSwitch system: `not-supported`, `not-started`, `in-progress`, `completed`
    pub fabric_state: Option<String>,
    /// How joining the fabric ended: `ok`, else the library's error. Of use where `fabric_state` is `completed`.
    pub fabric_status: Option<String>,
    /// Which NVLink domain it is in.
    pub fabric_cluster_uuid: Option<String>,
    /// Which partition of the domain.
    pub fabric_clique_id: Option<u32>,
    /// The driver's bit mask of the fabric's health, where it gives one.
    pub fabric_health_mask: Option<u32>,
    /// What the driver itself advises: `none`, `gpu-reset`, `node-reboot`, `drain-p2p`, `drain-and-reset`; else its number.
    pub recovery_action: Option<String>,

    /// What runs on it; of a divided GPU its MIG instances' too.
    pub processes: Vec<Process>,
    /// Hopper and later. Absent in the first snapshot: it compares two.
    pub profiling: Option<Profiling>,
}

/// See [`Device::row_remap_banks`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct RowRemapBanks {
    pub max: u32,
    pub high: u32,
    pub partial: u32,
    pub low: u32,
    pub none: u32,
}

/// One NVLink of a GPU. Counters begin anew when the driver is reloaded. From `tx_packets` on: of NVLink 5 and later, which
/// has none of the older generations' four error counters.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct NvLink {
    /// Its number on the GPU.
    pub link: u32,
    /// It is up.
    pub active: Option<bool>,
    /// `4.0`, else the library's number
    pub version: Option<String>,
    /// `gpu`, `ibmnpu`, `switch`, `unknown`
    pub remote_type: Option<String>,
    /// What it leads to.
    pub remote_pci_bus_id: Option<String>,
    /// In one direction.
    pub speed_mbps: Option<u64>,
    /// A counter.
    pub crc_flit_errors: Option<u64>,
    /// A counter.
    pub crc_data_errors: Option<u64>,
    /// A counter.
    pub replay_errors: Option<u64>,
    /// A counter.
    pub recovery_errors: Option<u64>,
    /// A counter of payload, KiB.
    pub tx_kib: Option<u64>,
    /// A counter of payload, KiB.
    pub rx_kib: Option<u64>,
    /// A counter with protocol overhead, KiB.
    pub tx_raw_kib: Option<u64>,
    /// A counter with protocol overhead, KiB.
    pub rx_raw_kib: Option<u64>,
    /// A counter.
    pub tx_packets: Option<u64>,
    /// A counter.
    pub tx_bytes: Option<u64>,
    /// A counter.
    pub rx_packets: Option<u64>,
    /// A counter.
    pub rx_bytes: Option<u64>,
    /// A counter of packets received.
    pub malformed_packet_errors: Option<u64>,
    /// A counter of packets dropped for want of room.
    pub buffer_overrun_errors: Option<u64>,
    /// A counter of packets received with errors.
    pub rx_errors: Option<u64>,
    /// A counter of packets that the other end marked as bad.
    pub rx_remote_errors: Option<u64>,
    /// A counter of packets with a header that does not fit.
    pub rx_general_errors: Option<u64>,
    /// A counter: local errors were more than a threshold.
    pub local_link_integrity_errors: Option<u64>,
    /// A counter of packets that were not sent.
    pub tx_discards: Option<u64>,
    /// A counter: the link came back.
    pub link_recoveries_successful: Option<u64>,
    /// A counter: it did not.
    pub link_recoveries_failed: Option<u64>,
    /// A counter of both.
    pub link_recoveries: Option<u64>,
    /// A counter of errors left after correction.
    pub effective_errors: Option<u64>,
    /// A counter.
    pub symbol_errors: Option<u64>,
    /// Errors left after correction, a bit received.
    pub effective_bit_error_ratio: Option<f64>,
    /// Symbol errors, a bit received.
    pub symbol_bit_error_ratio: Option<f64>,
}

/// A process on a device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Process {
    /// In the agent's own process namespace.
    pub pid: u32,
    /// `compute`, `graphics`, `mps`; a process that is several things stands here several times.
    pub kind: String,
    /// Unknown where the driver may not tell.
    pub used_memory_bytes: Option<u64>,
    /// Which MIG instance it runs on.
    pub gpu_instance_id: Option<u32>,
    /// Which MIG instance it runs on.
    pub compute_instance_id: Option<u32>,
}

/// Averages between the last two snapshots, from the hardware's own counters (GPM). Ratios are 0 to 1.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
#[allow(missing_docs)]
pub struct Profiling {
    /// Milliseconds between the two.
    pub interval_ms: u64,
    /// The graphics or compute engine was busy.
    pub graphics_ratio: Option<f64>,
    /// SMs that had a warp.
    pub sm_ratio: Option<f64>,
    /// Warps of those that SMs can hold.
    pub sm_occupancy_ratio: Option<f64>,
    pub tensor_ratio: Option<f64>,
    pub tensor_dfma_ratio: Option<f64>,
    pub tensor_hmma_ratio: Option<f64>,
    pub tensor_imma_ratio: Option<f64>,
    pub dram_ratio: Option<f64>,
    pub fp64_ratio: Option<f64>,
    pub fp32_ratio: Option<f64>,
    pub fp16_ratio: Option<f64>,
    pub pcie_tx_bytes_per_second: Option<f64>,
    pub pcie_rx_bytes_per_second: Option<f64>,
    pub nvlink_tx_bytes_per_second: Option<f64>,
    pub nvlink_rx_bytes_per_second: Option<f64>,
}
