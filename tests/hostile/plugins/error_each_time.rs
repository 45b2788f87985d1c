//! Fails on each call with a text of a megabyte, a terminal's escape sequence in it.
//!
//! must: counted refused

use hostile::{Hostile, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        Err(format!("\u{1b}[2J\u{1b}]0;owned\u{7}{}", "x".repeat(1 << 20)))
    }
}

plugin!(Plugin);
