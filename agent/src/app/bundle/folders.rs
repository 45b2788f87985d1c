//! What lies in a folder: names, sizes, modes. No contents.

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::StatVfsMountFlags;

use super::bag::{Content, Missing};
use crate::identity;

const MAX_NAMES: usize = 5000;
const MAX_DEPTH: usize = 6;

/// The folder with all beneath it; links are named and not followed.
pub fn list(folder: &Path) -> Result<Content, Missing> {
    let missing = |source| Missing::Read { path: folder.display().to_string(), source };
    let root = std::fs::symlink_metadata(folder).map_err(missing)?;
    let mut out = String::new();
    if let Ok(place) = rustix::fs::statvfs(folder) {
        let mib = |blocks: u64| blocks.saturating_mul(place.f_frsize) >> 20;
        let _ = write!(out, "file system: {} MiB, {} MiB free", mib(place.f_blocks), mib(place.f_bavail));
        let _ = write!(out, ", {} of {} inodes free", place.f_favail, place.f_files);
        let flags = [("read-only", StatVfsMountFlags::RDONLY), ("noexec", StatVfsMountFlags::NOEXEC)];
        for (word, _) in flags.iter().filter(|(_, flag)| place.f_flag.contains(*flag)) {
            let _ = write!(out, ", {word}");
        }
        out.push('\n');
    }
    let _ = writeln!(out, "mode owner bytes changed name");
    line(&mut out, folder, &root);
    let mut left = MAX_NAMES;
    if root.is_dir() {
        walk(&mut out, folder, MAX_DEPTH, &mut left);
    }
    if left == 0 {
        let _ = writeln!(out, "and more: the first {MAX_NAMES} are listed");
    }
    Ok(Content::Text(out))
}

fn walk(out: &mut String, folder: &Path, depth: usize, left: &mut usize) {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            let _ = writeln!(out, "{}: cannot be listed: {error}", folder.display());
            return;
        }
    };
    let mut paths: Vec<_> = entries.flatten().take(*left).map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let Some(rest) = left.checked_sub(1) else { return };
        *left = rest;
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        line(out, &path, &meta);
        if meta.is_dir() && depth > 0 {
            walk(out, &path, depth - 1, left);
        }
    }
}

fn line(out: &mut String, path: &Path, meta: &std::fs::Metadata) {
    let (mode, user, group) = (meta.mode(), meta.uid(), meta.gid());
    let (bytes, changed) = (meta.len(), identity::date(meta.mtime()));
    // A name may hold anything but a line of this list.
    let name = path.display().to_string().replace(|c: char| c.is_control(), "?");
    let _ = writeln!(out, "{mode:06o} {user}:{group} {bytes} {changed} {name}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_no_contents() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("in")).unwrap();
        std::fs::write(dir.path().join("in/a\nb"), "contents").unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("root")).unwrap();
        let Ok(Content::Text(text)) = list(dir.path()) else { panic!("no list") };
        assert!(
            text.contains("/in/a?b\n") && text.contains("MiB free") && text.contains("/root\n"),
            "{text}"
        );
        assert!(!text.contains("contents") && !text.contains("/root/"), "{text}");
        assert!(list(&dir.path().join("none")).is_err());
    }

    #[test]
    fn many_names_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..MAX_NAMES + 10 {
            std::fs::write(dir.path().join(n.to_string()), "").unwrap();
        }
        let Ok(Content::Text(text)) = list(dir.path()) else { panic!("no list") };
        assert!(text.lines().count() <= MAX_NAMES + 5 && text.contains("and more"));
    }
}
