//! `node_pressure_*_total`: pressure stall information of the whole machine.

use picket_sdk::files::FilesError;
use picket_sdk::{Collect, CounterFamily, Describe, Failure};

use crate::root::Root;
use crate::text::{lines, unsigned, words};

pub struct Pressure([Resource; 4]);

struct Resource {
    file: &'static str,
    /// `some`: at least one task waits.
    waiting: Option<CounterFamily>,
    /// `full`: all tasks wait.
    stalled: Option<CounterFamily>,
}

impl Pressure {
    pub fn new(d: &mut Describe) -> Self {
        let waiting = |d: &mut Describe, what: &str, help: &str| {
            Some(d.counter(
                &format!("node_pressure_{what}_waiting_seconds_total"),
                &format!("Total time in seconds that processes have waited {help}"),
            ))
        };
        let stalled = |d: &mut Describe, what: &str, help: &str| {
            Some(d.counter(
                &format!("node_pressure_{what}_stalled_seconds_total"),
                &format!("Total time in seconds no process could make progress due to {help} congestion"),
            ))
        };
        Self([
            Resource {
                file: "/proc/pressure/cpu",
                waiting: waiting(d, "cpu", "for CPU time"),
                stalled: None,
            },
            Resource {
                file: "/proc/pressure/io",
                waiting: waiting(d, "io", "due to IO congestion"),
                stalled: stalled(d, "io", "IO"),
            },
            Resource {
                file: "/proc/pressure/memory",
                waiting: waiting(d, "memory", "for memory"),
                stalled: stalled(d, "memory", "memory"),
            },
            Resource { file: "/proc/pressure/irq", waiting: None, stalled: stalled(d, "irq", "IRQ") },
        ])
    }

    pub fn collect(&mut self, root: &Root, c: &mut Collect<'_>) -> Result<(), Failure> {
        for resource in &self.0 {
            match root.read(resource.file) {
                Ok(text) => resource.set(&text, c),
                // Kernels before 4.20, those without CONFIG_PSI; `irq` since 6.1.
                Err(FilesError::NotFound(_)) => {}
                // Switched off (`psi=0`): EOPNOTSUPP.
                Err(FilesError::Io(text)) if text.contains("not supported") => return Ok(()),
                Err(error) => c.failed(error),
            }
        }
        Ok(())
    }
}

impl Resource {
    fn set(&self, text: &[u8], c: &mut Collect<'_>) {
        for (family, kind) in [(&self.waiting, b"some"), (&self.stalled, b"full")] {
            let Some(family) = family else { continue };
            let line = lines(text).find(|line| line.starts_with(kind));
            let total = line.and_then(|line| words(line).find_map(|w| w.strip_prefix(b"total=")));
            match total.and_then(unsigned) {
                Some(microseconds) => family.set_total(microseconds as f64 / 1000.0 / 1000.0),
                None => {
                    let kind = String::from_utf8_lossy(kind);
                    c.fail("parse", &format!("{}: no total of {kind:?}", self.file));
                }
            }
        }
    }
}
