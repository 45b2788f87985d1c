//! Sends JSON that is nested a hundred thousand deep, where text is passed on.
//!
//! must: goes-on

use hostile::{Hostile, log, plugin, sink};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        let mut event = hostile::event("deep");
        event.message = "[".repeat(100_000);
        sink::emit(&[event]).map_err(|e| format!("{e:?}"))?;
        log::write(&log::Level::Info, &"{\"a\":".repeat(20_000));
        Ok(())
    }
}

plugin!(Plugin);
