//! All tests, one command. It ends with a line of its own: `N passed, N failed, N skipped`.
//!
//! `cargo nextest` runs them when it is installed, else `cargo test`. A test that misses one of its parts prints
//! so, leaves its name in `target/skipped-tests`, and is counted as skipped here.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{build, command, deploy, guests, parts, plugins, setup, system, tidy};

#[derive(clap::Args)]
pub struct Args {
    /// Run only the tests whose name contains this; formatting, lints and plugin tests are left out.
    filter: Option<String>,
    /// Install the packages on a whole Debian, booted in a container, instead. Needs root, mmdebstrap and systemd-nspawn.
    #[arg(long, conflicts_with = "filter")]
    system: bool,
    /// Which Debian.
    #[arg(long, default_value = "bookworm", requires = "system")]
    suite: String,
    /// With programs and plugins that are built already, as `cargo xtask dist --built`.
    #[arg(long, value_name = "FOLDER", requires = "system")]
    built: Option<PathBuf>,
}

/// Workspaces apart from the main one: another target, a lock file of their own.
pub const OTHER_WORKSPACES: &[&str] = &["plugins", "sdk", "tests/fuzz", "tests/guests", "tests/hostile"];

/// Runs the checks and the tests; `false` if anything failed.
pub fn run(root: &Path, args: &Args) -> Result<bool> {
    if args.system {
        return system::run(root, &system::Wish { suite: &args.suite, built: args.built.clone() });
    }
    let started = std::time::Instant::now();
    setup::check(root)?;
    let mut counts = Counts::default();
    if args.filter.is_none() {
        counts.add("formatting", formatting(root)?);
        counts.add("tidy", tidy::run(root)?);
    }
    step("parts");
    parts::fetch(root)?;
    step("build");
    build::all(root)?;
    guests::build(root)?;
    guests::build_hostile(root)?;
    let target = build::target(root)?;
    let skipped = target.join("skipped-tests");
    let _ = std::fs::remove_file(&skipped);
    if args.filter.is_none() {
        counts.add("lints", lints(root)?);
        plugin_tests(root, &mut counts)?;
        step("deployment");
        for (name, outcome) in deploy::all(root)? {
            counts.add_outcome(name, outcome);
        }
    }
    step("tests");
    workspace_tests(root, args.filter.as_deref(), &mut counts)?;

    let skipped = std::fs::read_to_string(&skipped).unwrap_or_default();
    let skipped: std::collections::BTreeSet<&str> = skipped.lines().collect();
    for line in &skipped {
        println!("skipped: {line}");
    }
    counts.passed = counts.passed.saturating_sub(skipped.len());
    counts.skipped += skipped.len();
    for name in &counts.failed_steps {
        println!("failed: {name}");
    }
    println!("in {} s", started.elapsed().as_secs());
    println!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped);
    Ok(counts.failed == 0)
}

#[derive(Default)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
    failed_steps: Vec<String>,
}

impl Counts {
    fn add(&mut self, name: &str, ok: bool) {
        if ok {
            self.passed += 1;
        } else {
            self.failed += 1;
            self.failed_steps.push(name.to_owned());
        }
    }

    fn add_outcome(&mut self, name: &str, outcome: deploy::Outcome) {
        match outcome {
            deploy::Outcome::Passed => self.passed += 1,
            deploy::Outcome::Skipped(why) => {
                println!("skipped: {name}: {why}");
                self.skipped += 1;
            }
            deploy::Outcome::Failed(why) => {
                eprintln!("{name}: {why}");
                self.add(name, false);
            }
        }
    }

    /// Adds what a runner says at its end. A runner that failed without a failed test (it didn't compile) counts
    /// as one failure.
    fn add_run(&mut self, name: &str, ok: bool, lines: &[String]) {
        let (passed, failed, skipped) = summary(lines);
        self.passed += passed;
        self.skipped += skipped;
        self.failed += if ok { failed } else { failed.max(1) };
        if !ok {
            self.failed_steps.push(name.to_owned());
        }
    }
}

/// Reads nextest's summary (`Summary [ 1.0s] 3 tests run: 2 passed (1 slow), 1 failed, 4 skipped`), or those of
/// cargo test (`test result: ok. 3 passed; 0 failed; 1 ignored; …`).
fn summary(lines: &[String]) -> (usize, usize, usize) {
    let mut sum = (0, 0, 0);
    // nextest shows what a failed test printed, its own `test result` with it.
    let nextest = lines.iter().any(|line| line.trim().starts_with("Summary ["));
    for line in lines {
        let line = line.trim();
        let said = if nextest {
            line.strip_prefix("Summary [").and_then(|rest| rest.split_once("run:")).map(|(_, said)| said)
        } else {
            line.strip_prefix("test result:").and_then(|rest| rest.split_once('.')).map(|(_, said)| said)
        };
        let mut number = 0;
        for word in said.unwrap_or_default().split([' ', ',', ';', '(', ')']) {
            match word {
                "passed" => sum.0 += number,
                "failed" | "out" => sum.1 += number,
                "ignored" => sum.2 += number,
                _ => {}
            }
            number = word.parse().unwrap_or(if word == "timed" { number } else { 0 });
        }
    }
    sum
}

fn step(name: &str) {
    eprintln!("--- {name}");
}

/// A runner of continuous integration sets `CI`: there, warnings are errors.
fn strict() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

fn formatting(root: &Path) -> Result<bool> {
    step("formatting");
    let mut ok = command::run_ok(&mut command::cargo(root, &["fmt", "--all", "--check"]))?;
    for workspace in other_workspaces(root) {
        let manifest = format!("{workspace}/Cargo.toml");
        let args = ["fmt", "--all", "--manifest-path", manifest.as_str(), "--check"];
        ok &= command::run_ok(&mut command::cargo(root, &args))?;
    }
    Ok(ok)
}

fn other_workspaces(root: &Path) -> impl Iterator<Item = &'static str> {
    OTHER_WORKSPACES.iter().copied().filter(move |w| root.join(w).join("Cargo.toml").exists())
}

fn lints(root: &Path) -> Result<bool> {
    step("lints");
    let deny: &[&str] = if strict() { &["--", "-D", "warnings"] } else { &[] };
    let mut ok = true;
    for args in [
        &["clippy", "--workspace", "--all-targets"][..],
        &["clippy", "--workspace", "--features", "picket-agent-host/compile", "--bin", "picket-compile"],
        &["clippy", "--workspace", "--features", "picket-agent-nvml/driver", "--bin", "picket-nvml"],
    ] {
        ok &= command::run_ok(command::cargo(root, args).args(deny))?;
    }
    Ok(ok)
}

/// The plugins' and the SDK's own tests, on this machine's target: they build natively too. In the plugins' target folder: the
/// main workspace links some of them as libraries, whose files have the same names.
fn plugin_tests(root: &Path, counts: &mut Counts) -> Result<()> {
    let target = plugins::folder(root);
    for workspace in ["plugins", "sdk"] {
        let manifest = format!("{workspace}/Cargo.toml");
        if !root.join(&manifest).exists() {
            continue;
        }
        step(&format!("tests of {workspace}"));
        let args = ["test", "--workspace", "--manifest-path", manifest.as_str()];
        let (ok, lines) = command::tee(command::cargo(root, &args).env("CARGO_TARGET_DIR", &target))?;
        counts.add_run(workspace, ok, &lines);
    }
    Ok(())
}

fn workspace_tests(root: &Path, filter: Option<&str>, counts: &mut Counts) -> Result<()> {
    let nextest = command::output(&mut command::cargo(root, &["nextest", "--version"])).is_ok();
    let mut args = if nextest {
        vec!["nextest", "run", "--workspace", "--no-fail-fast", "--no-tests", "pass"]
    } else {
        eprintln!("cargo-nextest is not installed: running cargo test");
        vec!["test", "--workspace", "--no-fail-fast"]
    };
    args.extend(filter);
    let (ok, lines) = command::tee(&mut command::cargo(root, &args)).context("tests")?;
    counts.add_run("tests of the workspace", ok, &lines);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::summary;

    #[test]
    fn summaries_of_both_runners() {
        let check = |line: &str, want: (usize, usize, usize)| {
            assert_eq!(summary(&[line.to_owned()]), want, "{line}");
        };
        check("     Summary [   0.012s] 5 tests run: 5 passed, 0 skipped", (5, 0, 0));
        check(
            "     Summary [ 1.0s] 5 tests run: 3 passed (1 slow), 1 failed, 1 timed out, 7 skipped",
            (3, 2, 0),
        );
        check("     Summary [ 1.0s] 2/5 tests run: 1 passed, 1 failed, 0 skipped", (1, 1, 0));
        check(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished",
            (3, 0, 1),
        );
        check("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured", (3, 2, 0));
        check("nothing of both", (0, 0, 0));
        let lines =
            ["test result: FAILED. 0 passed; 1 failed; 0 ignored", "Summary [ 1.0s] 1 test run: 1 failed"];
        assert_eq!(summary(&lines.map(str::to_owned)), (0, 1, 0), "one failure, said twice");
    }
}
