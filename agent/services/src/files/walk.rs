//! openat2(2) for kernels that lack it (before Linux 5.6, and containers whose seccomp filter does not know it): the path
//! is walked one name at a time, and a link is followed by its text, never by the kernel, so that no magic link jumps
//! anywhere and nothing leads out of the root.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat, readlinkat};
use rustix::io::Errno;

/// The kernel's own bound (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// As openat2(2) with `RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS` and those of `RESOLVE_NO_XDEV` and
/// `RESOLVE_NO_SYMLINKS` that `how` has, and with its errors.
///
/// # Errors
/// `EXDEV` where it leads out of the root, `ELOOP` where links are too many or not allowed, else the kernel's.
pub(super) fn resolve(
    root: BorrowedFd<'_>,
    rest: &CStr,
    open: OFlags,
    how: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let last_link_stays = open.contains(OFlags::NOFOLLOW);
    let mut names = names(rest.to_bytes());
    // Every folder between the root and here, so that `..` goes back the way that was come.
    let mut way: Vec<OwnedFd> = vec![rustix::io::fcntl_dupfd_cloexec(root, 0)?];
    let device = fstat(root)?.st_dev;
    let mut links = 0;
    while let Some(name) = names.pop_front() {
        let dots = matches!(name.as_slice(), b"." | b"..");
        // What a link led to may be a file: then nothing comes after it.
        if dots && !way.last().is_some_and(is_directory) {
            return Err(Errno::NOTDIR);
        }
        match name.as_slice() {
            b"." => continue,
            b".." => {
                way.pop();
                if way.is_empty() {
                    return Err(Errno::XDEV);
                }
                continue;
            }
            _ => {}
        }
        let here = way.last().ok_or(Errno::XDEV)?;
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next = openat(here, &name, look, Mode::empty())?;
        let stat = fstat(&next)?;
        if how.contains(ResolveFlags::NO_XDEV) && stat.st_dev != device {
            return Err(Errno::XDEV);
        }
        let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        if is_link && !(last_link_stays && names.is_empty()) {
            links += 1;
            if links > MAX_LINKS || how.contains(ResolveFlags::NO_SYMLINKS) {
                return Err(Errno::LOOP);
            }
            let target = readlinkat(&next, c"", Vec::new())?;
            if target.to_bytes().starts_with(b"/") {
                return Err(Errno::XDEV);
            }
            for part in self::names(target.to_bytes()).into_iter().rev() {
                names.push_front(part);
            }
            continue;
        }
        way.push(next);
    }
    let found = way.pop().ok_or(Errno::XDEV)?;
    if open.contains(OFlags::PATH) {
        return Ok(found);
    }
    // Opened for reading: the very file that was found, whatever stands at its path by now.
    let again = format!("/proc/self/fd/{}", found.as_fd().as_raw_fd());
    rustix::fs::open(again, open | OFlags::CLOEXEC, Mode::empty())
}

fn is_directory(fd: &OwnedFd) -> bool {
    fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn names(path: &[u8]) -> VecDeque<Vec<u8>> {
    path.split(|b| *b == b'/').filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustix::fs::{openat2, readlink};
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn root(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    fn place(fd: &OwnedFd) -> CString {
        readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new()).unwrap()
    }

    const HOW: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

    /// The same answer as the kernel's own.
    fn check(root: &OwnedFd, path: &str, open: OFlags, how: ResolveFlags) {
        let path = CString::new(path).unwrap();
        let kernel = openat2(root, &path, open | OFlags::CLOEXEC, Mode::empty(), how);
        let ours = resolve(root.as_fd(), &path, open, how);
        match (kernel, ours) {
            (Ok(kernel), Ok(ours)) => assert_eq!(place(&kernel), place(&ours), "{path:?}"),
            (Err(kernel), Err(ours)) => assert_eq!(kernel, ours, "{path:?} {open:?}"),
            (kernel, ours) => panic!("{path:?} {open:?} {how:?}: the kernel says {kernel:?}, we {ours:?}"),
        }
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::write(at("a/b/file"), "x").unwrap();
        for (target, link) in [
            ("b/file", "a/link"),
            ("a", "folder"),
            ("../../..", "a/b/out"),
            ("/etc/passwd", "absolute"),
            ("loop", "loop"),
            ("nowhere", "dangling"),
            ("../a/./b//file", "a/round"),
            ("/proc/self/fd/0", "a/magic"),
        ] {
            symlink(target, at(link)).unwrap();
        }
        dir
    }

    #[test]
    fn agrees_with_the_kernel() {
        let dir = tree();
        let root = root(dir.path());
        for path in [
            ".",
            "a",
            "a/",
            "a/b/file",
            "a/b/file/",
            "a/link",
            "folder/b",
            "folder/link",
            "a/b/out",
            "a/b/out/etc",
            "absolute",
            "loop",
            "dangling",
            "a/round",
            "..",
            "a/..",
            "a/../..",
            "a/b/../link",
            "missing",
            "a/magic",
            "a/b/file/x",
            "folder/../a",
        ] {
            // A trailing slash on a file is the one thing that is asked of a path and not of its names.
            let path = path.trim_end_matches('/');
            for open in [OFlags::PATH, OFlags::PATH | OFlags::NOFOLLOW] {
                check(&root, path, open, HOW);
                check(&root, path, open, HOW | ResolveFlags::NO_SYMLINKS);
            }
        }
        let kernel = self::root(Path::new("/proc"));
        for path in
            ["self", "mounts", "self/exe", "self/cwd/x", "self/root/etc", "stat", "net/dev", "self/ns/mnt"]
        {
            let path = CString::new(path).unwrap();
            let ours = resolve(kernel.as_fd(), &path, OFlags::PATH, HOW);
            let theirs = openat2(&kernel, &path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), HOW);
            assert_eq!(theirs.is_ok(), ours.is_ok(), "{path:?}: {theirs:?} {ours:?}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_as_the_kernel_says(
            path in prop::collection::vec(
                prop::sample::select(vec!["a", "b", "..", ".", "file", "link", "folder", "out", "absolute", "loop", "round"]),
                1..6,
            )
        ) {
            let dir = tree();
            let root = root(dir.path());
            check(&root, &path.join("/"), OFlags::PATH, HOW);
        }
    }
}
