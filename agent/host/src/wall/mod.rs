//! The second wall: what the operating system takes from a process that touches strangers' code or bytes, before it does.
//!
//! The room is empty: no file, no device, no network, no other process, no privilege, little of everything else. Each part
//! stands for itself, so that where the kernel lacks one the others hold, and each is reported with the reason where it is
//! missing: a wall that nobody knows to be low is none.
//!
//! Order matters. What is each thread's own (user, capabilities, Landlock) is done by [`raise`] while there is one thread;
//! then the process makes the threads that it needs; then [`seal`] takes the making of threads and all other system calls.

mod credentials;
mod landlock;
mod namespaces;
mod seccomp;

use std::fmt;

use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal, getppid, setrlimit};
use serde::{Deserialize, Serialize};

/// A part of the wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// No file can be opened, no abstract socket reached, no process outside signalled.
    Landlock,
    /// Few system calls are left.
    Seccomp,
    /// A user of its own.
    User,
    /// No capability, and no way to one.
    Capabilities,
    /// No network interface.
    Network,
    /// An empty root folder.
    Mounts,
    /// A memory cgroup of its own.
    Cgroup,
}

impl Part {
    pub const ALL: [Self; 7] = [
        Self::Landlock,
        Self::Seccomp,
        Self::User,
        Self::Capabilities,
        Self::Network,
        Self::Mounts,
        Self::Cgroup,
    ];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::User => "user",
            Self::Capabilities => "capabilities",
            Self::Network => "network",
            Self::Mounts => "mounts",
            Self::Cgroup => "cgroup",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// How one part stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub part: Part,
    pub up: bool,
    /// What it is, or why it is not there.
    pub detail: String,
}

/// How the wall stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wall {
    pub parts: Vec<Standing>,
}

impl Wall {
    pub(crate) fn set(&mut self, part: Part, standing: Result<String, String>) {
        let (up, detail) = match standing {
            Ok(detail) => (true, detail),
            Err(detail) => (false, detail),
        };
        self.parts.retain(|p| p.part != part);
        self.parts.push(Standing { part, up, detail });
        self.parts.sort_by_key(|p| p.part);
    }

    /// Those of `required` that do not stand.
    pub fn missing(&self, required: &[Part]) -> Vec<Standing> {
        required
            .iter()
            .filter_map(|part| match self.parts.iter().find(|p| p.part == *part) {
                Some(standing) if standing.up => None,
                Some(standing) => Some(standing.clone()),
                None => Some(Standing { part: *part, up: false, detail: "unknown".to_owned() }),
            })
            .collect()
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.part, if self.up { "yes" } else { "no" }, self.detail)
    }
}

/// Who is walled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Runs plugins: a socket to the agent, memory, time.
    Worker,
    /// Compiles one: an open file to read, one to write, memory, time.
    Compiler,
}

/// What the wall is raised with.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub room: Room,
    /// User and group, where the process may choose.
    pub user: Option<(u32, u32)>,
    /// Private memory, in bytes.
    pub memory: u64,
    /// Address space, in bytes.
    pub address_space: u64,
}

/// The most that a compiler may write.
const COMPILED_BYTES: u64 = 1 << 30;
/// Open files: the socket, the runtime's own few, and those that come to be mapped.
const FILES: u64 = 64;

/// All that is to be done while the process has one thread. What cannot be done is reported, not fatal: the agent decides
/// what it requires.
pub(crate) fn raise(plan: &Plan) -> Wall {
    raise_but(plan, &[])
}

/// The same without some parts, to see what the others hold.
pub(crate) fn raise_but(plan: &Plan, without: &[Part]) -> Wall {
    let mut wall = Wall::default();
    // Asked for once and kept: afterwards the file that tells of it cannot be opened.
    let _ = rustix::param::page_size();
    let _ = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let agent = getppid();
    close_what_was_left();
    namespaces::enter(&mut wall, without);
    if !without.contains(&Part::User) {
        credentials::drop_all(plan.user, &mut wall);
    }
    limits(plan);
    if !without.contains(&Part::Landlock) {
        wall.set(Part::Landlock, landlock::restrict());
    }
    // After the change of user, which would undo both.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    // In a process namespace of its own the parent has no number; else it is the agent, or gone.
    if getppid() != agent {
        std::process::exit(1);
    }
    wall
}

/// Takes all system calls that the room has no use for, in every thread. Nothing foreign was touched before it.
pub(crate) fn seal(plan: &Plan, wall: &mut Wall) {
    seal_but(plan, wall, &[]);
}

pub(crate) fn seal_but(plan: &Plan, wall: &mut Wall, without: &[Part]) {
    bound(Resource::Nproc, 0);
    if !without.contains(&Part::Seccomp) {
        wall.set(Part::Seccomp, seccomp::apply(plan.room));
    }
}

/// The wall around the compiler. To be called while there is one thread; of what is open the standard three stay so.
///
/// # Errors
/// What of `required` is not to be had, for a person.
pub fn compiler(memory: u64, user: Option<(u32, u32)>, required: &[Part]) -> Result<(), String> {
    let plan = Plan { room: Room::Compiler, user, memory, address_space: memory };
    let mut wall = raise(&plan);
    seal(&plan, &mut wall);
    let missing = wall.missing(required);
    if missing.is_empty() { Ok(()) } else { Err(crate::worker::missing(&missing)) }
}

fn limits(plan: &Plan) {
    bound(Resource::Nofile, FILES);
    bound(Resource::Core, 0);
    bound(Resource::Memlock, 0);
    bound(Resource::Msgqueue, 0);
    bound(Resource::Rtprio, 0);
    bound(Resource::Nice, 0);
    bound(Resource::Locks, 0);
    bound(
        Resource::Fsize,
        match plan.room {
            Room::Worker => 0,
            Room::Compiler => COMPILED_BYTES,
        },
    );
    bound(Resource::Data, plan.memory);
    bound(Resource::As, plan.address_space);
}

fn bound(resource: Resource, most: u64) {
    // Never above what the process was started with.
    let most = rustix::process::getrlimit(resource).maximum.map_or(most, |now| now.min(most));
    let _ = setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) });
}

/// What the agent's other threads were opening while this process was started.
#[allow(unsafe_code)]
fn close_what_was_left() {
    // SAFETY: nothing of this process has an open file beyond the standard three yet.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}
