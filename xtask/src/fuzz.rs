//! `cargo xtask fuzz`: builds the targets of `tests/fuzz` with the coverage counters that libFuzzer steers by, and runs them, one
//! after the other.
//!
//! It needs no nightly compiler: the counters are put in by a pass of LLVM's that the stable one has too. What only a nightly one
//! has, the address sanitizer, is worth having where code is `unsafe`: `cargo +nightly fuzz run --fuzz-dir tests/fuzz NAME`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{build, command};

#[derive(clap::Args)]
pub struct Args {
    /// Which target; none: all, in turn.
    target: Option<String>,
    /// For how long each, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Only the targets that need neither the agent nor the aggregator: they are built in a fraction of the time.
    #[arg(long)]
    small: bool,
}

const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// As cargo-fuzz gives them, less the sanitizer.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Inputs longer than this find nothing that shorter ones don't.
const MAX_LEN: u32 = 64 << 10;

/// Builds and runs; `false` if anything was found.
pub fn run(root: &Path, args: &Args) -> Result<bool> {
    let fuzz = root.join("tests/fuzz");
    let names = targets(&fuzz)?;
    let chosen: Vec<&(String, bool)> = names
        .iter()
        .filter(|(name, daemons)| args.target.as_ref().is_none_or(|t| t == name) && !(args.small && *daemons))
        .collect();
    if chosen.is_empty() {
        let all: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
        bail!("there is no such target; there are {}", all.join(", "));
    }
    let out = build::target(root)?.join("fuzz");
    let mut cargo = command::cargo(&fuzz, &["build", "--release", "--target", TRIPLE]);
    cargo.env("CARGO_TARGET_DIR", &out).env("RUSTFLAGS", COVERAGE);
    if chosen.iter().all(|(_, daemons)| !daemons) {
        cargo.arg("--no-default-features");
    }
    for (name, _) in &chosen {
        cargo.args(["--bin", name]);
    }
    command::run(&mut cargo)?;
    let mut clean = true;
    println!("{:<18} {:>8} {:>12} {:>8}", "target", "seconds", "executions", "found");
    for (name, _) in chosen {
        let done = one(root, &out, name, args.seconds)?;
        clean &= done.found.is_empty();
        println!("{name:<18} {:>8} {:>12} {:>8}", done.seconds, done.executions, done.found.len());
        done.found.iter().for_each(|file| println!("    {}", file.display()));
    }
    Ok(clean)
}

/// The binaries of the fuzz package, and whether each needs the daemons.
fn targets(fuzz: &Path) -> Result<Vec<(String, bool)>> {
    let text = std::fs::read_to_string(fuzz.join("Cargo.toml"))?;
    let manifest: toml::Table = text.parse()?;
    let bins = manifest.get("bin").and_then(toml::Value::as_array).context("no [[bin]]")?;
    let name = |bin: &toml::Value| {
        let name = bin.get("name").and_then(toml::Value::as_str)?;
        Some((name.to_owned(), bin.get("required-features").is_some()))
    };
    Ok(bins.iter().filter_map(name).collect())
}

struct Done {
    seconds: u64,
    executions: u64,
    found: Vec<PathBuf>,
}

fn one(root: &Path, out: &Path, name: &str, seconds: u64) -> Result<Done> {
    let corpus = out.join("corpus").join(name);
    let artifacts = out.join("artifacts").join(name);
    for folder in [&corpus, &artifacts] {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    for example in examples(root, name)? {
        let file = example.file_name().context("a file without a name")?;
        std::fs::copy(&example, corpus.join(file))?;
    }
    let began = std::time::Instant::now();
    let log = out.join(format!("{name}.log"));
    let talk = std::fs::File::create(&log)?;
    // One fault ends a run: it is started again for what is left of the time, as often as there are faults.
    let mut executions = 0;
    loop {
        let left = seconds.saturating_sub(began.elapsed().as_secs());
        if left == 0 {
            break;
        }
        let status = Command::new(out.join(TRIPLE).join("release").join(name))
            .arg(&corpus)
            .args(Some(root.join("tests/inputs/seeds").join(name)).filter(|seeds| seeds.is_dir()))
            .arg(format!("-max_total_time={left}"))
            .arg(format!("-max_len={MAX_LEN}"))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(talk.try_clone()?)
            .status()
            .with_context(|| format!("cannot run the target {name}"))?;
        if status.success() {
            break;
        }
    }
    let said = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
    for line in said.lines() {
        if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            executions += count.trim().parse().unwrap_or(0);
        }
    }
    let mut found: Vec<PathBuf> = std::fs::read_dir(&artifacts)?.flatten().map(|e| e.path()).collect();
    found.sort();
    Ok(Done { seconds: began.elapsed().as_secs(), executions, found })
}

/// What lies elsewhere in the repository, and what the tests have built.
fn examples(root: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let list = std::fs::read_to_string(root.join("tests/inputs/examples.toml"))?;
    let mut list: BTreeMap<String, Vec<PathBuf>> = toml::from_str(&list)?;
    if name == "component" {
        let target = build::target(root)?;
        let built = ["guests", "hostile", "plugins"].map(|folder| target.join(folder));
        list.entry(name.to_owned()).or_default().extend(built);
    }
    let mut files = Vec::new();
    for path in list.get(name).into_iter().flatten().map(|path| root.join(path)) {
        match std::fs::read_dir(&path) {
            Ok(entries) => files.extend(entries.flatten().map(|e| e.path()).filter(|p| p.is_file())),
            Err(_) if path.is_file() => files.push(path),
            Err(_) => {}
        }
    }
    Ok(files)
}
