//! A million samples in one call.
//!
//! must: stopped PKT-0065

use hostile::{Hostile, Point, plugin, sink};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        let series = hostile::register(0, &[])?;
        sink::push(&vec![Point { series, value: 1.0 }; 1_000_000]).map_err(|e| format!("{e:?}"))
    }
}

plugin!(Plugin);
