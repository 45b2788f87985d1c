//! Calls itself without end.
//!
//! must: stopped PKT-0064 PKT-0060

use hostile::{Hostile, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(deeper(u64::MAX) as f64)
    }
}

plugin!(Plugin);

#[inline(never)]
fn deeper(depth: u64) -> u64 {
    let page = std::hint::black_box([depth; 64]);
    if depth == 0 { 0 } else { deeper(std::hint::black_box(depth - 1)).wrapping_add(page[7]) }
}
