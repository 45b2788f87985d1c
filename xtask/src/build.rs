//! One build for the tests and the demo: the dev profile, so that a clone compiles its dependencies once.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{command, plugins};

/// What a run needs.
pub struct Built {
    pub agent: PathBuf,
    pub aggregator: PathBuf,
    pub cli: PathBuf,
    pub plugins: PathBuf,
}

/// Builds what the demo runs and nothing else, saying what it is at: a newcomer waits for it.
pub fn demo(root: &Path, plugins: &[&str]) -> Result<Built> {
    eprintln!("[1/3] building the agent, the aggregator and the CLI");
    // With the workspace's features, as the tests are built, so that neither builds the other's dependencies again.
    let programs = ["picket-agent", "picket-worker", "picket-aggregator", "picket"];
    let args: Vec<&str> =
        ["build", "--workspace"].into_iter().chain(programs.into_iter().flat_map(|p| ["--bin", p])).collect();
    command::run(&mut command::cargo(root, &args))?;
    eprintln!("[2/3] building the plugin compiler");
    compiler(root)?;
    eprintln!("[3/3] building the plugins {}", plugins.join(", "));
    plugins::build(root, plugins)?;
    built(root)
}

/// Builds everything that is run, saying what it is at.
pub fn all(root: &Path) -> Result<Built> {
    eprintln!("[1/3] building the agent, the aggregator and the CLI");
    command::run(&mut command::cargo(root, &["build", "--workspace", "--bins"]))?;
    // Apart, so that their features don't reach the agent: the daemon links no compiler and no driver's bindings.
    eprintln!("[2/3] building the plugin compiler and the NVML helper");
    compiler(root)?;
    nvml_helper(root)?;
    eprintln!("[3/3] building the plugins");
    plugins::build(root, &[])?;
    built(root)
}

fn built(root: &Path) -> Result<Built> {
    let bin = bin_folder(root)?;
    let built = Built {
        agent: bin.join("picket-agent"),
        aggregator: bin.join("picket-aggregator"),
        cli: bin.join("picket"),
        plugins: target(root)?.join("plugins"),
    };
    for file in [&built.agent, &built.aggregator, &built.cli] {
        if !command::is_program(file) {
            bail!("{} was not built", file.display());
        }
    }
    Ok(built)
}

/// Builds `picket-compile`. All the workspace is named, so that what it shares with the daemons has the same features
/// and isn't built twice.
pub fn compiler(root: &Path) -> Result<()> {
    let args = ["build", "--workspace", "--features", "picket-agent-host/compile", "--bin", "picket-compile"];
    command::run(&mut command::cargo(root, &args))
}

/// Builds `picket-nvml`, and the library that stands in for the driver's in tests.
pub fn nvml_helper(root: &Path) -> Result<()> {
    let args = ["build", "--workspace", "--features", "picket-agent-nvml/driver", "--bin", "picket-nvml"];
    command::run(&mut command::cargo(root, &args))?;
    command::run(&mut command::cargo(root, &["build", "--package", "fake-nvml"]))
}

/// Builds what is shipped, each program in its own profile, and gives the folder in which they lie together.
pub fn shipped(root: &Path) -> Result<PathBuf> {
    let builds: [&[&str]; 5] = [
        &["--profile", "small", "-p", "picket-agent", "--bin", "picket-agent"],
        &["--profile", "small", "-p", "picket-agent-host", "--bin", "picket-worker"],
        &["--profile", "small", "-p", "picket-agent-nvml", "--features", "driver", "--bin", "picket-nvml"],
        &[
            "--release",
            "-p",
            "picket-aggregator",
            "-p",
            "picket",
            "--bin",
            "picket-aggregator",
            "--bin",
            "picket",
        ],
        &["--release", "-p", "picket-agent-host", "--features", "compile", "--bin", "picket-compile"],
    ];
    for args in builds {
        command::run(&mut command::cargo(root, &[&["build"], args].concat()))?;
    }
    let target = target(root)?;
    let folder = target.join("shipped");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for args in builds {
        let profile = if args.contains(&"small") { "small" } else { "release" };
        for program in args.windows(2).filter_map(|pair| pair.strip_prefix(&["--bin"])).flatten() {
            let (from, to) = (target.join(profile).join(program), folder.join(program));
            std::fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        }
    }
    Ok(folder)
}

/// Cargo's target folder.
pub fn target(root: &Path) -> Result<PathBuf> {
    let text = command::output(&mut command::cargo(
        root,
        &["metadata", "--format-version", "1", "--no-deps", "--offline"],
    ))?;
    let metadata: serde_json::Value = serde_json::from_str(&text).context("cargo metadata is no JSON")?;
    let folder = metadata["target_directory"].as_str().context("cargo metadata names no target_directory")?;
    Ok(folder.into())
}

fn bin_folder(root: &Path) -> Result<PathBuf> {
    Ok(target(root)?.join("debug"))
}
