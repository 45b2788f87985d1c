//! DCGM's families, under its names and in its units, with dcgm-exporter's labels; and the plain `nvidia_gpu_*`.
//!
//! A value that a device does not have is absent. A MIG instance is a device of its own: it has its GPU's `gpu`, `UUID`
//! and `device`, and `GPU_I_PROFILE` and `GPU_I_ID` beside them, as dcgm-exporter has it.

use picket_sdk::nvml::{Device, DeviceKind, NvLink, Profiling};
use picket_sdk::{CounterFamily, Describe, GaugeFamily};

/// The labels of every DCGM family.
pub const LABELS: [&str; 9] =
    ["gpu", "UUID", "device", "modelName", "pci_bus_id", "GPU_I_PROFILE", "GPU_I_ID", "Hostname", "hostname"];
/// The links that a GPU may have: 18 since Hopper.
const LINKS: usize = 18;
const MIB: f64 = 1_048_576.0;
const KIB: f64 = 1024.0;

type Read = fn(&Device) -> Option<f64>;
type ReadLink = fn(&NvLink) -> Option<f64>;
type ReadProfile = fn(&Profiling) -> Option<f64>;

pub struct Families {
    gauges: Vec<(GaugeFamily<9>, Read)>,
    counters: Vec<(CounterFamily<9>, Read)>,
    profiles: Vec<(GaugeFamily<9>, ReadProfile)>,
    /// By link.
    links: Vec<Vec<(CounterFamily<9>, ReadLink)>>,
    link_totals: Vec<(CounterFamily<9>, ReadLink)>,
    simple: Vec<(GaugeFamily<1>, Read)>,
}

/// The texts of a device's labels, made once a snapshot.
pub struct Labels {
    pub gpu: String,
    pub uuid: String,
    device: String,
    model: String,
    pci: String,
    profile: String,
    pub instance: String,
}

impl Labels {
    /// `parent` is the GPU of a MIG instance.
    pub fn new(device: &Device, parent: Option<&Device>) -> Self {
        let gpu = parent.unwrap_or(device);
        let text = |value: Option<u32>| value.map(|v| v.to_string()).unwrap_or_default();
        Self {
            gpu: text(gpu.index),
            uuid: gpu.uuid.clone(),
            device: gpu.minor.or(gpu.index).map(|n| format!("nvidia{n}")).unwrap_or_default(),
            model: gpu.name.clone().unwrap_or_default(),
            pci: gpu.pci_bus_id.clone().unwrap_or_default(),
            profile: device.mig_profile.clone().unwrap_or_default(),
            instance: text(device.gpu_instance_id.filter(|_| parent.is_some())),
        }
    }

    pub fn all<'a>(&'a self, host: &'a str) -> [&'a str; 9] {
        [
            &self.gpu,
            &self.uuid,
            &self.device,
            &self.model,
            &self.pci,
            &self.profile,
            &self.instance,
            host,
            host,
        ]
    }
}

pub fn number<T: TryInto<i64>>(value: Option<T>) -> Option<f64> {
    value.and_then(|v| v.try_into().ok()).map(|v| v as f64)
}

fn mib(value: Option<u64>) -> Option<f64> {
    value.map(|v| (v as f64 / MIB).floor())
}

fn watts(value: Option<u64>) -> Option<f64> {
    value.map(|v| v as f64 / 1000.0)
}

fn flag(value: Option<bool>) -> Option<f64> {
    value.map(|v| f64::from(u8::from(v)))
}

pub fn sum(of: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    of.flatten().fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

fn traffic(tx_kib: Option<u64>, rx_kib: Option<u64>) -> Option<f64> {
    match (tx_kib, rx_kib) {
        (None, None) => None,
        (tx, rx) => Some((tx.unwrap_or(0) as f64 + rx.unwrap_or(0) as f64) * KIB),
    }
}

/// DCGM's numbers.
fn compute_mode(device: &Device) -> Option<f64> {
    match device.compute_mode.as_deref()? {
        "default" => Some(0.0),
        "exclusive-thread" => Some(1.0),
        "prohibited" => Some(2.0),
        "exclusive-process" => Some(3.0),
        _ => None,
    }
}

/// DCGM's numbers: 0 not supported, 1 not started, 2 in progress, 3 success, 4 failure.
fn fabric(device: &Device) -> Option<f64> {
    match (device.fabric_state.as_deref()?, device.fabric_status.as_deref()) {
        ("not-supported", _) => Some(0.0),
        ("not-started", _) => Some(1.0),
        ("in-progress", _) => Some(2.0),
        ("completed", None | Some("ok")) => Some(3.0),
        ("completed", _) => Some(4.0),
        _ => None,
    }
}

fn used_ratio(device: &Device) -> Option<f64> {
    let usable = device.memory_total_bytes?.checked_sub(device.memory_reserved_bytes.unwrap_or(0))?;
    (usable > 0).then(|| device.memory_used_bytes.map(|used| used as f64 / usable as f64)).flatten()
}

impl Families {
    pub fn declare(d: &mut Describe) -> Self {
        let mut gauges = Vec::new();
        let mut gauge = |name: &str, help: &str, read: Read| {
            gauges.push((d.gauge(&format!("DCGM_FI_DEV_{name}"), help).labels(&LABELS), read));
        };
        gauge("SM_CLOCK", "SM clock frequency (in MHz).", |g| number(g.clock_sm_mhz));
        gauge("MEM_CLOCK", "Memory clock frequency (in MHz).", |g| number(g.clock_memory_mhz));
        gauge("VIDEO_CLOCK", "Video encoder/decoder clock frequency (in MHz).", |g| {
            number(g.clock_video_mhz)
        });
        gauge("APP_SM_CLOCK", "SM application clock frequency (in MHz).", |g| {
            number(g.clock_graphics_application_mhz)
        });
        gauge("APP_MEM_CLOCK", "Memory application clock frequency (in MHz).", |g| {
            number(g.clock_memory_application_mhz)
        });
        gauge("MAX_SM_CLOCK", "Highest SM clock frequency (in MHz).", |g| number(g.clock_sm_max_mhz));
        gauge("MAX_MEM_CLOCK", "Highest memory clock frequency (in MHz).", |g| {
            number(g.clock_memory_max_mhz)
        });
        gauge("PSTATE", "Performance state, 0 (highest) to 15.", |g| number(g.performance_state));
        gauge("GPU_TEMP", "GPU temperature (in C).", |g| number(g.temperature_gpu_celsius));
        gauge("MEMORY_TEMP", "Memory temperature (in C).", |g| number(g.temperature_memory_celsius));
        gauge("SHUTDOWN_TEMP", "Temperature at which the GPU shuts down (in C).", |g| {
            number(g.threshold_shutdown_celsius)
        });
        gauge("SLOWDOWN_TEMP", "Temperature at which the GPU slows down (in C).", |g| {
            number(g.threshold_slowdown_celsius)
        });
        gauge("GPU_MAX_OP_TEMP", "Highest operating temperature of the GPU (in C).", |g| {
            number(g.threshold_gpu_max_celsius)
        });
        gauge("MEM_MAX_OP_TEMP", "Highest operating temperature of the memory (in C).", |g| {
            number(g.threshold_memory_max_celsius)
        });
        gauge("POWER_USAGE", "Power draw (in W).", |g| watts(g.power_usage_milliwatts));
        gauge("POWER_MGMT_LIMIT", "Power limit (in W).", |g| watts(g.power_limit_milliwatts));
        gauge("ENFORCED_POWER_LIMIT", "The lowest of all power limits in force (in W).", |g| {
            watts(g.power_limit_enforced_milliwatts)
        });
        gauge("POWER_MGMT_LIMIT_DEF", "Default power limit (in W).", |g| {
            watts(g.power_limit_default_milliwatts)
        });
        gauge("POWER_MGMT_LIMIT_MIN", "Lowest power limit (in W).", |g| watts(g.power_limit_min_milliwatts));
        gauge("POWER_MGMT_LIMIT_MAX", "Highest power limit (in W).", |g| watts(g.power_limit_max_milliwatts));
        gauge("GPU_UTIL", "GPU utilization (in %).", |g| number(g.utilization_gpu_percent));
        gauge("MEM_COPY_UTIL", "Memory utilization (in %).", |g| number(g.utilization_memory_percent));
        gauge("ENC_UTIL", "Encoder utilization (in %).", |g| number(g.utilization_encoder_percent));
        gauge("DEC_UTIL", "Decoder utilization (in %).", |g| number(g.utilization_decoder_percent));
        gauge("FB_TOTAL", "Framebuffer memory (in MiB).", |g| mib(g.memory_total_bytes));
        gauge("FB_USED", "Framebuffer memory used (in MiB).", |g| mib(g.memory_used_bytes));
        gauge("FB_FREE", "Framebuffer memory free (in MiB).", |g| mib(g.memory_free_bytes));
        gauge("FB_RESERVED", "Framebuffer memory reserved (in MiB).", |g| mib(g.memory_reserved_bytes));
        gauge("FB_USED_PERCENT", "Used share of the framebuffer that is not reserved, 0 to 1.", used_ratio);
        gauge("BAR1_TOTAL", "BAR1 memory (in MiB).", |g| mib(g.bar1_total_bytes));
        gauge("BAR1_USED", "BAR1 memory used (in MiB).", |g| mib(g.bar1_used_bytes));
        gauge("BAR1_FREE", "BAR1 memory free (in MiB).", |g| {
            mib(g.bar1_total_bytes.and_then(|total| total.checked_sub(g.bar1_used_bytes?)))
        });
        gauge("ECC_CURRENT", "Whether ECC is on.", |g| flag(g.ecc_enabled));
        gauge("ECC_PENDING", "Whether ECC will be on after the next reset.", |g| flag(g.ecc_pending));
        gauge("RETIRED_SBE", "Number of pages retired for single-bit errors.", |g| {
            number(g.retired_pages_sbe)
        });
        gauge("RETIRED_DBE", "Number of pages retired for double-bit errors.", |g| {
            number(g.retired_pages_dbe)
        });
        gauge("RETIRED_PENDING", "Whether pages wait to be retired.", |g| flag(g.retired_pages_pending));
        gauge("ROW_REMAP_FAILURE", "Whether remapping of rows has failed.", |g| flag(g.row_remap_failure));
        gauge("ROW_REMAP_PENDING", "Whether a row remap awaits a reset.", |g| flag(g.row_remap_pending));
        gauge("CLOCK_THROTTLE_REASONS", "Why clocks are lower than they could be (bit mask).", |g| {
            number(g.throttle_reasons)
        });
        gauge("PCIE_LINK_GEN", "PCIe generation of the link now.", |g| number(g.pcie_generation));
        gauge("PCIE_LINK_WIDTH", "PCIe lanes of the link now.", |g| number(g.pcie_width));
        gauge("PCIE_MAX_LINK_GEN", "Highest PCIe generation of device and slot.", |g| {
            number(g.pcie_generation_max)
        });
        gauge("PCIE_MAX_LINK_WIDTH", "Most PCIe lanes of device and slot.", |g| number(g.pcie_width_max));
        gauge("PERSISTENCE_MODE", "Whether persistence mode is on.", |g| flag(g.persistence_mode));
        gauge("MIG_MODE", "Whether the GPU is divided (MIG).", |g| flag(g.mig_enabled));
        gauge(
            "COMPUTE_MODE",
            "Compute mode (0 default, 1 exclusive thread, 2 prohibited, 3 exclusive process).",
            compute_mode,
        );
        gauge(
            "FABRIC_MANAGER_STATUS",
            "How the GPU joined the fabric (0 not supported, 1 not started, 2 in progress, 3 success, 4 failure).",
            fabric,
        );

        let mut counters = Vec::new();
        let mut counter = |name: &str, help: &str, read: Read| {
            counters.push((d.counter(&format!("DCGM_FI_DEV_{name}"), help).labels(&LABELS), read));
        };
        counter("TOTAL_ENERGY_CONSUMPTION", "Total energy consumption since boot (in mJ).", |g| {
            number(g.energy_millijoules)
        });
        counter("PCIE_REPLAY_COUNTER", "Total number of PCIe retries.", |g| number(g.pcie_replays));
        counter("NVLINK_BANDWIDTH_TOTAL", "Total number of NVLink bytes over all lanes.", |g| {
            let links = || sum(g.nvlinks.iter().map(|l| traffic(l.tx_kib, l.rx_kib)));
            traffic(g.nvlink_tx_kib, g.nvlink_rx_kib).or_else(links)
        });
        counter("UNCORRECTABLE_REMAPPED_ROWS", "Number of remapped rows for uncorrectable errors.", |g| {
            number(g.remapped_rows_uncorrectable)
        });
        counter("CORRECTABLE_REMAPPED_ROWS", "Number of remapped rows for correctable errors.", |g| {
            number(g.remapped_rows_correctable)
        });
        counter("ECC_SBE_VOL_TOTAL", "Total number of single-bit volatile ECC errors.", |g| {
            number(g.ecc_sbe_volatile)
        });
        counter("ECC_DBE_VOL_TOTAL", "Total number of double-bit volatile ECC errors.", |g| {
            number(g.ecc_dbe_volatile)
        });
        counter("ECC_SBE_AGG_TOTAL", "Total number of single-bit persistent ECC errors.", |g| {
            number(g.ecc_sbe_aggregate)
        });
        counter("ECC_DBE_AGG_TOTAL", "Total number of double-bit persistent ECC errors.", |g| {
            number(g.ecc_dbe_aggregate)
        });
        counter("POWER_VIOLATION", "Throttling duration due to power constraints (in ns).", |g| {
            number(g.violation_power_nanoseconds)
        });
        counter("THERMAL_VIOLATION", "Throttling duration due to thermal constraints (in ns).", |g| {
            number(g.violation_thermal_nanoseconds)
        });
        counter("SYNC_BOOST_VIOLATION", "Throttling duration due to sync-boost constraints (in ns).", |g| {
            number(g.violation_sync_boost_nanoseconds)
        });
        counter(
            "BOARD_LIMIT_VIOLATION",
            "Throttling duration due to board limit constraints (in ns).",
            |g| number(g.violation_board_limit_nanoseconds),
        );
        counter("LOW_UTIL_VIOLATION", "Throttling duration due to low utilization (in ns).", |g| {
            number(g.violation_low_utilization_nanoseconds)
        });
        counter(
            "RELIABILITY_VIOLATION",
            "Throttling duration due to reliability constraints (in ns).",
            |g| number(g.violation_reliability_nanoseconds),
        );
        counter(
            "TOTAL_APP_CLOCKS_VIOLATION",
            "Throttling duration due to application clocks (in ns).",
            |g| number(g.violation_application_clocks_nanoseconds),
        );
        counter("TOTAL_BASE_CLOCKS_VIOLATION", "Throttling duration due to base clocks (in ns).", |g| {
            number(g.violation_base_clocks_nanoseconds)
        });

        let mut profiles = Vec::new();
        let mut profile = |name: &str, help: &str, read: ReadProfile| {
            profiles.push((d.gauge(&format!("DCGM_FI_PROF_{name}"), help).labels(&LABELS), read));
        };
        profile("GR_ENGINE_ACTIVE", "Ratio of time the graphics engine is active.", |p| p.graphics_ratio);
        profile("SM_ACTIVE", "The ratio of cycles an SM has at least 1 warp assigned.", |p| p.sm_ratio);
        profile("SM_OCCUPANCY", "The ratio of number of warps resident on an SM.", |p| p.sm_occupancy_ratio);
        profile("PIPE_TENSOR_ACTIVE", "Ratio of cycles the tensor (HMMA) pipe is active.", |p| {
            p.tensor_ratio
        });
        profile("PIPE_TENSOR_DFMA_ACTIVE", "Ratio of cycles the tensor (DFMA) pipe is active.", |p| {
            p.tensor_dfma_ratio
        });
        profile("PIPE_TENSOR_HMMA_ACTIVE", "Ratio of cycles the tensor (HMMA) pipe is active.", |p| {
            p.tensor_hmma_ratio
        });
        profile("PIPE_TENSOR_IMMA_ACTIVE", "Ratio of cycles the tensor (IMMA) pipe is active.", |p| {
            p.tensor_imma_ratio
        });
        profile("DRAM_ACTIVE", "Ratio of cycles the device memory interface is active.", |p| p.dram_ratio);
        profile("PIPE_FP64_ACTIVE", "Ratio of cycles the fp64 pipes are active.", |p| p.fp64_ratio);
        profile("PIPE_FP32_ACTIVE", "Ratio of cycles the fp32 pipes are active.", |p| p.fp32_ratio);
        profile("PIPE_FP16_ACTIVE", "Ratio of cycles the fp16 pipes are active.", |p| p.fp16_ratio);
        profile(
            "PCIE_TX_BYTES",
            "The rate of data transmitted over the PCIe bus (in bytes per second).",
            |p| p.pcie_tx_bytes_per_second,
        );
        profile("PCIE_RX_BYTES", "The rate of data received over the PCIe bus (in bytes per second).", |p| {
            p.pcie_rx_bytes_per_second
        });
        profile("NVLINK_TX_BYTES", "The rate of data transmitted over NVLink (in bytes per second).", |p| {
            p.nvlink_tx_bytes_per_second
        });
        profile("NVLINK_RX_BYTES", "The rate of data received over NVLink (in bytes per second).", |p| {
            p.nvlink_rx_bytes_per_second
        });

        let of_link: [(&str, &str, ReadLink); 5] = [
            ("BANDWIDTH", "Number of NVLink bytes", |l| traffic(l.tx_kib, l.rx_kib)),
            ("CRC_FLIT_ERROR_COUNT", "Number of NVLink flow-control CRC errors", |l| {
                number(l.crc_flit_errors)
            }),
            ("CRC_DATA_ERROR_COUNT", "Number of NVLink data CRC errors", |l| number(l.crc_data_errors)),
            ("REPLAY_ERROR_COUNT", "Number of NVLink retries", |l| number(l.replay_errors)),
            ("RECOVERY_ERROR_COUNT", "Number of NVLink recoveries", |l| number(l.recovery_errors)),
        ];
        let link_totals = of_link
            .iter()
            .skip(1)
            .map(|(name, help, read)| {
                let family = d
                    .counter(&format!("DCGM_FI_DEV_NVLINK_{name}_TOTAL"), &format!("{help} over all links."));
                (family.labels(&LABELS), *read)
            })
            .collect();
        let links = (0..LINKS)
            .map(|link| {
                let family = |(name, help, read): &(&str, &str, ReadLink)| {
                    let name = format!("DCGM_FI_DEV_NVLINK_{name}_L{link}");
                    (d.counter(&name, &format!("{help} of link {link}.")).labels(&LABELS), *read)
                };
                of_link.iter().map(family).collect()
            })
            .collect();

        let mut simple = Vec::new();
        let mut view = |name: &str, unit: &str, help: &str, read: Read| {
            simple.push((d.gauge(name, help).unit(unit).labels(&["gpu_id"]), read));
        };
        view("nvidia_gpu_utilization", "", "GPU utilization in percent.", |g| {
            number(g.utilization_gpu_percent)
        });
        view("nvidia_gpu_memory_used_bytes", "bytes", "GPU memory in use.", |g| number(g.memory_used_bytes));
        view("nvidia_gpu_memory_total_bytes", "bytes", "GPU memory.", |g| number(g.memory_total_bytes));
        view("nvidia_gpu_temperature_celsius", "celsius", "GPU temperature.", |g| {
            number(g.temperature_gpu_celsius)
        });
        view("nvidia_gpu_power_watts", "watts", "GPU power draw.", |g| watts(g.power_usage_milliwatts));

        Self { gauges, counters, profiles, links, link_totals, simple }
    }

    pub fn export(&self, device: &Device, labels: &[&str; 9], per_link: bool) {
        for (family, read) in &self.gauges {
            if let Some(value) = read(device) {
                family.with(labels).set(value);
            }
        }
        for (family, read) in &self.counters {
            if let Some(value) = read(device) {
                family.with(labels).set_total(value);
            }
        }
        if let Some(profiling) = &device.profiling {
            for (family, read) in &self.profiles {
                if let Some(value) = read(profiling).filter(|v| v.is_finite()) {
                    family.with(labels).set(value);
                }
            }
        }
        for (family, read) in &self.link_totals {
            if let Some(value) = sum(device.nvlinks.iter().map(read)) {
                family.with(labels).set_total(value);
            }
        }
        for link in device.nvlinks.iter().filter(|_| per_link) {
            let families = usize::try_from(link.link).ok().and_then(|n| self.links.get(n));
            for (family, read) in families.into_iter().flatten() {
                if let Some(value) = read(link) {
                    family.with(labels).set_total(value);
                }
            }
        }
    }

    pub fn export_simple(&self, device: &Device) {
        let (DeviceKind::Gpu, Some(index)) = (device.kind, device.index) else { return };
        let index = index.to_string();
        for (family, read) in &self.simple {
            if let Some(value) = read(device) {
                family.with(&[&index]).set(value);
            }
        }
    }
}
