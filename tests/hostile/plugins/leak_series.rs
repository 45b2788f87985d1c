//! Registers a thousand new series on each call and retires none.
//!
//! must: counted refused

use std::sync::atomic::{AtomicU64, Ordering};

use hostile::{Hostile, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        let first = COUNT.fetch_add(1_000, Ordering::Relaxed);
        for number in first..first + 1_000 {
            hostile::register(0, &[("n", &number.to_string())])?;
        }
        hostile::value(1.0)
    }
}

plugin!(Plugin);

static COUNT: AtomicU64 = AtomicU64::new(0);
