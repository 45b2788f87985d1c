//! Pushes to numbers that it was never given, another plugin's among them.
//!
//! must: counted refused

use hostile::{Hostile, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        for number in 0..4_096 {
            let _ = hostile::push(&[(number, 1e308)]);
        }
        hostile::push(&[(u32::MAX, 1.0)])
    }
}

plugin!(Plugin);
