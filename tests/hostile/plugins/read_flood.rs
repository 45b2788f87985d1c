//! Reads a file again and again until somebody stops it.
//!
//! must: stopped PKT-0061 PKT-0062
//! grant: capability = "files", read = ["/proc/loadavg"]

use hostile::{Hostile, files, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        loop {
            let _ = files::read("/proc/loadavg");
        }
    }
}

plugin!(Plugin);
