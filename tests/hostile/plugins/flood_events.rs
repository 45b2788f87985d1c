//! Ten thousand events on each call, each of another condition, none ever cleared.
//!
//! must: counted refused

use hostile::{Hostile, clock, plugin, sink};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        for number in 0..10_000 {
            sink::emit(&[hostile::event(&format!("{number}-{}", clock::now()))])
                .map_err(|e| format!("{e:?}"))?;
        }
        Ok(())
    }
}

plugin!(Plugin);
