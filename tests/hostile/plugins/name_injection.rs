//! A family whose name ends the line and begins another.
//!
//! must: counted refused
//! must: not-exported injected

use hostile::{Hostile, MetricType, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        let family = hostile::family("hostile_x 1\ninjected", MetricType::Gauge);
        let number = hostile::declare(family)?;
        let series = hostile::register(number, &[])?;
        hostile::push(&[(series, 1.0)])
    }
}

plugin!(Plugin);
