//! Asks for what it was not granted, by every detour it knows.
//!
//! must: counted refused
//! must: not-exported escaped
//! grant: capability = "files", read = ["/proc/loadavg"]

use hostile::{Hostile, files, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        let detours = [
            "/etc/passwd",
            "/proc/../etc/passwd",
            "/proc/self/root/etc/passwd",
            "/proc/self/cwd",
            "/proc/thread-self/root/etc/passwd",
            "//etc/passwd",
            "/proc/./../etc/passwd",
            "proc/loadavg",
            "/proc/self/environ",
            "/proc/self/fd/0",
            "/proc/1/environ",
            "/proc/loadavg/../self/environ",
            "/proc/loadavg\u{0}/x",
        ];
        for path in detours {
            if files::read(path).is_ok() {
                // The test looks for this name.
                hostile::declare(hostile::family("escaped", hostile::MetricType::Gauge))?;
                let series = hostile::register(1, &[])?;
                hostile::push(&[(series, 1.0)])?;
            }
        }
        Err("every detour was refused".to_owned())
    }
}

plugin!(Plugin);
