//! Is well and traps in turn, so that it never seems quite broken.
//!
//! must: stopped PKT-0060
//! grant: capability = "store", bytes = 65536

use hostile::{Hostile, plugin, store, trap};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        let count = store::get("count").map_err(|e| format!("{e:?}"))?.map_or(0, |bytes| bytes.len());
        store::set("count", &vec![0; (count + 1) % 1_000], None).map_err(|e| format!("{e:?}"))?;
        if count % 2 == 0 { Ok(()) } else { trap() }
    }
}

plugin!(Plugin);
