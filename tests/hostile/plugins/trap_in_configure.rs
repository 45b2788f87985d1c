//! Traps in `configure`.
//!
//! must: refused PKT-0060

use hostile::{Hostile, plugin, trap};

struct Plugin;

impl Hostile for Plugin {
    fn configure(_settings: &str) -> Result<(), String> {
        trap()
    }

    fn collect() -> Result<(), String> {
        Ok(())
    }
}

plugin!(Plugin);
