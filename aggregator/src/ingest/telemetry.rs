//! The uplink's own metrics.

pub const STREAMS: &str = "picket_aggregator_streams";
pub const SAMPLES: &str = "picket_aggregator_samples_total";
pub const BATCHES: &str = "picket_aggregator_batches_total";
pub const DUPLICATES: &str = "picket_aggregator_batches_duplicate_total";
pub const EVENTS: &str = "picket_aggregator_events_received_total";
pub const EVENTS_DROPPED: &str = "picket_aggregator_events_dropped_total";
pub const ENDED: &str = "picket_aggregator_streams_ended_total";
pub const HELLOS: &str = "picket_aggregator_streams_greeted_total";
pub const STALLS: &str = "picket_aggregator_stream_stalls_total";

/// Tells the recorder what they mean.
pub fn describe() {
    metrics::describe_gauge!(STREAMS, "Open uplink streams.");
    metrics::describe_counter!(SAMPLES, "Samples accepted, each once.");
    metrics::describe_counter!(BATCHES, "Batches accepted, each once.");
    metrics::describe_counter!(DUPLICATES, "Batches that were accepted before and came again.");
    metrics::describe_counter!(EVENTS, "Events accepted.");
    metrics::describe_counter!(EVENTS_DROPPED, "Events beyond what one batch may carry.");
    metrics::describe_counter!(ENDED, "Streams that the aggregator ended, by reason.");
    metrics::describe_counter!(HELLOS, "Streams that said Hello.");
    metrics::describe_counter!(STALLS, "Times a stream stopped reading because the log was full.");
}
