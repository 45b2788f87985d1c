//! The second wall against arbitrary native code: each attempt is made without any wall, where it must work, behind the whole
//! of it, where it must not, and behind what is left of it without seccomp, and without seccomp and Landlock.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use crate::workers::example;

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Worked,
    Refused,
    /// By seccomp, at the system call.
    Killed,
}
use End::{Killed, Refused, Worked};

/// The attempt; whether it works here without a wall (none: not every kernel and container lets it); behind the whole wall;
/// without seccomp; and without Landlock either.
type Row = (&'static str, Option<End>, End, End, End);

const ROWS: [Row; 33] = [
    ("read-passwd", Some(Worked), Refused, Refused, Refused),
    ("read-state", Some(Worked), Refused, Refused, Refused),
    ("write-state", Some(Worked), Refused, Refused, Refused),
    ("list-root", Some(Worked), Refused, Refused, Refused),
    ("agent-memory-file", Some(Worked), Refused, Refused, Refused),
    ("agent-environment", Some(Worked), Refused, Refused, Refused),
    // Memory alone, within the bounds of the process.
    ("make-memory-file", Some(Worked), Refused, Worked, Worked),
    ("device-null", Some(Worked), Refused, Refused, Refused),
    ("device-kmsg", None, Refused, Refused, Refused),
    // A socket alone leads nowhere: there is no interface, and nobody on the other side.
    ("socket-inet", Some(Worked), Killed, Worked, Worked),
    ("socket-inet6", Some(Worked), Killed, Worked, Worked),
    ("socket-unix", Some(Worked), Killed, Worked, Worked),
    ("socket-netlink", Some(Worked), Killed, Worked, Worked),
    ("socket-packet", None, Killed, Refused, Refused),
    ("connect-loopback", Some(Worked), Killed, Refused, Refused),
    ("connect-abstract", Some(Worked), Killed, Refused, Refused),
    ("ptrace-agent", None, Killed, Refused, Refused),
    ("read-agent-memory", Some(Worked), Killed, Refused, Refused),
    ("signal-agent", Some(Worked), Killed, Refused, Refused),
    ("pidfd-agent", Some(Worked), Killed, Worked, Worked),
    ("fork", Some(Worked), Refused, Refused, Refused),
    ("thread", Some(Worked), Refused, Refused, Refused),
    ("execve", Some(Worked), Killed, Refused, Refused),
    ("mount", None, Killed, Refused, Refused),
    ("user-namespace", None, Killed, Refused, Refused),
    ("bpf", None, Killed, Refused, Refused),
    // Its memory would have to be locked.
    ("io-uring", None, Killed, Refused, Refused),
    ("userfaultfd", None, Killed, Refused, Refused),
    ("keyctl", None, Killed, Worked, Worked),
    ("perf", None, Killed, Refused, Refused),
    ("raise-capabilities", Some(Worked), Refused, Refused, Refused),
    ("become-root", Some(Worked), Refused, Refused, Refused),
    ("write-and-run-memory", Some(Worked), Refused, Worked, Worked),
];

struct Agent {
    folder: tempfile::TempDir,
    inet: std::net::TcpListener,
    name: String,
    _abstract: std::os::unix::net::UnixListener,
}

impl Agent {
    fn new() -> Self {
        use std::os::linux::net::SocketAddrExt;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), "of the agent").unwrap();
        let name = format!("picket-test-{}-{:?}", std::process::id(), std::thread::current().id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        Self {
            folder,
            inet: std::net::TcpListener::bind("127.0.0.1:0").unwrap(),
            name,
            _abstract: std::os::unix::net::UnixListener::bind_addr(&address).unwrap(),
        }
    }

    fn attempt(&self, without: &str, attempt: &str) -> (End, String) {
        let output = Command::new(example("escape"))
            .args([without, attempt])
            .arg(std::process::id().to_string())
            .arg(self.folder.path())
            .arg(self.inet.local_addr().unwrap().port().to_string())
            .arg(&self.name)
            .output()
            .unwrap();
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout).trim(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let end = match (output.status.code(), output.status.signal()) {
            (Some(0), _) => Worked,
            (Some(1), _) if said.starts_with("refused") => Refused,
            (_, Some(31)) => Killed,
            _ => panic!("{attempt} without {without:?} ended with {}: {said}", output.status),
        };
        (end, said)
    }
}

#[test]
fn nothing_gets_out() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: without root there is nothing to lose, and the rows of this table are root's");
        return;
    }
    let agent = Agent::new();
    let mut wrong = Vec::new();
    for (attempt, bare, whole, unsealed, unruled) in ROWS {
        let layers = [
            ("bare", bare),
            ("", Some(whole)),
            ("seccomp", Some(unsealed)),
            ("seccomp,landlock", Some(unruled)),
        ];
        let ends = layers.map(|(without, _)| agent.attempt(without, attempt));
        println!("{attempt:22} {:?}", ends.each_ref().map(|(end, _)| *end));
        for ((without, expected), (end, said)) in layers.into_iter().zip(ends) {
            // A kernel that has not got it at all refuses it, which is well.
            let absent = end == Refused && expected == Some(Worked) && said.contains("os error 38");
            if expected.is_some_and(|expected| expected != end) && !absent {
                wrong.push(format!("{attempt} without {without:?}: {end:?} ({said}), not {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Landlock alone: no user of its own, no empty root, no seccomp.
#[test]
fn landlock_alone_holds() {
    let agent = Agent::new();
    let alone = "seccomp,user,mounts,network";
    if agent.attempt("seccomp,user,mounts,network,landlock", "read-state").0 != Worked {
        eprintln!("SKIPPED: the control does not work here");
        return;
    }
    for attempt in [
        "read-passwd",
        "read-state",
        "write-state",
        "list-root",
        "agent-memory-file",
        "device-null",
        "connect-loopback",
        "connect-abstract",
        "signal-agent",
        "execve",
    ] {
        let (end, said) = agent.attempt(alone, attempt);
        assert_eq!(end, Refused, "{attempt}: {said}");
    }
}

/// The table names what the program can do, all of it.
#[test]
fn every_attempt_is_in_the_table() {
    let listed = Command::new(example("escape")).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let known: Vec<&str> = ROWS.iter().map(|row| row.0).collect();
    assert_eq!(listed.lines().collect::<Vec<_>>(), known);
}
