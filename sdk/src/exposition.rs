//! Prometheus text 0.0.4 and OpenMetrics 1.0: reading a page, and passing it on.
//!
//! [`Passthrough`] hands another exporter's page to the host unchanged: names, types, help, labels, every bucket,
//! timestamps. It is made for pages of thousands of lines every few seconds: a line whose series stood on the last
//! page is recognised by its bytes alone (mostly at the place where it is expected, else by a hash), so that only its
//! value is read; nothing is allocated for it. Everything dear (unescaping, relabelling, finding the series) happens
//! once a series.
//!
//! A page is foreign: whatever is in it, the good lines are passed on, the bad ones are counted by reason and said
//! once a page, and nothing panics. What a page no longer has is retired at the end of the collect.
//!
//! ```
//! # use picket_sdk::{Collect, Failure, exposition::{self, Passthrough}, http};
//! # fn collect(pass: &mut Passthrough, collect: &mut Collect<'_>) -> Result<(), Failure> {
//! let answer = http::send(&http::Request::get("http://127.0.0.1:9100/metrics").header("Accept", exposition::ACCEPT))?;
//! let stats = pass.page(collect, answer.success()?, &[("container", "vllm-0")])?;
//! # let _ = stats.samples; Ok(()) }
//! ```

mod bytes;
mod known;
mod line;
mod number;
mod page;
mod relabel;
mod types;

pub use line::{LineError, Sample, samples};
pub use page::{Alias, Options, PageStats, Passthrough, Watch};
pub use relabel::{Action, Relabel, RelabelError};

/// The `Accept` header to ask for a page with: the plain format first, since nothing is gained by the other.
pub const ACCEPT: &str =
    "text/plain;version=0.0.4,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1";
