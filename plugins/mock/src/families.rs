//! How the simulated node is exported: DCGM's names and units for the GPUs, vLLM's for the engines, cAdvisor's for the
//! containers, node_exporter's for the host.

use picket_sdk::{CounterFamily, Describe, GaugeFamily, HistogramFamily, StateSetFamily};

use crate::simulation::{Container, Engine, Gpu, Model, Simulation};
use crate::{Part, Settings};

const GPU: [&str; 7] = ["gpu", "UUID", "device", "modelName", "pci_bus_id", "Hostname", "hostname"];
const LATENCY_BOUNDS: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Families whose values are read off one thing in one way each.
type Gauges<const N: usize, F> = Vec<(GaugeFamily<N>, F)>;
type Counters<const N: usize, F> = Vec<(CounterFamily<N>, F)>;
type OfGpu = fn(&Gpu) -> f64;
/// The GPU and its memory in MiB.
type OfGpuAndMemory = fn(&Gpu, f64) -> f64;
type OfContainer = fn(&Container) -> f64;

pub struct Families {
    dcgm: Gauges<7, OfGpuAndMemory>,
    dcgm_totals: Counters<7, OfGpu>,
    xid: GaugeFamily<7>,
    simple: Gauges<1, OfGpuAndMemory>,
    engine: StateSetFamily<3>,
    engine_values: Gauges<4, OfContainer>,
    engine_totals: Counters<4, OfContainer>,
    latency: HistogramFamily<4>,
    models: Gauges<2, OfContainer>,
    container_cpu: CounterFamily<3>,
    container_memory: GaugeFamily<3>,
    cpu: CounterFamily<2>,
    memory_total: GaugeFamily,
    memory_available: GaugeFamily,
    load: [GaugeFamily; 3],
}

impl Families {
    pub fn declare(d: &mut Describe) -> Self {
        let mut dcgm = Vec::new();
        let mut gauge = |name: &str, help: &str, value: OfGpuAndMemory| {
            dcgm.push((d.gauge(&format!("DCGM_FI_DEV_{name}"), help).labels(&GPU), value));
        };
        gauge("SM_CLOCK", "SM clock frequency (in MHz).", |g, _| g.sm_clock_mhz);
        gauge("MEM_CLOCK", "Memory clock frequency (in MHz).", |_, _| 2619.0);
        gauge("GPU_TEMP", "GPU temperature (in C).", |g, _| g.temperature);
        gauge("MEMORY_TEMP", "Memory temperature (in C).", |g, _| g.memory_temperature);
        gauge("POWER_USAGE", "Power draw (in W).", |g, _| g.power_watts);
        gauge("GPU_UTIL", "GPU utilization (in %).", |g, _| g.utilization.round());
        gauge("MEM_COPY_UTIL", "Memory utilization (in %).", |g, _| g.memory_copy);
        gauge("ENC_UTIL", "Encoder utilization (in %).", |_, _| 0.0);
        gauge("DEC_UTIL", "Decoder utilization (in %).", |_, _| 0.0);
        gauge("FB_USED", "Framebuffer memory used (in MiB).", |g, _| g.memory_used_mib);
        gauge("FB_FREE", "Framebuffer memory free (in MiB).", |g, total| total - g.memory_used_mib - 562.0);
        gauge("FB_RESERVED", "Framebuffer memory reserved (in MiB).", |_, _| 562.0);
        gauge("ROW_REMAP_FAILURE", "Whether remapping of rows has failed.", |_, _| 0.0);
        gauge("ROW_REMAP_PENDING", "Whether a row remap awaits a reset.", |_, _| 0.0);

        let mut dcgm_totals = Vec::new();
        let mut total = |name: &str, help: &str, value: OfGpu| {
            dcgm_totals.push((d.counter(&format!("DCGM_FI_DEV_{name}"), help).labels(&GPU), value));
        };
        total("TOTAL_ENERGY_CONSUMPTION", "Total energy consumption since boot (in mJ).", |g| {
            g.energy_millijoules
        });
        total("PCIE_REPLAY_COUNTER", "Total number of PCIe retries.", |_| 0.0);
        total("NVLINK_BANDWIDTH_TOTAL", "Total number of NVLink bytes over all lanes.", |g| g.nvlink_bytes);
        total("UNCORRECTABLE_REMAPPED_ROWS", "Number of remapped rows for uncorrectable errors.", |_| 0.0);
        total("CORRECTABLE_REMAPPED_ROWS", "Number of remapped rows for correctable errors.", |_| 0.0);
        total("ECC_SBE_VOL_TOTAL", "Total number of single-bit volatile ECC errors.", |g| g.ecc_single_bit);
        total("ECC_DBE_VOL_TOTAL", "Total number of double-bit volatile ECC errors.", |_| 0.0);
        total("THERMAL_VIOLATION", "Throttling duration due to thermal constraints (in ns).", |g| {
            g.thermal_violation_us * 1000.0
        });
        total("POWER_VIOLATION", "Throttling duration due to power constraints (in ns).", |_| 0.0);

        let mut simple = Vec::new();
        let mut view = |name: &str, unit: &str, help: &str, value: OfGpuAndMemory| {
            simple.push((d.gauge(name, help).unit(unit).labels(&["gpu_id"]), value));
        };
        view("nvidia_gpu_utilization", "", "GPU utilization in percent.", |g, _| g.utilization.round());
        view("nvidia_gpu_memory_used_bytes", "bytes", "GPU memory in use.", |g, _| {
            g.memory_used_mib * 1_048_576.0
        });
        view("nvidia_gpu_memory_total_bytes", "bytes", "GPU memory.", |_, total| total * 1_048_576.0);
        view("nvidia_gpu_temperature_celsius", "celsius", "GPU temperature.", |g, _| g.temperature);
        view("nvidia_gpu_power_watts", "watts", "GPU power draw.", |g, _| g.power_watts);

        let engine_labels = ["container", "model", "model_name", "gpu"];
        let mut engine_values = Vec::new();
        let mut value = |name: &str, help: &str, value: OfContainer| {
            engine_values.push((d.gauge(name, help).labels(&engine_labels), value));
        };
        value("vllm:num_requests_running", "Number of requests in model execution batches.", |c| c.running);
        value("vllm:num_requests_waiting", "Number of requests waiting to be processed.", |c| c.waiting);
        value("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", |c| c.cache_usage);
        let mut engine_totals = Vec::new();
        let mut total = |name: &str, help: &str, value: OfContainer| {
            engine_totals.push((d.counter(name, help).labels(&engine_labels), value));
        };
        total("vllm:request_success_total", "Count of successfully processed requests.", |c| {
            c.requests - c.errors
        });
        total("vllm:prompt_tokens_total", "Number of prefill tokens processed.", |c| c.tokens_in);
        total("vllm:generation_tokens_total", "Number of generation tokens processed.", |c| c.tokens_out);

        let mut models = Vec::new();
        let mut model = |name: &str, help: &str, value: OfContainer| {
            models.push((d.gauge(name, help).labels(&["model", "type"]), value));
        };
        model("llm_model_requests_per_minute", "Requests to the model, a minute.", |c| c.requests_per_minute);
        model("llm_model_tokens_input_per_minute", "Input tokens, a minute.", |c| c.tokens_in_per_minute);
        model("llm_model_tokens_output_per_minute", "Output tokens, a minute.", |c| c.tokens_out_per_minute);
        model("llm_model_latency_ms", "Mean latency of a request in ms.", |c| c.latency_ms);
        model("llm_model_errors_per_minute", "Failed requests, a minute.", |c| c.errors_per_minute);

        let container = ["name", "id", "image"];
        Self {
            dcgm,
            dcgm_totals,
            xid: d
                .gauge("DCGM_FI_DEV_XID_ERRORS", "Value of the last XID error that is not cleared.")
                .labels(&GPU),
            simple,
            engine: d
                .state_set(
                    "picket_vllm_engine_state",
                    "What the engine does, whatever its health endpoint says.",
                    "state",
                    &["loading", "running", "stuck", "down"],
                )
                .labels(&["container", "model", "gpu"]),
            engine_values,
            engine_totals,
            latency: d
                .histogram("vllm:e2e_request_latency_seconds", "End-to-end request latency.", &LATENCY_BOUNDS)
                .unit("seconds")
                .labels(&engine_labels),
            models,
            container_cpu: d
                .counter("container_cpu_usage_seconds_total", "Cumulative CPU time consumed in seconds.")
                .labels(&container),
            container_memory: d
                .gauge("container_memory_usage_bytes", "Current memory usage in bytes.")
                .labels(&container),
            cpu: d
                .counter("node_cpu_seconds_total", "Seconds the CPUs spent in each mode.")
                .labels(&["cpu", "mode"]),
            memory_total: d.gauge("node_memory_MemTotal_bytes", "Memory information field MemTotal_bytes."),
            memory_available: d
                .gauge("node_memory_MemAvailable_bytes", "Memory information field MemAvailable_bytes."),
            load: [
                d.gauge("node_load1", "1m load average."),
                d.gauge("node_load5", "5m load average."),
                d.gauge("node_load15", "15m load average."),
            ],
        }
    }

    pub fn export(&self, s: &Simulation, settings: &Settings) {
        if settings.simulates(Part::Gpus) {
            for (i, gpu) in s.gpus.iter().enumerate() {
                self.export_gpu(i, gpu, settings);
            }
        }
        for (container, model) in s.containers.iter().zip(&s.fleet.models) {
            self.export_container(container, model, settings);
        }
        if settings.simulates(Part::Host) {
            for (i, (busy, idle)) in s.cpu_busy.iter().zip(&s.cpu_idle).enumerate() {
                let cpu = i.to_string();
                self.cpu.with(&[&cpu, "user"]).set_total(*busy);
                self.cpu.with(&[&cpu, "idle"]).set_total(*idle);
            }
            self.memory_total.set(s.fleet.memory_bytes);
            self.memory_available.set(s.memory_available);
            let load = s.cpu_percent / 100.0 * settings.cpus as f64;
            for family in &self.load {
                family.set((load * 100.0).round() / 100.0);
            }
        }
    }

    fn export_gpu(&self, i: usize, gpu: &Gpu, settings: &Settings) {
        let index = i.to_string();
        let (id, device) = (uuid(settings.seed, i), format!("nvidia{i}"));
        let bus = format!("00000000:{:02X}:00.0", 0x18 + i * 8);
        let host = settings.hostname.as_str();
        let labels = [&*index, &*id, &*device, &*settings.gpu_model, &*bus, host, host];
        self.xid.with(&labels).set(if gpu.lost { 79.0 } else { 0.0 });
        if gpu.lost {
            return;
        }
        for (family, value) in &self.dcgm {
            family.with(&labels).set(value(gpu, settings.gpu_memory_mib));
        }
        for (family, value) in &self.dcgm_totals {
            family.with(&labels).set_total(value(gpu).floor());
        }
        for (family, value) in &self.simple {
            family.with(&[&index]).set(value(gpu, settings.gpu_memory_mib));
        }
    }

    fn export_container(&self, c: &Container, model: &Model, settings: &Settings) {
        let gpu = model.gpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let state = match c.engine {
            Engine::Running => "running",
            Engine::Stuck => "stuck",
            Engine::Down => "down",
        };
        if settings.simulates(Part::Engines) {
            self.engine.with(&[&model.container, &model.model, &gpu]).set(state);
        }
        if settings.simulates(Part::Models) {
            for (family, value) in &self.models {
                family.with(&[&model.model, "llm"]).set(value(c));
            }
        }
        if c.engine == Engine::Down {
            return;
        }
        if settings.simulates(Part::Engines) {
            let labels = [&*model.container, &*model.model, &*model.model, &*gpu];
            for (family, value) in &self.engine_values {
                family.with(&labels).set(value(c));
            }
            for (family, value) in &self.engine_totals {
                family.with(&labels).set_total(value(c).floor());
            }
            for _ in 0..c.completed.min(10_000) {
                self.latency.with(&labels).observe(c.latency_ms / 1000.0);
            }
        }
        if !settings.simulates(Part::Containers) {
            return;
        }
        let id = format!("{:016x}", fnv(&model.container) ^ settings.seed);
        let container = [&*model.container, &*id, "vllm/vllm-openai:v0.12.0"];
        self.container_cpu.with(&container).set_total(c.cpu_seconds);
        self.container_memory.with(&container).set(c.memory_bytes);
    }
}

/// A simulated GPU's UUID, in NVML's form.
pub fn uuid(seed: u64, gpu: usize) -> String {
    let a = fnv(&format!("{seed}/{gpu}/a"));
    let b = fnv(&format!("{seed}/{gpu}/b"));
    format!(
        "GPU-{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xffff,
        a & 0xffff,
        b >> 48,
        b & 0xffff_ffff_ffff
    )
}

/// FNV-1a, 64 bits.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}
