//! Bundles: folders of files that a plugin puts together for people, in one folder that the operator names. Flat, bounded,
//! the oldest bundle first to go.

use std::io::Write as _;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, mkdirat, openat, statat, unlinkat};
use rustix::io::Errno;

use super::scope::Bundles;
use super::walk::{beneath, error, open_root};
use super::{Answer, Error, Put};

/// Files of one bundle.
const MOST_FILES: usize = 64;

/// Puts these bytes at the end of a file, or in its place where they are its first.
pub(super) fn put(place: &Bundles, put: &Put) -> Result<Answer, Error> {
    check_name(&put.bundle)?;
    check_name(&put.file)?;
    let fail = |e| error(&place.folder, e);
    let root = open_root(&place.folder).map_err(fail)?;
    let stat = rustix::fs::fstat(&root).map_err(fail)?;
    if stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_mode & 0o022 != 0 {
        return Err(Error::Denied(format!(
            "{} must belong to the agent's user and be writable by nobody else",
            place.folder.display()
        )));
    }
    match mkdirat(&root, put.bundle.as_str(), Mode::RWXU) {
        Ok(()) => prune(&root, place, &put.bundle)?,
        Err(Errno::EXIST) => {}
        Err(e) => return Err(fail(e)),
    }
    let path = place.folder.join(&put.bundle);
    let bundle = beneath(&root, &put.bundle).map_err(|e| error(&path, e))?;
    let (mut there, mut files) = (0u64, 0usize);
    for (name, bytes) in files_of(&bundle).map_err(|e| error(&path, e))? {
        files += usize::from(name != put.file);
        if name != put.file || !put.first {
            there += bytes;
        }
    }
    let path = path.join(&put.file);
    if files >= MOST_FILES {
        return Err(Error::TooLarge(format!("the bundle {} has {MOST_FILES} files already", put.bundle)));
    }
    if there.saturating_add(put.content.len() as u64) > place.bytes {
        return Err(Error::TooLarge(format!("the bundle {} may have {} bytes", put.bundle, place.bytes)));
    }
    let how = if put.first { OFlags::TRUNC } else { OFlags::APPEND };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | how;
    let file =
        openat(&bundle, put.file.as_str(), flags, Mode::RUSR | Mode::WUSR).map_err(|e| error(&path, e))?;
    let written = std::fs::File::from(file).write_all(&put.content);
    written.map_err(|e| Error::Io(format!("{}: {e}", path.display())))?;
    Ok(Answer::Put { path: path.to_string_lossy().into_owned() })
}

/// The oldest bundles go, so that this one fits.
fn prune(root: &OwnedFd, place: &Bundles, new: &str) -> Result<(), Error> {
    let fail = |e| error(&place.folder, e);
    let readable = readable(root).map_err(fail)?;
    let mut bundles = Vec::new();
    for entry in Dir::read_from(&readable).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name == new || check_name(name).is_err() {
            continue;
        }
        let Ok(stat) = statat(root, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            bundles.push((stat.st_mtime, name.to_owned()));
        }
    }
    bundles.sort();
    let surplus = (bundles.len() + 1).saturating_sub(place.kept);
    for (_, name) in bundles.into_iter().take(surplus) {
        let Ok(bundle) = beneath(root, &name) else { continue };
        for (file, _) in files_of(&bundle).map_err(fail)? {
            let _ = unlinkat(&bundle, file.as_str(), AtFlags::empty());
        }
        // One that somebody put a folder into stays.
        let _ = unlinkat(root, name.as_str(), AtFlags::REMOVEDIR);
    }
    Ok(())
}

/// The regular files of a folder, with their sizes.
fn files_of(folder: &OwnedFd) -> Result<Vec<(String, u64)>, Errno> {
    let mut files = Vec::new();
    for entry in Dir::read_from(readable(folder)?)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        let Ok(stat) = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            files.push((name.to_owned(), u64::try_from(stat.st_size).unwrap_or(0)));
        }
    }
    Ok(files)
}

fn readable(folder: &OwnedFd) -> Result<OwnedFd, Errno> {
    openat(folder, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Nothing that is a path, hidden, or an option.
fn check_name(name: &str) -> Result<(), Error> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let good =
        name.len() <= 64 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.bytes().all(inner);
    if good {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(Error::Invalid(format!(
        "the name {shown:?}: 1 to 64 letters, digits, . - _, with a letter or a digit first"
    )))
}
