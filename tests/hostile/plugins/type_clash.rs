//! One name as two types.
//!
//! must: counted refused

use hostile::{Hostile, MetricType, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        hostile::declare(hostile::family("hostile_two", MetricType::Gauge))?;
        hostile::declare(hostile::family("hostile_two", MetricType::Histogram)).map(drop)
    }
}

plugin!(Plugin);
