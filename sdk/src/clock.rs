//! The node's clocks.

use std::time::Duration;

use crate::sys;

/// Time since the Unix epoch.
pub fn now() -> Duration {
    Duration::from_nanos(sys::now())
}

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    sys::now() / 1_000_000
}

/// Time since some fixed point; never goes back.
pub fn monotonic() -> Duration {
    Duration::from_nanos(sys::monotonic())
}
