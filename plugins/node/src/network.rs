//! `node_network_*_total`: /proc/net/dev, which folds the kernel's detailed counters the way node_exporter does, and
//! `rx_nohandler`, which it leaves out.

use std::fmt::Write;

use picket_sdk::{Collect, CounterFamily, Describe, Failure};

use crate::filter::Filter;
use crate::root::Root;
use crate::settings;
use crate::text::{Malformed, lines, unsigned, utf8, words};

/// In the order of the file.
const COLUMNS: [&str; 16] = [
    "receive_bytes",
    "receive_packets",
    "receive_errs",
    "receive_drop",
    "receive_fifo",
    "receive_frame",
    "receive_compressed",
    "receive_multicast",
    "transmit_bytes",
    "transmit_packets",
    "transmit_errs",
    "transmit_drop",
    "transmit_fifo",
    "transmit_colls",
    "transmit_carrier",
    "transmit_compressed",
];

pub struct Network {
    columns: Vec<CounterFamily<1>>,
    no_handler: CounterFamily<1>,
    filter: Filter,
    path: String,
}

impl Network {
    pub fn new(d: &mut Describe) -> Self {
        let mut family = |key: &str| {
            d.counter(&format!("node_network_{key}_total"), &format!("Network device statistic {key}."))
                .labels(&["device"])
        };
        Self {
            columns: COLUMNS.iter().map(|key| family(key)).collect(),
            no_handler: family("receive_nohandler"),
            filter: Filter::default(),
            path: String::new(),
        }
    }

    pub fn configure(&mut self, s: &settings::NetDev) -> Result<(), Failure> {
        self.filter = Filter::new("netdev", &s.device_exclude, &s.device_include)?;
        Ok(())
    }

    pub fn collect(&mut self, root: &Root, c: &mut Collect<'_>) -> Result<(), Failure> {
        let text = root.read("/proc/net/dev")?;
        let mut malformed = Malformed::new("/proc/net/dev");
        // Two lines of headings.
        for line in lines(&text).skip(2) {
            let colon = line.iter().rposition(|b| *b == b':');
            let parts = colon.and_then(|at| line.split_at_checked(at));
            let name = parts.and_then(|(name, _)| utf8(name.trim_ascii())).filter(|n| !n.is_empty());
            let (Some(name), Some((_, values))) = (name, parts) else {
                malformed.add(line);
                continue;
            };
            if self.filter.ignores(name) {
                continue;
            }
            let mut values = words(values.strip_prefix(b":").unwrap_or(values));
            for family in &self.columns {
                let Some(value) = values.next().and_then(unsigned) else {
                    malformed.add(line);
                    break;
                };
                family.with(&[name]).set_total(value as f64);
            }
            self.path.clear();
            let _ = write!(self.path, "/sys/class/net/{name}/statistics/rx_nohandler");
            if let Some(value) = root.number(&self.path) {
                self.no_handler.with(&[name]).set_total(value as f64);
            }
        }
        malformed.report(c);
        Ok(())
    }
}
