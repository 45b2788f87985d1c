//! Is this file a program that may be run: a regular one that only root or the agent's own user can change?

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Error;

const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;
const EXECUTE: u32 = 0o111;

/// The file that the path leads to, all links followed: what is looked at here is what is run. May hang as long as a
/// file system does.
pub(super) fn resolve(program: &str) -> Result<PathBuf, Error> {
    let real = std::fs::canonicalize(program).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::NotFound(program.to_owned()),
        _ => Error::Refused(format!("{program}: {e}")),
    })?;
    let refused = |path: &Path, why: &str| Err(Error::Refused(format!("{}: {why}", path.display())));
    let look = |path: &Path| {
        std::fs::symlink_metadata(path).map_err(|e| Error::Refused(format!("{}: {e}", path.display())))
    };
    let file = look(&real)?;
    if !file.is_file() {
        return refused(&real, "it is no regular file");
    }
    if file.mode() & EXECUTE == 0 {
        return refused(&real, "it is not executable");
    }
    if file.mode() & OTHERS_WRITE != 0 {
        return refused(&real, "everybody may write to it");
    }
    let own = rustix::process::geteuid().as_raw();
    let trusted = |uid: u32| uid == 0 || uid == own;
    if !trusted(file.uid()) {
        return refused(&real, "it belongs neither to root nor to the agent's user");
    }
    for folder in real.ancestors().skip(1) {
        let folder_is = look(folder)?;
        // In a sticky folder nobody else can put another file in this one's place.
        if folder_is.mode() & OTHERS_WRITE != 0 && folder_is.mode() & STICKY == 0 {
            return refused(folder, "everybody may write to this folder");
        }
        if !trusted(folder_is.uid()) {
            return refused(folder, "this folder belongs neither to root nor to the agent's user");
        }
    }
    Ok(real)
}
