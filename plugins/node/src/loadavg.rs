//! `node_load*` of /proc/loadavg.

use picket_sdk::{Describe, Failure, GaugeFamily};

use crate::root::Root;
use crate::text::{decimal, words};

pub struct LoadAverage([GaugeFamily; 3]);

impl LoadAverage {
    pub fn new(d: &mut Describe) -> Self {
        Self([
            d.gauge("node_load1", "1m load average."),
            d.gauge("node_load5", "5m load average."),
            d.gauge("node_load15", "15m load average."),
        ])
    }

    pub fn collect(&mut self, root: &Root) -> Result<(), Failure> {
        let text = root.read("/proc/loadavg")?;
        let mut fields = words(&text);
        for gauge in &self.0 {
            let value = fields.next().and_then(decimal);
            gauge.set(
                value.ok_or_else(|| {
                    Failure::new("parse", "/proc/loadavg does not begin with three numbers")
                })?,
            );
        }
        Ok(())
    }
}
