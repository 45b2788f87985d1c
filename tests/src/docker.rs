//! A real Docker Engine in the test's folder: its own data, its own socket, no bridge and no change of the host's
//! network. It needs root. Images are made of a folder with busybox; no registry is reached.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

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

    /// Starts the daemon, again where it was stopped or killed; its containers went on.
    pub async fn start_daemon(&mut self, test: &Test) -> Result<()> {
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

    /// Kills the daemon, and the containerd that it started. Its containers go on.
    pub fn kill_daemon(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill()?;
        }
        if let Some(pid) = self.containerd() {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
        }
        Ok(())
    }

    fn containerd(&self) -> Option<rustix::process::Pid> {
        let file = self.folder.join("exec/containerd/containerd.pid");
        rustix::process::Pid::from_raw(std::fs::read_to_string(file).ok()?.trim().parse().ok()?)
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("docker.sock")
    }

    fn log(&self) -> String {
        self.daemon.as_ref().map(Daemon::log).unwrap_or_default()
    }

    /// Makes an image of busybox and these files, by path.
    pub fn image(&self, name: &str, tag: &str, files: &[(&str, &[u8])]) -> Result<()> {
        let root = self.folder.join(format!("image-{}", name.replace('/', "-")));
        std::fs::create_dir_all(root.join("bin"))?;
        std::fs::copy(target().join("parts/bin/busybox"), root.join("bin/busybox"))?;
        for (path, content) in files {
            let file = root.join(path);
            std::fs::create_dir_all(file.parent().unwrap_or(&root))?;
            std::fs::write(file, content)?;
        }
        let tar = Command::new("tar").arg("-C").arg(&root).args(["-c", "."]).output().context("no tar")?;
        ensure!(tar.status.success(), "tar: {}", String::from_utf8_lossy(&tar.stderr));
        let at = format!("/images/create?fromSrc=-&repo={name}&tag={tag}");
        self.request("POST", &at, Some(("application/x-tar", &tar.stdout))).map(drop)
    }

    /// Creates a container; gives its id.
    pub fn create(&self, name: &str, config: &Value) -> Result<String> {
        let body = config.to_string();
        let at = format!("/containers/create?name={name}");
        let answer = self.request("POST", &at, Some(("application/json", body.as_bytes())))?;
        Ok(answer["Id"].as_str().context("no id")?.to_owned())
    }

    /// Creates and starts one.
    pub fn run(&self, name: &str, config: &Value) -> Result<String> {
        let id = self.create(name, config)?;
        self.post(&format!("/containers/{id}/start"))?;
        Ok(id)
    }

    /// A POST without a body: `/containers/NAME/stop?t=1`.
    pub fn post(&self, path: &str) -> Result<()> {
        self.request("POST", path, None).map(drop)
    }

    pub fn remove(&self, name: &str) -> Result<()> {
        self.request("DELETE", &format!("/containers/{name}?force=1"), None).map(drop)
    }

    pub fn json(&self, path: &str) -> Result<Value> {
        self.request("GET", path, None)
    }

    /// HTTP/1.0, so that the answer ends with the connection.
    fn request(&self, method: &str, path: &str, body: Option<(&str, &[u8])>) -> Result<Value> {
        let mut stream = UnixStream::connect(self.socket()).context("no Docker socket")?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let (kind, body) = body.unwrap_or(("application/json", b""));
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let text = String::from_utf8_lossy(&answer);
        let (head, body) = text.split_once("\r\n\r\n").context("no HTTP")?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        if !status.starts_with('2') {
            bail!("{method} {path}: {status} {body}");
        }
        Ok(serde_json::from_str(body).unwrap_or_else(|_| json!(body)))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if let Ok(Value::Array(all)) = self.json("/containers/json?all=1") {
            for id in all.iter().filter_map(|c| c["Id"].as_str()) {
                let _ = self.remove(id);
            }
        }
        let _ = self.kill_daemon();
        unmount(&self.folder);
    }
}

/// What the engine left mounted, so that the test's folder can go.
fn unmount(folder: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let below = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|at| Path::new(at).starts_with(folder));
    let mut below: Vec<&str> = below.collect();
    below.sort_by_key(|at| std::cmp::Reverse(at.len()));
    for at in below {
        let _ = Command::new("umount").args(["-l", at]).status();
    }
}
