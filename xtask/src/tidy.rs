//! The rules of the house, checked: who may depend on whom, lints, contracts, words, links, error pages, changelog,
//! the engine's advisories.
//!
//! The rules are data (`rooms`, and the lists here); the checks only compare. A broken rule is an error that says
//! what to do; a file that grew too long is a warning.

mod advisories;
mod book;
mod deny;
mod dependencies;
mod files;
mod rooms;

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::{command, wit};

/// What the checks found.
#[derive(Default)]
struct Findings {
    errors: Vec<String>,
    warnings: Vec<String>,
}

impl Findings {
    fn error(&mut self, text: impl Into<String>) {
        self.errors.push(text.into());
    }

    fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }
}

/// Runs every check; `false` if a rule is broken.
pub fn run(root: &Path) -> Result<bool> {
    eprintln!("--- tidy");
    let mut findings = Findings::default();
    dependencies::check(root, &mut findings)?;
    let files = files::Files::read(root)?;
    files.check_length(&mut findings);
    files.check_words(&mut findings);
    files.check_links(root, &mut findings);
    files.check_error_pages(&mut findings);
    book::check(&files, &mut findings);
    files.check_lock_files(&mut findings);
    files.check_changelog(&mut findings);
    files.check_contracts(root, &mut findings)?;
    match wit::problems(root) {
        Ok(problems) => problems.into_iter().for_each(|problem| findings.error(problem)),
        Err(e) => findings.error(format!("the plugin contract cannot be read: {e:#}")),
    }
    advisories::check(root, &files, &mut findings)?;
    let denied = deny::check(root)?;
    for warning in &findings.warnings {
        eprintln!("tidy: warning: {warning}");
    }
    for error in &findings.errors {
        eprintln!("tidy: error: {error}");
    }
    Ok(findings.errors.is_empty() && denied)
}

/// The files that git tracks or would track, relative to the root.
pub fn repository_files(root: &Path) -> Result<Vec<String>> {
    let args = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let list = command::output(Command::new("git").args(args).current_dir(root))?;
    Ok(list.lines().filter(|file| root.join(file).is_file()).map(str::to_owned).collect())
}
