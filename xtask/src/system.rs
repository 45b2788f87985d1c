//! The packages on a whole system: Debian made by mmdebstrap, systemd as its process 1 in a container without a network, and what an
//! operator does with them, step by step. `cargo xtask test --system`; needs root, `mmdebstrap` and `systemd-nspawn`.
//!
//! First the debs, then on a fresh system the rpms, by Debian's RPM: their scripts, users and units run as they would elsewhere; what
//! they require is not looked at, since nothing there came as rpm.

mod machine;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::{build, command, dist};
use machine::{Machine, eventually};

/// An older version, made of the same programs: what an upgrade begins with.
const OLD: semver::Version = semver::Version::new(0, 0, 1);
const PACKAGES: [&str; 4] = ["picket", "picket-agent", "picket-aggregator", "picket-plugins"];
const UNITS: [&str; 2] = ["picket-agent", "picket-aggregator"];
const NODE: &str = "system-test";
/// Debian 12 patched its RPM to refuse without a word that Debian 13's does not know.
const RPM: &str = "rpm $(rpm --force-debian --version >/dev/null 2>&1 && echo --force-debian)";
/// What `systemd-analyze security` may count, in tenths.
const EXPOSURE: [(&str, u32); 2] = [("picket-agent", 15), ("picket-aggregator", 11)];

/// What is run.
pub struct Wish<'a> {
    /// Debian's name of the release.
    pub suite: &'a str,
    /// Programs and plugins that are built already.
    pub built: Option<PathBuf>,
}

/// What packages a release is delivered in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Deb,
    Rpm,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Deb, Self::Rpm];

    const fn name(self) -> &'static str {
        match self {
            Self::Deb => "deb",
            Self::Rpm => "rpm",
        }
    }

    const fn steps(self) -> &'static [(&'static str, Step)] {
        match self {
            Self::Deb => DEB_STEPS,
            Self::Rpm => RPM_STEPS,
        }
    }
}

type Step = fn(&mut Machine, &Packages) -> Result<()>;

const DEB_STEPS: &[(&str, Step)] = &[
    ("the packages install", install),
    ("both daemons run, as users of their own, without capabilities", run_without_rights),
    ("systemd counts little exposure", exposure),
    ("plugins are walled in", wall),
    ("a node enrols and its metrics come through", enrol),
    ("a reload", reload),
    ("a reboot", reboot),
    ("detect writes its configuration", detect),
    ("an upgrade keeps local edits, identity and data", upgrade),
    ("a downgrade", downgrade),
    ("a removal keeps the state, a purge leaves nothing", purge),
];

/// What does not hang on the kind of package is not said again.
const RPM_STEPS: &[(&str, Step)] = &[
    ("the packages install, and start nothing", install_switched_off),
    ("both daemons run, as users of their own, without capabilities", run_without_rights),
    ("plugins are walled in", wall),
    ("a node enrols and its metrics come through", enrol),
    ("an upgrade keeps local edits, identity and data", upgrade),
    ("a downgrade", downgrade),
    ("a removal keeps the state and what was edited", erase),
];

/// Both versions, as files inside the machine.
struct Packages {
    kind: Kind,
    old: Vec<String>,
    new: Vec<String>,
}

/// Runs all steps; `false` if one failed. What follows a failed one of the same kind is not run.
pub fn run(root: &Path, wish: &Wish<'_>) -> Result<bool> {
    let all: usize = Kind::ALL.iter().map(|kind| kind.steps().len()).sum();
    if let Some(missing) = missing() {
        println!("skipped: system {}: {missing}", wish.suite);
        println!("0 passed, 0 failed, {all} skipped");
        return Ok(true);
    }
    let target = build::target(root)?;
    let base = base(&target, wish.suite)?;
    let folder = tempfile::Builder::new().prefix("system-").tempdir_in(&target).context("no folder")?;
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    let mut args = dist::Args::to_try(wish.built.clone());
    args.into = Some(new.clone());
    dist::make(root, &args)?;
    args.built = Some(dist::built_folder(root, &args)?);
    args.into = Some(old.clone());
    args.package_version = Some(OLD);
    dist::make(root, &args)?;

    let (mut passed, mut failed) = (0, 0);
    for kind in Kind::ALL {
        let tree = folder.path().join(kind.name());
        std::fs::create_dir(&tree)?;
        command::output(std::process::Command::new("tar").arg("-C").arg(&tree).arg("-xpf").arg(&base))?;
        let packages =
            Packages { kind, old: bring(&tree, &old, "old", kind)?, new: bring(&tree, &new, "new", kind)? };
        let log = folder.path().join(format!("console-{}.log", kind.name()));
        let mut machine = Machine::new(tree, log)?;
        machine.boot()?;
        for (name, step) in kind.steps() {
            let what = format!("{}: {}: {name}", wish.suite, kind.name());
            if let Err(error) = step(&mut machine, &packages) {
                println!("failed: {what}: {error:#}");
                eprintln!("{}", machine.explain(&UNITS));
                failed += 1;
                break;
            }
            println!("ok: {what}");
            passed += 1;
        }
    }
    println!("{passed} passed, {failed} failed, {} skipped", all - passed - failed);
    Ok(failed == 0)
}

fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root".to_owned());
    }
    ["mmdebstrap", "systemd-nspawn", "nsenter"]
        .into_iter()
        .find(|program| command::find(program).is_none())
        .map(|program| format!("{program} is missing (Debian: apt-get install mmdebstrap systemd-container)"))
}

/// A small Debian with systemd and RPM, made once.
fn base(target: &Path, suite: &str) -> Result<PathBuf> {
    const INCLUDED: [&str; 5] = ["systemd", "systemd-sysv", "dbus", "passwd", "rpm"];
    let folder = target.join("parts");
    std::fs::create_dir_all(&folder)?;
    let file = folder.join(format!("system-{suite}-{}.tar", INCLUDED.join("+")));
    if !file.exists() {
        eprintln!("making a Debian {suite} with mmdebstrap: 220 MB, a minute");
        let new = file.with_extension("new.tar");
        let include = format!("--include={}", INCLUDED.join(","));
        let mut make = std::process::Command::new("mmdebstrap");
        command::output(make.args(["--quiet", "--variant=minbase", &include, suite]).arg(&new))?;
        std::fs::rename(&new, &file)?;
    }
    Ok(file)
}

/// Puts the packages of a folder into the machine; their names there.
fn bring(tree: &Path, from: &Path, name: &str, kind: Kind) -> Result<Vec<String>> {
    let inside = tree.join("packages").join(name);
    std::fs::create_dir_all(&inside)?;
    let mut files = Vec::new();
    for path in build::listed(from, kind.name())? {
        let file = path.file_name().context("no name")?;
        std::fs::copy(&path, inside.join(file))?;
        files.push(format!("/packages/{name}/{}", file.to_string_lossy()));
    }
    ensure!(files.len() == PACKAGES.len(), "{} has {} packages", from.display(), files.len());
    Ok(files)
}

/// Installs, upgrades or goes back to these files.
fn put(machine: &Machine, kind: Kind, files: &[String]) -> Result<()> {
    let tool = match kind {
        Kind::Deb => "dpkg --force-confold --install".to_owned(),
        Kind::Rpm => format!("{RPM} --upgrade --oldpackage --nodeps"),
    };
    machine.run(&format!("{tool} {}", files.join(" "))).map(drop)
}

fn version(machine: &Machine, kind: Kind, package: &str) -> Result<String> {
    machine.run(&match kind {
        Kind::Deb => format!("dpkg-query -W -f '${{Version}}' {package}"),
        Kind::Rpm => format!("rpm --query --queryformat '%{{VERSION}}' {package}"),
    })
}

fn install(machine: &mut Machine, packages: &Packages) -> Result<()> {
    put(machine, packages.kind, &packages.old)?;
    for unit in UNITS {
        machine.run(&format!("systemctl is-enabled {unit}"))?;
    }
    Ok(())
}

/// Where the distribution's presets have services off, as those of RHEL do.
fn install_switched_off(machine: &mut Machine, packages: &Packages) -> Result<()> {
    machine.run(
        "mkdir -p /etc/systemd/system-preset && \
         echo 'disable *' > /etc/systemd/system-preset/99-default-disable.preset",
    )?;
    put(machine, packages.kind, &packages.old)?;
    for unit in UNITS {
        let state = machine
            .run(&format!("systemctl is-enabled {unit} || true; systemctl is-active {unit} || true"))?;
        ensure!(state.split_whitespace().eq(["disabled", "inactive"]), "{unit} is {state}");
    }
    machine.run(&format!("systemctl enable --now {}", UNITS.join(" "))).map(drop)
}

fn run_without_rights(machine: &mut Machine, _: &Packages) -> Result<()> {
    for unit in UNITS {
        eventually(&format!("{unit} runs"), || {
            machine.run(&format!("systemctl is-active {unit}")).map(drop)
        })?;
        let status = machine.run(&format!("cat /proc/$(systemctl show -p MainPID --value {unit})/status"))?;
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.map(|rest| rest.trim_start_matches(':').trim().to_owned()).unwrap_or_default()
        };
        ensure!(!value("Uid").starts_with('0'), "{unit} is root");
        for set in ["CapEff", "CapPrm", "CapBnd", "CapAmb"] {
            ensure!(value(set) == "0000000000000000", "{unit}: {set} is {}", value(set));
        }
        ensure!(value("NoNewPrivs") == "1" && value("Seccomp") == "2", "{unit}: {status}");
    }
    Ok(())
}

fn exposure(machine: &mut Machine, _: &Packages) -> Result<()> {
    for (unit, most) in EXPOSURE {
        let said = machine.run(&format!("systemd-analyze security --no-pager {unit}.service | tail -1"))?;
        let number = said.split("level for").nth(1).and_then(|rest| rest.split_whitespace().nth(1));
        let number: u32 = number.context("no number")?.replace('.', "").parse().context(said.clone())?;
        ensure!(number <= most, "{unit}: {}", said.trim());
    }
    Ok(())
}

fn wall(machine: &mut Machine, _: &Packages) -> Result<()> {
    let mut parts = vec!["seccomp", "capabilities"];
    if machine.has_landlock() {
        parts.push("landlock");
    }
    eventually("the wall stands", || {
        let page = machine.page(9460, "/metrics")?;
        for part in &parts {
            ensure!(page.contains(&format!("picket_agent_wall{{part=\"{part}\"}} 1")), "no {part}: {page}");
        }
        Ok(())
    })?;
    eventually("the plugin node runs, signed", || {
        let table = machine.run("picket-agent plugins")?;
        let line = table.lines().find(|line| line.starts_with("node ")).context("no node")?.to_owned();
        ensure!(line.contains("running") && line.contains(" picket "), "{line}");
        Ok(())
    })
}

fn enrol(machine: &mut Machine, _: &Packages) -> Result<()> {
    let made = machine.picket(&format!("token create --node {NODE} --ttl 1h --output json"))?;
    let made: serde_json::Value = serde_json::from_str(&made)?;
    let token = made.get("token").and_then(|t| t.as_str()).context("no token")?;
    machine.run(&format!("picket-agent enroll --token {token}"))?;
    machine.run("systemctl restart picket-agent")?;
    metrics_come(machine)
}

/// Such as were collected after now.
fn metrics_come(machine: &Machine) -> Result<()> {
    eventually("the aggregator answers", || machine.picket("status").map(drop))?;
    eventually("the node is up", || {
        let nodes: serde_json::Value = serde_json::from_str(&machine.picket("nodes --output json")?)?;
        ensure!(nodes.to_string().contains("\"up\""), "{nodes}");
        Ok(())
    })?;
    let read = || -> Result<String> {
        let page = machine.picket("metrics --match node_time_seconds")?;
        let line = page.lines().find(|line| line.contains(&format!("instance=\"{NODE}\"")));
        Ok(line.with_context(|| format!("no metric of the node in {page}"))?.to_owned())
    };
    eventually("its metrics are there", || read().map(drop))?;
    let first = read()?;
    eventually("they change", || {
        ensure!(read()? != first, "{first}");
        Ok(())
    })
}

fn reload(machine: &mut Machine, _: &Packages) -> Result<()> {
    for unit in UNITS {
        machine.run(&format!("systemctl reload {unit} && systemctl is-active {unit}"))?;
    }
    eventually("the agent took it over", || {
        let journal = machine.run("journalctl -u picket-agent --no-pager -o cat")?;
        ensure!(journal.contains("configuration reloaded"), "{journal}");
        Ok(())
    })
}

fn reboot(machine: &mut Machine, _: &Packages) -> Result<()> {
    machine.power_off()?;
    machine.boot()?;
    metrics_come(machine)
}

fn detect(machine: &mut Machine, _: &Packages) -> Result<()> {
    machine.run("picket-agent detect --write && picket-agent check-config >/dev/null")?;
    machine.run("systemctl reload picket-agent")?;
    metrics_come(machine)
}

fn upgrade(machine: &mut Machine, packages: &Packages) -> Result<()> {
    machine.run("printf '\\n# mine\\n' >> /etc/picket/agent.toml && printf '\\n# mine\\n' >> /etc/picket/aggregator.toml")?;
    let before = machine.run("cat /var/lib/picket-aggregator/ca.pem")?;
    put(machine, packages.kind, &packages.new)?;
    for file in ["agent.toml", "aggregator.toml"] {
        machine.run(&format!("grep -qx '# mine' /etc/picket/{file}"))?;
    }
    for package in PACKAGES {
        let version = version(machine, packages.kind, package)?;
        ensure!(!version.starts_with(&OLD.to_string()), "{package} is still {version}");
    }
    ensure!(before == machine.run("cat /var/lib/picket-aggregator/ca.pem")?, "another CA");
    run_what_is_installed(machine)?;
    metrics_come(machine)
}

fn downgrade(machine: &mut Machine, packages: &Packages) -> Result<()> {
    put(machine, packages.kind, &packages.old)?;
    run_what_is_installed(machine)?;
    metrics_come(machine)
}

/// Not what was installed before: they were restarted.
fn run_what_is_installed(machine: &Machine) -> Result<()> {
    for unit in UNITS {
        let program =
            machine.run(&format!("readlink /proc/$(systemctl show -p MainPID --value {unit})/exe"))?;
        ensure!(program.trim() == format!("/usr/bin/{unit}"), "{unit} runs {program}");
    }
    Ok(())
}

fn purge(machine: &mut Machine, _: &Packages) -> Result<()> {
    machine.run(&format!("dpkg --remove {}", PACKAGES.join(" ")))?;
    machine.run("test -d /var/lib/picket-agent/identity && test -f /var/lib/picket-aggregator/ca.key")?;
    machine.run(&format!("dpkg --purge {}", PACKAGES.join(" ")))?;
    nothing_is_left(machine)
}

/// What RPM does at a removal, and then what it leaves to a person.
fn erase(machine: &mut Machine, _: &Packages) -> Result<()> {
    machine.run(&format!("{RPM} --erase {}", PACKAGES.join(" ")))?;
    machine.run("test -d /var/lib/picket-agent/identity && test -f /var/lib/picket-aggregator/ca.key")?;
    for file in ["agent.toml", "aggregator.toml"] {
        machine.run(&format!("grep -qx '# mine' /etc/picket/{file}.rpmsave"))?;
    }
    machine
        .run("rm -r /etc/picket /var/lib/picket-agent /var/lib/picket-aggregator /var/cache/picket-agent")?;
    nothing_is_left(machine)
}

fn nothing_is_left(machine: &Machine) -> Result<()> {
    let left = machine.run(
        "find / -xdev \\( -name '*picket*' -o -user picket -o -user picket-aggregator \\) \
         -not -path '/packages/*' -not -path '/proc/*' -not -path '/sys/*'",
    )?;
    if !left.trim().is_empty() {
        bail!("left: {left}");
    }
    let failed = machine.run("systemctl --failed --no-legend --plain")?;
    ensure!(failed.trim().is_empty(), "{failed}");
    // The users stay: their numbers must not become somebody else's.
    machine.run("getent passwd picket picket-aggregator").map(drop)
}
