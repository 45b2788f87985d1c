//! A million samples in one collect, in chunks of a thousand.
//!
//! must: counted refused

use hostile::{Hostile, TimedPoint, plugin, sink};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        let series = hostile::register(0, &[])?;
        for chunk in 0..1_000_u64 {
            let points: Vec<TimedPoint> = (0..1_000)
                .map(|n| TimedPoint { series, value: 1.0, timestamp: 1 + chunk * 1_000 + n })
                .collect();
            sink::push_timed(&points).map_err(|e| format!("{e:?}"))?;
        }
        Ok(())
    }
}

plugin!(Plugin);
