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

/// Builds what is measured with the release profile, and runs the bench.
pub fn run(root: &Path, args: &Args) -> Result<bool> {
    setup::check(root)?;
    parts::fetch_peers(root)?;
    plugins::build(root, &[])?;
    build::release(root, None)?;
    // Stands in for the driver.
    command::run(&mut command::cargo(root, &["build", "--release", "-p", "fake-nvml"]))?;
    let sandboxed = ["build", "--release", "-p", "picket-agent-host", "--example", "collect-loop"];
    command::run(&mut command::cargo(root, &sandboxed))?;
    let native = ["build", "--release", "-p", "picket-plugin-node", "--example", "native-collect-loop"];
    command::run(&mut command::cargo(&root.join("plugins"), &native))?;
    let mut command = command::cargo(root, &["run", "--release", "--package", "benches", "--"]);
    command::run_ok(command.args(&args.args))
}
