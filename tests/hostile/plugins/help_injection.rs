//! A help text and a unit that end the line and begin another.
//!
//! must: goes-on
//! must: not-exported injected

use hostile::{Family, Hostile, MetricType, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn describe() -> Vec<Family> {
        let mut family = hostile::family("hostile_value", MetricType::Gauge);
        family.help = "nothing\ninjected 1\n# TYPE injected counter\r\ninjected 2".to_owned();
        vec![family]
    }

    fn collect() -> Result<(), String> {
        hostile::value(1.0)
    }
}

plugin!(Plugin);
