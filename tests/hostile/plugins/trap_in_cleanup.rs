//! Traps after it has answered: when the host hands it back its own error's text to free.
//!
//! must: stopped PKT-0060

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};

use hostile::{Hostile, plugin, trap};

/// While set, freeing traps.
static ARMED: AtomicBool = AtomicBool::new(false);

struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if ARMED.load(Ordering::Relaxed) {
            trap();
        }
        unsafe { System.dealloc(at, layout) }
    }
}

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        let text = "an error whose text is freed once it was read".to_owned();
        ARMED.store(true, Ordering::Relaxed);
        Err(text)
    }
}

plugin!(Plugin);
