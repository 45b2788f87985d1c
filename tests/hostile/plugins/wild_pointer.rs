//! Gives the host an address outside its memory to put an answer at.
//!
//! must: stopped PKT-0060

use hostile::{Hostile, allocator, plugin, random};

allocator!(Allocating, || Some(0xffff_fff0));

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
