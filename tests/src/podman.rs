//! A real Podman in the test's folder: its API service on a socket, its own storage and network's folder, no change of
//! the host's. It runs from the folder that its packages were unpacked to, and needs root.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::engine::{Engine, packed, remove_all, unmount};
use crate::process::Daemon;
use crate::{Test, eventually, quoted, skip, target};

/// A running Podman. Its containers end with it.
pub struct Podman {
    tree: PathBuf,
    folder: PathBuf,
    daemon: Option<Daemon>,
}

impl Podman {
    /// Starts one; none, said by name, where it can't run.
    pub async fn start(test: &Test) -> Result<Option<Self>> {
        let (Some(tree), Some(runc), Some(_)) =
            (test.part("podman"), test.part("runc"), test.part("busybox"))
        else {
            return Ok(None);
        };
        if !rustix::process::geteuid().is_root() {
            skip("Podman's containers need root here");
            return Ok(None);
        }
        let folder = test.folder().join("podman");
        let mut podman = Self { tree: tree.canonicalize()?, folder, daemon: None };
        podman.write_config(&runc.canonicalize()?)?;
        match podman.start_daemon(test).await {
            Ok(()) => Ok(Some(podman)),
            // A kernel or a container around us that lets no engine run: no fault of what is tested.
            Err(error) if podman.log().to_lowercase().contains("operation not permitted") => {
                skip(&format!("no Podman runs here: {error:#}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn write_config(&self, runc: &Path) -> Result<()> {
        let at = |name: &str| self.folder.join(name);
        let home = at("home/.config/containers");
        std::fs::create_dir_all(&home)?;
        // Which images may be taken: it looks for this in the home of whoever starts it.
        std::fs::copy(self.tree.join("etc/containers/policy.json"), home.join("policy.json"))
            .context("Podman's packages have no policy.json")?;
        std::fs::write(
            at("containers.conf"),
            format!(
                "[containers]\nnetns = \"host\"\nseccomp_profile = {}\napparmor_profile = \"unconfined\"\ndefault_ulimits = []\n\
                 log_driver = \"k8s-file\"\n[engine]\nruntime = \"runc\"\nconmon_path = [{}]\ncgroup_manager = \"cgroupfs\"\n\
                 events_logger = \"file\"\n[engine.runtimes]\nrunc = [{}]\n[network]\nnetwork_config_dir = {}\n",
                quoted(self.tree.join("usr/share/containers/seccomp.json")),
                quoted(self.tree.join("usr/bin/conmon")),
                quoted(runc),
                quoted(at("networks")),
            ),
        )?;
        std::fs::write(
            at("storage.conf"),
            format!(
                "[storage]\ndriver = \"vfs\"\nrunroot = {}\ngraphroot = {}\n",
                quoted(at("runroot")),
                quoted(at("root"))
            ),
        )?;
        Ok(())
    }

    fn libraries(&self) -> Result<std::ffi::OsString> {
        let mut folders = Vec::new();
        for parent in ["usr/lib", "lib"] {
            for entry in std::fs::read_dir(self.tree.join(parent)).into_iter().flatten().flatten() {
                folders.push(entry.path());
            }
        }
        Ok(std::env::join_paths(folders)?)
    }

    fn log(&self) -> String {
        self.daemon.as_ref().map(Daemon::log).unwrap_or_default()
    }
}

impl Engine for Podman {
    fn folder(&self) -> &Path {
        &self.folder
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("podman.sock")
    }

    async fn start_daemon(&mut self, test: &Test) -> Result<()> {
        let at = |name: &str| self.folder.join(name);
        let _ = std::fs::remove_file(self.socket());
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = [target().join("parts/bin"), self.tree.join("usr/bin")];
        let folders = folders.into_iter().chain(std::env::split_paths(&path));
        let mut command = Command::new(self.tree.join("usr/bin/podman"));
        command
            .env("HOME", at("home"))
            .env("PATH", std::env::join_paths(folders)?)
            .env("LD_LIBRARY_PATH", self.libraries()?)
            .env("CONTAINERS_CONF", at("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", at("storage.conf"))
            .env("CONTAINERS_REGISTRIES_CONF", self.tree.join("etc/containers/registries.conf"))
            .arg("--tmpdir")
            .arg(at("tmp"))
            .args(["system", "service", "--time", "0"])
            .arg(format!("unix://{}", self.socket().display()));
        let mut daemon = Daemon::start(test, "podman", &mut command)?;
        let answer = eventually("Podman answers", || {
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

    fn kill_daemon(&mut self) -> Result<()> {
        match self.daemon.take() {
            Some(mut daemon) => daemon.kill(),
            None => Ok(()),
        }
    }

    /// Podman 4 takes no tag from the question, so the image gets it afterwards.
    fn image(&self, name: &str, tag: &str, files: &[(&str, &[u8])]) -> Result<()> {
        let tar = packed(&self.folder.join(format!("image-{}", name.replace('/', "-"))), files)?;
        let at = format!("/images/create?fromSrc=-&repo={name}&tag={tag}");
        self.request("POST", &at, Some(("application/x-tar", &tar)))?;
        self.post(&format!("/images/{}:latest/tag?repo={name}&tag={tag}", name.replace('/', "%2F")))
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        remove_all(self);
        let _ = self.kill_daemon();
        unmount(&self.folder);
    }
}
