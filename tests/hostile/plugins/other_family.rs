//! Writes into the family of the plugin beside it, with another type and with the same labels.
//!
//! must: goes-on
//! must: neighbour-kept

use hostile::{Hostile, MetricType, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        let theirs = hostile::declare(hostile::family("test_ticks", MetricType::Counter))?;
        let series = hostile::register(theirs, &[])?;
        hostile::push(&[(series, -1.0)])
    }
}

plugin!(Plugin);
