//! Never says what it is.
//!
//! must: refused PKT-0061

use hostile::{Family, Hostile, plugin, spin};

struct Plugin;

impl Hostile for Plugin {
    fn describe() -> Vec<Family> {
        spin()
    }

    fn collect() -> Result<(), String> {
        Ok(())
    }
}

plugin!(Plugin);
