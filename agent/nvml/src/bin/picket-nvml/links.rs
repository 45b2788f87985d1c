//! The NVLinks of a GPU: which there are, and what each has counted.
//!
//! The fifth generation counts by packets, as InfiniBand does, and has none of the older generations' error counters: it
//! is asked for fields of its own. Older links are not, since eighteen links with a dozen answers "not supported" each
//! would make a document mostly of those.

use std::collections::BTreeMap;
use std::fmt::Write;

use nvml_wrapper_sys::bindings as sys;
use sys::field_id as id;

use crate::code::Code;
use crate::ffi::{Device, Field};
use crate::sheet::{Sheet, quoted};

/// More links than any GPU has.
const MAX_LINKS: u32 = 36;
/// The library's number of NVLink 5.
const FIFTH: u32 = 7;

/// Of every link.
const COUNTED: [(&str, u32); 5] = [
    ("speed_mbps", id::NVML_FI_DEV_NVLINK_GET_SPEED),
    ("tx_kib", id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX),
    ("rx_kib", id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX),
    ("tx_raw_kib", id::NVML_FI_DEV_NVLINK_THROUGHPUT_RAW_TX),
    ("rx_raw_kib", id::NVML_FI_DEV_NVLINK_THROUGHPUT_RAW_RX),
];

/// Of a link of the fifth generation and later.
const PACKETS: [(&str, u32); 16] = [
    ("tx_packets", id::NVML_FI_DEV_NVLINK_COUNT_XMIT_PACKETS),
    ("tx_bytes", id::NVML_FI_DEV_NVLINK_COUNT_XMIT_BYTES),
    ("rx_packets", id::NVML_FI_DEV_NVLINK_COUNT_RCV_PACKETS),
    ("rx_bytes", id::NVML_FI_DEV_NVLINK_COUNT_RCV_BYTES),
    ("malformed_packet_errors", id::NVML_FI_DEV_NVLINK_COUNT_MALFORMED_PACKET_ERRORS),
    ("buffer_overrun_errors", id::NVML_FI_DEV_NVLINK_COUNT_BUFFER_OVERRUN_ERRORS),
    ("rx_errors", id::NVML_FI_DEV_NVLINK_COUNT_RCV_ERRORS),
    ("rx_remote_errors", id::NVML_FI_DEV_NVLINK_COUNT_RCV_REMOTE_ERRORS),
    ("rx_general_errors", id::NVML_FI_DEV_NVLINK_COUNT_RCV_GENERAL_ERRORS),
    ("local_link_integrity_errors", id::NVML_FI_DEV_NVLINK_COUNT_LOCAL_LINK_INTEGRITY_ERRORS),
    ("tx_discards", id::NVML_FI_DEV_NVLINK_COUNT_XMIT_DISCARDS),
    ("link_recoveries_successful", id::NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_SUCCESSFUL_EVENTS),
    ("link_recoveries_failed", id::NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS),
    ("link_recoveries", id::NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_EVENTS),
    ("effective_errors", id::NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_ERRORS),
    ("symbol_errors", id::NVML_FI_DEV_NVLINK_COUNT_SYMBOL_ERRORS),
];

/// Of the same links, in the library's own floating point.
const RATIOS: [(&str, u32); 2] = [
    ("effective_bit_error_ratio", id::NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_BER),
    ("symbol_bit_error_ratio", id::NVML_FI_DEV_NVLINK_COUNT_SYMBOL_BER),
];

/// What is known of a link that does not change, and what of it could not be read.
#[derive(Clone)]
pub struct Fixed {
    members: String,
    missing: Vec<(String, Code)>,
    fifth: bool,
}

/// The links that the device has. None of them is known where asking fails.
pub fn find(device: &Device<'_>) -> Result<Vec<u32>, Code> {
    let mut found = Vec::new();
    for link in 0..MAX_LINKS {
        match device.nvlink_state(link) {
            Ok(_) => found.push(link),
            Err(Code::INVALID_ARGUMENT) => break,
            Err(code) if code.is_lack() => {}
            Err(code) => return Err(code),
        }
    }
    Ok(found)
}

pub fn read(device: &Device<'_>, links: &[u32], kept: &mut BTreeMap<u32, Fixed>, sheet: &mut Sheet) {
    let mut list = String::from("[");
    for link in links {
        let mut members = format!("\"link\":{link}");
        let mut missing: Vec<(String, Code)> = Vec::new();
        let mut put = |name: &str, value: Result<String, Code>| match value {
            Ok(value) => {
                let _ = write!(members, ",\"{name}\":{value}");
            }
            Err(code) => missing.push((name.to_owned(), code)),
        };
        let active = device.nvlink_state(*link).map(|state| state == 1);
        put("active", active.map(|active| active.to_string()));
        // 0 replay, 1 recovery, 2 CRC of flits, 3 CRC of data
        for (name, counter) in
            [("replay_errors", 0), ("recovery_errors", 1), ("crc_flit_errors", 2), ("crc_data_errors", 3)]
        {
            put(name, device.nvlink_errors(*link, counter).map(|n| n.to_string()));
        }
        let fixed = match kept.get(link) {
            Some(fixed) => fixed.clone(),
            None => {
                let fixed = fixed(device, *link);
                // What a link that is down leads to may be told when it is up.
                if active == Ok(true) && fixed.missing.iter().all(|(_, code)| code.is_lack()) {
                    kept.insert(*link, fixed.clone());
                }
                fixed
            }
        };
        let (packets, ratios): (&[_], &[_]) = if fixed.fifth { (&PACKETS, &RATIOS) } else { (&[], &[]) };
        let names = || COUNTED.iter().chain(packets).chain(ratios);
        let asked: Vec<Field> = names().map(|(_, field)| (*field, *link)).collect();
        let answers = device.fields(&asked).unwrap_or_else(|code| vec![Err(code); asked.len()]);
        for (place, ((name, _), answer)) in names().zip(answers).enumerate() {
            let is_ratio = place >= COUNTED.len() + packets.len();
            put(name, answer.map(|n| if is_ratio { ratio(n) } else { n.to_string() }));
        }
        members.push_str(&fixed.members);
        missing.extend(fixed.missing);
        let comma = if list.len() > 1 { "," } else { "" };
        let _ = write!(list, "{comma}{{{members}}}");
        sheet.notes_of(&format!("nvlinks.{link}"), &missing);
    }
    list.push(']');
    sheet.raw("nvlinks", &list);
}

fn fixed(device: &Device<'_>, link: u32) -> Fixed {
    let mut members = String::new();
    let mut missing = Vec::new();
    let number = device.nvlink_version(link);
    let remote = |number| {
        match number {
            0 => "gpu",
            1 => "ibmnpu",
            2 => "switch",
            _ => "unknown",
        }
        .to_owned()
    };
    for (name, value) in [
        ("version", number.map(version)),
        ("remote_type", device.nvlink_remote_type(link).map(remote)),
        ("remote_pci_bus_id", device.nvlink_remote_pci_bus_id(link)),
    ] {
        match value {
            Ok(value) => {
                let _ = write!(members, ",\"{name}\":{}", quoted(&value));
            }
            Err(code) => missing.push((name.to_owned(), code)),
        }
    }
    Fixed { members, missing, fifth: number.is_ok_and(|number| number >= FIFTH) }
}

fn version(number: u32) -> String {
    match number {
        1 => "1.0".to_owned(),
        2 => "2.0".to_owned(),
        3 => "2.2".to_owned(),
        4 => "3.0".to_owned(),
        5 => "3.1".to_owned(),
        6 => "4.0".to_owned(),
        FIFTH => "5.0".to_owned(),
        other => other.to_string(),
    }
}

/// A mantissa of four bits above an exponent of ten, counted downwards: 0x206 is 2e-6.
fn ratio(coded: u64) -> String {
    let part = |shift: u32, mask: u32| coded >> shift & u64::from(mask);
    let mantissa = part(sys::NVML_NVLINK_BER_MANTISSA_SHIFT, sys::NVML_NVLINK_BER_MANTISSA_WIDTH);
    let exponent = part(sys::NVML_NVLINK_BER_EXP_SHIFT, sys::NVML_NVLINK_BER_EXP_WIDTH);
    format!("{mantissa}e-{exponent}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bit_error_ratios() {
        for (coded, want) in
            [(0, 0.0), (0x206, 2e-6), (0xf0f, 15e-15), (0xffff_f1fe, 1e-254), (0x1ff, 1e-255)]
        {
            let value: serde_json::Value = serde_json::from_str(&ratio(coded)).unwrap();
            let value = value.as_f64().unwrap();
            assert!((value - want).abs() <= want * 1e-12, "{coded:#x}: {value:e}");
        }
    }
}
