//! The same series twice, in one push.
//!
//! must: counted refused

use hostile::{Hostile, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        let series = hostile::register(0, &[])?;
        hostile::push(&[(series, 1.0), (series, 2.0)])
    }
}

plugin!(Plugin);
