//! Never returns.
//!
//! must: exported hostile_value
//! must: stopped PKT-0061

use hostile::{Hostile, plugin, spin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        spin()
    }
}

plugin!(Plugin);
