//! The rest of /proc/stat: interrupts, context switches, forks, boot time, processes.

use picket_sdk::{Collect, CounterFamily, Describe, GaugeFamily};

use crate::settings;
use crate::text::{Malformed, lines, unsigned, words};

/// In the order of the `softirq` line, after the total.
const VECTORS: [&str; 10] =
    ["hi", "timer", "net_tx", "net_rx", "block", "block_iopoll", "tasklet", "sched", "hrtimer", "rcu"];

pub struct Stat {
    interrupts: CounterFamily,
    context_switches: CounterFamily,
    forks: CounterFamily,
    boot_time: GaugeFamily,
    running: GaugeFamily,
    blocked: GaugeFamily,
    softirqs: CounterFamily<1>,
    softirq: bool,
}

impl Stat {
    pub fn new(d: &mut Describe) -> Self {
        Self {
            interrupts: d.counter("node_intr_total", "Total number of interrupts serviced."),
            context_switches: d.counter("node_context_switches_total", "Total number of context switches."),
            forks: d.counter("node_forks_total", "Total number of forks."),
            boot_time: d.gauge("node_boot_time_seconds", "Node boot time, in unixtime."),
            running: d.gauge("node_procs_running", "Number of processes in runnable state."),
            blocked: d
                .gauge("node_procs_blocked", "Number of processes blocked waiting for I/O to complete."),
            softirqs: d.counter("node_softirqs_total", "Number of softirq calls.").labels(&["vector"]),
            softirq: false,
        }
    }

    pub fn configure(&mut self, settings: &settings::Stat) {
        self.softirq = settings.softirq;
    }

    /// Of the text of /proc/stat.
    pub fn collect(&mut self, text: &[u8], c: &mut Collect<'_>) {
        let mut malformed = Malformed::new("/proc/stat");
        for line in lines(text) {
            let mut fields = words(line);
            let (Some(key), Some(value)) = (fields.next(), fields.next()) else {
                malformed.add(line);
                continue;
            };
            let value = unsigned(value).map(|n| n as f64);
            let done = match key {
                b"intr" => value.map(|v| self.interrupts.set_total(v)),
                b"ctxt" => value.map(|v| self.context_switches.set_total(v)),
                b"processes" => value.map(|v| self.forks.set_total(v)),
                b"btime" => value.map(|v| self.boot_time.set(v)),
                b"procs_running" => value.map(|v| self.running.set(v)),
                b"procs_blocked" => value.map(|v| self.blocked.set(v)),
                b"softirq" if self.softirq => {
                    let counts: Option<Vec<u64>> = fields.take(VECTORS.len()).map(unsigned).collect();
                    counts.map(|counts| {
                        for (vector, count) in VECTORS.into_iter().zip(counts) {
                            self.softirqs.with(&[vector]).set_total(count as f64);
                        }
                    })
                }
                _ => Some(()),
            };
            if done.is_none() {
                malformed.add(line);
            }
        }
        malformed.report(c);
    }
}
