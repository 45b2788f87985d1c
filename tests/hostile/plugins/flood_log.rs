//! A hundred thousand log lines, each with a line in it that looks like the agent's own.
//!
//! must: stopped PKT-0061 PKT-0062 | goes-on

use hostile::{Hostile, log, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        for number in 0..100_000 {
            log::write(&log::Level::Error, &format!("{number}\nERROR picket_agent: the disk is on fire"));
        }
        Ok(())
    }
}

plugin!(Plugin);
