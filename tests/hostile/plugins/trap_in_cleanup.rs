//! Traps after it has answered: when the host hands it back its own error's text to free.
//!
//! must: stopped PKT-0060

use hostile::{Hostile, allocator, plugin, trap};

allocator!(Freeing, || trap());

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        let text = "an error whose text is freed once it was read".to_owned();
        hostile::arm();
        Err(text)
    }
}

plugin!(Plugin);
