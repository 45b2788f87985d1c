//! The operator's settings.

use picket_sdk::Failure;
use serde::Deserialize;

use crate::catalogue::SiteRow;

/// `[plugins.gpu.settings]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The labels `Hostname` and `hostname`; empty: the kernel's name of the node.
    pub hostname: String,
    /// How many GPUs there must be; none: as many as were seen.
    pub expected_gpus: Option<usize>,
    /// The plain `nvidia_gpu_*` families too.
    pub simple_view: bool,
    /// Counters of each NVLink, and not their sum alone.
    pub nvlink_per_link: bool,
    /// Memory by process, and which job, user and container a GPU belongs to.
    pub processes: bool,
    /// A state must be good for so long before its event ends.
    pub clear_after_seconds: u64,
    /// An error that asks for nothing but a restart of the application is over after so long without another.
    pub transient_after_seconds: u64,
    /// A GPU that processes hold and do not use.
    pub idle: Idle,
    /// Rows of the catalogue that are other here.
    pub xids: Vec<SiteRow>,
}

/// `[plugins.gpu.settings.idle]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Idle {
    /// Below so much utilization, in percent, it is not used.
    pub threshold_percent: f64,
    /// After so long of it there is an event; 0: never.
    pub after_minutes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hostname: String::new(),
            expected_gpus: None,
            simple_view: true,
            nvlink_per_link: true,
            processes: true,
            clear_after_seconds: 60,
            transient_after_seconds: 300,
            idle: Idle::default(),
            xids: Vec::new(),
        }
    }
}

impl Default for Idle {
    fn default() -> Self {
        Self { threshold_percent: 1.0, after_minutes: 30 }
    }
}

impl Settings {
    pub fn check(&self) -> Result<(), Failure> {
        let threshold = self.idle.threshold_percent;
        if !(0.0..=100.0).contains(&threshold) {
            let message = format!("idle.threshold_percent is {threshold}: 0 to 100 are allowed");
            return Err(Failure::new("settings", message));
        }
        Ok(())
    }
}
