//! The same, in what it describes.
//!
//! must: refused PKT-0067

use hostile::{Family, Hostile, MetricType, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn describe() -> Vec<Family> {
        vec![hostile::family("hostile_x 1\ninjected", MetricType::Gauge)]
    }

    fn collect() -> Result<(), String> {
        Ok(())
    }
}

plugin!(Plugin);
