//! NaN and both infinities.
//!
//! must: goes-on
//! must: counted nan

use hostile::{Hostile, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        let all = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        for (number, value) in all.into_iter().enumerate() {
            let series = hostile::register(0, &[("n", &number.to_string())])?;
            hostile::push(&[(series, value)])?;
        }
        Ok(())
    }
}

plugin!(Plugin);
