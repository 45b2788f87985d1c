//! The real servers that the tests compare with: from PATH, else from Debian's archive into `target/parts`,
//! without root. What can't be had is named, and the tests that need it skip by name. Large ones come only when they are
//! asked for: [`python`].
//!
//! A private apt folder is used (own source list, lists and cache), so the machine's own apt is only read: for
//! the mirror that it uses.

mod javascript;
pub mod python;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{build, command};

/// A program or a library of a Debian package.
struct Part {
    name: &'static str,
    /// Its file inside the package.
    file: &'static str,
    /// What it may be called on PATH.
    on_path: &'static [&'static str],
    /// Suites and packages to try in turn; the suite `""` is the machine's own.
    sources: &'static [(&'static str, &'static str)],
}

const PARTS: &[Part] = &[
    Part {
        name: "prometheus",
        file: "usr/bin/prometheus",
        on_path: &["prometheus"],
        sources: &[("sid", "prometheus"), ("", "prometheus")],
    },
    // A package of its own since Debian 13.
    Part {
        name: "promtool",
        file: "usr/bin/promtool",
        on_path: &["promtool"],
        sources: &[("sid", "promtool"), ("", "promtool"), ("", "prometheus")],
    },
    Part {
        name: "node_exporter",
        file: "usr/bin/prometheus-node-exporter",
        on_path: &["node_exporter", "prometheus-node-exporter"],
        sources: &[("sid", "prometheus-node-exporter"), ("", "prometheus-node-exporter")],
    },
    // A Docker Engine that runs from a folder: its daemon finds the others on PATH. They link libraries of the machine.
    Part { name: "dockerd", file: "usr/sbin/dockerd", on_path: &["dockerd"], sources: &[("", "docker.io")] },
    Part {
        name: "containerd",
        file: "usr/bin/containerd",
        on_path: &["containerd"],
        sources: &[("", "containerd")],
    },
    Part {
        name: "containerd-shim-runc-v2",
        file: "usr/bin/containerd-shim-runc-v2",
        on_path: &["containerd-shim-runc-v2"],
        sources: &[("", "containerd")],
    },
    Part { name: "runc", file: "usr/sbin/runc", on_path: &["runc"], sources: &[("", "runc")] },
    // What the containers of the tests run; it must need no library.
    Part { name: "busybox", file: "bin/busybox", on_path: &[], sources: &[("", "busybox-static")] },
    // NVIDIA's own library: without a driver it says so, which is what the test is about.
    Part {
        name: "libnvidia-ml.so.1",
        file: "usr/lib/*/nvidia/current/libnvidia-ml.so.1",
        on_path: &[],
        sources: &[("", "libnvidia-ml1")],
    },
    // Another maker of signatures, to be read by ours.
    Part { name: "cosign", file: "usr/bin/cosign", on_path: &["cosign"], sources: &[("sid", "cosign")] },
    // Where plugins are pushed to and pulled from.
    Part {
        name: "docker-registry",
        file: "usr/bin/docker-registry",
        on_path: &["docker-registry"],
        sources: &[("", "docker-registry")],
    },
    // The client that loads images into that engine.
    Part { name: "docker", file: "usr/bin/docker", on_path: &["docker"], sources: &[("", "docker.io")] },
    // A Python module, run by the interpreter of the deployment's tools.
    Part {
        name: "cloudinit",
        file: "usr/lib/python3/dist-packages/cloudinit",
        on_path: &[],
        sources: &[("", "cloud-init")],
    },
    // Loaded into our own programs, so it must be of the machine's own C library.
    Part {
        name: "libfaketime.so",
        file: "usr/lib/*/faketime/libfaketime.so.1",
        on_path: &[],
        sources: &[("", "libfaketime")],
    },
];

/// What the benchmarks compare with, beside the parts of the tests.
const PEERS: &[Part] = &[
    Part {
        name: "victoria-metrics",
        file: "usr/bin/victoria-metrics",
        on_path: &["victoria-metrics"],
        sources: &[("sid", "victoria-metrics")],
    },
    Part {
        name: "vmagent",
        file: "usr/bin/vmagent",
        on_path: &["vmagent"],
        sources: &[("sid", "victoria-metrics")],
    },
];

/// A server of several packages, in one folder.
struct Tree {
    name: &'static str,
    suite: &'static str,
    packages: &'static [&'static str],
    /// With all that they need, down to the C library: to be run by `chroot`, on an older system too.
    whole: bool,
}

const TREES: &[Tree] = &[
    // Of the machine's own suite: it runs where it lies.
    Tree {
        name: "slurm",
        suite: "",
        packages: &[
            "slurmctld",
            "slurmd",
            "slurmrestd",
            "slurm-client",
            "slurm-wlm-basic-plugins",
            "slurm-wlm-jwt-plugin",
            "munge",
            "libmunge2",
            "libjwt0",
            "libb64-0d",
            "libhttp-parser2.9",
            "libhwloc15",
            "liblua5.1-0",
        ],
        whole: false,
    },
    // A compiler for plugins in C, with its C library: it runs where it lies.
    Tree {
        name: "wasi-clang",
        suite: "",
        packages: &[
            "clang-14",
            "libclang-common-14-dev",
            "libclang-rt-14-dev-wasm32",
            "libclang-cpp14",
            "libllvm14",
            "lld-14",
            "wasi-libc",
        ],
        whole: false,
    },
    // Its containers run under the part `runc`.
    Tree {
        name: "podman",
        suite: "",
        packages: &[
            "podman",
            "conmon",
            "golang-github-containers-common",
            "golang-github-containers-image",
            "libgpgme11",
            "libassuan0",
            "libsubid4",
            "libdevmapper1.02.1",
        ],
        whole: false,
    },
    // The controller has metrics of its own since 25.11.
    Tree {
        name: "slurm-new",
        suite: "sid",
        packages: &["slurmctld", "slurm-client", "slurm-wlm-basic-plugins", "munge", "busybox-static"],
        whole: true,
    },
];

#[derive(clap::Args)]
pub struct Args {
    /// Large parts to install (litellm, vllm, authors), each of which says what it costs; none: the parts that all tests use.
    names: Vec<String>,
}

/// Fetches what is missing and prints where each part is; of what is named, that alone.
pub fn run(root: &Path, args: &Args) -> Result<bool> {
    for name in &args.names {
        python::install(root, name)?;
    }
    if !args.names.is_empty() {
        return Ok(true);
    }
    fetch(root)?;
    let folder = build::target(root)?.join("parts/bin");
    let mut all = true;
    for name in
        PARTS.iter().map(|part| part.name).chain(TREES.iter().map(|tree| tree.name)).chain([javascript::NAME])
    {
        let link = folder.join(name);
        println!("{name}\t{}", link.display());
        all &= link.exists();
    }
    eprintln!("large ones, by name: cargo xtask parts {}", python::names().join(" | "));
    Ok(all)
}

/// Puts a link a part into `target/parts/bin`. Says what is missing; that alone is no error.
pub fn fetch(root: &Path) -> Result<()> {
    let mut missing = link(root, PARTS)?;
    missing.extend(plant(root)?);
    if let Err(error) = javascript::fetch(root) {
        eprintln!("part {}: {error:#}", javascript::NAME);
        missing.push(javascript::NAME);
    }
    if !missing.is_empty() {
        eprintln!(
            "missing: {}. Tests that need them skip by name. Install Prometheus 3 (with promtool), \
             node_exporter and libfaketime to run those too.",
            missing.join(", ")
        );
    }
    Ok(())
}

/// As [`fetch`], with the peers of the benchmarks.
pub fn fetch_peers(root: &Path) -> Result<()> {
    fetch(root)?;
    let missing = link(root, PEERS)?;
    if !missing.is_empty() {
        eprintln!("missing: {}. Their columns stay empty.", missing.join(", "));
    }
    Ok(())
}

/// The names of those that can't be had.
fn link(root: &Path, parts: &[Part]) -> Result<Vec<&'static str>> {
    let folder = build::target(root)?.join("parts");
    let bin = folder.join("bin");
    std::fs::create_dir_all(&bin).with_context(|| format!("cannot make {}", bin.display()))?;
    let mut missing = Vec::new();
    for part in parts {
        let link = bin.join(part.name);
        if link.exists() {
            continue;
        }
        let found = part.on_path.iter().find_map(command::find);
        match found.map_or_else(|| from_debian(&folder, part), Ok) {
            Ok(file) => {
                let _ = std::fs::remove_file(&link);
                std::os::unix::fs::symlink(&file, &link)
                    .with_context(|| format!("cannot link {}", link.display()))?;
            }
            Err(error) => {
                eprintln!("part {}: {error:#}", part.name);
                missing.push(part.name);
            }
        }
    }
    Ok(missing)
}

/// Puts a link to each tree beside those to the parts; the names of those that can't be had.
fn plant(root: &Path) -> Result<Vec<&'static str>> {
    let folder = build::target(root)?.join("parts");
    let mut missing = Vec::new();
    for tree in TREES {
        let link = folder.join("bin").join(tree.name);
        if link.exists() {
            continue;
        }
        match grow(&folder, tree) {
            Ok(place) => {
                let _ = std::fs::remove_file(&link);
                std::os::unix::fs::symlink(&place, &link)
                    .with_context(|| format!("cannot link {}", link.display()))?;
            }
            Err(error) => {
                eprintln!("part {}: {error:#}", tree.name);
                missing.push(tree.name);
            }
        }
    }
    Ok(missing)
}

fn grow(folder: &Path, tree: &Tree) -> Result<PathBuf> {
    let debian = Debian::of_machine()?;
    let suite = if tree.suite.is_empty() { debian.suite.as_str() } else { tree.suite };
    let place = folder.join(format!("{}-tree", tree.name));
    let mut packages: Vec<String> = tree.packages.iter().map(|p| (*p).to_owned()).collect();
    if tree.whole {
        // The first brings the suite's lists.
        if let Some(first) = packages.first() {
            unpack(folder, &debian, suite, first)?;
        }
        let apt = folder.join("apt").join(suite);
        let mut plan = apt_get(&apt);
        plan.args(["install", "--print-uris", "-y", "--no-install-recommends"]).args(&packages);
        let plan = command::output(&mut plan)?;
        // 'URI' name_version_architecture.deb size hash
        packages = plan
            .lines()
            .filter(|line| line.starts_with('\''))
            .filter_map(|line| Some(line.split(' ').nth(1)?.split('_').next()?.to_owned()))
            .collect();
    }
    std::fs::create_dir_all(&place)?;
    for package in &packages {
        let from = unpack(folder, &debian, suite, package)?;
        command::output(Command::new("cp").arg("-a").arg(from.join(".")).arg(&place))?;
    }
    Ok(place)
}

fn from_debian(folder: &Path, part: &Part) -> Result<PathBuf> {
    let debian = Debian::of_machine()?;
    let mut last = None;
    for (suite, package) in part.sources {
        let suite = if suite.is_empty() { debian.suite.as_str() } else { suite };
        let tried = unpack(folder, &debian, suite, package)
            .and_then(|tree| locate(&tree, part.file))
            .and_then(|file| runs(&file).map(|()| file));
        match tried {
            Ok(file) => return Ok(file),
            Err(error) => last = Some(error.context(format!("from Debian {suite}"))),
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("no suite to take it from")))
}

/// The mirror and the suite that the machine's own apt uses.
struct Debian {
    mirror: String,
    suite: String,
    keyring: PathBuf,
}

impl Debian {
    fn of_machine() -> Result<Self> {
        for program in ["apt-get", "dpkg-deb"] {
            if command::find(program).is_none() {
                bail!("this is no Debian machine ({program} is missing): install it yourself");
            }
        }
        let release = std::fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
        let value = |key: &str| {
            release
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .map(|text| text.trim_matches('"').to_owned())
        };
        if value("ID").as_deref() != Some("debian") {
            bail!("this is no Debian machine (ID in /etc/os-release): install it yourself");
        }
        let suite = value("VERSION_CODENAME").unwrap_or_else(|| "stable".to_owned());
        let keyring = PathBuf::from("/usr/share/keyrings/debian-archive-keyring.gpg");
        if !keyring.exists() {
            bail!("{} is missing: install debian-archive-keyring", keyring.display());
        }
        let targets = command::output(Command::new("apt-get").args([
            "indextargets",
            "--no-release-info",
            "--format",
            "$(REPO_URI) $(RELEASE) $(COMPONENT)",
            "Created-By: Packages",
        ]))?;
        let mirror = targets
            .lines()
            .filter_map(|line| {
                let mut words = line.split(' ');
                Some((words.next()?, words.next()?, words.next()?))
            })
            .find(|(uri, release, component)| {
                *component == "main" && !release.contains('-') && uri.contains("debian")
            })
            .map(|(uri, ..)| uri.to_owned())
            .context("apt's configuration names no Debian mirror")?;
        Ok(Self { mirror, suite, keyring })
    }
}

/// Downloads a package and unpacks it; gives the folder it is in.
fn unpack(folder: &Path, debian: &Debian, suite: &str, package: &str) -> Result<PathBuf> {
    let tree = folder.join(format!("{package}-{suite}"));
    if tree.join(".complete").exists() {
        return Ok(tree);
    }
    eprintln!("fetching {package} of Debian {suite}");
    let apt = folder.join("apt").join(suite);
    for inside in ["lists/partial", "cache/archives/partial", "download", "etc"] {
        std::fs::create_dir_all(apt.join(inside))?;
    }
    let list = apt.join("etc/sources.list");
    let entry =
        format!("deb [signed-by={}] {} {suite} main non-free\n", debian.keyring.display(), debian.mirror);
    let lists_there = apt.join("lists-complete");
    if std::fs::read_to_string(&list).is_ok_and(|before| before != entry) {
        let _ = std::fs::remove_file(&lists_there);
    }
    std::fs::write(&list, entry)?;
    std::fs::write(apt.join("status"), "")?;
    if !lists_there.exists() {
        command::output(apt_get(&apt).arg("update"))?;
        std::fs::write(&lists_there, "")?;
    }
    let download = apt.join("download").join(package);
    std::fs::create_dir_all(&download)?;
    let _ = std::fs::remove_file(tree.join(".complete"));
    if let Err(error) = command::output(apt_get(&apt).args(["download", package]).current_dir(&download)) {
        // The lists may be older than the archive.
        command::output(apt_get(&apt).arg("update")).map_err(|_| error)?;
        command::output(apt_get(&apt).args(["download", package]).current_dir(&download))?;
    }
    let file = std::fs::read_dir(&download)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|e| e == "deb"))
        .with_context(|| format!("apt-get download {package} left no file"))?;
    command::output(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&tree))?;
    std::fs::write(tree.join(".complete"), "")?;
    Ok(tree)
}

fn apt_get(apt: &Path) -> Command {
    let mut command = Command::new("apt-get");
    let mut option = |key: &str, value: &Path| {
        command.arg("-o").arg(format!("{key}={}", value.display()));
    };
    option("Dir::Etc::SourceList", &apt.join("etc/sources.list"));
    option("Dir::Etc::SourceParts", Path::new("/dev/null"));
    option("Dir::Etc::Preferences", Path::new("/dev/null"));
    option("Dir::Etc::PreferencesParts", Path::new("/dev/null"));
    option("Dir::State::Lists", &apt.join("lists"));
    option("Dir::State::Status", &apt.join("status"));
    option("Dir::Cache", &apt.join("cache"));
    command.args(["-q", "-o", "Acquire::Languages=none", "-o", "APT::Sandbox::User="]);
    command
}

/// A file of an unpacked package; one path segment may be `*`.
fn locate(tree: &Path, file: &str) -> Result<PathBuf> {
    let mut at = vec![tree.to_owned()];
    for segment in file.split('/') {
        at = at
            .into_iter()
            .flat_map(|folder| match segment {
                "*" => std::fs::read_dir(&folder)
                    .map(|entries| entries.filter_map(|e| Some(e.ok()?.path())).collect())
                    .unwrap_or_default(),
                name => vec![folder.join(name)],
            })
            .filter(|path| path.exists())
            .collect();
    }
    at.into_iter().next().with_context(|| format!("the package has no {file}"))
}

/// A program built for a newer system may not start on this one; the loader says so. Not every program knows
/// `--version`, so how it ends says nothing.
fn runs(file: &Path) -> Result<()> {
    if command::is_program(file) {
        let output = Command::new(file)
            .arg("--version")
            .stdin(std::process::Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", file.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains("error while loading shared libraries") || said.contains("version `GLIBC") {
            bail!("{} does not start here: {}", file.display(), said.trim());
        }
    }
    Ok(())
}
