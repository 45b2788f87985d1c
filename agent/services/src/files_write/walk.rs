//! The system calls: a walk below a folder that follows no link and crosses no mount, and the end of one file.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, openat2, statat, unlinkat};
use rustix::io::Errno;

use super::scope::Place;
use super::{Answer, Error, Found, MAX_FOUND, Rule};

const MAX_DEPTH: usize = 32;
/// Entries of folders that one search looks at.
const MAX_ENTRIES: usize = 200_000;

/// The oldest files that fit, as many as are wanted.
pub(super) fn find(place: &Place, rule: &Rule, now: Duration, deadline: Instant) -> Result<Answer, Error> {
    let root = match open_root(&place.root) {
        Ok(root) => root,
        Err(Errno::NOENT) => return Ok(Answer::Found { files: Vec::new(), more: false }),
        Err(e) => return Err(error(&place.root, e)),
    };
    let least = place.least_age.max(Duration::from_secs(rule.older_than));
    let mut search = Search {
        place,
        rule,
        newest: now.saturating_sub(least),
        device: rustix::fs::fstat(&root).map_err(|e| error(&place.root, e))?.st_dev,
        left: MAX_ENTRIES,
        deadline,
        found: Vec::new(),
    };
    search.folder(&root, &place.root, 0)?;
    let mut files = search.found;
    files.sort();
    let most = rule.most.clamp(1, MAX_FOUND) as usize;
    let more = files.len() > most;
    files.truncate(most);
    Ok(Answer::Found { files, more })
}

struct Search<'a> {
    place: &'a Place,
    rule: &'a Rule,
    /// What was changed later is too young.
    newest: Duration,
    device: u64,
    left: usize,
    deadline: Instant,
    found: Vec<Found>,
}

impl Search<'_> {
    fn folder(&mut self, folder: &OwnedFd, path: &Path, depth: usize) -> Result<(), Error> {
        let readable = rustix::fs::openat(
            folder,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|e| error(path, e))?;
        let mut below = Vec::new();
        for entry in Dir::read_from(&readable).map_err(|e| error(path, e))? {
            let entry = entry.map_err(|e| error(path, e))?;
            let name = entry.file_name();
            // A name that is not UTF-8 fits no pattern.
            let Ok(text) = name.to_str() else { continue };
            if matches!(text, "." | "..") {
                continue;
            }
            self.left = self.left.checked_sub(1).ok_or_else(|| {
                Error::TooLarge(format!(
                    "more than {MAX_ENTRIES} entries below {}",
                    self.place.root.display()
                ))
            })?;
            if Instant::now() > self.deadline {
                return Err(Error::TimedOut(format!("{}: the search took too long", path.display())));
            }
            // What goes away meanwhile was not there.
            let Ok(stat) = statat(&readable, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if stat.st_dev != self.device {
                continue;
            }
            let here = path.join(text);
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory if depth < MAX_DEPTH => below.push((text.to_owned(), here)),
                FileType::RegularFile => self.file(&here, &stat),
                _ => {}
            }
        }
        for (name, here) in below {
            if self.place.pattern.depth().is_some_and(|deepest| depth + 1 >= deepest) {
                continue;
            }
            match beneath(folder, &name) {
                Ok(next) => self.folder(&next, &here, depth + 1)?,
                // A mount, a link that was put there, or gone, or not ours to read: left alone.
                Err(Errno::XDEV | Errno::LOOP | Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {}
                Err(e) => return Err(error(&here, e)),
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, stat: &Stat) {
        let Some(text) = path.to_str() else { return };
        let found = describe(text, stat);
        let old = Duration::from_nanos(found.modified) <= self.newest;
        if old && found.bytes >= self.rule.at_least && self.place.pattern.allows(text) {
            self.found.push(found);
        }
    }
}

/// Deletes the file, if it is the one that was found and old enough still.
pub(super) fn delete(place: &Place, found: &Found, now: Duration) -> Result<Answer, Error> {
    let path = Path::new(&found.path);
    let denied = || Error::Denied(found.path.clone());
    let below = path.strip_prefix(&place.root).map_err(|_| denied())?;
    let name = below.file_name().and_then(|n| n.to_str()).ok_or_else(denied)?;
    let parent = below.parent().unwrap_or(Path::new(""));
    let root = match open_root(&place.root) {
        Ok(root) => root,
        Err(Errno::NOENT) => return Ok(Answer::Gone),
        Err(e) => return Err(error(&place.root, e)),
    };
    let device = rustix::fs::fstat(&root).map_err(|e| error(path, e))?.st_dev;
    let folder = match parent.to_str() {
        Some("") => root,
        Some(parent) => match beneath(&root, parent) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => return Ok(Answer::Gone),
            Err(e) => return Err(error(path, e)),
        },
        None => return Err(denied()),
    };
    let stat = match statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(Answer::Gone),
        Err(e) => return Err(error(path, e)),
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_dev != device {
        return Err(Error::Changed(format!("{} is no regular file of this file system", found.path)));
    }
    if describe(&found.path, &stat) != *found {
        return Err(Error::Changed(found.path.clone()));
    }
    if Duration::from_nanos(found.modified) > now.saturating_sub(place.least_age) {
        return Err(Error::Denied(format!("{} is younger than the grant allows", found.path)));
    }
    match unlinkat(&folder, name, AtFlags::empty()) {
        Ok(()) => Ok(Answer::Deleted),
        Err(Errno::NOENT) => Ok(Answer::Gone),
        Err(e) => Err(error(path, e)),
    }
}

fn describe(path: &str, stat: &Stat) -> Found {
    let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
    let modified = seconds.saturating_mul(1_000_000_000).saturating_add(stat.st_mtime_nsec);
    let bytes = u64::try_from(stat.st_size).unwrap_or(0);
    Found { modified, path: path.to_owned(), bytes, inode: stat.st_ino, device: stat.st_dev }
}

const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The folder of a pattern, of which no part is a link.
pub(super) fn open_root(root: &Path) -> Result<OwnedFd, Errno> {
    let slash = rustix::fs::open("/", FOLDER, Mode::empty())?;
    let below: PathBuf = root.components().skip(1).collect();
    let below = if below.as_os_str().is_empty() { PathBuf::from(".") } else { below };
    resolve(&slash, &below, ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::BENEATH)
}

/// What lies below an open folder, on the same mount.
pub(super) fn beneath(folder: &OwnedFd, path: impl AsRef<Path>) -> Result<OwnedFd, Errno> {
    let how = ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::BENEATH
        | ResolveFlags::NO_XDEV;
    resolve(folder, path.as_ref(), how)
}

fn resolve(folder: impl AsFd, path: &Path, how: ResolveFlags) -> Result<OwnedFd, Errno> {
    // EAGAIN: something was renamed meanwhile.
    for _ in 0..3 {
        match openat2(&folder, path, FOLDER, Mode::empty(), how) {
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

pub(super) fn error(path: &Path, errno: Errno) -> Error {
    let path = path.display();
    match errno {
        Errno::NOENT => Error::NotFound(path.to_string()),
        Errno::LOOP => Error::Denied(format!("{path}: a part of it is a link; write the real path")),
        Errno::XDEV => Error::Denied(format!("{path}: another file system is mounted on the way")),
        Errno::NOSYS => {
            Error::Io(format!("{path}: this kernel has no openat2, without which nothing is deleted"))
        }
        e => Error::Io(format!("{path}: {e}")),
    }
}
