//! The log store's own metrics.

pub const LINES: &str = "picket_aggregator_log_lines_total";
pub const BYTES: &str = "picket_aggregator_log_line_bytes_total";
pub const DROPPED: &str = "picket_aggregator_log_lines_dropped_total";
pub const TRUNCATED: &str = "picket_aggregator_log_lines_truncated_total";
pub const METADATA: &str = "picket_aggregator_log_metadata_dropped_total";
pub const STREAMS: &str = "picket_aggregator_log_streams";
pub const STORE_BYTES: &str = "picket_aggregator_log_store_bytes";
pub const SEGMENTS: &str = "picket_aggregator_log_store_segments";
pub const OLDEST: &str = "picket_aggregator_log_store_oldest_timestamp_seconds";
pub const STALLED: &str = "picket_aggregator_log_store_stalled";
pub const ERRORS: &str = "picket_aggregator_log_store_errors_total";
pub const CORRUPT: &str = "picket_aggregator_log_store_corrupt_total";
pub const QUERIES: &str = "picket_aggregator_log_query_duration_seconds";
pub const SCANNED: &str = "picket_aggregator_log_query_scanned_bytes_total";
pub const TAILS: &str = "picket_aggregator_log_tails";
pub const FORWARDED: &str = "picket_aggregator_log_forwarded_lines_total";
pub const FORWARD_ERRORS: &str = "picket_aggregator_log_forward_errors_total";
pub const FORWARD_SKIPPED: &str = "picket_aggregator_log_forward_skipped_total";

/// Tells the recorder what they mean.
pub fn describe() {
    metrics::describe_counter!(LINES, "Log lines taken, each once, by the way they came: agent or push.");
    metrics::describe_counter!(BYTES, "Bytes of the log lines taken.");
    metrics::describe_counter!(
        DROPPED,
        "Log lines that are not kept, by reason; retention (size, age) drops lines that were kept."
    );
    metrics::describe_counter!(TRUNCATED, "Log lines that were cut to the longest that is kept.");
    metrics::describe_counter!(METADATA, "Pairs of structured metadata in pushes; they are not kept.");
    metrics::describe_gauge!(STREAMS, "Log streams (label sets) that had lines of late.");
    metrics::describe_gauge!(STORE_BYTES, "Bytes of the log store on disk.");
    metrics::describe_gauge!(SEGMENTS, "Segments of the log store on disk.");
    metrics::describe_gauge!(OLDEST, "When the oldest line that is kept was said, Unix time.");
    metrics::describe_gauge!(STALLED, "1 while no log lines can be made durable.");
    metrics::describe_counter!(ERRORS, "Failed writes of the log store; each is tried again.");
    metrics::describe_counter!(CORRUPT, "Damaged parts of the log store that were skipped.");
    metrics::describe_histogram!(QUERIES, "Time of a log query, by kind.");
    metrics::describe_counter!(SCANNED, "Bytes of log lines that queries looked at.");
    metrics::describe_gauge!(TAILS, "Open live tails.");
    metrics::describe_counter!(FORWARDED, "Log lines that the other Loki has taken.");
    metrics::describe_counter!(FORWARD_ERRORS, "Failed forwards, by reason; each is tried again.");
    metrics::describe_counter!(
        FORWARD_SKIPPED,
        "Log lines that were not forwarded, by reason: the other Loki refused them, or retention was faster."
    );
}
