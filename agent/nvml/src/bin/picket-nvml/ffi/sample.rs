//! The hardware's profiling counters (GPM): taken twice, the library tells what lies between.

use std::ptr::null_mut;

use nvml_wrapper_sys::bindings as sys;

use super::{Device, Session};
use crate::code::Code;

/// The profiling counters of one moment.
pub struct Sample<'l> {
    session: Session<'l>,
    sample: sys::nvmlGpmSample_t,
}

impl Sample<'_> {
    /// Averages from an earlier sample of the same device to this one, each by itself.
    pub fn since(&self, earlier: &Self, metrics: &[u32]) -> Result<Vec<Result<f64, Code>>, Code> {
        let none = sys::nvmlGpmMetric_t {
            metricId: 0,
            nvmlReturn: Code::NOT_SUPPORTED.0,
            value: 0.0,
            metricInfo: sys::nvmlGpmMetric_t__bindgen_ty_1 {
                shortName: null_mut(),
                longName: null_mut(),
                unit: null_mut(),
            },
        };
        let mut out = sys::nvmlGpmMetricsGet_t {
            version: sys::NVML_GPM_METRICS_GET_VERSION,
            numMetrics: 0,
            sample1: earlier.sample,
            sample2: self.sample,
            metrics: [none; 210],
        };
        let mut count = 0;
        for (slot, id) in out.metrics.iter_mut().zip(metrics) {
            slot.metricId = *id;
            count += 1;
        }
        out.numMetrics = count;
        call!(self.session, None, nvmlGpmMetricsGet(&mut out))?;
        let value = |m: &sys::nvmlGpmMetric_t| Code::check(m.nvmlReturn).map(|()| m.value);
        Ok(out.metrics.iter().take(metrics.len()).map(value).collect())
    }
}

impl Drop for Sample<'_> {
    fn drop(&mut self) {
        // Nothing can be done about a failure.
        let _ = call!(self.session, None, nvmlGpmSampleFree(self.sample));
    }
}

impl<'l> Session<'l> {
    fn sample(self) -> Result<Sample<'l>, Code> {
        let mut sample = null_mut();
        call!(self, None, nvmlGpmSampleAlloc(&mut sample))?;
        Ok(Sample { session: self, sample })
    }
}

impl<'l> Device<'l> {
    pub fn has_profiling(&self) -> Result<bool, Code> {
        let mut out = sys::nvmlGpmSupport_t { version: sys::NVML_GPM_SUPPORT_VERSION, isSupportedDevice: 0 };
        call!(self.session, self.number, nvmlGpmQueryDeviceSupport(self.handle, &mut out))?;
        Ok(out.isSupportedDevice != 0)
    }

    /// The counters of now: of the GPU, or of a GPU instance of it.
    pub fn sample(&self, gpu_instance: Option<u32>) -> Result<Sample<'l>, Code> {
        let sample = self.session.sample()?;
        let device = self.number;
        match gpu_instance {
            None => call!(self.session, device, nvmlGpmSampleGet(self.handle, sample.sample)),
            Some(id) => call!(self.session, device, nvmlGpmMigSampleGet(self.handle, id, sample.sample)),
        }?;
        Ok(sample)
    }
}
