//! Takes the case of every variant that stands for what this version doesn't know.
//!
//! must: counted refused

use hostile::{Hostile, MetricType, Part, SeriesDefinition, plugin, sink};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        let family =
            hostile::declare(hostile::family("hostile_other", MetricType::Other("x".repeat(100_000))))?;
        let definition =
            SeriesDefinition { family, part: Part::Other("x".repeat(100_000)), labels: Vec::new() };
        sink::register(&[definition]).map(drop).map_err(|e| format!("{e:?}").chars().take(100).collect())
    }
}

plugin!(Plugin);
