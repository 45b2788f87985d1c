//! The hardware's own counters (GPM), Hopper and later: averages between two snapshots, never made of anything else.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings as sys;

use crate::code::Code;
use crate::ffi::{Device, Sample};
use crate::sheet::Sheet;

/// Samples that lie nearer to each other give no average.
const NEAREST: Duration = Duration::from_millis(100);
const MIB: f64 = 1_048_576.0;

/// The document's name, the library's number, and the factor from its unit (percent, MiB a second).
const METRICS: [(&str, u32, f64); 15] = [
    ("graphics_ratio", sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_GRAPHICS_UTIL, 0.01),
    ("sm_ratio", sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_SM_UTIL, 0.01),
    ("sm_occupancy_ratio", sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_SM_OCCUPANCY, 0.01),
    ("tensor_ratio", sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_ANY_TENSOR_UTIL, 0.01),
    ("tensor_dfma_ratio", sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_DFMA_TENSOR_UTIL, 0.01),
    ("tensor_hmma_ratio", sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_HMMA_TENSOR_UTIL, 0.01),
    ("tensor_imma_ratio", sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_IMMA_TENSOR_UTIL, 0.01),
    ("dram_ratio", sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_DRAM_BW_UTIL, 0.01),
    ("fp64_ratio", sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_FP64_UTIL, 0.01),
    ("fp32_ratio", sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_FP32_UTIL, 0.01),
    ("fp16_ratio", sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_FP16_UTIL, 0.01),
    ("pcie_tx_bytes_per_second", sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_PCIE_TX_PER_SEC, MIB),
    ("pcie_rx_bytes_per_second", sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_PCIE_RX_PER_SEC, MIB),
    ("nvlink_tx_bytes_per_second", sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC, MIB),
    ("nvlink_rx_bytes_per_second", sys::nvmlGpmMetricId_t_NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC, MIB),
];

/// The last sample of each device, by UUID.
#[derive(Default)]
pub struct Profiler<'l> {
    round: u64,
    last: BTreeMap<String, Last<'l>>,
    /// By the GPU's key: whether it has the counters, once it is known.
    supported: BTreeMap<usize, bool>,
}

struct Last<'l> {
    round: u64,
    taken: Instant,
    sample: Sample<'l>,
}

impl<'l> Profiler<'l> {
    pub fn begin(&mut self) {
        self.round += 1;
    }

    /// Forgets the devices that were not read this time.
    pub fn end(&mut self) {
        let round = self.round;
        self.last.retain(|_, last| last.round == round);
    }

    pub fn read(&mut self, gpu: &Device<'l>, gpu_instance: Option<u32>, uuid: &str, sheet: &mut Sheet) {
        let supported = match self.supported.get(&gpu.key()) {
            Some(supported) => *supported,
            None => match sheet.take("profiling", gpu.has_profiling()) {
                Some(supported) => {
                    self.supported.insert(gpu.key(), supported);
                    supported
                }
                None => return,
            },
        };
        if !supported {
            sheet.note("profiling", Code::NOT_SUPPORTED);
            return;
        }
        let round = self.round;
        if let Some(last) = self.last.get_mut(uuid)
            && last.taken.elapsed() < NEAREST
        {
            last.round = round;
            return;
        }
        let Some(sample) = sheet.take("profiling", gpu.sample(gpu_instance)) else { return };
        let taken = Instant::now();
        if let Some(last) = self.last.get(uuid) {
            let passed = taken.duration_since(last.taken);
            self.compare(&sample, last, passed, sheet);
        }
        self.last.insert(uuid.to_owned(), Last { round, taken, sample });
    }

    fn compare(&self, sample: &Sample<'l>, last: &Last<'l>, passed: Duration, sheet: &mut Sheet) {
        let ids: Vec<u32> = METRICS.iter().map(|(_, id, _)| *id).collect();
        let Some(values) = sheet.take("profiling", sample.since(&last.sample, &ids)) else { return };
        let mut inner = Sheet::default();
        inner.number("interval_ms", Ok(passed.as_millis()));
        for ((name, _, factor), value) in METRICS.iter().zip(values) {
            match value {
                Ok(value) if value.is_finite() && value >= 0.0 => inner.float(name, Ok(value * factor)),
                Ok(_) => sheet.note(&format!("profiling.{name}"), Code::UNEXPECTED),
                Err(code) => sheet.note(&format!("profiling.{name}"), code),
            }
        }
        sheet.raw("profiling", &inner.object());
    }
}
