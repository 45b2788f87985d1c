//! Traps before it can be configured.

wit_bindgen::generate!({
    path: "../../../../../wit",
    world: "picket:source/source-plugin",
    generate_all,
});

use exports::picket::source::source::{Description, Guest, SourceError};

struct Early;

impl Guest for Early {
    fn describe() -> Description {
        core::arch::wasm32::unreachable()
    }

    fn configure(_: String) -> Result<(), SourceError> {
        Ok(())
    }

    fn collect() -> Result<(), SourceError> {
        Ok(())
    }
}

export!(Early);
