//! Which versions of the contract this host serves: of each package that of `wit/`, and the one before it where
//! `former` has a shim.
//!
//! Versions of one line (0.1.0 and 0.1.4, 1.0.0 and 1.6.2) only differ by additions, so that each of them links. The
//! unit test here holds the table against `wit/` and `wit/frozen/`.

use semver::Version;
use serde::{Deserialize, Serialize};

/// A released version: what is written otherwise is none of the contract's.
fn parse(text: &str) -> Option<Version> {
    Version::parse(text).ok().filter(|version| version.pre.is_empty() && version.build.is_empty())
}

/// What two versions share that fit each other.
const fn line(version: &Version) -> (u64, u64) {
    if version.major > 0 { (version.major, 0) } else { (0, version.minor) }
}

/// Which of the versions that are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Edition {
    Current,
    Former,
}

struct Package {
    name: &'static str,
    current: Version,
    former: Option<Version>,
}

static PACKAGES: [Package; 4] = [
    Package { name: "picket:action", current: Version::new(0, 1, 0), former: None },
    Package { name: "picket:host", current: Version::new(0, 1, 0), former: None },
    Package { name: "picket:source", current: Version::new(0, 2, 0), former: Some(Version::new(0, 1, 0)) },
    Package { name: "picket:types", current: Version::new(0, 1, 0), former: None },
];

/// An interface or a world that this host serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Served<'a> {
    /// Without the version: `picket:host/files`.
    pub name: &'a str,
    pub edition: Edition,
    /// It is of a later version than what is here, though of the same line: it may have more.
    pub newer: bool,
}

/// Why it does not.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unserved {
    /// It is none of the contract's.
    Stranger,
    /// Another version of the contract; the text names both, and says what to do.
    Version(String),
}

/// `picket:host/files@0.1.2`, looked up.
pub(crate) fn served(full: &str) -> Result<Served<'_>, Unserved> {
    let (name, version) = full.split_once('@').ok_or(Unserved::Stranger)?;
    let (package, _) = name.split_once('/').ok_or(Unserved::Stranger)?;
    let package = PACKAGES.iter().find(|p| p.name == package).ok_or(Unserved::Stranger)?;
    let asked = parse(version).ok_or(Unserved::Stranger)?;
    let of = |edition, here: &Version| Ok(Served { name, edition, newer: asked > *here });
    match &package.former {
        _ if line(&asked) == line(&package.current) => of(Edition::Current, &package.current),
        Some(former) if line(&asked) == line(former) => of(Edition::Former, former),
        _ => Err(Unserved::Version(package.other(&asked))),
    }
}

impl Package {
    fn other(&self, asked: &Version) -> String {
        let Self { name, current, former } = self;
        let serves = match former {
            Some(former) => format!("{current} and, before it, {former}"),
            None => current.to_string(),
        };
        if asked > current {
            format!(
                "the plugin is made for {name} {asked}, which is too new: this agent serves {serves}; upgrade the \
                 agent, or build the plugin for {current}"
            )
        } else {
            format!(
                "the plugin is made for {name} {asked}, which is too old: this agent serves {serves}; build the \
                 plugin again for {current}, or run it on an older agent"
            )
        }
    }
}

/// The whole name of one of the contract's worlds or interfaces: `picket:source/source-plugin@0.2.0`.
pub(crate) fn full(name: &str, edition: Edition) -> String {
    let package = PACKAGES.iter().find(|p| name.split('/').next() == Some(p.name));
    let version = package.map(|p| match edition {
        Edition::Current => &p.current,
        Edition::Former => p.former.as_ref().unwrap_or(&p.current),
    });
    version.map_or_else(|| name.to_owned(), |version| format!("{name}@{version}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_served() {
        use Edition::{Current, Former};
        for (full, name, edition, newer) in [
            ("picket:host/files@0.1.0", "picket:host/files", Current, false),
            ("picket:host/files@0.1.7", "picket:host/files", Current, true),
            ("picket:source/sink@0.2.0", "picket:source/sink", Current, false),
            ("picket:source/sink@0.1.0", "picket:source/sink", Former, false),
        ] {
            assert_eq!(served(full), Ok(Served { name, edition, newer }), "{full}");
        }
        for stranger in [
            "picket:host/files",
            "picket:host@0.1.0",
            "picket:hosts/files@0.1.0",
            "picket:host/files@0.1.",
            "picket:host/files@0.1.0-x",
            "picket:host/files@0.1.0+x",
            "picket:host/files@0.01.0",
            "picket:host/files@0.1.0.0",
            "picket:host/files@99999999999999999999.0.0",
            "wasi:io/poll@0.1.0",
        ] {
            assert_eq!(served(stranger), Err(Unserved::Stranger), "{stranger}");
        }
    }

    #[test]
    fn another_version_is_named_with_ours_and_what_to_do() {
        for (full, says) in [
            (
                "picket:source/source@0.0.9",
                ["0.0.9", "too old", "0.2.0 and, before it, 0.1.0", "build the plugin again"],
            ),
            (
                "picket:source/source@0.3.0",
                ["0.3.0", "too new", "0.2.0 and, before it, 0.1.0", "upgrade the agent"],
            ),
            (
                "picket:host/files@99999999999.0.0",
                ["99999999999.0.0", "too new", "serves 0.1.0;", "build the plugin for 0.1.0"],
            ),
            ("picket:host/files@1.0.0", ["1.0.0", "too new", "serves 0.1.0;", "build the plugin for 0.1.0"]),
        ] {
            let Err(Unserved::Version(message)) = served(full) else { panic!("{full} is served") };
            assert!(says.iter().all(|part| message.contains(part)), "{message}");
        }
    }

    /// The version that a package's files say they are of.
    fn said(folder: &Path) -> Version {
        let mut files = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
        let file = files.find(|f| f.extension().is_some_and(|e| e == "wit")).unwrap();
        let text = std::fs::read_to_string(file).unwrap();
        let package = text.lines().find_map(|l| l.strip_prefix("package ")).unwrap();
        parse(package.trim_end_matches(';').split_once('@').unwrap().1).unwrap()
    }

    #[test]
    fn the_table_is_that_of_the_contract() {
        let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
        for package in &PACKAGES {
            let short = package.name.strip_prefix("picket:").unwrap();
            let folder = if short == "source" { wit.clone() } else { wit.join("deps").join(short) };
            assert_eq!(package.current, said(&folder), "{}", package.name);
            let frozen = std::fs::read_dir(wit.join("frozen")).unwrap().filter_map(|entry| {
                let name = entry.unwrap().file_name().into_string().unwrap();
                parse(name.strip_prefix(short)?.strip_prefix('@')?)
            });
            let before = frozen.filter(|v| line(v) < line(&package.current)).max();
            assert_eq!(package.former, before, "{}: the newest frozen one of the line before", package.name);
        }
    }
}
