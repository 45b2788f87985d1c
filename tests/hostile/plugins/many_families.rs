//! A hundred thousand families.
//!
//! must: counted refused

use hostile::{Hostile, MetricType, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        for number in 0..100_000 {
            hostile::declare(hostile::family(&format!("hostile_f{number}"), MetricType::Gauge))?;
        }
        Ok(())
    }
}

plugin!(Plugin);
