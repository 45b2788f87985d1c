//! A counter that goes back on each call.
//!
//! must: goes-on

use std::sync::atomic::{AtomicI64, Ordering};

use hostile::{Hostile, MetricType, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        let down = COUNT.fetch_sub(1_000, Ordering::Relaxed);
        let counter = hostile::declare(hostile::family("hostile_back_total", MetricType::Counter))?;
        let series = hostile::register(counter, &[])?;
        hostile::push(&[(series, down as f64)])
    }
}

plugin!(Plugin);

static COUNT: AtomicI64 = AtomicI64::new(1_000_000);
