//! Ten thousand labels on one series.
//!
//! must: counted refused

use hostile::{Hostile, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        let names: Vec<String> = (0..10_000).map(|n| format!("l{n}")).collect();
        let labels: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "x")).collect();
        hostile::register(0, &labels).map(drop)
    }
}

plugin!(Plugin);
