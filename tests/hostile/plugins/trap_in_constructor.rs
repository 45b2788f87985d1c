//! Traps before its first call: in what runs when an instance is made or entered for the first time.
//!
//! must: refused PKT-0060

use hostile::{Hostile, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)
    }
}

plugin!(Plugin);

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

extern "C" fn constructor() {
    hostile::trap();
}
