//! What makes components of JavaScript, by npm: the versions and hashes of the lock file beside this.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{build, command};

pub const NAME: &str = "componentize-qjs";
const FILES: [(&str, &str); 2] = [
    ("package.json", include_str!("javascript/package.json")),
    ("package-lock.json", include_str!("javascript/package-lock.json")),
];

/// Puts a link to the program beside those to the other parts.
pub fn fetch(root: &Path) -> Result<()> {
    let parts = build::target(root)?.join("parts");
    let link = parts.join("bin").join(NAME);
    if link.exists() {
        return Ok(());
    }
    for program in ["node", "npm"] {
        if command::find(program).is_none() {
            bail!("{program} is missing: install Node.js 20.6 or newer");
        }
    }
    eprintln!("fetching {NAME} by npm");
    let folder = parts.join("javascript");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (name, text) in FILES {
        std::fs::write(folder.join(name), text)?;
    }
    // Not `npm ci`: that wants every system's optional binding in the lock file, and the registry lacks three of them.
    command::output(
        Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "--ignore-scripts"])
            .current_dir(&folder),
    )?;
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(folder.join("node_modules/.bin").join(NAME), &link)
        .with_context(|| format!("cannot link {}", link.display()))
}
