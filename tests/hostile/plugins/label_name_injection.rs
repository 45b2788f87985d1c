//! A label name that closes the braces.
//!
//! must: counted refused
//! must: not-exported injected

use hostile::{Hostile, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        hostile::register(0, &[("a=\"b\"} 1\ninjected", "x")]).map(drop)
    }
}

plugin!(Plugin);
