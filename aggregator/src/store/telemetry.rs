//! The store's own metrics.

pub const SERIES: &str = "picket_aggregator_series";
pub const NODES: &str = "picket_aggregator_nodes";
pub const NODES_UP: &str = "picket_aggregator_nodes_up";
pub const RECLAIMED: &str = "picket_aggregator_series_reclaimed_total";
pub const CREATED: &str = "picket_aggregator_series_created_total";
pub const REFUSED: &str = "picket_aggregator_definitions_refused_total";
pub const REFUSED_SAMPLES: &str = "picket_aggregator_samples_refused_total";

/// Tells the recorder what they mean.
pub fn describe() {
    metrics::describe_gauge!(SERIES, "Live series of all nodes.");
    metrics::describe_gauge!(NODES, "Known nodes.");
    metrics::describe_gauge!(NODES_UP, "Nodes with a stream and fresh samples.");
    metrics::describe_counter!(RECLAIMED, "Stale series whose place was given back.");
    metrics::describe_counter!(CREATED, "Series registered that were not known before.");
    metrics::describe_counter!(REFUSED, "Families and series refused, by reason.");
    metrics::describe_counter!(REFUSED_SAMPLES, "Samples dropped because their series was refused.");
}
