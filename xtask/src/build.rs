//! One build for the tests and the demo: the dev profile, so that a clone compiles its dependencies once.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{command, plugins, setup};

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

/// One call of `cargo build`, each apart, so that features of the one don't reach the other.
struct Part {
    programs: &'static [&'static str],
    profile: &'static str,
    args: &'static [&'static str],
}

const SHIPPED: &[Part] = &[
    Part { programs: &["picket-agent"], profile: "small", args: &["-p", "picket-agent"] },
    Part {
        programs: &["picket-worker"],
        profile: "small",
        args: &["-p", "picket-agent-host", "--bin", "picket-worker"],
    },
    Part {
        programs: &["picket-nvml"],
        profile: "small",
        args: &["-p", "picket-agent-nvml", "--features", "driver", "--bin", "picket-nvml"],
    },
    Part {
        programs: &["picket-compile"],
        profile: "release",
        args: &["-p", "picket-agent-host", "--features", "compile", "--bin", "picket-compile"],
    },
    Part {
        programs: &["picket-aggregator", "picket"],
        profile: "release",
        args: &["-p", "picket-aggregator", "-p", "picket"],
    },
];

/// Builds what is shipped, each program in its own profile. `triple`: for another machine than this one.
pub fn release(root: &Path, triple: Option<&str>) -> Result<()> {
    for part in SHIPPED {
        let mut build = command::cargo(root, &["build", "--locked", "--profile", part.profile]);
        build.args(part.args);
        if let Some(triple) = triple {
            let linker = setup::Linker::of(triple);
            build.args(["--target", triple]).env(&linker.variable, &linker.program);
        }
        command::run(&mut build)?;
    }
    Ok(())
}

/// The same, and puts it into one folder.
pub fn shipped(root: &Path, triple: Option<&str>, folder: &Path) -> Result<()> {
    release(root, triple)?;
    let built = target(root)?.join(triple.unwrap_or_default());
    for part in SHIPPED {
        collect(part.programs.iter().copied(), &built.join(part.profile), folder)?;
    }
    Ok(())
}

/// The same programs as the tests have them.
pub fn shipped_to_try(root: &Path, folder: &Path) -> Result<()> {
    all(root)?;
    collect(shipped_programs(), &bin_folder(root)?, folder)
}

/// The names of all programs that are shipped.
pub fn shipped_programs() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().flat_map(|part| part.programs).copied()
}

fn collect(programs: impl Iterator<Item = &'static str>, from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for program in programs {
        let file = from.join(program);
        std::fs::copy(&file, to.join(program)).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    Ok(())
}

/// What all that is made is dated, in seconds since 1970: `SOURCE_DATE_EPOCH`, else the time of the last commit.
pub fn epoch(root: &Path) -> Result<u64> {
    if let Some(given) = std::env::var_os("SOURCE_DATE_EPOCH") {
        let given = given.to_string_lossy();
        return given
            .parse()
            .with_context(|| format!("SOURCE_DATE_EPOCH is {given:?}, not seconds since 1970"));
    }
    let mut git = Command::new("git");
    let commit = command::output(git.args(["log", "-1", "--format=%ct"]).current_dir(root))
        .context("there is no commit to take the time from: set SOURCE_DATE_EPOCH")?;
    commit.trim().parse().with_context(|| format!("git says {commit:?}, which is no time"))
}

/// The files of a folder that end so, in order.
pub fn listed(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == extension));
    files.sort();
    Ok(files)
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
