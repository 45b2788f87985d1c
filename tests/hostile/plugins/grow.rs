//! Wants 10 GiB.
//!
//! must: stopped PKT-0063

use hostile::{Hostile, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        let mut held = Vec::new();
        for _ in 0..160 {
            held.push(std::hint::black_box(vec![1_u8; 64 << 20]));
        }
        hostile::value(held.len() as f64)
    }
}

plugin!(Plugin);
