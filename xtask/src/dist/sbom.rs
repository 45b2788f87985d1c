//! What the programs are made of: a CycloneDX document each, by `cargo-cyclonedx`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::tools::CARGO_CYCLONEDX;
use crate::{command, plugins};

/// A name that nothing else has: the tool writes beside each manifest of the workspace.
const NAME: &str = "picket-sbom-new";

/// A crate with programs, and the features that they are built with; its document's name.
const CRATES: &[(&str, &[&str], &str)] = &[
    ("agent", &[], "picket-agent"),
    ("agent/host", &["--features", "compile"], "picket-agent-host"),
    ("agent/nvml", &["--features", "driver"], "picket-agent-nvml"),
    ("aggregator", &[], "picket-aggregator"),
    ("cli", &[], "picket"),
];

/// Writes `NAME_VERSION.cdx.json` for each crate with programs and each plugin; gives the files.
pub fn write(root: &Path, into: &Path, version: &str, target: &str, epoch: u64) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for (folder, features, name) in CRATES {
        let made = make(root, &root.join(folder), features, target, epoch)
            .and_then(|text| keep(&text, root, &into.join(format!("{name}_{version}.cdx.json"))));
        files.push(made.with_context(|| format!("the parts of {name}"))?);
    }
    for folder in plugins::folders(root)? {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let made = make(root, &folder, &[], "wasm32-unknown-unknown", epoch).and_then(|text| {
            keep(&text, root, &into.join(format!("picket-plugin-{name}_{version}.cdx.json")))
        });
        files.push(made.with_context(|| format!("the parts of the plugin {name}"))?);
    }
    Ok(files)
}

fn make(root: &Path, folder: &Path, features: &[&str], target: &str, epoch: u64) -> Result<String> {
    let mut tool = CARGO_CYCLONEDX.command(root, folder)?;
    tool.args(["--format", "json", "--spec-version", "1.5", "--target", target, "--override-filename", NAME])
        .args(["--no-build-deps", "-qq"])
        .args(features)
        .arg("--manifest-path")
        .arg(folder.join("Cargo.toml"))
        .env("SOURCE_DATE_EPOCH", epoch.to_string());
    let done = command::output(&mut tool);
    let file = folder.join(format!("{NAME}.json"));
    let text = std::fs::read_to_string(&file).with_context(|| format!("no {}", file.display()));
    sweep(root)?;
    done?;
    text
}

/// Takes away what the tool wrote beside the manifests.
fn sweep(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name == format!("{NAME}.json") {
            std::fs::remove_file(&path)?;
        } else if path.is_dir() && !path.is_symlink() && name != "target" && !name.starts_with('.') {
            sweep(&path)?;
        }
    }
    Ok(())
}

/// Without the folder that it was made in.
fn keep(text: &str, root: &Path, to: &Path) -> Result<PathBuf> {
    std::fs::write(to, text.replace(&root.display().to_string(), ""))?;
    Ok(to.to_owned())
}
