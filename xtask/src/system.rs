//! The packages on a whole system: Debian made by mmdebstrap, systemd as its process 1 in a container without a network, and what an
//! operator does with them, step by step. `cargo xtask test --system`; needs root, `mmdebstrap` and `systemd-nspawn`.

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
/// What `systemd-analyze security` may count, in tenths.
const EXPOSURE: [(&str, u32); 2] = [("picket-agent", 15), ("picket-aggregator", 11)];

/// What is run.
pub struct Wish<'a> {
    /// Debian's name of the release.
    pub suite: &'a str,
    /// Programs and plugins that are built already.
    pub built: Option<PathBuf>,
}

type Step = fn(&mut Machine, &Packages) -> Result<()>;

const STEPS: &[(&str, Step)] = &[
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

/// Both versions, as files inside the machine.
struct Packages {
    old: Vec<String>,
    new: Vec<String>,
}

/// Runs all steps; `false` if one failed. What follows a failed one is not run.
pub fn run(root: &Path, wish: &Wish<'_>) -> Result<bool> {
    if let Some(missing) = missing() {
        println!("skipped: system {}: {missing}", wish.suite);
        println!("0 passed, 0 failed, {} skipped", STEPS.len());
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

    let tree = folder.path().join("root");
    std::fs::create_dir(&tree)?;
    command::output(std::process::Command::new("tar").arg("-C").arg(&tree).arg("-xpf").arg(&base))?;
    let packages = Packages { old: bring(&tree, &old, "old")?, new: bring(&tree, &new, "new")? };
    let mut machine = Machine::new(tree, folder.path().join("console.log"))?;
    machine.boot()?;
    let (mut passed, mut failed) = (0, 0);
    for (name, step) in STEPS {
        match step(&mut machine, &packages) {
            Ok(()) => {
                println!("ok: {}: {name}", wish.suite);
                passed += 1;
            }
            Err(error) => {
                println!("failed: {}: {name}: {error:#}", wish.suite);
                eprintln!("{}", machine.explain(&UNITS));
                failed = 1;
                break;
            }
        }
    }
    println!("{passed} passed, {failed} failed, {} skipped", STEPS.len() - passed - failed);
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

/// A small Debian with systemd, made once.
fn base(target: &Path, suite: &str) -> Result<PathBuf> {
    let folder = target.join("parts");
    std::fs::create_dir_all(&folder)?;
    let file = folder.join(format!("system-{suite}.tar"));
    if !file.exists() {
        eprintln!("making a Debian {suite} with mmdebstrap: 200 MB, a minute");
        let new = folder.join(format!("system-{suite}.new.tar"));
        let include = "--include=systemd,systemd-sysv,dbus,passwd";
        let mut make = std::process::Command::new("mmdebstrap");
        command::output(make.args(["--quiet", "--variant=minbase", include, suite]).arg(&new))?;
        std::fs::rename(&new, &file)?;
    }
    Ok(file)
}

/// Puts the debs of a folder into the machine; their names there.
fn bring(tree: &Path, from: &Path, name: &str) -> Result<Vec<String>> {
    let inside = tree.join("debs").join(name);
    std::fs::create_dir_all(&inside)?;
    let mut files = Vec::new();
    for path in build::listed(from, "deb")? {
        let file = path.file_name().context("no name")?;
        std::fs::copy(&path, inside.join(file))?;
        files.push(format!("/debs/{name}/{}", file.to_string_lossy()));
    }
    ensure!(files.len() == PACKAGES.len(), "{} has {} packages", from.display(), files.len());
    Ok(files)
}

fn dpkg(machine: &Machine, files: &[String]) -> Result<()> {
    machine.run(&format!("dpkg --force-confold --install {}", files.join(" "))).map(drop)
}

fn install(machine: &mut Machine, packages: &Packages) -> Result<()> {
    dpkg(machine, &packages.old)?;
    for unit in UNITS {
        machine.run(&format!("systemctl is-enabled {unit}"))?;
    }
    Ok(())
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
    dpkg(machine, &packages.new)?;
    for file in ["agent.toml", "aggregator.toml"] {
        machine.run(&format!("grep -qx '# mine' /etc/picket/{file}"))?;
    }
    for package in PACKAGES {
        let version = machine.run(&format!("dpkg-query -W -f '${{Version}}' {package}"))?;
        ensure!(!version.starts_with(&OLD.to_string()), "{package} is still {version}");
    }
    ensure!(before == machine.run("cat /var/lib/picket-aggregator/ca.pem")?, "another CA");
    metrics_come(machine)
}

fn downgrade(machine: &mut Machine, packages: &Packages) -> Result<()> {
    dpkg(machine, &packages.old)?;
    metrics_come(machine)
}

fn purge(machine: &mut Machine, _: &Packages) -> Result<()> {
    machine.run(&format!("dpkg --remove {}", PACKAGES.join(" ")))?;
    machine.run("test -d /var/lib/picket-agent/identity && test -f /var/lib/picket-aggregator/ca.key")?;
    machine.run(&format!("dpkg --purge {}", PACKAGES.join(" ")))?;
    let left = machine.run(
        "find / -xdev \\( -name '*picket*' -o -user picket -o -user picket-aggregator \\) \
         -not -path '/debs/*' -not -path '/proc/*' -not -path '/sys/*'",
    )?;
    if !left.trim().is_empty() {
        bail!("left: {left}");
    }
    let failed = machine.run("systemctl --failed --no-legend --plain")?;
    ensure!(failed.trim().is_empty(), "{failed}");
    // The users stay: their numbers must not become somebody else's.
    machine.run("getent passwd picket picket-aggregator").map(drop)
}
