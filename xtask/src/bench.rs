//! Dispatches to the benches, which are programs of their own, built as what is shipped is.

use std::path::Path;

use anyhow::Result;

use crate::{build, command, parts, plugins, setup};

#[derive(clap::Args)]
pub struct Args {
    /// Passed on to the bench program: rows to run, `--json FILE`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Builds with the release profile and runs it.
pub fn run(root: &Path, args: &Args) -> Result<bool> {
    setup::check(root)?;
    parts::fetch(root)?;
    plugins::build(root, &[])?;
    build::compiler(root)?;
    let mut command = command::cargo(root, &["run", "--release", "--package", "benches", "--"]);
    command::run_ok(command.args(&args.args))
}
