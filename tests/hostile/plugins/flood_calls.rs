//! Asks the host for the time for ever: no time is spent in its own code.
//!
//! must: stopped PKT-0061 PKT-0062

use hostile::{Hostile, clock, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        loop {
            std::hint::black_box(clock::now());
        }
    }
}

plugin!(Plugin);
