//! What is in the packages: `packaging/packages.toml`, read strictly.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    pub maintainer: String,
    pub vendor: String,
    /// The oldest C library that the programs may ask for.
    pub glibc: String,
    pub packages: BTreeMap<String, Package>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    pub summary: String,
    pub description: String,
    /// One of these must be there.
    #[serde(default)]
    pub depends: Vec<String>,
    #[serde(default)]
    pub recommends: Vec<String>,
    /// It has maintainer scripts: `deb/NAME.*` and `rpm/NAME.*`.
    #[serde(default)]
    pub scripts: bool,
    /// It has programs of one architecture.
    #[serde(default = "yes")]
    pub native: bool,
    pub files: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub from: String,
    /// The whole path; where `from` is several files, their folder.
    pub to: String,
}

/// Where an entry's bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin<'a> {
    Repository(&'a str),
    Program(&'a str),
    Manual(&'a str),
    Completion(&'a str),
    Key,
    Plugins,
}

impl Entry {
    pub fn origin(&self) -> Result<Origin<'_>> {
        Ok(match self.from.split_once(':') {
            Some(("program", name)) => Origin::Program(name),
            Some(("man", name)) => Origin::Manual(name),
            Some(("completion", name)) => Origin::Completion(name),
            Some((kind, _)) => bail!("{}: there is no origin {kind}", self.from),
            None if self.from == "key" => Origin::Key,
            None if self.from == "plugins" => Origin::Plugins,
            None => Origin::Repository(&self.from),
        })
    }
}

fn yes() -> bool {
    true
}

impl Description {
    pub fn load(root: &Path) -> Result<Self> {
        let file = root.join("packaging/packages.toml");
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let description: Self =
            toml::from_str(&text).with_context(|| format!("{} is not valid", file.display()))?;
        for (name, package) in &description.packages {
            for entry in &package.files {
                entry.origin().with_context(|| format!("{}: {name}", file.display()))?;
            }
        }
        Ok(description)
    }

    /// The programs of all packages.
    pub fn programs(&self) -> Vec<&str> {
        let entries = self.packages.values().flat_map(|package| &package.files);
        entries
            .filter_map(|entry| match entry.origin() {
                Ok(Origin::Program(name)) => Some(name),
                _ => None,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each file that a package is to have is there, and none is in two packages.
    #[test]
    fn the_shipped_description_holds() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let description = Description::load(root).unwrap();
        let mut places = std::collections::BTreeSet::new();
        for (name, package) in &description.packages {
            for entry in &package.files {
                if let Origin::Repository(file) = entry.origin().unwrap() {
                    assert!(root.join(file).is_file(), "{name}: {file} is not in the repository");
                }
                if entry.to.starts_with("/usr/bin") || entry.to.starts_with("/etc") {
                    assert!(places.insert(entry.to.clone()), "{} is in two packages", entry.to);
                }
            }
            for other in package.recommends.iter().chain(&package.depends) {
                assert!(description.packages.contains_key(other), "{name} names {other}");
            }
            for script in ["postinst", "prerm", "postrm"] {
                let file = root.join(format!("packaging/deb/{name}.{script}"));
                assert_eq!(file.is_file(), package.scripts, "{}", file.display());
            }
            for script in ["post", "preun", "postun"] {
                let file = root.join(format!("packaging/rpm/{name}.{script}"));
                assert_eq!(file.is_file(), package.scripts, "{}", file.display());
            }
        }
    }

    #[test]
    fn origins() {
        let origin = |from: &str| {
            let entry = Entry { from: from.to_owned(), to: String::new() };
            entry.origin().map(|o| format!("{o:?}")).map_err(|e| e.to_string())
        };
        assert_eq!(origin("program:picket").unwrap(), r#"Program("picket")"#);
        assert_eq!(origin("config/agent.toml").unwrap(), r#"Repository("config/agent.toml")"#);
        assert_eq!(origin("key").unwrap(), "Key");
        assert!(origin("url:x").unwrap_err().contains("no origin url"));
    }
}
