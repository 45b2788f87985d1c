//! What must be on the machine before anything is built. What is missing is named in one line.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

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
    target(root, WASM_TARGET)
}

/// What links programs for another machine.
pub struct Linker {
    /// Where cargo is told of it.
    pub variable: String,
    /// What is said there already, else gcc by its name for that machine.
    pub program: OsString,
}

impl Linker {
    pub fn of(triple: &str) -> Self {
        let variable = format!("CARGO_TARGET_{}_LINKER", triple.to_uppercase().replace('-', "_"));
        let program = std::env::var_os(&variable)
            .unwrap_or_else(|| format!("{}-gcc", triple.replace("-unknown", "")).into());
        Self { variable, program }
    }
}

/// Checks what programs for another machine, Debian's `arch`, are built with: a C compiler that has its C library, and the Rust
/// target, which is added when it is missing.
pub fn check_foreign(root: &Path, triple: &str, arch: &str) -> Result<()> {
    let compiler = Linker::of(triple).program;
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let (source, program) = (folder.path().join("nothing.c"), folder.path().join("nothing"));
    std::fs::write(&source, "#include <stdlib.h>\nint main(void) { return EXIT_SUCCESS; }\n")?;
    if command::output(Command::new(&compiler).arg(&source).arg("-o").arg(program)).is_err() {
        bail!(
            "{} is missing, or the C library that it links with: install both for {arch} (Debian: apt-get install \
             gcc-{}-linux-gnu libc6-dev-{arch}-cross)",
            compiler.display(),
            triple.split('-').next().unwrap_or(triple).replace('_', "-"),
        );
    }
    target(root, triple)
}

/// Adds a Rust target where it is missing.
fn target(root: &Path, target: &str) -> Result<()> {
    if has_target(root, target)? {
        return Ok(());
    }
    eprintln!("adding the Rust target {target} (rustup target add {target})");
    let added = command::run(Command::new("rustup").args(["target", "add", target]).current_dir(root));
    if added.is_err() || !has_target(root, target)? {
        bail!(
            "the Rust target {target} is missing and rustup could not add it: install rustup, or your \
             distribution's package of that target"
        );
    }
    Ok(())
}

fn has_target(root: &Path, target: &str) -> Result<bool> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let asked = ["--print", "target-libdir", "--target", target];
    let folder = command::output(Command::new(rustc).args(asked).current_dir(root))?;
    Ok(Path::new(folder.trim()).is_dir())
}
