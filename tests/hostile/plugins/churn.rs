//! Registers and retires series as fast as it can.
//!
//! must: counted refused

use hostile::{Hostile, plugin, sink};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        for number in 0..u64::MAX {
            let series = hostile::register(0, &[("n", &number.to_string())])?;
            sink::retire(&[series]).map_err(|e| format!("{e:?}"))?;
        }
        Ok(())
    }
}

plugin!(Plugin);
