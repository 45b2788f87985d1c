//! The plugin contract's versions: `cargo xtask wit …`, and the check that `cargo xtask tidy` makes of them.
//!
//! A released version of a package lies in `wit/frozen/NAME@VERSION` and never changes. What is in `wit/` now may be the
//! same, or a later version: of the same line if it only adds, of another one if it breaks. Both are parsed, so that a
//! comment may be mended and a function cannot vanish.

mod change;
mod shape;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use semver::Version;

use change::Change;
use shape::Package;

/// The namespace of all packages.
const NAMESPACE: &str = "picket";
const FROZEN: &str = "wit/frozen";
const CHANGES: &str = "wit/CHANGES.md";
/// The host's table of what it serves.
const SERVED: &str = "agent/host/src/versions.rs";
/// What is bound to a version for good: a bump leaves it alone.
const BOUND: &[&str] = &[
    "wit/frozen/",
    "wit/CHANGES.md",
    "docs/contracts.md",
    "changelog.d/",
    "agent/host/src/former.rs",
    "agent/host/src/versions.rs",
    "agent/host/tests/guests/former/",
    "agent/host/tests/plugins/former.rs",
    "tests/e2e/former.rs",
    "tests/guests/former/",
    "tests/hostile/plugins/contract_",
];

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Say of each package how it differs from the newest frozen version.
    Diff,
    /// Keep the version that is in wit/ now as it is, for good: part of a release.
    Freeze {
        /// Which package (types, host, source, action); none: each that is not frozen yet.
        package: Option<String>,
    },
    /// Give a package another version, wherever it is named.
    Bump { package: String, version: Version },
}

/// Runs a command; `false` if the contract breaks what it promised.
pub fn run(root: &Path, args: &Args) -> Result<bool> {
    match &args.command {
        Command::Diff => {
            let contract = Contract::read(root)?;
            for package in &contract.current {
                match contract.newest(&package.name) {
                    None => println!("{package}: never frozen"),
                    Some(frozen) => {
                        let change = Change::between(frozen, package);
                        println!("{package}, against {}: {}", frozen.version, change.kind());
                        change.lines().for_each(|line| println!("    {line}"));
                    }
                }
            }
            Ok(contract.problems().is_empty())
        }
        Command::Freeze { package } => freeze(root, package.as_deref()).map(|()| true),
        Command::Bump { package, version } => bump(root, package, version).map(|()| true),
    }
}

/// What is wrong with the contract's versions, each with what to do.
pub fn problems(root: &Path) -> Result<Vec<String>> {
    let contract = Contract::read(root)?;
    let mut problems = contract.problems();
    let changes = std::fs::read_to_string(root.join(CHANGES)).unwrap_or_default();
    for package in contract.current.iter().chain(&contract.frozen) {
        let title = format!("## {package}");
        if !changes.lines().any(|line| line == title) {
            problems.push(format!("{CHANGES} has no section {title:?}: say what changed, and for whom"));
        }
    }
    problems.dedup();
    Ok(problems)
}

/// The packages of `wit/`, and all that are frozen.
struct Contract {
    current: Vec<Package>,
    frozen: Vec<Package>,
}

impl Contract {
    fn read(root: &Path) -> Result<Self> {
        let current = shape::packages_of(&root.join("wit")).context("wit/")?;
        let mut folders: Vec<PathBuf> = match std::fs::read_dir(root.join(FROZEN)) {
            Ok(entries) => entries.map(|e| Ok(e?.path())).collect::<Result<_>>()?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(e).context(FROZEN),
        };
        folders.sort();
        let frozen = shape::packages_in(&folders).context(FROZEN)?;
        for folder in &folders {
            let name = folder.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if !frozen.iter().any(|p| folder_of(p) == name) {
                bail!("{FROZEN}/{name} holds another package or version than its name says");
            }
        }
        Ok(Self { current, frozen })
    }

    fn newest(&self, name: &str) -> Option<&Package> {
        self.frozen.iter().filter(|p| p.name == name).max_by_key(|p| p.version.clone())
    }

    fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.current.iter().filter_map(|p| self.problem(p)).collect();
        for frozen in &self.frozen {
            if !self.current.iter().any(|p| p.name == frozen.name) {
                problems
                    .push(format!("{frozen} is frozen, and wit/ has no such package any more: put it back"));
            }
        }
        problems
    }

    fn problem(&self, package: &Package) -> Option<String> {
        let frozen = self.newest(&package.name)?;
        let (was, is) = (&frozen.version, &package.version);
        if is < was {
            return Some(format!("wit/ has {package}, but {was} is frozen already: go on from there"));
        }
        let change = Change::between(frozen, package);
        let same_line = line(was) == line(is);
        let name = &package.name;
        let wanted = if change.breaks() {
            if !same_line {
                return None;
            }
            let next = next_line(was);
            format!(
                "plugins that were built for {was} would not run any more; put it back, or make it another \
                 version line (`cargo xtask wit bump {name} {next}`) with a shim for the one before, as \
                 docs/contracts.md tells"
            )
        } else if change.adds() && is == was {
            let next = next_addition(was);
            format!(
                "{was} is frozen; an addition is a version of its own: `cargo xtask wit bump {name} {next}`"
            )
        } else {
            return None;
        };
        let what: Vec<String> = change.lines().take(8).collect();
        Some(format!("{package} is not what was promised with {was}: {}: {wanted}", what.join(", ")))
    }
}

fn folder_of(package: &Package) -> String {
    format!("{}@{}", package.name, package.version)
}

/// What versions share that fit each other, as semantic versioning has it.
const fn line(version: &Version) -> (u64, u64) {
    if version.major > 0 { (version.major, 0) } else { (0, version.minor) }
}

const fn next_line(version: &Version) -> Version {
    if version.major > 0 {
        Version::new(version.major + 1, 0, 0)
    } else {
        Version::new(0, version.minor + 1, 0)
    }
}

const fn next_addition(version: &Version) -> Version {
    if version.major > 0 {
        Version::new(version.major, version.minor + 1, 0)
    } else {
        Version::new(0, version.minor, version.patch + 1)
    }
}

fn freeze(root: &Path, package: Option<&str>) -> Result<()> {
    let contract = Contract::read(root)?;
    if let Some(problem) = contract.problems().first() {
        bail!("{problem}");
    }
    let mut found = false;
    for current in contract.current.iter().filter(|p| package.is_none_or(|name| name == p.name)) {
        found = true;
        let folder = root.join(FROZEN).join(folder_of(current));
        if folder.exists() {
            println!("{current} is frozen already");
            continue;
        }
        std::fs::create_dir_all(&folder)?;
        for file in &current.files {
            let name = file.file_name().context("a file without a name")?;
            std::fs::copy(file, folder.join(name))
                .with_context(|| format!("cannot copy {}", file.display()))?;
        }
        println!("{current} is frozen in {}", folder.display());
    }
    if !found {
        bail!("wit/ has no package {}", package.unwrap_or_default());
    }
    println!("Now write the new hashes into docs/contracts.md: `cargo xtask tidy` says them.");
    Ok(())
}

fn bump(root: &Path, name: &str, version: &Version) -> Result<()> {
    let contract = Contract::read(root)?;
    let package = contract.current.iter().find(|p| p.name == name);
    let package = package.with_context(|| format!("wit/ has no package {name}"))?;
    if *version <= package.version {
        bail!("{package} is not before {version}");
    }
    for file in crate::tidy::repository_files(root)? {
        if BOUND.iter().any(|bound| file.starts_with(bound)) {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(root.join(&file)) else { continue };
        if let Some(renamed) = renamed(&text, package, version) {
            std::fs::write(root.join(&file), renamed)?;
            println!("{file}");
        }
    }
    println!(
        "Now write the section of {NAMESPACE}:{name} {version} into {CHANGES}, and the version into the table of {SERVED}."
    );
    Ok(())
}

/// The text with each `picket:NAME/…@OLD` and `picket:NAME@OLD` of the other version; none if there is none.
fn renamed(text: &str, package: &Package, version: &Version) -> Option<String> {
    let begin = format!("{NAMESPACE}:{}", package.name);
    let old = package.version.to_string();
    let mut out = String::new();
    let mut rest = text;
    let mut found = false;
    while let Some((before, after)) = rest.split_once(&begin) {
        out.push_str(before);
        out.push_str(&begin);
        let word = match after.strip_prefix('/') {
            Some(path) => {
                1 + path.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(path.len())
            }
            None => 0,
        };
        let (word, tail) = after.split_at(word);
        out.push_str(word);
        let ends = |t: &&str| !t.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+');
        match tail.strip_prefix('@').and_then(|t| t.strip_prefix(&old)).filter(ends) {
            Some(tail) => {
                out.push_str(&format!("@{version}"));
                rest = tail;
                found = true;
            }
            None => rest = tail,
        }
    }
    out.push_str(rest);
    found.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(version: &str, text: &str) -> Package {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("package picket:thing@{version};\n{text}");
        std::fs::write(folder.path().join("thing.wit"), text).unwrap();
        shape::packages_of(folder.path()).unwrap().remove(0)
    }

    fn problem(was: (&str, &str), is: (&str, &str)) -> Option<String> {
        let contract = Contract { current: vec![package(is.0, is.1)], frozen: vec![package(was.0, was.1)] };
        contract.problems().pop()
    }

    const BEFORE: &str = "
        interface given { record r { a: u32 } variant v { a, other(string) } get: func(x: r) -> result<v, string>; }
        interface made { run: func(); }
        world w { import given; export made; }
    ";

    #[test]
    fn what_is_promised_is_kept() {
        let with = |from: &str, to: &str| BEFORE.replace(from, to);
        let same = with("interface given", "/// Said better.\ninterface given");
        let more = with("get: func", "set: func(x: r); get: func");
        let imports =
            with("import given;", "import given; import another;") + "interface another { f: func(); }";
        let fewer = with("get: func(x: r) -> result<v, string>;", "");
        let field = with("a: u32", "a: u32, b: u32");
        let case = with("a, other", "a, b, other");
        let renamed = with("func(x: r)", "func(y: r)");
        let asked = with("run: func();", "run: func(); stop: func();");
        let exports =
            with("export made;", "export made; export another;") + "interface another { f: func(); }";
        for (version, text, says) in [
            ("0.1.0", &same, None),
            ("0.1.0", &more, Some("bump thing 0.1.1")),
            ("0.1.1", &more, None),
            ("0.1.0", &imports, Some("bump thing 0.1.1")),
            ("0.1.1", &imports, None),
            ("0.1.1", &fewer, Some("bump thing 0.2.0")),
            ("0.2.0", &fewer, None),
            ("0.1.1", &field, Some("given.r changed")),
            ("0.1.1", &case, Some("given.v changed")),
            ("0.1.1", &renamed, Some("given.get changed")),
            // An older plugin has no such export.
            ("0.1.1", &asked, Some("made.stop is asked of plugins")),
            ("0.1.1", &exports, Some("w export another is asked of plugins")),
            ("0.0.9", &same, Some("frozen already")),
        ] {
            let found = problem(("0.1.0", BEFORE), (version, text));
            match says {
                None => assert_eq!(found, None, "{version}: {text}"),
                Some(says) => {
                    let found = found.unwrap_or_else(|| panic!("{says} is not said of {version}: {text}"));
                    assert!(found.contains(says), "{found}");
                }
            }
        }
        let major = problem(("1.2.0", BEFORE), ("1.2.0", &more)).unwrap();
        assert!(major.contains("bump thing 1.3.0"), "{major}");
        let major = problem(("1.2.0", BEFORE), ("1.3.0", &fewer)).unwrap();
        assert!(major.contains("bump thing 2.0.0"), "{major}");
    }

    #[test]
    fn names_of_a_version_are_renamed_and_no_others() {
        let text = "package picket:thing@0.1.0; picket:thing/a-b@0.1.0.{c} picket:thing/a@0.1.01 \
                    picket:things/a@0.1.0 picket:thing/a@0.2.0 picket:thing/a picket:thing";
        let want = "package picket:thing@0.1.1; picket:thing/a-b@0.1.1.{c} picket:thing/a@0.1.01 \
                    picket:things/a@0.1.0 picket:thing/a@0.2.0 picket:thing/a picket:thing";
        let package = package("0.1.0", "");
        assert_eq!(renamed(text, &package, &Version::new(0, 1, 1)).as_deref(), Some(want));
        assert_eq!(renamed("picket:thing/a@0.2.0", &package, &Version::new(0, 1, 1)), None);
    }

    #[test]
    fn the_repository_keeps_its_promises() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        assert_eq!(problems(root).unwrap(), Vec::<String>::new());
    }
}
