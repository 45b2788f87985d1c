//! The rollouts' own metrics.

pub const PHASE: &str = "picket_rollout_phase";
pub const NODES: &str = "picket_rollout_nodes";
pub const STAGE: &str = "picket_rollout_stage";
pub const OFFERS: &str = "picket_rollout_offers_total";
pub const FAILURES: &str = "picket_rollout_failures_total";
pub const HALTS: &str = "picket_rollout_halts_total";
pub const PULLS: &str = "picket_rollout_pulls_total";
pub const SENT: &str = "picket_rollout_sent_bytes_total";

/// Tells the recorder what they mean.
pub fn describe() {
    metrics::describe_gauge!(PHASE, "1 for the phase of a plugin's newest rollout, 0 for the others.");
    metrics::describe_gauge!(NODES, "Nodes of a plugin's newest rollout, by state.");
    metrics::describe_gauge!(STAGE, "The stage of a plugin's newest rollout, from 1.");
    metrics::describe_counter!(OFFERS, "Offers of a new version to nodes, by plugin.");
    metrics::describe_counter!(FAILURES, "Nodes on which a new version failed or was refused, by plugin.");
    metrics::describe_counter!(HALTS, "Rollouts that failures or the policy halted, by plugin.");
    metrics::describe_counter!(PULLS, "Plugins pulled from registries, by result.");
    metrics::describe_counter!(SENT, "Bytes of plugins that nodes fetched.");
}
