//! A hundred thousand reasons of failure, each a new one, with long texts.
//!
//! must: goes-on | stopped PKT-0061 PKT-0062

use hostile::{Hostile, plugin, sink};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        for number in 0..100_000 {
            sink::fail(&format!("reason-{number}\n\"}} 1"), &"z".repeat(5_000));
        }
        Ok(())
    }
}

plugin!(Plugin);
