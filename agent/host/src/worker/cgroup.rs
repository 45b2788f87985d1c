//! A memory cgroup for each worker, where the agent's own was delegated to it (`Delegate=` of its unit).
//!
//! Version 2 alone: there, a controller is given to children only of a group without processes, so the agent moves itself
//! into a child first. Nothing is touched that was not handed over: a group without systemd's mark is somebody else's, also
//! where this user could write it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

#[derive(Debug)]
pub(crate) struct Cgroup {
    folder: PathBuf,
    memory: u64,
}

impl Cgroup {
    /// Moves the process into a group of its own.
    ///
    /// # Errors
    /// Why there is none, for a person.
    pub(crate) fn new(memory: u64, number: u64, process: Option<u32>) -> Result<Self, String> {
        static ROOM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let room = ROOM.get_or_init(room).clone()?;
        let process = process.ok_or("the process has ended")?;
        let folder = room.join(format!("worker-{number}"));
        let shown = |e: io::Error| format!("{}: {e}", folder.display());
        match fs::create_dir(&folder) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(shown(e)),
            _ => {}
        }
        let group = Self { folder: folder.clone(), memory };
        group.write("memory.max", &memory.to_string()).map_err(shown)?;
        // Not every kernel has these.
        let _ = group.write("memory.swap.max", "0");
        let _ = group.write("memory.oom.group", "1");
        let _ = group.write("pids.max", "4");
        group.write("cgroup.procs", &process.to_string()).map_err(shown)?;
        Ok(group)
    }

    pub(crate) fn described(&self) -> String {
        format!("{} with {} bytes", self.folder.display(), self.memory)
    }

    /// It was ended for its memory.
    pub(crate) fn killed(&self) -> bool {
        let events = fs::read_to_string(self.folder.join("memory.events")).unwrap_or_default();
        events.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.folder.join(file), text)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Fails while a process is in it; then the next start of the agent finds it and uses it again.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Whether there would be one, without making any.
pub(crate) fn available() -> Result<String, String> {
    own_group().and_then(handed_over).map(|own| format!("below {}", own.display()))
}

fn handed_over(own: PathBuf) -> Result<PathBuf, String> {
    if delegated(&own) {
        return Ok(own);
    }
    Err(format!("{} is not delegated to the agent (Delegate=memory pids in its unit)", own.display()))
}

/// The agent's own group, made ready to have children with bounds.
fn room() -> Result<PathBuf, String> {
    let own = own_group().and_then(handed_over)?;
    prepare(&own).map_err(|e| format!("{}: {e}", own.display()))?;
    Ok(own)
}

fn prepare(own: &Path) -> io::Result<()> {
    let agent = own.join("agent");
    match fs::create_dir(&agent) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    for process in fs::read_to_string(own.join("cgroup.procs"))?.lines() {
        fs::write(agent.join("cgroup.procs"), process)?;
    }
    fs::write(own.join("cgroup.subtree_control"), "+memory")?;
    let _ = fs::write(own.join("cgroup.subtree_control"), "+pids");
    Ok(())
}

fn own_group() -> Result<PathBuf, String> {
    let text = fs::read_to_string("/proc/self/cgroup").map_err(|e| format!("/proc/self/cgroup: {e}"))?;
    let path =
        text.lines().find_map(|line| line.strip_prefix("0::")).ok_or("there are no cgroups of version 2")?;
    let mounts =
        fs::read_to_string("/proc/self/mountinfo").map_err(|e| format!("/proc/self/mountinfo: {e}"))?;
    let mount = mounts.lines().find_map(mount_point).ok_or("cgroups of version 2 are not mounted")?;
    // A group that `prepare` moved the agent into counts as its parent.
    let path = path.strip_suffix("/agent").unwrap_or(path);
    Ok(Path::new(mount).join(path.trim_start_matches('/')))
}

/// Of one line of mountinfo, see proc(5): the mount's place, if it is a cgroup2.
fn mount_point(line: &str) -> Option<&str> {
    let (left, right) = line.split_once(" - ")?;
    right.starts_with("cgroup2 ").then(|| left.split(' ').nth(4)).flatten()
}

fn delegated(group: &Path) -> bool {
    let mut value = [0; 4];
    ["trusted.delegate", "user.delegate"].iter().any(|name| {
        rustix::fs::getxattr(group, *name, &mut value).is_ok_and(|length| value.get(..length) == Some(b"1"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found() {
        let line = "42 32 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(mount_point(line), Some("/sys/fs/cgroup/unified"));
        assert_eq!(mount_point("42 32 0:27 / /x rw - tmpfs tmpfs rw"), None);
        assert_eq!(mount_point(""), None);
    }
}
