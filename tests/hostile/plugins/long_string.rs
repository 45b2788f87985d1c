//! Logs a line of 32 MiB that is really there.
//!
//! must: stopped PKT-0065

use hostile::{Hostile, log, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        log::write(&log::Level::Info, &"x".repeat(32 << 20));
        Ok(())
    }
}

plugin!(Plugin);
