//! The programs that make packages: pinned, built from their own lock files into `target/parts/tools`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::{build, command};

/// A program of a crate of the same name.
pub struct Tool {
    name: &'static str,
    version: &'static str,
}

pub const CARGO_DEB: Tool = Tool { name: "cargo-deb", version: "3.8.0" };
pub const CARGO_GENERATE_RPM: Tool = Tool { name: "cargo-generate-rpm", version: "0.21.1" };
pub const CARGO_CYCLONEDX: Tool = Tool { name: "cargo-cyclonedx", version: "0.5.9" };

impl Tool {
    /// Its program; installed first where it is missing or of another version.
    pub fn get(&self, root: &Path) -> Result<PathBuf> {
        let folder = build::target(root)?.join("parts/tools");
        let program = folder.join("bin").join(self.name);
        // What cargo itself notes about what it installed.
        let noted = std::fs::read_to_string(folder.join(".crates.toml")).unwrap_or_default();
        if command::is_program(&program) && noted.contains(&format!("\"{} {} (", self.name, self.version)) {
            return Ok(program);
        }
        eprintln!("building {} {}, once", self.name, self.version);
        let mut install = command::cargo(root, &["install", "--locked", "--force", "--root"]);
        install.arg(&folder).arg(format!("{}@{}", self.name, self.version));
        command::run(&mut install)?;
        Ok(program)
    }

    /// To be called in `folder`, as `cargo SUBCOMMAND` calls it.
    pub fn command(&self, root: &Path, folder: &Path) -> Result<Command> {
        let program = self.get(root)?;
        let mut command = Command::new(program);
        command.arg(self.name.strip_prefix("cargo-").unwrap_or(self.name)).current_dir(folder);
        Ok(command)
    }
}
