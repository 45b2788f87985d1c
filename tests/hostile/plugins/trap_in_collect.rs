//! Traps in `collect`, after it pushed.
//!
//! must: exported hostile_value
//! must: stopped PKT-0060

use hostile::{Hostile, plugin, trap};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        trap()
    }
}

plugin!(Plugin);
