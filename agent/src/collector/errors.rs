//! `picket_source_errors_total`: what could not be read, counted by plugin and reason, told in the log at a bounded rate.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use picket_proto::model::PluginId;

use crate::clock::Clock;

/// The reasons that one plugin may have; a reason is a word of a list, not a text.
const MAX_REASONS: usize = 32;
const MAX_REASON: usize = 64;
/// One log line a plugin and reason in this time.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// The most of a plugin's message that the log shows.
const MAX_MESSAGE: usize = 1024;

pub struct SourceErrors {
    clock: Arc<dyn Clock>,
    counts: Mutex<BTreeMap<PluginId, BTreeMap<String, Count>>>,
}

#[derive(Default)]
struct Count {
    total: u64,
    logged: Option<(Duration, u64)>,
}

impl SourceErrors {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, counts: Mutex::default() }
    }

    /// Counts one; `message` is called where a log line is due.
    pub fn count(&self, plugin: &PluginId, reason: &str, message: impl FnOnce() -> String) {
        let reason = word(reason);
        let now = self.clock.monotonic();
        let unsaid = {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            let reasons = counts.entry(plugin.clone()).or_default();
            let known = reasons.contains_key(&reason) || reasons.len() < MAX_REASONS;
            let count = reasons.entry(if known { reason.clone() } else { "other".to_owned() }).or_default();
            count.total += 1;
            match count.logged {
                Some((at, _)) if now.saturating_sub(at) < LOG_EVERY => None,
                last => {
                    let unsaid = count.total - 1 - last.map_or(0, |(_, total)| total);
                    count.logged = Some((now, count.total));
                    Some(unsaid)
                }
            }
        };
        if let Some(unsaid) = unsaid {
            let message: String =
                message().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE).collect();
            tracing::warn!(%plugin, reason, unsaid, "{message}");
        }
    }

    /// Plugin, reason, total.
    pub fn totals(&self) -> Vec<(PluginId, String, u64)> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts
            .iter()
            .flat_map(|(plugin, reasons)| {
                reasons.iter().map(|(reason, count)| (plugin.clone(), reason.clone(), count.total))
            })
            .collect()
    }
}

/// A plugin's reason as a short word; what is no word becomes `_`.
fn word(reason: &str) -> String {
    if reason.is_empty() {
        return "unspecified".to_owned();
    }
    reason
        .chars()
        .take(MAX_REASON)
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' })
        .collect()
}
