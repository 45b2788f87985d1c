//! Asks for four gigabytes of random bytes.
//!
//! must: goes-on

use hostile::{Hostile, plugin, random};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        let bytes = random::bytes(u32::MAX);
        if bytes.len() > 4_096 { Err("they came".to_owned()) } else { Ok(()) }
    }
}

plugin!(Plugin);
