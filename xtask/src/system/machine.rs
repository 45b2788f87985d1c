//! A system in a container: booted, spoken to through its namespaces, switched off.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::command;
use crate::process::Daemon;

/// How long a condition may take. Generous: the machines are small and shared.
const DEADLINE: Duration = Duration::from_secs(90);
const ADMIN: &str = "--url https://127.0.0.1:9471 --ca /var/lib/picket-aggregator/ca.pem \
                     --token-file /var/lib/picket-aggregator/admin.token";
/// What nspawn's own filter lacks in older versions, and plugins are walled in with.
const LANDLOCK: &str = "landlock_create_ruleset landlock_add_rule landlock_restrict_self";

pub struct Machine {
    tree: PathBuf,
    log: PathBuf,
    daemon: Option<Daemon>,
    /// Its process 1, as this system numbers it.
    first: u32,
}

impl Machine {
    pub fn new(tree: PathBuf, log: PathBuf) -> Result<Self> {
        // As an installer writes it.
        std::fs::write(tree.join("etc/hostname"), "picket-system\n")?;
        std::fs::write(tree.join("etc/hosts"), "127.0.0.1 localhost\n127.0.1.1 picket-system\n")?;
        Ok(Self { tree, log, daemon: None, first: 0 })
    }

    pub fn boot(&mut self) -> Result<()> {
        let mut nspawn = Command::new("systemd-nspawn");
        nspawn
            .args(["--boot", "--quiet", "--register=no", "--keep-unit", "--private-network"])
            .arg("--machine=picket-system")
            .arg(format!("--system-call-filter={LANDLOCK}"))
            .arg("--directory")
            .arg(&self.tree);
        let daemon = self.daemon.insert(Daemon::start("systemd-nspawn", &mut nspawn, self.log.clone())?);
        let outer = daemon.id();
        self.first = eventually("its systemd starts", || {
            let children = std::fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"))?;
            let first: u32 = children.split_whitespace().next().context("no child yet")?.parse()?;
            let name = std::fs::read_to_string(format!("/proc/{first}/comm"))?;
            ensure!(name.trim() == "systemd", "it is {name}");
            Ok(first)
        })?;
        eventually("it has booted", || {
            let state = self.run("systemctl is-system-running || true")?;
            ensure!(["running", "degraded"].contains(&state.trim()), "{state}");
            Ok(())
        })
    }

    pub fn power_off(&mut self) -> Result<()> {
        // It takes the connection away that it is asked through.
        let _ = self.run("systemctl --no-block poweroff");
        let daemon = self.daemon.as_mut().context("it does not run")?;
        eventually("it is off", || {
            ensure!(daemon.ended().is_some(), "it still runs");
            Ok(())
        })?;
        self.daemon = None;
        Ok(())
    }

    /// A line of shell, as root, in a clean environment.
    pub fn run(&self, line: &str) -> Result<String> {
        let script = format!("cd / && {line}");
        let mut enter = Command::new("nsenter");
        enter.args(["--target", &self.first.to_string(), "--all", "--wd=/", "/usr/bin/env", "-i"]);
        enter.args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "/bin/bash", "-c", &script]);
        command::output(&mut enter)
    }

    /// The command line, as the aggregator's admin.
    pub fn picket(&self, arguments: &str) -> Result<String> {
        self.run(&format!("picket {ADMIN} {arguments}"))
    }

    /// A page of a server on its loopback; it has no client of its own for that.
    pub fn page(&self, port: u16, path: &str) -> Result<String> {
        self.run(&format!(
            "exec 3<>/dev/tcp/127.0.0.1/{port} && printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3"
        ))
    }

    /// The kernel is this system's own.
    pub fn has_landlock(&self) -> bool {
        let listed = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
        listed.contains("landlock") || !Path::new("/sys/kernel/security/lsm").exists()
    }

    /// What there is to see after a failure.
    pub fn explain(&self, units: &[&str]) -> String {
        let mut said = String::new();
        for unit in units {
            said += &self
                .run(&format!("systemctl status --no-pager -n 40 {unit} || true"))
                .unwrap_or_else(|error| format!("{error:#}"));
        }
        said + &self.daemon.as_ref().map(|daemon| daemon.log_tail(20)).unwrap_or_default()
    }
}

/// Waits until it is so.
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match check() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => bail!("not within {DEADLINE:?}: {what}: {error:#}"),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}
