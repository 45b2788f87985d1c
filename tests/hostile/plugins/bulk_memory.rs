//! Spends its time inside single instructions: `memory.fill` and `memory.copy` of 16 MiB, again and again.
//!
//! must: stopped PKT-0061 PKT-0062

use hostile::{Hostile, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        let mut one = vec![0_u8; 16 << 20];
        let mut two = vec![0_u8; 16 << 20];
        let mut turn = 0_u8;
        loop {
            turn = turn.wrapping_add(1);
            std::hint::black_box(&mut one).fill(turn);
            std::hint::black_box(&mut two).copy_from_slice(std::hint::black_box(&one));
        }
    }
}

plugin!(Plugin);
