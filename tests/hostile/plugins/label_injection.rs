//! Label values with newlines, quotes and backslashes, and one that looks like a sample.
//!
//! must: goes-on
//! must: not-exported injected

use hostile::{Hostile, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        let values = ["a\"} 1\ninjected 2", "\\", "\\\"", "\n\n# EOF\n", "\u{0}", "\u{202e}\u{feff}", "}{=,"];
        for value in values {
            let series = hostile::register(0, &[("n", value)])?;
            hostile::push(&[(series, 1.0)])?;
        }
        Ok(())
    }
}

plugin!(Plugin);
