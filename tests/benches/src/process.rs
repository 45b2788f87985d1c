//! A server under measurement: started pinned to one core, read through `/proc`, killed when dropped.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The core that servers run on; the load comes from the other one.
const SERVER_CORE: &str = "0";

pub struct Server {
    pub name: String,
    child: Child,
}

impl Server {
    /// Starts `program` pinned to the server core, `GOMAXPROCS=1`, its output in `log`.
    pub fn start(name: &str, program: &Path, args: &[String], log: &Path) -> Result<Self> {
        let out = fs::File::create(log).with_context(|| format!("create {}", log.display()))?;
        let child = Command::new("taskset")
            .args(["-c", SERVER_CORE])
            .arg(program)
            .args(args)
            .env("GOMAXPROCS", "1")
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("start {name}: {}", program.display()))?;
        Ok(Self { name: name.to_owned(), child })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// User and system CPU seconds of the process so far (proc(5), `stat`, fields 14 and 15; ticks of 10 ms).
    pub fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds(self.pid()).with_context(|| format!("{} is gone", self.name))
    }

    /// The same of the process and all those below it.
    pub fn tree_cpu_seconds(&self) -> Result<f64> {
        self.tree()?.into_iter().map(cpu_seconds).sum()
    }

    /// Resident bytes of the process and all those below it, each page divided by how many have it (proc(5),
    /// `smaps_rollup`, `Pss`).
    pub fn tree_pss(&self) -> Result<u64> {
        self.tree()?.into_iter().map(pss).sum()
    }

    /// The process and all those below it.
    fn tree(&self) -> Result<Vec<u32>> {
        let mut parents = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            // One that ended meanwhile is none.
            if let Ok(parent) = field(pid, 4) {
                parents.push((pid, parent as u32));
            }
        }
        let mut tree = vec![self.pid()];
        let mut at = 0;
        while let Some(one) = tree.get(at).copied() {
            tree.extend(parents.iter().filter(|(_, parent)| *parent == one).map(|(pid, _)| *pid));
            at += 1;
        }
        Ok(tree)
    }

    /// Resident bytes now (proc(5), `status`, `VmRSS`).
    pub fn rss(&self) -> Result<u64> {
        self.status_bytes("VmRSS:")
    }

    /// Resident bytes that no file is behind: heap, stacks, memories of plugins (proc(5), `status`, `RssAnon`).
    pub fn anonymous_rss(&self) -> Result<u64> {
        self.status_bytes("RssAnon:")
    }

    /// The most that was resident since the mark was reset through `clear_refs` (proc(5), `status`, `VmHWM`).
    pub fn peak_rss(&self) -> Result<u64> {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, key: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find(|l| l.starts_with(key)).context("a field of status is missing")?;
        let kib: u64 = line.split_whitespace().nth(1).context("a field of status has no number")?.parse()?;
        Ok(kib * 1024)
    }
}

fn cpu_seconds(pid: u32) -> Result<f64> {
    Ok((field(pid, 14)? + field(pid, 15)?) / 100.0)
}

/// A number of `stat`, see proc(5).
fn field(pid: u32, number: usize) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = stat.rsplit_once(')').context("stat without a name")?.1;
    Ok(rest.split_whitespace().nth(number - 3).context("stat is short")?.parse::<f64>()?)
}

fn pss(pid: u32) -> Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        .context("the memory of a worker is root's to read")?;
    let line = rollup.lines().find(|l| l.starts_with("Pss:")).context("smaps_rollup has no Pss")?;
    let kib: u64 = line.split_whitespace().nth(1).context("Pss has no number")?.parse()?;
    Ok(kib * 1024)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Polls `ready` every 20 ms until it says so.
pub async fn until<F: AsyncFnMut() -> bool>(what: &str, limit: Duration, mut ready: F) -> Result<()> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if ready().await {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("waited {limit:?} in vain for {what}")
}

/// A free TCP port of the loopback interface.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
