//! Calls the host from inside the host's own call: where the host asks it for memory to put an answer in.
//!
//! must: stopped PKT-0060

use hostile::{Hostile, allocator, clock, plugin, random};

allocator!(Allocating, || {
    std::hint::black_box(clock::now());
    None
});

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        hostile::arm();
        std::hint::black_box(random::bytes(64));
        Ok(())
    }
}

plugin!(Plugin);
