//! Panics while it holds a lock that every later call needs.
//!
//! must: stopped PKT-0060

use std::sync::Mutex;

use hostile::{Hostile, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        let held = LOCK.lock().map_err(|_| "poisoned".to_owned())?;
        hostile::value(f64::from(*held))?;
        panic!("with the lock held");
    }
}

plugin!(Plugin);

static LOCK: Mutex<u8> = Mutex::new(1);
