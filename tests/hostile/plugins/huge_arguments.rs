//! Asks for a file whose path has 16 MiB.
//!
//! must: stopped PKT-0065
//! grant: capability = "files", read = ["/proc/loadavg"]

use hostile::{Hostile, files, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        let _ = files::read(&format!("/proc/{}", "x/".repeat(8 << 20)));
        Ok(())
    }
}

plugin!(Plugin);
