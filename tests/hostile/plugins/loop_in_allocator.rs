//! Never gives the host the memory that it asks for.
//!
//! must: stopped PKT-0061

use hostile::{Hostile, allocator, plugin, random, spin};

allocator!(Allocating, || spin());

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
