//! Checks of the files themselves.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Findings, repository_files};
use crate::command;
use crate::test::OTHER_WORKSPACES;

/// A file that grew past this is asked what it is two of.
const MAX_LINES: usize = 600;

/// Words that must not be committed, each with the reason. Written in halves, so that this file passes.
const WORDS: &[(&str, &str)] = &[
    (concat!("FIX", "ME"), "mend it, or open an issue"),
    (concat!("TO", "DO:"), "do it, or open an issue"),
    (concat!("todo", "!("), "a function is done or it isn't there"),
    (concat!("unimpl", "emented!("), "a function is done or it isn't there"),
    (concat!("dbg", "!("), "left over from debugging"),
    (concat!("<<<<", "<<< "), "a conflict that nobody resolved"),
    (concat!(">>>>", ">>> "), "a conflict that nobody resolved"),
    (concat!("BEGIN PRIVATE", " KEY"), "no key belongs into a repository"),
    (concat!("BEGIN RSA PRIVATE", " KEY"), "no key belongs into a repository"),
];

/// Where the contracts' hashes are written down.
const CONTRACTS: &str = "docs/contracts.md";
/// A change of one of these needs a change of that page.
const CONTRACT_FOLDERS: &[(&str, &str)] = &[("wit/", ".wit"), ("proto/", ".proto")];
const KINDS: &[&str] = &["added", "changed", "deprecated", "removed", "fixed", "security"];

/// The repository's text files.
pub struct Files {
    files: Vec<(String, String)>,
}

impl Files {
    /// Reads them all; files that are no text are left out.
    pub fn read(root: &Path) -> Result<Self> {
        let names = repository_files(root)?;
        let read = |name: String| Some((name.clone(), std::fs::read_to_string(root.join(name)).ok()?));
        Ok(Self { files: names.into_iter().filter_map(read).collect() })
    }

    fn has(&self, name: &str) -> bool {
        self.files.iter().any(|(n, _)| n == name)
    }

    /// A file's text; none if it is not there.
    pub fn text(&self, name: &str) -> &str {
        self.files.iter().find(|(n, _)| n == name).map_or("", |(_, text)| text)
    }

    /// The names and texts of the files that end so.
    pub fn ending<'a>(&'a self, end: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files.iter().filter(move |(n, _)| n.ends_with(end)).map(|(n, t)| (n.as_str(), t.as_str()))
    }

    pub fn check_length(&self, findings: &mut Findings) {
        for (name, text) in self.ending(".rs").filter(|(name, _)| !name.contains("/generated/")) {
            let lines = text.lines().count();
            if lines > MAX_LINES {
                findings.warn(format!("{name} has {lines} lines: what is it two of?"));
            }
        }
    }

    pub fn check_words(&self, findings: &mut Findings) {
        for (name, text) in &self.files {
            for (word, reason) in WORDS {
                if let Some(line) = text.lines().position(|line| line.contains(word)) {
                    findings.error(format!("{name}:{}: {word}: {reason}", line + 1));
                }
            }
        }
    }

    /// Relative links in the documents lead somewhere.
    pub fn check_links(&self, root: &Path, findings: &mut Findings) {
        for (name, text) in self.ending(".md") {
            let folder = Path::new(name).parent().unwrap_or(Path::new(""));
            for target in links(text) {
                let path = target.split('#').next().unwrap_or_default();
                if !path.is_empty() && !target.contains("://") && !root.join(folder).join(path).exists() {
                    findings.error(format!("{name}: the link to {target} leads nowhere"));
                }
            }
        }
    }

    /// Every error code that a user can meet has its section in the documents.
    pub fn check_error_pages(&self, findings: &mut Findings) {
        let page = self.text("docs/errors.md");
        let documented: BTreeSet<&str> =
            page.lines().filter_map(|line| line.strip_prefix("## ")).filter_map(first_code).collect();
        let mut used = BTreeSet::new();
        let code_files = |name: &str| !name.starts_with("tests/") && !name.starts_with("xtask/");
        for (name, text) in self.ending(".rs").filter(|(name, _)| code_files(name)) {
            for line in text.lines() {
                if let Some(code) = first_code(line).filter(|code| used.insert(*code))
                    && !documented.contains(code)
                {
                    findings.error(format!("{name}: {code} has no section in docs/errors.md"));
                }
            }
        }
        for code in documented.difference(&used) {
            findings.error(format!("docs/errors.md: nothing gives {code} any more"));
        }
    }

    /// Each workspace pins what it is built from.
    pub fn check_lock_files(&self, findings: &mut Findings) {
        let others = OTHER_WORKSPACES.iter().map(|workspace| format!("{workspace}/"));
        for workspace in others.chain([String::new()]) {
            if self.has(&format!("{workspace}Cargo.toml")) && !self.has(&format!("{workspace}Cargo.lock")) {
                findings.error(format!("{workspace}Cargo.lock is missing: run cargo there and add it"));
            }
        }
    }

    pub fn check_changelog(&self, findings: &mut Findings) {
        let mut fragments = 0;
        for (name, text) in &self.files {
            let Some(fragment) = name.strip_prefix("changelog.d/").filter(|f| *f != "README.md") else {
                continue;
            };
            fragments += 1;
            let kind = fragment.strip_suffix(".md").and_then(|f| f.rsplit_once('.')).map(|(_, kind)| kind);
            if !kind.is_some_and(|kind| KINDS.contains(&kind)) {
                findings.error(format!("{name}: name it NAME.KIND.md; a kind is {}", KINDS.join(", ")));
            }
            if text.trim().is_empty() {
                findings.error(format!("{name} is empty"));
            }
        }
        if fragments == 0 && !self.text("CHANGELOG.md").contains("\n## ") {
            findings.error("changelog.d/ has no fragment: describe the change for its users");
        }
    }

    /// The contracts are what the page says they are, so that changing one makes a person edit the page.
    pub fn check_contracts(&self, root: &Path, findings: &mut Findings) -> Result<()> {
        let contracts: Vec<PathBuf> = self
            .files
            .iter()
            .filter(|(name, _)| {
                CONTRACT_FOLDERS.iter().any(|(folder, end)| name.starts_with(folder) && name.ends_with(end))
            })
            .map(|(name, _)| name.into())
            .collect();
        let page = self.text(CONTRACTS);
        let sums = command::output(Command::new("sha256sum").arg("--").args(&contracts).current_dir(root))
            .context("the contracts' hashes")?;
        for sum in sums.lines().filter(|sum| !page.lines().any(|line| line == *sum)) {
            let file = sum.split("  ").nth(1).unwrap_or_default();
            if file.starts_with("wit/frozen/") && page.contains(&format!("  {file}\n")) {
                findings.error(format!("{file} is frozen and was changed: put it back as it was"));
                continue;
            }
            findings.error(format!(
                "{CONTRACTS} lacks this line: say there what changed in the contract, then write it down\n    {sum}"
            ));
        }
        for line in page.lines().filter(|line| line.len() > 66 && line.get(64..66) == Some("  ")) {
            if !sums.lines().any(|sum| sum == line) {
                findings.error(format!("{CONTRACTS}: this is no longer so\n    {line}"));
            }
        }
        Ok(())
    }
}

/// `PKT-` and four digits.
fn first_code(line: &str) -> Option<&str> {
    let at = line.find("PKT-")?;
    let code = line.get(at..at + 8)?;
    code.bytes().skip(4).all(|b| b.is_ascii_digit()).then_some(code)
}

/// The targets of `[text](target)`, outside of code blocks.
pub fn links(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            code = !code;
        }
        if code {
            continue;
        }
        for part in line.split("](").skip(1) {
            if let Some((target, _)) = part.split_once(')') {
                found.push(target.split(' ').next().unwrap_or(target));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{first_code, links};

    #[test]
    fn links_outside_of_code() {
        let text = "see [a](b.md) and [c](d.md#e)\n```\n[no](no)\n```\n[f](https://example.org \"t\")";
        assert_eq!(links(text), ["b.md", "d.md#e", "https://example.org"]);
    }

    #[test]
    fn codes() {
        assert_eq!(first_code("## PKT-0012: x"), Some("PKT-0012"));
        assert_eq!(first_code("code: \"PKT-0001\","), Some("PKT-0001"));
        assert_eq!(first_code("PKT-12"), None);
        assert_eq!(first_code("PKT-abcd"), None);
    }
}
