//! Waits until its time is over, in calls that are short, and then goes on as if nothing were.
//!
//! must: stopped PKT-0062 PKT-0061
//! grant: capability = "files", read = ["/proc/loadavg"]

use hostile::{Hostile, clock, files, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        let begin = clock::monotonic();
        while clock::monotonic() - begin < 3_000_000_000 {
            let _ = files::read("/proc/loadavg");
        }
        hostile::value(1.0)
    }
}

plugin!(Plugin);
