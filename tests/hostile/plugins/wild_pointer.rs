//! Gives the host an address outside its memory to put an answer at.
//!
//! must: stopped PKT-0060

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};

use hostile::{Hostile, plugin, random};

/// While set, memory is given out that isn't there.
static ARMED: AtomicBool = AtomicBool::new(false);

struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if ARMED.swap(false, Ordering::Relaxed) {
            return 0xffff_fff0 as *mut u8;
        }
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        ARMED.store(true, Ordering::Relaxed);
        std::hint::black_box(random::bytes(64));
        Ok(())
    }
}

plugin!(Plugin);
