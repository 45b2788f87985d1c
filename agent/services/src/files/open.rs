//! The system calls under [`super::Files`]: resolve, look, open, read.

use std::cell::RefCell;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags, openat2};
use rustix::io::Errno;

use super::{Answer, Entry, EntryKind, Error, FileSystem, walk};
use crate::grants::PathSet;

/// What is wanted of a path.
#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    Bytes { limit: usize },
    Entries { limit: usize },
    Target,
    Modified,
}

/// The kernel's own file systems, opened once.
#[derive(Debug, Default)]
pub(super) struct Anchors {
    proc: OnceLock<Option<OwnedFd>>,
    sys: OnceLock<Option<OwnedFd>>,
}

impl Anchors {
    /// Answers from procfs and sysfs, whose reads do not wait. None: not theirs, or one that may wait.
    pub(super) fn in_place(&self, path: &str, what: What) -> Option<Result<Answer, Error>> {
        let (anchor, name, rest) = if let Some(rest) = path.strip_prefix("/proc/") {
            // A process' files can wait for that process; its mounts are the kernel's own list.
            let of_process = rest.starts_with(|c: char| c.is_ascii_digit());
            if of_process && !matches!(rest.split_once('/'), Some((_, "mountinfo" | "mounts"))) {
                return None;
            }
            (&self.proc, "/proc", rest)
        } else {
            (&self.sys, "/sys", path.strip_prefix("/sys/")?)
        };
        let root = anchor.get_or_init(|| open_root(Path::new(name)).ok()).as_ref()?;
        let rest = if rest.is_empty() { "." } else { rest };
        let flags = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let open = match what {
            What::Target => OFlags::PATH | OFlags::NOFOLLOW,
            What::Modified => OFlags::PATH,
            What::Bytes { .. } => READ,
            What::Entries { .. } => READ | OFlags::DIRECTORY,
        };
        match resolve(root.as_fd(), rest, open, flags) {
            // Another file system is mounted there.
            Err(Errno::XDEV) => None,
            Err(e) => Some(Err(error(path, e))),
            Ok(fd) => Some(answer(&fd, path, what)),
        }
    }
}

/// A granted place outside of the kernel's file systems.
#[derive(Debug)]
pub(crate) struct Place {
    pub root: PathBuf,
    pub granted: PathSet,
}

const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC).union(OFlags::NOCTTY);

/// Answers from any file system. May hang as long as the file system does.
pub(super) fn anywhere(place: &Place, path: &str, what: What) -> Result<Answer, Error> {
    let looked = look(place, path, matches!(what, What::Target))?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&looked).map_err(|e| error(path, e))?.st_mode);
    let flags = match what {
        What::Target | What::Modified => return answer(&looked, path, what),
        What::Bytes { .. } if kind == FileType::RegularFile => READ,
        What::Bytes { .. } => return Err(wrong_kind(path, kind, "a regular file")),
        What::Entries { .. } if kind == FileType::Directory => READ | OFlags::DIRECTORY,
        What::Entries { .. } => return Err(wrong_kind(path, kind, "a directory")),
    };
    answer(&again(&looked, path, flags)?, path, what)
}

/// Opens a regular file to read. May hang as long as the file system does.
pub(crate) fn regular(place: &Place, path: &str) -> Result<OwnedFd, Error> {
    let looked = look(place, path, false)?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&looked).map_err(|e| error(path, e))?.st_mode);
    if kind != FileType::RegularFile {
        return Err(wrong_kind(path, kind, "a regular file"));
    }
    again(&looked, path, READ)
}

/// Resolves a path beneath its root, opening nothing.
fn look(place: &Place, path: &str, link_itself: bool) -> Result<OwnedFd, Error> {
    let kernel = ["/proc", "/sys"].into_iter().find(|k| Path::new(path).starts_with(k));
    let root = kernel.map_or(place.root.as_path(), Path::new);
    let rest = Path::new(path).strip_prefix(root).map_err(|_| Error::Denied(path.to_owned()))?;
    let rest = if rest.as_os_str().is_empty() { Path::new(".") } else { rest };
    let root_fd = open_root(root).map_err(|e| error(path, e))?;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let nofollow = if link_itself { OFlags::NOFOLLOW } else { OFlags::empty() };
    let flags = OFlags::PATH | OFlags::CLOEXEC | nofollow;
    match resolve(root_fd.as_fd(), rest, flags, beneath | ResolveFlags::NO_SYMLINKS) {
        Err(Errno::LOOP) => {
            let fd = resolve(root_fd.as_fd(), rest, flags, beneath).map_err(|e| error(path, e))?;
            if kernel.is_none() {
                check_target(place, root, &root_fd, &fd, path)?;
            }
            Ok(fd)
        }
        other => other.map_err(|e| error(path, e)),
    }
}

/// The same file that was looked at, whatever stands at its path by now.
fn again(looked: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd, Error> {
    let itself = format!("/proc/self/fd/{}", looked.as_raw_fd());
    rustix::fs::open(itself, flags, Mode::empty()).map_err(|e| error(path, e))
}

/// What a link led to must be granted by its own path too.
fn check_target(
    place: &Place,
    root: &Path,
    root_fd: &OwnedFd,
    fd: &OwnedFd,
    path: &str,
) -> Result<(), Error> {
    let real = |fd: &OwnedFd| {
        std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
            .map_err(|e| Error::Io(format!("{path}: {e}")))
    };
    let (target, real_root) = (real(fd)?, real(root_fd)?);
    let granted = target
        .strip_prefix(&real_root)
        .ok()
        .map(|rest| root.join(rest))
        .is_some_and(|t| t.to_str().is_some_and(|t| place.granted.find(t).is_some()));
    if granted { Ok(()) } else { Err(Error::Denied(format!("{path}: a link to {}", target.display()))) }
}

pub(super) fn stat_file_system(path: &str) -> Result<FileSystem, Error> {
    let s = rustix::fs::statvfs(path).map_err(|e| error(path, e))?;
    Ok(FileSystem {
        size_bytes: s.f_blocks.saturating_mul(s.f_frsize),
        free_bytes: s.f_bfree.saturating_mul(s.f_frsize),
        available_bytes: s.f_bavail.saturating_mul(s.f_frsize),
        files: s.f_files,
        files_free: s.f_ffree,
        read_only: s.f_flag.contains(StatVfsMountFlags::RDONLY),
    })
}

fn open_root(root: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn resolve(
    root: BorrowedFd<'_>,
    rest: impl rustix::path::Arg,
    open: OFlags,
    how: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let rest: CString = rest.into_c_str()?.into_owned();
    if NO_OPENAT2.load(Ordering::Relaxed) {
        return walk::resolve(root, &rest, open, how);
    }
    // EAGAIN: something was renamed while `..` was looked up.
    for _ in 0..3 {
        match openat2(root, &rest, open | OFlags::CLOEXEC, Mode::empty(), how) {
            Err(Errno::AGAIN) => {}
            Err(Errno::NOSYS) => {
                NO_OPENAT2.store(true, Ordering::Relaxed);
                return walk::resolve(root, &rest, open, how);
            }
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// This kernel, or the seccomp filter that we live under, has no openat2(2).
static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

fn answer(fd: &OwnedFd, path: &str, what: What) -> Result<Answer, Error> {
    match what {
        What::Bytes { limit } => read(fd, path, limit).map(Answer::Bytes),
        What::Entries { limit } => entries(fd, path, limit).map(Answer::Entries),
        What::Modified => {
            let stat = rustix::fs::fstat(fd).map_err(|e| error(path, e))?;
            let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
            let nanoseconds = stat.st_mtime_nsec;
            Ok(Answer::Modified(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)))
        }
        What::Target => match rustix::fs::readlinkat(fd, "", Vec::new()) {
            Ok(target) => match target.into_string() {
                Ok(target) => Ok(Answer::Target(target)),
                Err(_) => Err(Error::Io(format!("{path}: the link's target is not UTF-8"))),
            },
            Err(Errno::INVAL | Errno::NOENT) => Err(Error::WrongKind(format!("{path} is not a link"))),
            Err(e) => Err(error(path, e)),
        },
    }
}

/// A buffer for the first read, kept by each thread; longer files leave a longer one until it is cut back.
const BUFFER: usize = 64 << 10;
const KEPT: usize = 1 << 20;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn read(fd: &OwnedFd, path: &str, limit: usize) -> Result<Vec<u8>, Error> {
    let stat = rustix::fs::fstat(fd).map_err(|e| error(path, e))?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::RegularFile {
        return Err(wrong_kind(path, kind, "a regular file"));
    }
    let too_large =
        || Error::TooLarge(format!("{path} is longer than the {limit} bytes that a read may have"));
    // procfs and sysfs say 0 or 4,096 whatever is in the file: a larger number is true.
    if u64::try_from(stat.st_size).is_ok_and(|size| size > limit as u64 && size > 4096) {
        return Err(too_large());
    }
    SCRATCH.with_borrow_mut(|buffer| {
        if buffer.len() < BUFFER {
            buffer.resize(BUFFER, 0);
        }
        let mut filled = 0;
        let result = loop {
            if filled == buffer.len() {
                buffer.resize((buffer.len() * 2).min(limit.saturating_add(1)).max(filled + 1), 0);
            }
            let Some(room) = buffer.get_mut(filled..) else { break Err(too_large()) };
            match rustix::io::read(fd, room) {
                Ok(0) => break Ok(buffer.get(..filled).unwrap_or_default().to_vec()),
                Ok(n) => filled += n,
                Err(Errno::INTR) => {}
                Err(e) => break Err(error(path, e)),
            }
            if filled > limit {
                break Err(too_large());
            }
        };
        if buffer.len() > KEPT {
            buffer.truncate(BUFFER);
            buffer.shrink_to_fit();
        }
        result
    })
}

fn entries(fd: &OwnedFd, path: &str, limit: usize) -> Result<Vec<Entry>, Error> {
    let mut list = Vec::new();
    for entry in Dir::read_from(fd).map_err(|e| error(path, e))? {
        let entry = entry.map_err(|e| error(path, e))?;
        // A name that is not UTF-8 can't be asked for: it is left out.
        let Ok(name) = entry.file_name().to_str() else { continue };
        if matches!(name, "." | "..") {
            continue;
        }
        if list.len() == limit {
            return Err(Error::TooLarge(format!("{path} has more than {limit} entries")));
        }
        let mut kind = entry.file_type();
        if kind == FileType::Unknown {
            kind = rustix::fs::statat(fd, entry.file_name(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
                .map_or(FileType::Unknown, |s| FileType::from_raw_mode(s.st_mode));
        }
        let kind = match kind {
            FileType::RegularFile => EntryKind::File,
            FileType::Directory => EntryKind::Directory,
            FileType::Symlink => EntryKind::Link,
            _ => EntryKind::Other,
        };
        list.push(Entry { name: name.to_owned(), kind });
    }
    Ok(list)
}

fn wrong_kind(path: &str, is: FileType, wanted: &str) -> Error {
    let is = match is {
        FileType::Directory => "a directory",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Symlink => "a link",
        _ => "something else",
    };
    Error::WrongKind(format!("{path} is {is}, not {wanted}"))
}

fn error(path: &str, errno: Errno) -> Error {
    match errno {
        Errno::NOENT => Error::NotFound(path.to_owned()),
        Errno::XDEV => Error::Denied(format!("{path}: a link leads out of the granted root")),
        Errno::LOOP => Error::Denied(format!("{path}: a magic link, or too many links")),
        Errno::ISDIR => Error::WrongKind(format!("{path} is a directory, not a regular file")),
        Errno::NOTDIR => Error::WrongKind(format!("{path} is not a directory, or lies below what is none")),
        e => Error::Io(format!("{path}: {e}")),
    }
}
