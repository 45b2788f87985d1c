//! Whose a process is: the user, the Slurm job, the container. From /proc and, where a job's directory has no number in
//! it, from the title of the process that Slurm runs beside the job's own.
//!
//! Nothing is asked of Slurm or of a container engine: that works while they are down, and costs a few small reads a new
//! process. What is known of a process is looked at anew once a minute, because numbers of processes are used again.

pub mod cgroup;

use std::collections::BTreeMap;

use picket_sdk::files;

use cgroup::{Place, Slurm};

/// Milliseconds that what is known of a process is good for.
const KEEP: u64 = 60_000;
/// Ancestors that are looked at for Slurm's own process.
const ANCESTORS: usize = 16;
/// Steps of a job that are looked at for it.
const STEPS: usize = 16;
/// Users, processes and jobs that are remembered.
const MANY: usize = 4096;

/// Whose it is; what is not known is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    pub job: String,
    pub user: String,
    pub container: String,
}

#[derive(Default)]
pub struct Owners {
    processes: BTreeMap<u32, (Owner, u64)>,
    users: BTreeMap<u32, String>,
    users_read: Option<u64>,
    /// By directory.
    jobs: BTreeMap<String, String>,
}

impl Owners {
    /// Of a process; one that is gone is nobody's.
    pub fn of(&mut self, pid: u32, now_ms: u64) -> Owner {
        if let Some((owner, read)) = self.processes.get(&pid)
            && now_ms.saturating_sub(*read) < KEEP
        {
            return owner.clone();
        }
        let owner = self.look(pid, now_ms);
        if self.processes.len() >= MANY {
            self.processes.clear();
        }
        self.processes.insert(pid, (owner.clone(), now_ms));
        owner
    }

    /// Forgets the others.
    pub fn keep(&mut self, alive: impl Fn(u32) -> bool) {
        self.processes.retain(|pid, _| alive(*pid));
    }

    fn look(&mut self, pid: u32, now_ms: u64) -> Owner {
        let place = text(&format!("/proc/{pid}/cgroup")).map(|t| cgroup::parse(&t)).unwrap_or_default();
        let user = Status::of(pid).and_then(|s| s.uid).map(|uid| self.user(uid, now_ms));
        Owner {
            job: self.job(pid, &place).unwrap_or_default(),
            user: user.unwrap_or_default(),
            container: place.container.unwrap_or_default(),
        }
    }

    fn job(&mut self, pid: u32, place: &Place) -> Option<String> {
        let directory = match place.slurm.as_ref()? {
            Slurm::Job(id) => return Some(id.to_string()),
            Slurm::Directory(directory) => directory,
        };
        if let Some(job) = self.jobs.get(directory) {
            return Some(job.clone());
        }
        let job = of_directory(directory).or_else(|| of_ancestors(pid))?.to_string();
        if self.jobs.len() >= MANY {
            self.jobs.clear();
        }
        self.jobs.insert(directory.clone(), job.clone());
        Some(job)
    }

    /// The name, where /etc/passwd has one; else the number.
    fn user(&mut self, uid: u32, now_ms: u64) -> String {
        if let Some(name) = self.users.get(&uid) {
            return name.clone();
        }
        if self.users_read.is_none_or(|read| now_ms.saturating_sub(read) >= KEEP) {
            self.users_read = Some(now_ms);
            if let Some(text) = text("/etc/passwd") {
                self.users = passwd(&text);
            }
        }
        self.users.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }
}

fn text(path: &str) -> Option<String> {
    String::from_utf8(files::read(path).ok()?).ok()
}

fn passwd(text: &str) -> BTreeMap<u32, String> {
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let (name, uid) = (fields.next()?, fields.nth(1)?.parse().ok()?);
        (!name.is_empty()).then(|| (uid, name.to_owned()))
    };
    let mut users = BTreeMap::new();
    for (uid, name) in text.lines().filter_map(entry).take(MANY) {
        // Several names may have one number: the first is the usual one.
        users.entry(uid).or_insert(name);
    }
    users
}

/// Slurm's process of a step is in a directory beside those of its tasks.
fn of_directory(directory: &str) -> Option<u64> {
    let root = format!("/sys/fs/cgroup{directory}");
    let steps = files::list_directory(&root).ok()?;
    for step in steps.iter().filter(|s| s.name.starts_with("step_")).take(STEPS) {
        let Some(pids) = text(&format!("{root}/{}/slurm/cgroup.procs", step.name)) else { continue };
        if let Some(job) = pids.lines().filter_map(|l| l.trim().parse().ok()).find_map(of_daemon) {
            return Some(job);
        }
    }
    None
}

fn of_ancestors(pid: u32) -> Option<u64> {
    let mut at = pid;
    for _ in 0..ANCESTORS {
        let status = Status::of(at)?;
        if status.name == "slurmstepd"
            && let Some(job) = of_daemon(at)
        {
            return Some(job);
        }
        at = status.parent.filter(|parent| *parent > 1)?;
    }
    None
}

fn of_daemon(pid: u32) -> Option<u64> {
    let line = files::read(&format!("/proc/{pid}/cmdline")).ok()?;
    cgroup::job_of_step_daemon(&String::from_utf8_lossy(&line))
}

/// What /proc/PID/status says.
#[derive(Default)]
struct Status {
    name: String,
    parent: Option<u32>,
    uid: Option<u32>,
}

impl Status {
    fn of(pid: u32) -> Option<Self> {
        let text = text(&format!("/proc/{pid}/status"))?;
        let mut status = Self::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let mut words = value.split_ascii_whitespace();
            match key {
                "Name" => status.name = value.trim().to_owned(),
                "PPid" => status.parent = words.next().and_then(|w| w.parse().ok()),
                // Real, effective, saved, of the file system.
                "Uid" => status.uid = words.next().and_then(|w| w.parse().ok()),
                _ => {}
            }
        }
        Some(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users() {
        let users = passwd(
            "root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:\nada:x:1000:1000:Ada,,,:/home/ada:\n\n:x:7:7::\nx\nb:x:no:1\n",
        );
        assert_eq!(users.into_iter().collect::<Vec<_>>(), [(0, "root".to_owned()), (1000, "ada".to_owned())]);
    }
}
