//! Refuses whatever settings it is given, with a text of a megabyte.
//!
//! must: refused PKT-0068

use hostile::{Hostile, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn configure(_settings: &str) -> Result<(), String> {
        Err("no ".repeat(350_000))
    }

    fn collect() -> Result<(), String> {
        Ok(())
    }
}

plugin!(Plugin);
