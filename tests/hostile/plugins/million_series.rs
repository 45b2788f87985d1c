//! A million series.
//!
//! must: counted refused

use hostile::{Hostile, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        for number in 0..1_000_000 {
            hostile::register(0, &[("n", &number.to_string())])?;
        }
        Ok(())
    }
}

plugin!(Plugin);
