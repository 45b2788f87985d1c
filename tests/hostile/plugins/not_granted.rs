//! Imports what it was not granted.
//!
//! must: refused PKT-0030

use hostile::{Hostile, files, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        let _ = files::read("/etc/passwd");
        Ok(())
    }
}

plugin!(Plugin);
