//! Dependency rules, against what `cargo metadata` says.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Findings;
use super::rooms::{ENGINE_CRATE, NOBODY_LINKS, ROOMS, Room, UNSAFE_CRATES};
use crate::command;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<EdgeKind>,
}

#[derive(Deserialize)]
struct EdgeKind {
    kind: Option<String>,
}

pub fn check(root: &Path, findings: &mut Findings) -> Result<()> {
    let text = command::output(&mut command::cargo(
        root,
        &["metadata", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"],
    ))?;
    let metadata: Metadata = serde_json::from_str(&text).context("cargo metadata is not as expected")?;
    let packages: HashMap<&str, &Package> = metadata.packages.iter().map(|p| (p.id.as_str(), p)).collect();
    let members: Vec<&Package> =
        metadata.workspace_members.iter().filter_map(|id| packages.get(id.as_str()).copied()).collect();
    let ours: BTreeSet<&str> = members.iter().map(|p| p.name.as_str()).collect();

    for member in &members {
        let Some(room) = ROOMS.iter().find(|room| room.package == member.name) else {
            findings.error(format!(
                "{} has no room: add it to xtask/src/tidy/rooms.rs and to the table in ARCHITECTURE.md",
                member.name
            ));
            continue;
        };
        if Path::new(&member.manifest_path) != root.join(room.folder).join("Cargo.toml") {
            findings
                .error(format!("{} lives in {}, not in {}", member.name, member.manifest_path, room.folder));
        }
        check_named(member, room, &ours, findings);
        check_lints(member, findings)?;
        let linked = linked(&member.id, &metadata, &packages);
        for name in room.never_links.iter().chain(NOBODY_LINKS) {
            if let Some((found, by)) = linked.iter().find(|(found, _)| matches(name, found)) {
                findings.error(format!("{} must not link {found} (through {by})", member.name));
            }
        }
    }
    Ok(())
}

fn matches(rule: &str, name: &str) -> bool {
    rule.strip_suffix('*').map_or(rule == name, |prefix| name.starts_with(prefix))
}

fn check_named(member: &Package, room: &Room, ours: &BTreeSet<&str>, findings: &mut Findings) {
    for dependency in member.dependencies.iter().filter(|d| d.kind.as_deref() != Some("dev")) {
        let name = dependency.name.as_str();
        if ours.contains(name) && !room.may_name.contains(&name) {
            findings.error(format!("{} must not depend on {name}: see xtask/src/tidy/rooms.rs", member.name));
        }
        if name == "wasmtime" && member.name != ENGINE_CRATE {
            findings.error(format!("{} names wasmtime; only {ENGINE_CRATE} may", member.name));
        }
    }
}

/// Each crate inherits the workspace's lints. Those that need `unsafe` can't, but may only differ in that.
fn check_lints(member: &Package, findings: &mut Findings) -> Result<()> {
    let text = std::fs::read_to_string(&member.manifest_path)
        .with_context(|| format!("cannot read {}", member.manifest_path))?;
    let manifest: toml::Table =
        text.parse().with_context(|| format!("{} is no TOML", member.manifest_path))?;
    let lints = manifest.get("lints");
    let inherits = lints.and_then(|l| l.get("workspace")).and_then(toml::Value::as_bool) == Some(true);
    if inherits {
        return Ok(());
    }
    let unsafe_code = lints.and_then(|l| l.get("rust")?.get("unsafe_code")?.as_str());
    if !UNSAFE_CRATES.contains(&member.name.as_str()) {
        findings.error(format!("{} lacks `[lints] workspace = true`", member.name));
    } else if unsafe_code != Some("deny") || lints.and_then(|l| l.get("clippy")).is_none() {
        findings
            .error(format!("{} must keep the workspace's lints, and `unsafe_code = \"deny\"`", member.name));
    }
    Ok(())
}

/// The names of all packages that end up in it, each with who brings it. Development dependencies don't.
fn linked(id: &str, metadata: &Metadata, packages: &HashMap<&str, &Package>) -> BTreeMap<String, String> {
    let nodes: HashMap<&str, &Node> = metadata.resolve.nodes.iter().map(|n| (n.id.as_str(), n)).collect();
    let mut seen = BTreeMap::new();
    let mut todo = vec![id];
    while let Some(id) = todo.pop() {
        let (Some(node), Some(package)) = (nodes.get(id), packages.get(id)) else { continue };
        for edge in &node.deps {
            // Build scripts run on the builder's machine; they aren't linked.
            let normal = edge.dep_kinds.iter().any(|kind| kind.kind.is_none());
            let Some(to) = packages.get(edge.pkg.as_str()).filter(|_| normal) else { continue };
            if seen.insert(to.name.clone(), package.name.clone()).is_none() {
                todo.push(&edge.pkg);
            }
        }
    }
    seen
}
