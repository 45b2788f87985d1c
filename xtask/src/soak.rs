//! Dispatches to the row `soak` of the benches, on programs built as they are shipped.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{build, command, guests, plugins, setup};

#[derive(clap::Args)]
pub struct Args {
    /// How long; 0.1 is six minutes.
    #[arg(long, default_value_t = 2.0)]
    hours: f64,
    #[arg(long, default_value_t = 4)]
    agents: u16,
    /// Which faults come when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Build nothing, run what lies in this folder: programs, plugins/*.wasm, hostile/*.wasm.
    #[arg(long, value_name = "FOLDER")]
    built: Option<PathBuf>,
    /// Where a folder with samples, report and plot goes; target/soak where not said.
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
}

/// Builds the fleet and lets it live.
pub fn run(root: &Path, args: &Args) -> Result<bool> {
    let (binaries, plugins, hostile) = match &args.built {
        Some(folder) => {
            let folder = std::path::absolute(folder)?;
            (folder.clone(), folder.join("plugins"), folder.join("hostile"))
        }
        None => {
            setup::check(root)?;
            let target = build::target(root)?;
            let binaries = target.join("shipped");
            build::shipped(root, None, &binaries)?;
            plugins::build(root, &["node", "mock"])?;
            guests::build_hostile(root)?;
            (binaries, target.join("plugins"), target.join("hostile"))
        }
    };
    let into = match &args.into {
        Some(folder) => std::path::absolute(folder)?,
        None => build::target(root)?.join("soak"),
    };
    // Who watches is not measured, so the profile of the tests will do.
    let mut soak = command::cargo(root, &["run", "--package", "benches", "--", "soak"]);
    soak.args(["--hours", &args.hours.to_string()]);
    soak.args(["--agents", &args.agents.to_string()]);
    soak.args(["--seed", &args.seed.to_string()]);
    soak.arg("--binaries").arg(binaries).arg("--plugins").arg(plugins);
    soak.arg("--hostile").arg(hostile).arg("--into").arg(into);
    // In this process's place, so that who asks this one to end asks the soak, which then reports.
    Err(soak.exec()).context("cannot run cargo")
}
