//! Keeps what it is given and asks for more: fills its store.
//!
//! must: counted refused
//! grant: capability = "store", bytes = 1048576

use std::sync::atomic::{AtomicU64, Ordering};

use hostile::{Hostile, plugin, store};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        let first = COUNT.fetch_add(100, Ordering::Relaxed);
        for number in first..first + 100 {
            store::set(&number.to_string(), &[7; 4096], None).map_err(|e| format!("{e:?}"))?;
        }
        Ok(())
    }
}

plugin!(Plugin);

static COUNT: AtomicU64 = AtomicU64::new(0);
