//! Values that are asked for by number: of the GPU, of one of its links, of all of them together.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings as sys;
use sys::field_id as id;

use crate::scenario::{Code, INVALID_ARGUMENT, NOT_SUPPORTED, Values};
use crate::state::Device;

/// The value of a field; `scope` is the link, all ones for every link.
pub fn field(device: &Device, field: u32, scope: u32) -> Result<u64, Code> {
    if let Some(key) = of_gpu(field) {
        return device.values()?.u64(key);
    }
    if let Some(key) = of_link(field) {
        let links = &device.gpu()?.links;
        return match scope {
            u32::MAX if links.is_empty() => Err(NOT_SUPPORTED),
            u32::MAX => links.iter().map(|link| link.u64(key)).sum(),
            link => nvlink(device, link)?.u64(key),
        };
    }
    let key = match field {
        id::NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_BER => "effective_bit_error_ratio",
        id::NVML_FI_DEV_NVLINK_COUNT_SYMBOL_BER => "symbol_bit_error_ratio",
        _ => return Err(NOT_SUPPORTED),
    };
    nvlink(device, scope)?.number(key).map(coded)
}

pub fn nvlink(device: &Device, link: c_uint) -> Result<&Values, Code> {
    let links = &device.gpu()?.links;
    if links.is_empty() {
        return Err(NOT_SUPPORTED);
    }
    usize::try_from(link).ok().and_then(|link| links.get(link)).ok_or(INVALID_ARGUMENT)
}

fn of_gpu(field: u32) -> Option<&'static str> {
    Some(match field {
        id::NVML_FI_DEV_MEMORY_TEMP => "temperature_memory_celsius",
        id::NVML_FI_DEV_RETIRED_SBE => "retired_pages_sbe",
        id::NVML_FI_DEV_RETIRED_DBE => "retired_pages_dbe",
        id::NVML_FI_DEV_PCIE_COUNT_TX_BYTES => "pcie_tx_bytes",
        id::NVML_FI_DEV_PCIE_COUNT_RX_BYTES => "pcie_rx_bytes",
        id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION => "recovery_action",
        _ => return None,
    })
}

/// The numbers stand here as nvml.h has them, so that a slip of the reader's is one.
fn of_link(field: u32) -> Option<&'static str> {
    Some(match field {
        138 => "tx_kib",
        139 => "rx_kib",
        140 => "tx_raw_kib",
        141 => "rx_raw_kib",
        164 => "speed_mbps",
        201 => "tx_packets",
        202 => "tx_bytes",
        203 => "rx_packets",
        204 => "rx_bytes",
        206 => "malformed_packet_errors",
        207 => "buffer_overrun_errors",
        208 => "rx_errors",
        209 => "rx_remote_errors",
        210 => "rx_general_errors",
        211 => "local_link_integrity_errors",
        212 => "tx_discards",
        213 => "link_recoveries_successful",
        214 => "link_recoveries_failed",
        215 => "link_recoveries",
        219 => "effective_errors",
        221 => "symbol_errors",
        _ => return None,
    })
}

/// The library's floating point: a mantissa from bit 8 on, a decimal exponent below it, counted downwards.
fn coded(ratio: f64) -> u64 {
    if ratio <= 0.0 {
        return 0;
    }
    let exponent = -ratio.log10().floor();
    let mantissa = (ratio * 10f64.powf(exponent)).round();
    (mantissa as u64) << 8 | exponent as u64
}
