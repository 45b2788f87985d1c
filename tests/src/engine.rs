//! What container engines have in common: Docker's HTTP API on a socket. Images are made of a folder with busybox; no
//! registry is reached.

use std::future::Future;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{Test, target};

/// A running engine of a test's own.
pub trait Engine {
    fn folder(&self) -> &Path;

    fn socket(&self) -> PathBuf;

    /// Starts its daemon, again where it was stopped or killed; its containers went on.
    fn start_daemon(&mut self, test: &Test) -> impl Future<Output = Result<()>>;

    /// Kills its daemon. Its containers go on.
    fn kill_daemon(&mut self) -> Result<()>;

    /// Makes an image of busybox and these files, by path.
    fn image(&self, name: &str, tag: &str, files: &[(&str, &[u8])]) -> Result<()> {
        let tar = packed(&self.folder().join(format!("image-{}", name.replace('/', "-"))), files)?;
        let at = format!("/images/create?fromSrc=-&repo={name}&tag={tag}");
        self.request("POST", &at, Some(("application/x-tar", &tar))).map(drop)
    }

    /// Creates a container; gives its id.
    fn create(&self, name: &str, config: &Value) -> Result<String> {
        let body = config.to_string();
        let at = format!("/containers/create?name={name}");
        let answer = self.request("POST", &at, Some(("application/json", body.as_bytes())))?;
        Ok(answer["Id"].as_str().context("no id")?.to_owned())
    }

    /// Creates and starts one.
    fn run(&self, name: &str, config: &Value) -> Result<String> {
        let id = self.create(name, config)?;
        self.post(&format!("/containers/{id}/start"))?;
        Ok(id)
    }

    /// A POST without a body: `/containers/NAME/stop?t=1`.
    fn post(&self, path: &str) -> Result<()> {
        self.request("POST", path, None).map(drop)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.request("DELETE", &format!("/containers/{name}?force=1"), None).map(drop)
    }

    fn json(&self, path: &str) -> Result<Value> {
        self.request("GET", path, None)
    }

    /// HTTP/1.0, so that the answer ends with the connection.
    fn request(&self, method: &str, path: &str, body: Option<(&str, &[u8])>) -> Result<Value> {
        let socket = self.socket();
        let mut stream = UnixStream::connect(&socket)
            .with_context(|| format!("nothing listens on {}", socket.display()))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let (kind, body) = body.unwrap_or(("application/json", b""));
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: engine\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
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

/// A tar of busybox and these files, put together in `root`.
pub(crate) fn packed(root: &Path, files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    std::fs::create_dir_all(root.join("bin"))?;
    std::fs::copy(target().join("parts/bin/busybox"), root.join("bin/busybox"))?;
    for (path, content) in files {
        let file = root.join(path);
        std::fs::create_dir_all(file.parent().unwrap_or(root))?;
        std::fs::write(file, content)?;
    }
    let tar = Command::new("tar").arg("-C").arg(root).args(["-c", "."]).output().context("no tar")?;
    ensure!(tar.status.success(), "tar: {}", String::from_utf8_lossy(&tar.stderr));
    Ok(tar.stdout)
}

/// All containers of an engine that answers.
pub(crate) fn remove_all(engine: &impl Engine) {
    if let Ok(Value::Array(all)) = engine.json("/containers/json?all=1") {
        for id in all.iter().filter_map(|c| c["Id"].as_str()) {
            let _ = engine.remove(id);
        }
    }
}

/// What an engine left mounted, so that the test's folder can go.
pub(crate) fn unmount(folder: &Path) {
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
