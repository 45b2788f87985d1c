//! The agent that runs on this node, and the processes that it has started.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use picket_agent_services::secrets::clean_arguments;
use serde_json::Value;

use super::bag::{Content, Missing};
use super::read::{self, section};

const AGENT: &str = "picket-agent";
/// What the kernel says of a process, in `/proc/PID`.
const FILES: [&str; 6] = ["status", "smaps_rollup", "limits", "cgroup", "oom_score_adj", "io"];
/// What it says of a control group.
const GROUP: [&str; 10] = [
    "memory.current",
    "memory.max",
    "memory.peak",
    "memory.events",
    "memory.pressure",
    "cpu.max",
    "cpu.stat",
    "cpu.pressure",
    "pids.current",
    "pids.max",
];
/// Descriptors that are counted; more are as telling.
const MAX_OPEN: usize = 100_000;

/// One of the agent's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    pub name: String,
    parent: u32,
}

/// The agent that uses this state folder, first, and all that came from it; empty: none runs, as far as can be seen.
pub fn running(state_dir: &Path) -> Vec<Process> {
    let all = all();
    let own = std::process::id();
    let agents = || all.values().filter(|process| process.name == AGENT && process.pid != own);
    let agent = match std::fs::metadata(state_dir.join("agent.lock")) {
        Ok(lock) => {
            let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
            let holders = holders(&locks, lock.ino());
            agents().find(|process| holders.contains(&process.pid))
        }
        // This user may not look: the only agent there is, of whatever folder it may be.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            agents().next().filter(|_| agents().count() == 1)
        }
        Err(_) => None,
    };
    let Some(agent) = agent else { return Vec::new() };
    let mut family = vec![agent.clone()];
    let mut at = 0;
    while let Some(parent) = family.get(at).map(|process| process.pid) {
        // They were not read in one moment: where a number went to another process meanwhile, parents may form a ring.
        let new = |process: &&Process| process.parent == parent && !family.contains(process);
        let children: Vec<_> = all.values().filter(new).cloned().collect();
        family.extend(children);
        at += 1;
    }
    family
}

fn all() -> BTreeMap<u32, Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().to_owned())
        };
        Some((pid, Process { pid, name: field("Name:")?, parent: field("PPid:")?.parse().ok()? }))
    });
    processes.collect()
}

/// Who holds the lock on this file, by the kernel's list: see proc_locks(5).
fn holders(locks: &str, inode: u64) -> Vec<u32> {
    let of_line = |line: &str| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "FLOCK").skip(3);
        let pid = words.next()?.parse().ok()?;
        // The device is left out: some file systems show another one here than to stat.
        let of = words.next()?.rsplit(':').next()?;
        (of.parse() == Ok(inode)).then_some(pid)
    };
    locks.lines().filter_map(of_line).collect()
}

/// What the kernel knows of it.
pub fn describe(process: &Process) -> Result<Content, Missing> {
    let folder = PathBuf::from(format!("/proc/{}", process.pid));
    if !folder.exists() {
        return Err(Missing::Not(format!("process {} has ended", process.pid)));
    }
    let mut out = String::new();
    let program = std::fs::read_link(folder.join("exe"));
    section(&mut out, "program", &shown(program.map(|path| path.display().to_string())));
    section(&mut out, "arguments", &shown(arguments(&folder)));
    section(&mut out, "environment, names alone", &shown(environment(&folder)));
    let open = std::fs::read_dir(folder.join("fd")).map(|list| list.take(MAX_OPEN).count().to_string());
    section(&mut out, "open files", &shown(open));
    let paths = FILES.map(|name| folder.join(name));
    out.push_str(&read::files(paths.iter().map(PathBuf::as_path)));
    Ok(Content::Text(out))
}

fn shown(read: std::io::Result<String>) -> String {
    read.unwrap_or_else(|error| format!("cannot be read: {error}"))
}

fn arguments(folder: &Path) -> std::io::Result<String> {
    let bytes = std::fs::read(folder.join("cmdline"))?;
    let mut list: Vec<Value> = strings(&bytes).map(Value::String).collect();
    clean_arguments(&mut list);
    let list: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
    Ok(list.join(" "))
}

fn environment(folder: &Path) -> std::io::Result<String> {
    let bytes = std::fs::read(folder.join("environ"))?;
    let name = |text: String| text.split('=').next().map(str::to_owned);
    Ok(strings(&bytes).filter_map(name).collect::<Vec<_>>().join(" "))
}

fn strings(bytes: &[u8]) -> impl Iterator<Item = String> + '_ {
    bytes
        .split(|byte| *byte == 0)
        .filter(|part| !part.is_empty())
        .map(|part| String::from_utf8_lossy(part).into_owned())
}

/// The control group of a process, with its bounds and what of them is used.
pub fn group(pid: u32) -> Result<Content, Missing> {
    let own = read::file(Path::new(&format!("/proc/{pid}/cgroup")))?;
    let mut out = String::new();
    section(&mut out, &format!("/proc/{pid}/cgroup"), &own);
    let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::/")) else {
        let _ = writeln!(out, "no control group of version 2");
        return Ok(Content::Text(out));
    };
    let folder = Path::new("/sys/fs/cgroup").join(path);
    // The bounds that count may be the parent's: systemd sets them on the unit, and the agent moves into a child.
    let groups = folder.ancestors().take_while(|path| path.starts_with("/sys/fs/cgroup")).take(3);
    let paths: Vec<PathBuf> = groups.flat_map(|group| GROUP.map(|name| group.join(name))).collect();
    out.push_str(&read::files(paths.iter().map(PathBuf::as_path)));
    Ok(Content::Text(out))
}

/// The file that an agent logs into, where it was started with one.
pub fn log_file(pid: u32) -> Result<Content, Missing> {
    let path = PathBuf::from(format!("/proc/{pid}/fd/2"));
    let missing = |source| Missing::Read { path: path.display().to_string(), source };
    let target = std::fs::read_link(&path).map_err(missing)?;
    if !std::fs::metadata(&path).map_err(missing)?.is_file() {
        let what = target.display();
        return Err(Missing::Not(format!(
            "the agent's standard error is {what}, not a file: add what collects it"
        )));
    }
    read::tail(&path).map(Content::Log)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    #[test]
    fn locks() {
        let text = "1: POSIX  ADVISORY  WRITE 7 00:1a:77 0 EOF\n2: FLOCK  ADVISORY  WRITE 1234 fe:00:77 0 EOF\n\
                    2: -> FLOCK  ADVISORY  WRITE 5 fe:00:77 0 EOF\n3: FLOCK  ADVISORY  READ 9 fe:00:78 0 EOF\nnonsense\n3: FLOCK";
        assert_eq!(holders(text, 77), [1234, 5]);
        assert!(holders(text, 1).is_empty());
    }

    #[test]
    fn a_process_of_this_test() {
        let mut child =
            std::process::Command::new("sleep").args(["60"]).env("A_NAME", "a value").spawn().unwrap();
        // A program's arguments stand there a moment after its start.
        let (arguments, until) = (format!("/proc/{}/cmdline", child.id()), Instant::now() + DEADLINE);
        while std::fs::read(&arguments).unwrap().is_empty() {
            assert!(Instant::now() < until, "sleep has no arguments");
            std::thread::yield_now();
        }
        let process = Process { pid: child.id(), name: "sleep".to_owned(), parent: 1 };
        let Ok(Content::Text(text)) = describe(&process) else { panic!("not described") };
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(text.contains("sleep 60") && text.contains("A_NAME") && text.contains("VmRSS"), "{text}");
        assert!(!text.contains("a value"), "{text}");
        assert!(describe(&process).unwrap_err().to_string().contains("has ended"));
        assert!(group(std::process::id()).is_ok());
    }
}
