//! Licences, sources, bans and advisories of what every workspace depends on: `cargo deny`, where it is installed. The rules are
//! in `deny.toml`.
//!
//! Advisories come from a database on the network. Where that can't be reached they are not checked, which is said and
//! is no broken rule; the rest needs nothing but the lock files.

use std::path::Path;
use std::process::Stdio;

use anyhow::Result;

use crate::command;

const WORKSPACES: [&str; 5] = ["", "plugins", "sdk", "tests/guests", "tests/hostile"];

/// `false` where a rule is broken.
pub fn check(root: &Path) -> Result<bool> {
    let there = command::output(command::cargo(root, &["deny", "--version"]).stderr(Stdio::null()));
    if there.is_err() {
        eprintln!("tidy: cargo-deny is not installed: licences and advisories are not checked");
        return Ok(true);
    }
    let rules = root.join("deny.toml").display().to_string();
    let (mut kept, mut reachable) = (true, true);
    for workspace in WORKSPACES.map(|w| root.join(w)).iter().filter(|w| w.join("Cargo.lock").is_file()) {
        let deny = |checks: &[&str]| {
            let common = ["deny", "--all-features", "--config", &rules, "check", "--hide-inclusion-graph"];
            command::cargo(workspace, &[&common, checks].concat())
        };
        kept &= command::run_ok(&mut deny(&["bans", "licenses", "sources"]))?;
        if reachable {
            let (well, said) = command::tee(&mut deny(&["advisories"]))?;
            reachable = well || !said.iter().any(|line| line.contains("failed to fetch advisory database"));
            kept &= well || !reachable;
        }
    }
    if !reachable {
        eprintln!("tidy: the advisory database can't be reached: advisories are not checked");
    }
    Ok(kept)
}
