//! The page that shows the table.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use semver::{Op, Version, VersionReq};

use super::{Facts, Findings, Row, Table, Verdict};

const PAGE: &str = "docs/security/advisories.md";
const BEGIN: &str = "<!-- advisories -->\n";
const END: &str = "<!-- /advisories -->";

/// The page has the table. With `PICKET_BLESS` in the environment it gets it.
pub fn check(root: &Path, table: &Table, facts: &Facts, findings: &mut Findings) -> Result<()> {
    let path = root.join(PAGE);
    let text = std::fs::read_to_string(&path).with_context(|| PAGE.to_owned())?;
    let Some(wanted) = with_table(&text, &shown(table, facts)) else {
        findings.error(format!("{PAGE} has no place for the table: {BEGIN}{END}"));
        return Ok(());
    };
    if wanted == text {
        return Ok(());
    }
    if std::env::var_os("PICKET_BLESS").is_some() {
        return std::fs::write(&path, wanted).with_context(|| PAGE.to_owned());
    }
    findings
        .error(format!("{PAGE} does not show the table as it is: PICKET_BLESS=1 cargo xtask tidy writes it"));
    Ok(())
}

pub fn with_table(page: &str, table: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{table}{END}{after}"))
}

pub fn shown(table: &Table, facts: &Facts) -> String {
    let rows = &table.advisory;
    let count = |verdict| rows.iter().filter(|row| row.verdict == verdict).count();
    let open =
        rows.iter().filter(|row| facts.locked.contains_key(&row.package) && !facts.has_fix(row)).count();
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "{} advisories: {} feature off, {} patched, {} contained. Picket is built with Wasmtime {}, which has no fix of {}: those are off or contained.\n",
        rows.len(),
        count(Verdict::FeatureOff),
        count(Verdict::Patched),
        count(Verdict::Contained),
        facts.versions("wasmtime"),
        open,
    );
    text.push_str("| advisory | fault | fixed in | verdict | why |\n| --- | --- | --- | --- | --- |\n");
    for row in rows {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            names(row),
            row.title,
            row.patched.iter().map(first_fixed).collect::<Vec<_>>().join(", "),
            row.verdict.name(),
            reasons(row)
        );
    }
    text
}

fn names(row: &Row) -> String {
    let github =
        |id: &str| format!("[{id}](https://github.com/bytecodealliance/wasmtime/security/advisories/{id})");
    match &row.ghsa {
        Some(ghsa) => format!("[{}](https://rustsec.org/advisories/{}), {}", row.id, row.id, github(ghsa)),
        None => github(&row.id),
    }
}

/// The version that a range begins with: what was fixed later on the same line is fixed in all that follow.
fn first_fixed(range: &VersionReq) -> String {
    let first = range.comparators.iter().find(|c| c.op == Op::GreaterEq);
    first.map_or_else(
        || range.to_string(),
        |c| Version::new(c.major, c.minor.unwrap_or(0), c.patch.unwrap_or(0)).to_string(),
    )
}

fn reasons(row: &Row) -> String {
    let kinds: [(&str, &[String]); 6] = [
        ("no crate", &row.without_crate),
        ("without the feature", &row.without_feature),
        ("with the feature", &row.with_feature),
        ("set:", &row.switch),
        ("never called:", &row.without_call),
        ("tested by", &row.test),
    ];
    let facts: Vec<String> = kinds
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(kind, names)| {
            format!("{kind} {}", names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", "))
        })
        .collect();
    if facts.is_empty() { row.why.clone() } else { format!("{} ({})", row.why, facts.join("; ")) }
}
