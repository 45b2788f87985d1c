//! Namespaces with nothing in them: no network interface, an empty root folder, no other's shared memory.

use std::fs;
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{chdir, chroot, getegid, geteuid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{Part, Wall};

/// Folders one of which is there everywhere: the empty one is put over it, for this process alone.
const OVER: [&str; 3] = ["/tmp", "/proc", "/run"];

pub(super) fn enter(wall: &mut Wall, without: &[Part]) {
    // Without root's rights a user namespace gives those that are needed, over nothing but itself.
    let alone = if geteuid().is_root() { Ok(()) } else { user() };
    let made = |flags| alone.clone().and_then(|()| unshare(flags).map_err(|e| e.to_string()));
    if !without.contains(&Part::Network) {
        let network = made(UnshareFlags::NEWNET);
        wall.set(Part::Network, network.map(|()| "a network namespace without interfaces".to_owned()));
    }
    // System V memory and the host's name: what is had of them is had, the rest of the wall stands without.
    let _ = made(UnshareFlags::NEWIPC);
    let _ = made(UnshareFlags::NEWUTS);
    if !without.contains(&Part::Mounts) {
        let root = made(UnshareFlags::NEWNS).and_then(|()| empty_root());
        wall.set(Part::Mounts, root.map(|()| "an empty root folder".to_owned()));
    }
}

#[allow(unsafe_code)]
fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: none of the flags in use shares or unshares memory or open files with another thread; there is none.
    unsafe { unshare_unsafe(flags) }
}

fn user() -> Result<(), String> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    unshare(UnshareFlags::NEWUSER).map_err(|e| format!("a user namespace is not allowed: {e}"))?;
    // The same numbers inside as outside. Failing that, there are none inside, which is enough.
    let _ = fs::write("/proc/self/setgroups", "deny");
    let _ = fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"));
    let _ = fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"));
    Ok(())
}

fn empty_root() -> Result<(), String> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|e| format!("the mounts cannot be made this process's own: {e}"))?;
    let over = OVER.iter().find(|path| Path::new(path).is_dir()).ok_or("there is no folder to stand on")?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("none", *over, "tmpfs", flags, Some(c"size=4k,nr_inodes=1,mode=0555"))
        .map_err(|e| format!("an empty file system cannot be mounted: {e}"))?;
    chdir(*over).and_then(|()| chroot(".")).and_then(|()| chdir("/")).map_err(|e| format!("chroot: {e}"))?;
    // What it was when it was looked at last.
    match rustix::fs::statat(CWD, "proc", rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(()),
        _ => Err("the root folder is not empty".to_owned()),
    }
}
