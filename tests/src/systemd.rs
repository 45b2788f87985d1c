//! A real systemd in namespaces of its own, with units of the test's and nothing else: it starts no service of this machine,
//! and ends with the test. It needs root.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::Daemon;
use crate::{Test, eventually, skip};

const SYSTEMD: &str = "/usr/lib/systemd/systemd";

pub struct Systemd {
    folder: PathBuf,
    cgroup: PathBuf,
    daemon: Option<Daemon>,
    /// Process 1 of its namespace, as this one numbers it.
    first: u32,
}

impl Systemd {
    /// Starts one with these units (name and text); all of them are started with it. None, said by name, where it can't
    /// run.
    pub async fn start(test: &Test, units: &[(&str, &str)]) -> Result<Option<Self>> {
        if !Path::new(SYSTEMD).exists() {
            skip("there is no systemd on this machine");
            return Ok(None);
        }
        if !rustix::process::geteuid().is_root() {
            skip("a systemd of its own needs root");
            return Ok(None);
        }
        let folder = test.folder().join("systemd");
        std::fs::create_dir_all(folder.join("units"))?;
        let wants: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
        let target = format!("[Unit]\nDefaultDependencies=no\nWants={}\n", wants.join(" "));
        for (name, text) in units.iter().copied().chain([("picket-test.target", target.as_str())]) {
            std::fs::write(folder.join("units").join(name), text)?;
        }
        // Where there is one hierarchy for all, that one; else systemd's own.
        let one = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let (root, mount) = if one {
            ("/sys/fs/cgroup", "mount -t cgroup2 cgroup2 /sys/fs/cgroup")
        } else {
            (
                "/sys/fs/cgroup/systemd",
                "umount -l /sys/fs/cgroup/systemd; mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd",
            )
        };
        let name = test.folder().file_name().context("a folder with no name")?.to_string_lossy().into_owned();
        let cgroup = Path::new(root).join(format!("picket-{}", name.trim_start_matches('.')));
        if let Err(error) = std::fs::create_dir(&cgroup) {
            skip(&format!("no systemd runs here: {}: {error}", cgroup.display()));
            return Ok(None);
        }
        let script = format!(
            "set -e\nmount --make-rprivate /\nmount -t proc proc /proc\nmount -t tmpfs tmpfs /run\n\
             mount --bind {units} /etc/systemd/system\n{mount}\n\
             exec env -i container=picket {SYSTEMD} --system --unit=picket-test.target --log-target=console --show-status=0\n",
            units = folder.join("units").display()
        );
        let inner = folder.join("inner.sh");
        std::fs::write(&inner, script)?;
        let outer = format!(
            "echo $$ > {}/cgroup.procs && exec unshare --cgroup --pid --fork --kill-child --mount --uts --ipc sh {}",
            cgroup.display(),
            inner.display()
        );
        let mut command = Command::new("sh");
        command.args(["-c", &outer]);
        let daemon = Daemon::start(test, "systemd", &mut command)?;
        let mut systemd = Self { folder, cgroup, daemon: Some(daemon), first: 0 };
        match systemd.wait(&wants).await {
            Ok(()) => Ok(Some(systemd)),
            Err(error) => {
                let log = systemd.daemon.as_ref().map(Daemon::log).unwrap_or_default();
                let barred = ["Operation not permitted", "Permission denied", "permission denied"];
                if barred.iter().any(|words| log.contains(words)) {
                    skip(&format!("no systemd runs here: {error:#}"));
                    return Ok(None);
                }
                Err(error)
            }
        }
    }

    async fn wait(&mut self, units: &[&str]) -> Result<()> {
        let daemon = self.daemon.as_mut().context("it was stopped")?;
        let outer = daemon.pid();
        let first = eventually("systemd is process 1 of its namespace", || {
            let running = daemon.check_running();
            async move {
                running?;
                // The child of `unshare`, which the shell became.
                let children = std::fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"))?;
                let first: u32 = children.split_whitespace().next().context("no child yet")?.parse()?;
                let name = std::fs::read_to_string(format!("/proc/{first}/comm"))?;
                ensure!(name.trim() == "systemd", "it is {name}");
                Ok(first)
            }
        })
        .await?;
        self.first = first;
        for unit in units {
            eventually(&format!("{unit} runs"), || async {
                let state = self.run(&["is-active", unit])?;
                ensure!(state.trim() == "active", "{state}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// What `systemctl` says to it.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        let output = Command::new("nsenter")
            .args(["-t", &self.first.to_string(), "-p", "-m", "systemctl"])
            .args(args)
            .output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A `systemctl` that speaks to this one.
    pub fn systemctl(&self) -> Result<PathBuf> {
        let file = self.folder.join("systemctl");
        std::fs::write(
            &file,
            format!("#!/bin/sh\nexec /usr/bin/nsenter -t {} -p -m /usr/bin/systemctl \"$@\"\n", self.first),
        )?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755))?;
        Ok(file)
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
        }
        // Its groups, the deepest first; what is still dying in them holds them for a moment.
        for _ in 0..50 {
            remove_groups(&self.cgroup);
            if !self.cgroup.exists() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

fn remove_groups(group: &Path) {
    for below in std::fs::read_dir(group).into_iter().flatten().flatten().map(|e| e.path()) {
        if below.is_dir() {
            remove_groups(&below);
        }
    }
    let _ = std::fs::remove_dir(group);
}
