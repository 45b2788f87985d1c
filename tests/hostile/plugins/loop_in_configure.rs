//! Never takes its settings.
//!
//! must: refused PKT-0061

use hostile::{Hostile, plugin, spin};

struct Plugin;

impl Hostile for Plugin {
    fn configure(_settings: &str) -> Result<(), String> {
        spin()
    }

    fn collect() -> Result<(), String> {
        Ok(())
    }
}

plugin!(Plugin);
