//! The log's own metrics.

pub const SYNCS: &str = "picket_aggregator_log_syncs_total";
pub const SYNC_SECONDS: &str = "picket_aggregator_log_sync_duration_seconds";
pub const WRITTEN: &str = "picket_aggregator_log_written_bytes_total";
pub const BATCHES: &str = "picket_aggregator_log_batches_total";
pub const ERRORS: &str = "picket_aggregator_log_errors_total";
pub const STALLED: &str = "picket_aggregator_log_stalled";
pub const BYTES: &str = "picket_aggregator_log_bytes";
pub const SEGMENTS: &str = "picket_aggregator_log_segments";
pub const DROPPED: &str = "picket_aggregator_log_segments_dropped_total";
pub const CORRUPT: &str = "picket_aggregator_log_corrupt_total";

/// Tells the recorder what they mean.
pub fn describe() {
    metrics::describe_counter!(SYNCS, "Groups of batches made durable.");
    metrics::describe_histogram!(SYNC_SECONDS, "Time to write and sync one group.");
    metrics::describe_counter!(WRITTEN, "Bytes written to the log.");
    metrics::describe_counter!(BATCHES, "Batches made durable.");
    metrics::describe_counter!(ERRORS, "Failed writes and syncs of the log; each is tried again.");
    metrics::describe_gauge!(STALLED, "1 while nothing can be made durable.");
    metrics::describe_gauge!(BYTES, "Bytes of all segments.");
    metrics::describe_gauge!(SEGMENTS, "Segments on disk.");
    metrics::describe_counter!(DROPPED, "Segments dropped at the bound, by reason.");
    metrics::describe_counter!(CORRUPT, "Damaged frames and torn tails found when reading.");
}
