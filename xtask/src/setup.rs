//! What must be on the machine before anything is built. What is missing is named in one line.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command;

/// The target that first-party plugins are built for.
pub const WASM_TARGET: &str = "wasm32-unknown-unknown";

/// Checks the compiler, a C compiler and linker, and the WASM target, which is added when it is missing.
pub fn check(root: &Path) -> Result<()> {
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    if command::output(Command::new(&compiler).arg("--version")).is_err() {
        bail!(
            "no C compiler ({}), which the linker and the crates ring and zstd need: install gcc and libc6-dev \
             (Debian: apt-get install gcc libc6-dev)",
            compiler.display()
        );
    }
    if !has_wasm_target(root)? {
        eprintln!("adding the Rust target {WASM_TARGET} (rustup target add {WASM_TARGET})");
        let added =
            command::run(Command::new("rustup").args(["target", "add", WASM_TARGET]).current_dir(root));
        if added.is_err() || !has_wasm_target(root)? {
            bail!(
                "the Rust target {WASM_TARGET} is missing and rustup could not add it: install rustup, or your \
                 distribution's package of that target"
            );
        }
    }
    Ok(())
}

fn has_wasm_target(root: &Path) -> Result<bool> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let asked = ["--print", "target-libdir", "--target", WASM_TARGET];
    let folder = command::output(Command::new(rustc).args(asked).current_dir(root))?;
    Ok(Path::new(folder.trim()).is_dir())
}
