//! The file: a tar of plain files, compressed by gzip, as every system opens it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

/// What the format (POSIX ustar) has room for.
const MAX_NAME: usize = 100;
const MAX_FOLDER: usize = 155;

/// The archive's bytes: each name with its content, within one folder. `time`: Unix seconds.
///
/// # Errors
/// None that memory gives.
pub fn pack<'a>(
    folder: &str,
    files: impl Iterator<Item = (&'a str, &'a [u8])>,
    time: i64,
) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(time.max(0).unsigned_abs());
        let path = format!("{}/{}", plain(folder, MAX_FOLDER), plain(name, MAX_NAME));
        archive.append_data(&mut header, path, content)?;
    }
    archive.into_inner()?.finish()
}

/// Makes the file, for its user alone. What is there already, a link too, is left as it is.
///
/// # Errors
/// It is there, or can't be written; then none is left.
pub fn write(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(target)?;
    let written = write_whole(&mut file, bytes);
    if written.is_err() {
        let _ = std::fs::remove_file(target);
    }
    written
}

fn write_whole(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_all()
}

/// A path that is harmless wherever it is unpacked.
pub fn plain(name: &str, most: usize) -> String {
    let harmless = |c: char| if c.is_ascii_alphanumeric() || "._-/".contains(c) { c } else { '_' };
    let name: String = name.chars().map(harmless).take(most).collect();
    name.replace("..", "__").trim_start_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::process::Command;

    #[test]
    fn tar_unpacks_it() {
        let dir = tempfile::tempdir().unwrap();
        let files = [("a.txt", vec![b'x'; 511]), ("b/ä.txt", vec![b'y'; 512]), ("/../empty", Vec::new())];
        let long = "n".repeat(200);
        let list = files.iter().map(|(name, content)| (*name, content.as_slice()));
        let bytes = pack(&long, list.chain([(long.as_str(), b"z".as_slice())]), 1_700_000_000).unwrap();
        let target = dir.path().join("x.tar.gz");
        write(&target, &bytes).unwrap();
        assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
        let unpacked = Command::new("tar").arg("-xzf").arg(&target).current_dir(&dir).output().unwrap();
        assert!(unpacked.status.success() && unpacked.stderr.is_empty(), "{unpacked:?}");
        let folder = dir.path().join("n".repeat(MAX_FOLDER));
        let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
        assert_eq!(read("a.txt"), files[0].1);
        assert_eq!(read("b/_.txt"), files[1].1);
        assert_eq!(read("__/empty"), files[2].1);
        assert_eq!(read(&"n".repeat(MAX_NAME)), b"z");
    }

    #[test]
    fn nothing_is_overwritten_and_no_link_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (there, link, away) =
            (dir.path().join("there"), dir.path().join("link"), dir.path().join("away"));
        std::fs::write(&there, "kept").unwrap();
        symlink(&away, &link).unwrap();
        for target in [&there, &link] {
            assert_eq!(write(target, b"new").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        }
        assert_eq!(std::fs::read(&there).unwrap(), b"kept");
        assert!(!away.exists());
    }
}
