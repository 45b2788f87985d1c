//! Traps in `describe`.
//!
//! must: refused PKT-0060

use hostile::{Family, Hostile, plugin, trap};

struct Plugin;

impl Hostile for Plugin {
    fn describe() -> Vec<Family> {
        trap()
    }

    fn collect() -> Result<(), String> {
        Ok(())
    }
}

plugin!(Plugin);
