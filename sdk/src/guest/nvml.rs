use super::host::nvml;
use crate::nvml::NvmlError;

pub(crate) fn nvml_snapshot(max_age: u32) -> Result<(u64, String), NvmlError> {
    nvml::snapshot(max_age).map(|s| (s.timestamp, s.document)).map_err(|error| match error {
        nvml::NvmlError::NoDriver(text) => NvmlError::NoDriver(text),
        nvml::NvmlError::Hung(text) => NvmlError::Hung(text),
        nvml::NvmlError::Other(text) => NvmlError::Other(text),
    })
}
