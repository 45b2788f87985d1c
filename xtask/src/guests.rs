//! The plugins made for the end-to-end tests, built into `target/guests`: components without a manifest.

use std::path::Path;

use anyhow::{Context, Result};

use crate::{command, plugins, setup};

/// Builds all of `tests/guests`. A file is written only where it changed.
pub fn build(root: &Path) -> Result<()> {
    let workspace = root.join("tests/guests");
    let target = setup::WASM_TARGET;
    // Beside the first-party plugins, so that what both need is built once.
    let shared = root.join("plugins/target");
    let mut cargo = command::cargo(&workspace, &["build", "--release", "--target", target]);
    command::run(cargo.env("CARGO_TARGET_DIR", &shared))?;
    let built = shared.join(target).join("release");
    let out = root.join("target/guests");
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    for entry in std::fs::read_dir(&workspace)? {
        let folder = entry?.path();
        let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { continue };
        if !folder.join("Cargo.toml").is_file() {
            continue;
        }
        let module = built.join(format!("guest_{name}.wasm"));
        let bytes = std::fs::read(&module).with_context(|| format!("cannot read {}", module.display()))?;
        let component = plugins::componentize(&bytes, None)
            .with_context(|| format!("cannot make a component of {}", module.display()))?;
        plugins::replace(&out.join(format!("{name}.wasm")), &component)?;
    }
    Ok(())
}
