//! What NVLink 5 counts: DCGM's families, over all links of a GPU, and ours for each link, since DCGM tells links apart by
//! an entity and not by a label.

use picket_sdk::nvml::{Device, NvLink};
use picket_sdk::{CounterFamily, Describe, GaugeFamily};

use crate::families::{LABELS, Labels, number, sum};

type Read = fn(&NvLink) -> Option<f64>;

/// After `DCGM_FI_DEV_NVLINK_COUNT_`, the word of the label `error` where it is one, the help.
const COUNTED: [(&str, &str, &str, Read); 16] = [
    ("TX_PACKETS", "", "NVLink packets sent", |l| number(l.tx_packets)),
    ("TX_BYTES", "", "NVLink bytes sent", |l| number(l.tx_bytes)),
    ("RX_PACKETS", "", "NVLink packets received", |l| number(l.rx_packets)),
    ("RX_BYTES", "", "NVLink bytes received", |l| number(l.rx_bytes)),
    ("RX_MALFORMED_PACKET_ERRORS", "rx_malformed_packet", "NVLink packets received malformed", |l| {
        number(l.malformed_packet_errors)
    }),
    ("RX_BUFFER_OVERRUN_ERRORS", "rx_buffer_overrun", "NVLink packets dropped for want of room", |l| {
        number(l.buffer_overrun_errors)
    }),
    ("RX_ERRORS", "rx", "NVLink packets received with errors", |l| number(l.rx_errors)),
    ("RX_REMOTE_ERRORS", "rx_remote", "NVLink packets that the other end marked as bad", |l| {
        number(l.rx_remote_errors)
    }),
    ("RX_GENERAL_ERRORS", "rx_general", "NVLink packets with a header that does not fit", |l| {
        number(l.rx_general_errors)
    }),
    (
        "LOCAL_LINK_INTEGRITY_ERRORS",
        "local_link_integrity",
        "How often local errors of an NVLink were more than a threshold",
        |l| number(l.local_link_integrity_errors),
    ),
    ("TX_DISCARDS", "tx_discard", "NVLink packets that were not sent", |l| number(l.tx_discards)),
    ("LINK_RECOVERY_SUCCESSFUL_EVENTS", "", "NVLink recoveries after which the link was up", |l| {
        number(l.link_recoveries_successful)
    }),
    (
        "LINK_RECOVERY_FAILED_EVENTS",
        "link_recovery_failed",
        "NVLink recoveries after which the link was down",
        |l| number(l.link_recoveries_failed),
    ),
    ("LINK_RECOVERY_EVENTS", "link_recovery", "NVLink recoveries", |l| number(l.link_recoveries)),
    ("RX_SYMBOL_ERRORS", "rx_symbol", "NVLink symbols received with errors", |l| number(l.symbol_errors)),
    ("EFFECTIVE_ERRORS", "effective", "NVLink errors left after correction", |l| number(l.effective_errors)),
];

/// The families of NVLink 5.
pub struct Links {
    totals: Vec<CounterFamily<9>>,
    errors: CounterFamily<4>,
    ratio: GaugeFamily<4>,
}

impl Links {
    pub fn declare(d: &mut Describe) -> Self {
        let total = |(name, _, help, _): &(&str, &str, &str, Read)| {
            let name = format!("DCGM_FI_DEV_NVLINK_COUNT_{name}");
            d.counter(&name, &format!("{help}, over all links (NVLink 5).")).labels(&LABELS)
        };
        Self {
            totals: COUNTED.iter().map(total).collect(),
            errors: d
                .counter("picket_gpu_nvlink_errors_total", "Errors of an NVLink by kind (NVLink 5).")
                .labels(&["UUID", "gpu", "link", "error"]),
            ratio: d
                .gauge(
                    "picket_gpu_nvlink_bit_error_ratio",
                    "Errors a bit that an NVLink received: of symbols, and those left after correction (NVLink 5).",
                )
                .labels(&["UUID", "gpu", "link", "error"]),
        }
    }

    pub fn export(&self, device: &Device, labels: &Labels, host: &str, per_link: bool) {
        for (family, (.., read)) in self.totals.iter().zip(&COUNTED) {
            if let Some(value) = sum(device.nvlinks.iter().map(read)) {
                family.with(&labels.all(host)).set_total(value);
            }
        }
        for link in device.nvlinks.iter().filter(|_| per_link) {
            let number = link.link.to_string();
            let of = |error| [labels.uuid.as_str(), labels.gpu.as_str(), number.as_str(), error];
            for (_, error, _, read) in COUNTED.iter().filter(|(_, error, ..)| !error.is_empty()) {
                if let Some(value) = read(link) {
                    self.errors.with(&of(error)).set_total(value);
                }
            }
            for (error, ratio) in
                [("rx_symbol", link.symbol_bit_error_ratio), ("effective", link.effective_bit_error_ratio)]
            {
                if let Some(ratio) = ratio.filter(|r| r.is_finite()) {
                    self.ratio.with(&of(error)).set(ratio);
                }
            }
        }
    }
}
