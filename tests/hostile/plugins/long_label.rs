//! A label of a megabyte.
//!
//! must: counted refused

use hostile::{Hostile, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        hostile::register(0, &[("long", &"x".repeat(1 << 20))]).map(drop)
    }
}

plugin!(Plugin);
