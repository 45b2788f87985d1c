//! Samples of the year 584,556,019, of 1970, and of every moment between in the wrong order.
//!
//! must: goes-on

use hostile::{Hostile, TimedPoint, plugin, sink};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        let series = hostile::register(0, &[("n", "time")])?;
        for timestamp in [u64::MAX, 0, 1, u64::MAX / 2, 1 << 53, 5, 4] {
            // Refused one by one or taken: neither may disturb the others.
            let _ = sink::push_timed(&[TimedPoint { series, value: 1.0, timestamp }]);
        }
        Ok(())
    }
}

plugin!(Plugin);
