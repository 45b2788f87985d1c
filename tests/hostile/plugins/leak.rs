//! Forgets 8 MiB on each call and seems well until there is no more.
//!
//! must: stopped PKT-0063

use hostile::{Hostile, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        std::mem::forget(std::hint::black_box(vec![1_u8; 8 << 20]));
        Ok(())
    }
}

plugin!(Plugin);
