//! The WASM engine's public advisories: each has a row that says why it does no harm here.
//!
//! A reason is worth what can be checked of it, so a row names facts: what the lock file lacks, which cargo features
//! the engine is built with, what its configuration switches off, what our code never calls. They are compared with
//! what is built; the table with an advisory database, where this machine has one; and the page with the table.

mod database;
mod page;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use semver::{Version, VersionReq};
use serde::Deserialize;

use super::Findings;
use super::files::Files;
use crate::command;

const TABLE: &str = "tests/hostile/advisories.toml";
const ENGINE: &str = "agent/host/src/engine.rs";
const HOST: &str = "agent/host/src/";

pub fn check(root: &Path, files: &Files, findings: &mut Findings) -> Result<()> {
    let table: Table =
        toml::from_str(files.text(TABLE)).with_context(|| format!("{TABLE} is not as it should be"))?;
    let facts = Facts::read(root, files)?;
    table.check(&facts, |path| root.join(path).is_file(), findings);
    match database::find() {
        Some(folder) => database::compare(&table, &database::read(&folder)?, &facts, findings),
        None => eprintln!("tidy: this machine has no advisory database: {TABLE} is not compared with it"),
    }
    page::check(root, &table, &facts, findings)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    advisory: Vec<Row>,
}

/// One advisory. What it names beyond its verdict are the facts that must be so.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// RUSTSEC's name, or GitHub's while RUSTSEC has none.
    id: String,
    /// GitHub's name.
    ghsa: Option<String>,
    /// What `patched` counts.
    #[serde(default = "wasmtime")]
    package: String,
    title: String,
    patched: Vec<VersionReq>,
    verdict: Verdict,
    why: String,
    /// Crates that are not in the lock file.
    #[serde(default)]
    without_crate: Vec<String>,
    /// Cargo features that the engine is built without.
    #[serde(default)]
    without_feature: Vec<String>,
    /// Cargo features that it is built with.
    #[serde(default)]
    with_feature: Vec<String>,
    /// Calls of its configuration, as they are written.
    #[serde(default)]
    switch: Vec<String>,
    /// What the host's source never names.
    #[serde(default)]
    without_call: Vec<String>,
    /// The file of the test that shows the limit or the wall that holds it.
    #[serde(default)]
    test: Vec<String>,
}

fn wasmtime() -> String {
    "wasmtime".to_owned()
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    /// What it needs is not built, or switched off.
    FeatureOff,
    /// The locked version has the fix.
    Patched,
    /// Neither; something else holds it.
    Contained,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::FeatureOff => "feature off",
            Self::Patched => "patched",
            Self::Contained => "contained",
        }
    }
}

impl Table {
    fn check(&self, facts: &Facts, is_file: impl Fn(&str) -> bool, findings: &mut Findings) {
        let mut seen = BTreeSet::new();
        for row in &self.advisory {
            for name in std::iter::once(&row.id).chain(&row.ghsa) {
                if !seen.insert(name) {
                    findings.error(format!("{TABLE}: {name} stands there twice"));
                }
            }
            for wrong in row.wrong(facts, &is_file) {
                findings.error(format!("{TABLE}: {}: {wrong}", row.id));
            }
        }
    }

    /// The row of what goes by one of these names.
    fn row(&self, names: &[String]) -> Option<&Row> {
        self.advisory
            .iter()
            .find(|row| names.iter().any(|name| *name == row.id || Some(name) == row.ghsa.as_ref()))
    }
}

impl Row {
    fn wrong(&self, facts: &Facts, is_file: impl Fn(&str) -> bool) -> Vec<String> {
        let mut wrong = Vec::new();
        if !is_rustsec(&self.id) && !is_ghsa(&self.id) {
            wrong.push("an id is RUSTSEC-0000-0000, or GHSA-xxxx-xxxx-xxxx where there is none".to_owned());
        }
        if is_rustsec(&self.id) != self.ghsa.as_deref().is_some_and(is_ghsa) {
            wrong.push("`ghsa` is GitHub's name beside RUSTSEC's".to_owned());
        }
        for (key, text) in [("title", &self.title), ("why", &self.why)] {
            if text.trim().is_empty() || text.contains(['\n', '|']) {
                wrong.push(format!("`{key}` is one line of text without a bar"));
            }
        }
        let off = [&self.without_crate, &self.without_feature, &self.switch];
        let held = [&self.with_feature, &self.switch, &self.without_call, &self.test];
        match self.verdict {
            Verdict::Patched if !facts.has_fix(self) => wrong.push(format!(
                "the locked {} ({}) has no fix: upgrade it, or say what else holds the fault",
                self.package,
                facts.versions(&self.package)
            )),
            Verdict::FeatureOff if off.iter().all(|facts| facts.is_empty()) => {
                wrong.push("name what is off: `without_crate`, `without_feature` or `switch`".to_owned());
            }
            Verdict::Contained if held.iter().all(|facts| facts.is_empty()) => {
                wrong.push(
                    "name what holds it: `with_feature`, `switch`, `without_call` or `test`".to_owned(),
                );
            }
            _ => {}
        }
        self.wrong_facts(facts, is_file, &mut wrong);
        wrong
    }

    fn wrong_facts(&self, facts: &Facts, is_file: impl Fn(&str) -> bool, wrong: &mut Vec<String>) {
        let mut each = |names: &[String], is_so: &dyn Fn(&str) -> bool, otherwise: &str| {
            let not_so = names.iter().filter(|name| !is_so(name));
            wrong.extend(not_so.map(|name| format!("{name} {otherwise}")));
        };
        each(&self.without_crate, &|name| !facts.locked.contains_key(name), "is in Cargo.lock");
        each(
            &self.without_feature,
            &|name| !facts.features.contains(name),
            "is a feature of the engine as we build it",
        );
        each(
            &self.with_feature,
            &|name| facts.features.contains(name),
            "is no feature of the engine as we build it",
        );
        each(&self.switch, &|call| facts.sets(call), &format!("is not what {ENGINE} sets, once and for all"));
        each(&self.without_call, &|name| !facts.host.contains(name), &format!("is named in {HOST}"));
        each(&self.test, &is_file, "is no file");
    }
}

fn is_rustsec(id: &str) -> bool {
    let number = id.strip_prefix("RUSTSEC-").and_then(|rest| rest.split_once('-'));
    let digits = |text: &str| text.len() == 4 && text.bytes().all(|b| b.is_ascii_digit());
    number.is_some_and(|(year, number)| digits(year) && digits(number))
}

fn is_ghsa(id: &str) -> bool {
    let group =
        |text: &str| text.len() == 4 && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
    let groups: Vec<&str> =
        id.strip_prefix("GHSA-").map(|rest| rest.split('-').collect()).unwrap_or_default();
    groups.len() == 3 && groups.into_iter().all(group)
}

/// What is built, as far as rows speak of it.
struct Facts {
    /// The versions of each crate in the lock file.
    locked: BTreeMap<String, Vec<Version>>,
    /// The engine's cargo features, the compiler's among them.
    features: BTreeSet<String>,
    /// The engine's configuration, and all of the host's source: code alone, without blanks.
    engine: String,
    host: String,
}

impl Facts {
    fn read(root: &Path, files: &Files) -> Result<Self> {
        let host = files.ending(".rs").filter(|(name, _)| name.starts_with(HOST));
        let engine = code(files.text(ENGINE));
        ensure!(
            !engine.is_empty(),
            "{ENGINE} is not there any more: say in xtask/src/tidy/advisories.rs where it went"
        );
        Ok(Self {
            locked: locked(files.text("Cargo.lock"))?,
            features: features(root)?,
            engine,
            host: host.map(|(_, text)| code(text)).collect(),
        })
    }

    fn has_fix(&self, row: &Row) -> bool {
        let versions = self.locked.get(&row.package);
        versions.is_some_and(|all| {
            all.iter().all(|version| row.patched.iter().any(|range| range.matches(version)))
        })
    }

    fn versions(&self, package: &str) -> String {
        let versions = self.locked.get(package).map(Vec::as_slice).unwrap_or_default();
        if versions.is_empty() {
            return "none".to_owned();
        }
        versions.iter().map(Version::to_string).collect::<Vec<_>>().join(", ")
    }

    /// Whether the configuration makes this call, and nothing in the host makes another of its name.
    fn sets(&self, call: &str) -> bool {
        let call = format!(".{}", code(call));
        let Some((name, _)) = call.split_once('(') else { return false };
        self.engine.contains(&call) && self.host.matches(&format!("{name}(")).count() == 1
    }
}

/// A source's code: neither comments nor blanks.
fn code(text: &str) -> String {
    let lines = text.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    lines.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect()
}

fn locked(text: &str) -> Result<BTreeMap<String, Vec<Version>>> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        version: Version,
    }
    let lock: Lock = toml::from_str(text).context("Cargo.lock is not as expected")?;
    let mut locked: BTreeMap<String, Vec<Version>> = BTreeMap::new();
    for package in lock.package {
        locked.entry(package.name).or_default().push(package.version);
    }
    Ok(locked)
}

fn features(root: &Path) -> Result<BTreeSet<String>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
        resolve: Resolve,
    }
    #[derive(Deserialize)]
    struct Package {
        id: String,
        name: String,
    }
    #[derive(Deserialize)]
    struct Resolve {
        nodes: Vec<Node>,
    }
    #[derive(Deserialize)]
    struct Node {
        id: String,
        features: Vec<String>,
    }
    let platform = ["--filter-platform", "x86_64-unknown-linux-gnu"];
    let mut cargo = command::cargo(root, &["metadata", "--format-version", "1", "--all-features"]);
    let text = command::output(cargo.args(platform))?;
    let metadata: Metadata = serde_json::from_str(&text).context("cargo metadata is not as expected")?;
    let engines: BTreeSet<&str> =
        metadata.packages.iter().filter(|p| p.name == "wasmtime").map(|p| p.id.as_str()).collect();
    let nodes = metadata.resolve.nodes.into_iter().filter(|node| engines.contains(node.id.as_str()));
    let features: BTreeSet<String> = nodes.flat_map(|node| node.features).collect();
    ensure!(!features.is_empty(), "cargo metadata says nothing of wasmtime's features");
    Ok(features)
}

#[cfg(test)]
mod tests;
