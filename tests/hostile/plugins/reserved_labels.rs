//! Gives itself the labels that are not its to give.
//!
//! must: counted refused

use hostile::{Hostile, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        hostile::register(0, &[("__name__", "up"), ("instance", "another-node")]).map(drop)
    }
}

plugin!(Plugin);
