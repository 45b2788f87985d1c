//! What a process takes, read through `/proc`.

use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;

/// What a process takes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Usage {
    /// Resident bytes.
    pub rss: f64,
    /// Those of them that no file is behind.
    pub own: f64,
    /// Resident bytes, of a page that several processes share its part alone.
    pub pss: f64,
    /// The most resident bytes so far.
    pub peak: f64,
    /// CPU seconds.
    pub cpu: f64,
    /// CPU seconds of the children that ended.
    pub ended_children: f64,
    /// Open files, sockets and the like.
    pub handles: f64,
    pub threads: f64,
}

impl Usage {
    pub fn of(pid: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let rest = stat.rsplit_once(')').context("stat without a name")?.1;
        let ticks = |field: usize| -> Result<f64> {
            Ok(rest.split_whitespace().nth(field - 3).context("stat is short")?.parse::<f64>()? / 100.0)
        };
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let number = |key: &str| -> Result<f64> {
            let mut lines = rollup.lines().chain(status.lines());
            let line = lines.find_map(|l| l.strip_prefix(key)).context("a field is missing")?;
            Ok(line.trim().trim_end_matches(" kB").parse()?)
        };
        let bytes = |key: &str| -> Result<f64> { Ok(number(key)? * 1024.0) };
        Ok(Self {
            rss: bytes("Rss:")?,
            own: bytes("Anonymous:")?,
            pss: bytes("Pss:")?,
            peak: bytes("VmHWM:")?,
            cpu: ticks(14)? + ticks(15)?,
            ended_children: ticks(16)? + ticks(17)?,
            handles: fs::read_dir(format!("/proc/{pid}/fd"))?.count() as f64,
            threads: number("Threads:")?,
        })
    }

    pub fn with(self, other: Self) -> Self {
        Self {
            rss: self.rss + other.rss,
            own: self.own + other.own,
            pss: self.pss + other.pss,
            peak: self.peak + other.peak,
            cpu: self.cpu + other.cpu,
            ended_children: self.ended_children + other.ended_children,
            handles: self.handles + other.handles,
            threads: self.threads + other.threads,
        }
    }
}

/// A process that another one started.
pub struct Child {
    pub pid: u32,
    /// As the kernel has it: 15 bytes at most.
    pub name: String,
}

/// The children of a process.
pub fn children(pid: u32) -> Vec<Child> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some((head, rest)) = stat.rsplit_once(')') else { continue };
        let Some((_, name)) = head.split_once('(') else { continue };
        let parent = rest.split_whitespace().nth(1).and_then(|p| p.parse::<u32>().ok());
        if parent == Some(pid) {
            found.push(Child { pid: child, name: name.to_owned() });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_takes_is_read() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.rss > usage.own && usage.own > 0.0, "{usage:?}");
        assert!(usage.handles >= 3.0 && usage.threads >= 1.0, "{usage:?}");
    }
}
