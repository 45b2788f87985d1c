//! What a plugin may use up. The node's limits hold; a manifest may ask for less, never for more.

use std::time::Duration;

pub use picket_artifact::AskedLimits;
use picket_artifact::units::{bytes, duration};
use serde::{Deserialize, Serialize};

/// The limits of one plugin, as `[plugins.NAME.limits]` gives them. Sizes are bytes or `"64MiB"`, times `"250ms"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Linear memory, in bytes. Growth past it ends the instance.
    #[serde(with = "bytes")]
    pub memory: u64,
    /// CPU time of one call into the plugin.
    #[serde(with = "duration")]
    pub guest_time: Duration,
    /// Time of one call in all, waiting for files and the network included.
    #[serde(with = "duration")]
    pub call_time: Duration,
    /// Samples of one collect.
    pub samples: u32,
    /// Series that are registered at a time.
    pub series: u32,
    /// Families, described and declared.
    pub families: u32,
    /// Names and values of one series' labels together, in bytes.
    pub label_bytes: u32,
    /// What the host copies out of the plugin in one host call, in bytes.
    #[serde(with = "bytes")]
    pub hostcall_bytes: u64,
    /// Events of one collect.
    pub events: u32,
    /// Log lines a second.
    pub log_rate: u32,
    /// How many times a failed instance is replaced before the plugin is quarantined.
    pub restarts: u32,
    /// The wait before the first replacement; doubled with each, up to a minute.
    #[serde(with = "duration")]
    pub back_off: Duration,
    /// After this long without a failure the restarts are forgotten.
    #[serde(with = "duration")]
    pub healthy_after: Duration,
    /// Collects after which a healthy instance is replaced by a fresh one; 0: never.
    pub recycle_after: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            guest_time: Duration::from_secs(1),
            call_time: Duration::from_secs(10),
            samples: 50_000,
            series: 20_000,
            families: 2_000,
            label_bytes: 8_192,
            hostcall_bytes: 8 << 20,
            events: 256,
            log_rate: 10,
            restarts: 3,
            back_off: Duration::from_secs(1),
            healthy_after: Duration::from_secs(600),
            recycle_after: 10_000,
        }
    }
}

impl Limits {
    /// These limits, or the smaller ones that the plugin asks for.
    #[must_use]
    pub fn clamp(&self, asked: &AskedLimits) -> Self {
        fn least<T: Ord + Copy>(node: T, asked: Option<T>) -> T {
            asked.map_or(node, |a| a.min(node))
        }
        Self {
            memory: least(self.memory, asked.memory),
            guest_time: least(self.guest_time, asked.guest_time),
            call_time: least(self.call_time, asked.call_time),
            samples: least(self.samples, asked.samples),
            series: least(self.series, asked.series),
            families: least(self.families, asked.families),
            events: least(self.events, asked.events),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_lowers_and_never_raises() {
        let node = Limits::default();
        let asked: AskedLimits =
            toml::from_str("memory = \"1GiB\"\nguest_time = \"10ms\"\nsamples = 5").unwrap();
        let limits = node.clamp(&asked);
        assert_eq!(limits.memory, node.memory);
        assert_eq!(limits.guest_time, Duration::from_millis(10));
        assert_eq!(limits.samples, 5);
        assert!(toml::from_str::<AskedLimits>("restarts = 5").is_err());
    }

    #[test]
    fn written_as_operators_write_them() {
        let limits: Limits =
            toml::from_str("memory = \"32MiB\"\ncall_time = \"2s\"\nhostcall_bytes = 1000").unwrap();
        assert_eq!((limits.memory, limits.hostcall_bytes), (32 << 20, 1000));
        assert_eq!(limits.call_time, Duration::from_secs(2));
        assert!(toml::from_str::<Limits>("memroy = 1").is_err());
        let text = toml::to_string(&limits).unwrap();
        assert_eq!(toml::from_str::<Limits>(&text).unwrap(), limits);
    }
}
