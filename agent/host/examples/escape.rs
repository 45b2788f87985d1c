//! Arbitrary native code in a worker: it raises the very wall of a worker around itself, perhaps without some parts, and then
//! tries one thing. Never shipped.
//!
//! `escape PARTS ATTEMPT AGENT FOLDER PORT ABSTRACT`, where PARTS are left out (`bare`: all of them). Ends with 0 where it got
//! what it wanted and 1 where it was refused, and says so.

#![allow(unsafe_code, reason = "it does what no program should")]

use std::ffi::{CStr, CString};
use std::io;
use std::process::ExitCode;

use picket_agent_host::WallPart;
use picket_agent_host::trial::walled;

type Attempt = fn(&Aim) -> io::Result<()>;

/// What there is to get at.
struct Aim {
    /// The process that stands for the agent.
    agent: i32,
    /// A folder of the agent's own with a file `secret` in it.
    folder: CString,
    /// The agent listens there, on loopback.
    port: u16,
    /// And there, on an abstract Unix socket.
    name: String,
}

const ATTEMPTS: [(&str, Attempt); 33] = [
    ("read-passwd", |_| open(c"/etc/passwd", libc::O_RDONLY)),
    ("read-state", |aim| open(&below(&aim.folder, "secret"), libc::O_RDONLY)),
    ("write-state", |aim| open(&below(&aim.folder, "new"), libc::O_WRONLY | libc::O_CREAT)),
    ("list-root", |_| open(c"/etc", libc::O_RDONLY | libc::O_DIRECTORY)),
    ("agent-memory-file", |aim| open(&proc_of(aim, "mem"), libc::O_RDWR)),
    ("agent-environment", |aim| open(&proc_of(aim, "environ"), libc::O_RDONLY)),
    ("make-memory-file", |_| sys(libc::SYS_memfd_create, [c"x".as_ptr() as i64, 0, 0, 0, 0, 0])),
    ("device-null", |_| open(c"/dev/null", libc::O_RDWR)),
    ("device-kmsg", |_| open(c"/dev/kmsg", libc::O_RDONLY)),
    ("socket-inet", |_| socket(libc::AF_INET, libc::SOCK_STREAM)),
    ("socket-inet6", |_| socket(libc::AF_INET6, libc::SOCK_DGRAM)),
    ("socket-unix", |_| socket(libc::AF_UNIX, libc::SOCK_STREAM)),
    ("socket-netlink", |_| socket(libc::AF_NETLINK, libc::SOCK_RAW)),
    ("socket-packet", |_| socket(libc::AF_PACKET, libc::SOCK_RAW)),
    ("connect-loopback", connect_loopback),
    ("connect-abstract", connect_abstract),
    ("ptrace-agent", |aim| sys(libc::SYS_ptrace, [0x4206, aim.agent.into(), 0, 0, 0, 0])),
    ("read-agent-memory", read_agent),
    ("signal-agent", |aim| sys(libc::SYS_kill, [aim.agent.into(), 0, 0, 0, 0, 0])),
    ("pidfd-agent", |aim| sys(libc::SYS_pidfd_open, [aim.agent.into(), 0, 0, 0, 0, 0])),
    ("fork", fork),
    ("thread", |_| std::thread::Builder::new().spawn(|| {}).map(drop)),
    ("execve", execve),
    ("mount", |_| {
        let (none, at, kind) = (c"none".as_ptr() as i64, c"/".as_ptr() as i64, c"tmpfs".as_ptr() as i64);
        sys(libc::SYS_mount, [none, at, kind, 0, 0, 0])
    }),
    ("user-namespace", |_| sys(libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0, 0, 0, 0])),
    ("bpf", |_| {
        let attributes = [1u32, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        sys(libc::SYS_bpf, [0, attributes.as_ptr() as i64, 48, 0, 0, 0])
    }),
    ("io-uring", |_| {
        let mut parameters = [0u8; 120];
        sys(libc::SYS_io_uring_setup, [1, parameters.as_mut_ptr() as i64, 0, 0, 0, 0])
    }),
    ("userfaultfd", |_| sys(libc::SYS_userfaultfd, [0; 6])),
    ("keyctl", |_| sys(libc::SYS_keyctl, [0, -3, 1, 0, 0, 0])),
    ("perf", |_| {
        let mut attributes = [0u8; 128];
        attributes[0] = 1;
        attributes[4] = 128;
        sys(libc::SYS_perf_event_open, [attributes.as_ptr() as i64, 0, -1, -1, 0, 0])
    }),
    ("raise-capabilities", raise_capabilities),
    ("become-root", |_| sys(libc::SYS_setresuid, [0, 0, 0, 0, 0, 0])),
    ("write-and-run-memory", |_| {
        let exec = i64::from(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC);
        let flags = i64::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        sys(libc::SYS_mmap, [0, 4096, exec, flags, -1, 0])
    }),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, parts, attempt, agent, folder, port, name] = arguments.as_slice() else {
        for (name, _) in ATTEMPTS {
            println!("{name}");
        }
        return ExitCode::from(2);
    };
    let found = ATTEMPTS.iter().find(|(known, _)| known == attempt);
    let (Some((_, attempt)), Ok(agent), Ok(port), Ok(folder)) =
        (found, agent.parse(), port.parse(), CString::new(folder.as_str()))
    else {
        return ExitCode::from(2);
    };
    let aim = Aim { agent, folder, port, name: name.clone() };
    let root = rustix::process::geteuid().is_root();
    let tried = if parts == "bare" {
        // With root's rights a mount works, and is to be nobody else's.
        match mounts_of_its_own() {
            Err(e) if root => Err(format!("the mounts of this machine are not risked: {e}")),
            _ => Ok(attempt(&aim)),
        }
    } else {
        let without: Vec<WallPart> =
            WallPart::ALL.into_iter().filter(|p| parts.split(',').any(|w| w == p.word())).collect();
        walled(root.then_some((65_533, 65_533)), &without, |_| attempt(&aim))
    };
    match tried {
        Ok(Ok(())) => {
            println!("it worked");
            ExitCode::SUCCESS
        }
        Ok(Err(e)) => {
            println!("refused: {e}");
            ExitCode::FAILURE
        }
        Err(e) => {
            println!("no wall: {e}");
            ExitCode::from(2)
        }
    }
}

fn sys(number: i64, a: [i64; 6]) -> io::Result<()> {
    // SAFETY: none; whatever it does is what this program is for. The arguments point to what lives across the call.
    let returned = unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]) };
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn mounts_of_its_own() -> io::Result<()> {
    sys(libc::SYS_unshare, [libc::CLONE_NEWNS.into(), 0, 0, 0, 0, 0])?;
    let (none, root) = (c"none".as_ptr() as i64, c"/".as_ptr() as i64);
    let private = i64::try_from(libc::MS_REC | libc::MS_PRIVATE).unwrap_or_default();
    sys(libc::SYS_mount, [none, root, 0, private, 0, 0])
}

fn open(path: &CStr, flags: i32) -> io::Result<()> {
    sys(libc::SYS_openat, [libc::AT_FDCWD.into(), path.as_ptr() as i64, flags.into(), 0o600, 0, 0])
}

fn below(folder: &CStr, name: &str) -> CString {
    CString::new(format!("{}/{name}", folder.to_string_lossy())).unwrap_or_default()
}

fn proc_of(aim: &Aim, file: &str) -> CString {
    CString::new(format!("/proc/{}/{file}", aim.agent)).unwrap_or_default()
}

fn socket(family: i32, kind: i32) -> io::Result<()> {
    sys(libc::SYS_socket, [family.into(), kind.into(), 0, 0, 0, 0])
}

fn connect_loopback(aim: &Aim) -> io::Result<()> {
    std::net::TcpStream::connect(("127.0.0.1", aim.port)).map(drop)
}

fn connect_abstract(aim: &Aim) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(aim.name.as_bytes())?;
    std::os::unix::net::UnixStream::connect_addr(&address).map(drop)
}

fn read_agent(aim: &Aim) -> io::Result<()> {
    let mut taken = [0u8; 8];
    let local = libc::iovec { iov_base: taken.as_mut_ptr().cast(), iov_len: taken.len() };
    // Whatever lies there: without the right to look the kernel does not even look. (EFAULT: it looked.)
    let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(0x1000), iov_len: taken.len() };
    let (local, remote) = (&raw const local as i64, &raw const remote as i64);
    match sys(libc::SYS_process_vm_readv, [aim.agent.into(), local, 1, remote, 1, 0]) {
        Err(e) if e.raw_os_error() == Some(libc::EFAULT) => Ok(()),
        other => other,
    }
}

fn fork(_: &Aim) -> io::Result<()> {
    // SAFETY: the child ends at once.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => unsafe { libc::_exit(0) },
        _ => Ok(()),
    }
}

/// It worked if the other program runs: that one ends with 0 as well.
fn execve(_: &Aim) -> io::Result<()> {
    let program = c"/bin/true";
    let arguments = [program.as_ptr(), std::ptr::null()];
    let environment: [*const libc::c_char; 1] = [std::ptr::null()];
    sys(
        libc::SYS_execve,
        [program.as_ptr() as i64, arguments.as_ptr() as i64, environment.as_ptr() as i64, 0, 0, 0],
    )
}

fn raise_capabilities(_: &Aim) -> io::Result<()> {
    // Version 3, of this thread; CAP_SYS_ADMIN effective and permitted.
    let header = [0x2008_0522_u32, 0];
    let sets = [1u32 << 21, 1 << 21, 0, 0, 0, 0];
    sys(libc::SYS_capset, [header.as_ptr() as i64, sets.as_ptr() as i64, 0, 0, 0, 0])
}
