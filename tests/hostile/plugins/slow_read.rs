//! Reads a pipe that nobody writes to.
//!
//! must: counted refused
//! argument: {folder}/pipe
//! grant: capability = "files", read = ["{folder}/**"]

use hostile::{Hostile, files, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        files::read(&hostile::argument()).map(drop).map_err(|e| format!("{e:?}"))
    }
}

plugin!(Plugin);
