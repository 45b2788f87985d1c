//! The plugins made for the end-to-end tests, built into `target/guests` and `target/hostile`: components without a
//! manifest.

use std::path::Path;

use anyhow::{Context, Result};

use crate::{build, command, plugins, setup};

/// Builds all of `tests/guests`. A file is written only where it changed.
pub fn build(root: &Path) -> Result<()> {
    let workspace = root.join("tests/guests");
    let target = setup::WASM_TARGET;
    let shared = plugins::folder(root);
    let mut cargo = command::cargo(&workspace, &["build", "--release", "--target", target]);
    command::run(cargo.env("CARGO_TARGET_DIR", &shared))?;
    let built = shared.join(target).join("release");
    let out = build::target(root)?.join("guests");
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

/// Builds all of `tests/hostile`: a component of each file in `plugins/`, Rust or WebAssembly text.
pub fn build_hostile(root: &Path) -> Result<()> {
    let workspace = root.join("tests/hostile");
    let target = setup::WASM_TARGET;
    let shared = plugins::folder(root);
    let mut cargo = command::cargo(&workspace, &["build", "--release", "--examples", "--target", target]);
    command::run(cargo.env("CARGO_TARGET_DIR", &shared))?;
    let built = shared.join(target).join("release/examples");
    let out = build::target(root)?.join("hostile");
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    for entry in std::fs::read_dir(workspace.join("plugins"))? {
        let source = entry?.path();
        let Some(name) = source.file_stem().and_then(|name| name.to_str()) else { continue };
        let component = if source.extension().is_some_and(|kind| kind == "wat") {
            wat::parse_file(&source)?
        } else {
            let module = built.join(format!("{name}.wasm"));
            let bytes = std::fs::read(&module).with_context(|| {
                format!("{} was not built: is it in tests/hostile/Cargo.toml?", module.display())
            })?;
            plugins::componentize(&bytes, None)
                .with_context(|| format!("cannot make a component of {}", module.display()))?
        };
        plugins::replace(&out.join(format!("{name}.wasm")), &component)?;
    }
    Ok(())
}
