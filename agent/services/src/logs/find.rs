//! Which files the patterns lead to, and where a followed file has gone.
//!
//! Finding is by names; what is found is opened by the way of the grant `files`, so a name that leads elsewhere is refused
//! there. A rotated file is looked for beside its old name only, under names that begin with it, and is told by its inode
//! or by its bytes: it is the file that was granted, under the name that its owner gave it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::mark::{FileId, Print};
use crate::files::{Error, Place, regular};
use crate::grants::PathSet;

/// Folders below a pattern's root where `**` leaves it open.
const DEPTH: usize = 12;
/// Entries that one look may see.
const ENTRIES: usize = 100_000;

/// What a look found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub files: Vec<(String, FileId)>,
    /// More was there than is looked at.
    pub cut: bool,
}

/// The files that the patterns match, at most `limit`.
pub(super) fn granted(patterns: &PathSet, limit: usize) -> Found {
    let mut walk = Walk { patterns, limit, entries: 0, found: Found::default() };
    let mut seen: Vec<(&Path, usize)> = Vec::new();
    for pattern in patterns.patterns() {
        let (root, depth) = (pattern.root(), pattern.depth().unwrap_or(DEPTH));
        // The same root again sees nothing new unless it goes deeper.
        if seen.iter().any(|(other, deep)| *other == root && *deep >= depth) {
            continue;
        }
        seen.push((root, depth));
        walk.folder(root, depth);
    }
    walk.found.files.sort();
    walk.found.files.dedup();
    walk.found
}

struct Walk<'a> {
    patterns: &'a PathSet,
    limit: usize,
    entries: usize,
    found: Found,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path, depth: usize) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            self.entries += 1;
            if self.entries > ENTRIES || self.found.files.len() >= self.limit {
                self.found.cut = true;
                return;
            }
            let Ok(kind) = entry.file_type() else { continue };
            let path = entry.path();
            if kind.is_dir() {
                if depth > 1 {
                    self.folder(&path, depth - 1);
                }
                continue;
            }
            let Some(text) = path.to_str() else { continue };
            if !(kind.is_file() || kind.is_symlink()) || self.patterns.find(text).is_none() {
                continue;
            }
            if let Ok(meta) = fs::metadata(&path)
                && meta.is_file()
            {
                self.found.files.push((text.to_owned(), id(&meta)));
            }
        }
    }
}

pub(super) fn id(meta: &fs::Metadata) -> FileId {
    FileId { device: meta.dev(), inode: meta.ino() }
}

/// Opens a granted file.
///
/// # Errors
/// As the grant `files` says.
pub(super) fn open(patterns: &PathSet, path: &str) -> Result<File, Error> {
    let Some(pattern) = patterns.find(path) else { return Err(Error::Denied(path.to_owned())) };
    let place = Place { root: pattern.root().to_owned(), granted: patterns.clone() };
    regular(&place, path).map(File::from)
}

/// The file with this identity, under a name that a rotation gave it.
pub(super) fn renamed(path: &str, wanted: FileId) -> Option<File> {
    beside(path).find(|(meta, _)| id(meta) == wanted).map(|(_, file)| file)
}

/// The newest copy of what a file held before it was emptied, with all that was read of it and more.
pub(super) fn copy(path: &str, original: FileId, print: &Print, offset: u64) -> Option<(FileId, File)> {
    let mut copies: Vec<(fs::Metadata, File)> = beside(path)
        .filter(|(meta, file)| {
            id(meta) != original && meta.len() >= offset && print.fits(file, offset).unwrap_or(false)
        })
        .collect();
    copies.sort_by_key(|(meta, _)| (meta.mtime(), meta.mtime_nsec()));
    copies.pop().map(|(meta, file)| (id(&meta), file))
}

/// A name that a rotation may give: the file's own with something behind it.
pub(super) fn may_be_rotated(path: &str, other: &str) -> bool {
    other.strip_prefix(path).is_some_and(|rest| rest.starts_with(['.', '-', '_']))
}

/// The regular files of the folder whose names begin with this file's.
fn beside(path: &str) -> impl Iterator<Item = (fs::Metadata, File)> {
    let folder = Path::new(path).parent().map(Path::to_owned).unwrap_or_default();
    let (root, path) = (folder.clone(), path.to_owned());
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(ENTRIES);
    entries.filter_map(move |entry| {
        let other = entry.path();
        let other = other.to_str()?;
        if !entry.file_type().ok()?.is_file() || !may_be_rotated(&path, other) {
            return None;
        }
        // Nothing but this one name, and no link, is opened here.
        let granted = PathSet::new(&[other.to_owned()]).ok()?;
        let file = File::from(regular(&Place { root: root.clone(), granted }, other).ok()?);
        Some((file.metadata().ok()?, file))
    })
}
