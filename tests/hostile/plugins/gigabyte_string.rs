//! Says of a string that it is a gigabyte long.
//!
//! must: stopped PKT-0065 PKT-0060

use hostile::{Hostile, log, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        // Not one byte of it is there: the host must not believe the length.
        #[allow(unsafe_code)]
        let text =
            unsafe { std::str::from_utf8_unchecked(std::slice::from_raw_parts(16 as *const u8, 1 << 30)) };
        log::write(&log::Level::Info, std::hint::black_box(text));
        Ok(())
    }
}

plugin!(Plugin);
