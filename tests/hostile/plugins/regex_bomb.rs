//! Matches `(a+)+b` by backtracking against a text without a `b`: two to the power of its length.
//!
//! must: stopped PKT-0061

use hostile::{Hostile, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        let text = [b'a'; 64];
        hostile::value(f64::from(matches(std::hint::black_box(&text))))
    }
}

plugin!(Plugin);

/// Every way to cut the text into groups of one or more, until one is followed by a `b`.
fn matches(text: &[u8]) -> bool {
    (1..=text.len()).any(|group| {
        let (taken, rest) = text.split_at(group);
        taken.iter().all(|byte| *byte == b'a') && (rest.first() == Some(&b'b') || matches(rest))
    })
}
