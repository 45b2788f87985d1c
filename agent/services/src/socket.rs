//! Opening a Unix socket by a path that an operator granted.
//!
//! What listens there is trusted with what is asked of it, so the path must not lead to another socket by the hand of
//! whoever may write to one of its folders. It is walked one name at a time; a link is followed only if root or the
//! agent's own user made it (nobody else can make such a link, and what is read of it is read of the very link that
//! was looked at). The last name must be a socket. The connection goes to the file that was looked at, through its
//! descriptor, not to the path once more.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use tokio::net::UnixStream;

/// Links on the way.
const MAX_LINKS: usize = 16;

/// Why a socket was not connected to; the path stands in each text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}: there is no socket")]
    Absent(String),
    #[error("{path}: {why}")]
    Refused { path: String, why: String },
    #[error("{path}: {why}")]
    Unreachable { path: String, why: String },
}

/// Connects. May hang as long as a file system does: bound it.
pub(crate) async fn connect(path: &str) -> Result<UnixStream, Error> {
    let (wanted, shown) = (path.to_owned(), path.to_owned());
    let unreachable = |why: String| Error::Unreachable { path: shown.clone(), why };
    let opened = tokio::task::spawn_blocking(move || open(&wanted)).await;
    let socket = opened.map_err(|e| unreachable(format!("the look at it was lost: {e}")))??;
    let through = format!("/proc/self/fd/{}", socket.as_raw_fd());
    UnixStream::connect(&through).await.map_err(|e| match e.kind() {
        std::io::ErrorKind::ConnectionRefused => unreachable("nothing listens on this socket".to_owned()),
        std::io::ErrorKind::PermissionDenied => unreachable(
            "the agent's user may not write to this socket: add it to the socket's group".to_owned(),
        ),
        std::io::ErrorKind::WouldBlock => unreachable("its queue of connections is full".to_owned()),
        _ => unreachable(e.to_string()),
    })
}

/// The socket's own descriptor, not connected.
fn open(path: &str) -> Result<OwnedFd, Error> {
    let refused = |why: String| Error::Refused { path: path.to_owned(), why };
    let failed = |e: Errno| match e {
        Errno::NOENT => Error::Absent(path.to_owned()),
        e => Error::Unreachable { path: path.to_owned(), why: e.to_string() },
    };
    if !path.starts_with('/') {
        return Err(refused("not an absolute path".to_owned()));
    }
    let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = || rustix::fs::open("/", look | OFlags::DIRECTORY, Mode::empty()).map_err(failed);
    let mut folders = vec![root()?];
    let mut left = names(Path::new(path));
    let mut links = 0;
    while let Some(name) = left.pop() {
        if name == ".." {
            if folders.len() > 1 {
                folders.pop();
            }
            continue;
        }
        let Some(folder) = folders.last() else { return Err(refused("it has no folder".to_owned())) };
        let file = rustix::fs::openat(folder, name.as_os_str(), look, Mode::empty()).map_err(failed)?;
        let stat = rustix::fs::fstat(&file).map_err(failed)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => folders.push(file),
            FileType::Socket if left.is_empty() => return Ok(file),
            FileType::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(refused("too many links".to_owned()));
                }
                let own = rustix::process::geteuid().as_raw();
                if stat.st_uid != 0 && stat.st_uid != own {
                    let name = name.to_string_lossy();
                    return Err(refused(format!(
                        "{name} is a link that user {} made; only root's and the agent's own are followed",
                        stat.st_uid
                    )));
                }
                let target = rustix::fs::readlinkat(&file, "", Vec::new()).map_err(failed)?;
                let target = OsString::from_vec(target.into_bytes());
                if target.as_bytes().starts_with(b"/") {
                    folders = vec![root()?];
                }
                left.extend(names(Path::new(&target)));
            }
            _ => return Err(refused(format!("{} is not a socket", name.to_string_lossy()))),
        }
    }
    Err(refused("it is a folder, not a socket".to_owned()))
}

/// The names of a path, the first one last.
fn names(path: &Path) -> Vec<OsString> {
    use std::path::Component;
    let mut names: Vec<OsString> = path
        .components()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect();
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{AtFlags, CWD, Gid, Uid};
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    fn check(path: &Path) -> Result<(), Error> {
        open(path.to_str().unwrap()).map(|_| ())
    }

    #[test]
    fn what_a_path_may_lead_to() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("run")).unwrap();
        let _listener = UnixListener::bind(at("run/a.sock")).unwrap();
        std::fs::write(at("run/file"), "").unwrap();
        symlink(at("run"), at("absolute")).unwrap();
        symlink("run/../run/./a.sock", at("relative")).unwrap();
        symlink("round", at("round")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        for name in ["run/a.sock", "absolute/a.sock", "relative", "run/../run/a.sock"] {
            check(&at(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        for name in ["run", "run/file", "run/a.sock/x", "round"] {
            assert!(matches!(check(&at(name)), Err(Error::Refused { .. })), "{name}: {:?}", check(&at(name)));
        }
        for name in ["run/b.sock", "dangling", "no/such"] {
            assert!(matches!(check(&at(name)), Err(Error::Absent(_))), "{name}: {:?}", check(&at(name)));
        }
        assert!(matches!(open("a.sock"), Err(Error::Refused { .. })));
    }

    /// Somebody who may write to the folder puts a link in the socket's place.
    #[test]
    fn a_strangers_link_is_not_followed() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: a_strangers_link_is_not_followed needs root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("run")).unwrap();
        let _listener = UnixListener::bind(at("run/engine.sock")).unwrap();
        symlink(at("run/engine.sock"), at("socket")).unwrap();
        symlink(at("run"), at("folder")).unwrap();
        check(&at("socket")).unwrap();
        check(&at("folder/engine.sock")).unwrap();
        let nobody = Some(Uid::from_raw(65534));
        for link in ["socket", "folder"] {
            rustix::fs::chownat(CWD, at(link), nobody, Some(Gid::from_raw(65534)), AtFlags::SYMLINK_NOFOLLOW)
                .unwrap();
        }
        for path in ["socket", "folder/engine.sock"] {
            let refusal = check(&at(path)).unwrap_err().to_string();
            assert!(refusal.contains("a link that user 65534 made"), "{refusal}");
        }
    }

    #[tokio::test]
    async fn a_dead_socket_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dead.sock");
        drop(UnixListener::bind(&path).unwrap());
        let error = connect(path.to_str().unwrap()).await.unwrap_err();
        assert!(
            matches!(&error, Error::Unreachable { why, .. } if why.contains("nothing listens")),
            "{error}"
        );
    }
}
