//! Drains the node's randomness.
//!
//! must: stopped PKT-0061 PKT-0062

use hostile::{Hostile, plugin, random};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        loop {
            std::hint::black_box(random::bytes(4_096));
        }
    }
}

plugin!(Plugin);
