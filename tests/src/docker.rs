//! A real Docker Engine in the test's folder: its own data, its own socket, no bridge and no change of the host's
//! network. It needs root.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::engine::{Engine, remove_all, unmount};
use crate::process::Daemon;
use crate::{Test, eventually, skip, target};

/// What must be there beside `dockerd`.
const PARTS: [&str; 5] = ["dockerd", "containerd", "containerd-shim-runc-v2", "runc", "busybox"];

/// A running engine. Its containers end with it.
pub struct Docker {
    folder: PathBuf,
    daemon: Option<Daemon>,
}

impl Docker {
    /// Starts one; none, said by name, where it can't run.
    pub async fn start(test: &Test) -> Result<Option<Self>> {
        for part in PARTS {
            if test.part(part).is_none() {
                return Ok(None);
            }
        }
        if !rustix::process::geteuid().is_root() {
            skip("a Docker Engine needs root");
            return Ok(None);
        }
        let folder = test.folder().join("docker");
        std::fs::create_dir_all(&folder)?;
        let mut docker = Self { folder, daemon: None };
        match docker.start_daemon(test).await {
            Ok(()) => Ok(Some(docker)),
            // A kernel or a container around us that lets no engine run: no fault of what is tested.
            Err(error) if docker.log().contains("operation not permitted") => {
                skip(&format!("no Docker Engine runs here: {error:#}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn containerd(&self) -> Option<rustix::process::Pid> {
        let file = self.folder.join("exec/containerd/containerd.pid");
        rustix::process::Pid::from_raw(std::fs::read_to_string(file).ok()?.trim().parse().ok()?)
    }

    fn log(&self) -> String {
        self.daemon.as_ref().map(Daemon::log).unwrap_or_default()
    }
}

impl Engine for Docker {
    fn folder(&self) -> &Path {
        &self.folder
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("docker.sock")
    }

    async fn start_daemon(&mut self, test: &Test) -> Result<()> {
        let at = |name: &str| self.folder.join(name);
        let _ = std::fs::remove_file(at("docker.pid"));
        let mut command = Command::new(target().join("parts/bin/dockerd"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(target().join("parts/bin")).chain(std::env::split_paths(&path));
        command
            .env("PATH", std::env::join_paths(folders)?)
            .args(["--bridge=none", "--iptables=false", "--ip-forward=false", "--live-restore"])
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("docker.pid"))
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()));
        let mut daemon = Daemon::start(test, "dockerd", &mut command)?;
        let answer = eventually("the Docker Engine answers", || {
            let running = daemon.check_running();
            let ping = self.request("GET", "/_ping", None);
            async move {
                running?;
                ping
            }
        })
        .await;
        self.daemon = Some(daemon);
        answer.map(drop)
    }

    /// With the containerd that it started.
    fn kill_daemon(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill()?;
        }
        if let Some(pid) = self.containerd() {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
        }
        Ok(())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        remove_all(self);
        let _ = self.kill_daemon();
        unmount(&self.folder);
    }
}
