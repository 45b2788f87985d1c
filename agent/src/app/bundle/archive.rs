//! The file: a tar of plain files (POSIX ustar), compressed by gzip, as every system opens it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

const BLOCK: usize = 512;
/// What the format has room for.
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
    let mut out = GzEncoder::new(Vec::new(), Compression::default());
    for (name, content) in files {
        out.write_all(&header(folder, name, content.len(), time))?;
        out.write_all(content)?;
        out.write_all(&vec![0; content.len().next_multiple_of(BLOCK) - content.len()])?;
    }
    out.write_all(&[0; 2 * BLOCK])?;
    out.finish()
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

fn header(folder: &str, name: &str, length: usize, time: i64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    put(&mut block, 0, plain(name, MAX_NAME).as_bytes());
    put(&mut block, 100, b"0000600\0");
    put(&mut block, 108, b"0000000\0");
    put(&mut block, 116, b"0000000\0");
    put(&mut block, 124, format!("{length:011o}\0").as_bytes());
    put(&mut block, 136, format!("{:011o}\0", time.clamp(0, 0o77_777_777_777)).as_bytes());
    put(&mut block, 148, b"        ");
    put(&mut block, 156, b"0");
    put(&mut block, 257, b"ustar\x0000");
    put(&mut block, 345, plain(folder, MAX_FOLDER).as_bytes());
    let sum: u32 = block.iter().copied().map(u32::from).sum();
    put(&mut block, 148, format!("{sum:06o}\0 ").as_bytes());
    block
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    for (to, from) in block.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
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
