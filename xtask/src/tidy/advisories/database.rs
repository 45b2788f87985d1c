//! A checkout of RUSTSEC's advisory database, as the cargo tools that audit leave one behind.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use semver::VersionReq;
use serde::Deserialize;

use super::{Facts, Findings, TABLE, Table, Verdict};

/// The crates that are the engine, or were.
const CRATES: &[&str] = &[
    "wasmtime",
    "cranelift",
    "pulley-",
    "winch-",
    "wiggle",
    "wasi-common",
    "wasi-cap-std-sync",
    "regalloc2",
];
/// The first day that the table covers.
const SINCE: &str = "2024-01-01";

/// What the database says of one advisory.
pub struct Known {
    pub id: String,
    /// By all its names, its id the first.
    names: Vec<String>,
    package: String,
    /// Where the fault is not: fixed, or not yet made.
    free: Vec<VersionReq>,
}

/// The folder named by `PICKET_ADVISORY_DB`, else where cargo-deny and cargo-audit keep theirs.
pub fn find() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("PICKET_ADVISORY_DB") {
        return Some(named.into());
    }
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
    find_in(&home)
}

pub fn find_in(home: &Path) -> Option<PathBuf> {
    let denys =
        std::fs::read_dir(home.join("advisory-dbs")).into_iter().flatten().flatten().map(|e| e.path());
    let mut folders: Vec<PathBuf> = denys.chain([home.join("advisory-db")]).collect();
    folders.sort();
    folders.into_iter().find(|folder| folder.join("crates/wasmtime").is_dir())
}

/// The engine's advisories in it.
pub fn read(folder: &Path) -> Result<Vec<Known>> {
    let mut all = Vec::new();
    for (name, path) in entries(&folder.join("crates"))? {
        if !CRATES.iter().any(|of_engine| name.starts_with(of_engine)) {
            continue;
        }
        for (name, path) in entries(&path)? {
            if name.starts_with("RUSTSEC-") && !name.starts_with("RUSTSEC-0000") && name.ends_with(".md") {
                let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                all.extend(known(&text).with_context(|| path.display().to_string())?);
            }
        }
    }
    Ok(all)
}

fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let missing = || format!("{} is no advisory database: it has no such folder", folder.display());
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(missing)? {
        let entry = entry?;
        entries.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    entries.sort();
    Ok(entries)
}

/// Nothing if it is older than the table, or was withdrawn.
fn known(text: &str) -> Result<Option<Known>> {
    #[derive(Deserialize)]
    struct File {
        advisory: Advisory,
        versions: Versions,
    }
    #[derive(Deserialize)]
    struct Advisory {
        id: String,
        package: String,
        date: String,
        withdrawn: Option<String>,
        #[serde(default)]
        aliases: Vec<String>,
    }
    #[derive(Deserialize)]
    struct Versions {
        #[serde(default)]
        patched: Vec<VersionReq>,
        #[serde(default)]
        unaffected: Vec<VersionReq>,
    }
    let head = text.trim_start().strip_prefix("```toml").and_then(|rest| rest.split_once("\n```"));
    let (head, _) = head.context("it does not begin with a block of TOML")?;
    let File { advisory, mut versions } = toml::from_str(head)?;
    if advisory.date.as_str() < SINCE || advisory.withdrawn.is_some() {
        return Ok(None);
    }
    let mut names = vec![advisory.id.clone()];
    names.extend(advisory.aliases);
    versions.patched.append(&mut versions.unaffected);
    Ok(Some(Known { id: advisory.id, names, package: advisory.package, free: versions.patched }))
}

/// Every advisory stands in the table, and where the table says "patched" the database says so too.
pub fn compare(table: &Table, all: &[Known], facts: &Facts, findings: &mut Findings) {
    for known in all {
        let Some(row) = table.row(&known.names) else {
            findings
                .error(format!("{TABLE} lacks {} ({}): judge it and give it a row", known.id, known.package));
            continue;
        };
        if row.id != known.id {
            findings.warn(format!("{TABLE}: {} is {} by now: make that its id", row.id, known.id));
        }
        let is_free = |version| known.free.iter().any(|range| range.matches(version));
        let mut locked = facts.locked.get(&known.package).into_iter().flatten();
        if row.verdict == Verdict::Patched && !locked.all(is_free) {
            findings.error(format!(
                "{TABLE}: {}: the locked {} has no fix, says the database",
                row.id, known.package
            ));
        }
    }
}
