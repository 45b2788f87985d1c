//! What lies beside a component and vouches for it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::{envelope, sigstore};

/// Our own signatures: `NAME.wasm.sig`.
pub const SIGNATURE_SUFFIX: &str = ".sig";
/// A sigstore bundle, as `cosign sign-blob --bundle` writes it: `NAME.wasm.sigstore.json`.
pub const SIGSTORE_SUFFIX: &str = ".sigstore.json";

/// The content of both files, as far as they are there. Not read yet: a policy may not need them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    pub signature: Option<Vec<u8>>,
    pub bundle: Option<Vec<u8>>,
}

/// The file beside `component` with this suffix.
pub fn beside(component: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(component.as_os_str());
    name.push(suffix);
    PathBuf::from(name)
}

impl Evidence {
    /// What lies beside this file. Blocks on the disk.
    ///
    /// # Errors
    /// A file is there and can't be read.
    pub fn beside(component: &Path) -> std::io::Result<Self> {
        Ok(Self {
            signature: read(&beside(component, SIGNATURE_SUFFIX), envelope::MAX_BYTES)?,
            bundle: read(&beside(component, SIGSTORE_SUFFIX), sigstore::MAX_BYTES)?,
        })
    }

    /// Keeps a component as `file`, and beside it what vouches for it. Each file comes into being as a whole, and one that is
    /// the same already is left alone; one caller at a time. Blocks on the disk.
    ///
    /// # Errors
    /// A file can't be written, or what vouched for another one not be removed.
    pub fn keep(&self, file: &Path, component: &[u8]) -> std::io::Result<()> {
        for (suffix, content) in [(SIGNATURE_SUFFIX, &self.signature), (SIGSTORE_SUFFIX, &self.bundle)] {
            let path = beside(file, suffix);
            match content {
                Some(content) => replace(&path, content)?,
                None => match std::fs::remove_file(&path) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(named(&path, &e)),
                    _ => {}
                },
            }
        }
        replace(file, component)
    }

    pub const fn is_empty(&self) -> bool {
        self.signature.is_none() && self.bundle.is_none()
    }
}

fn named(path: &Path, error: &std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Writes a file as a whole, durably; one that is the same already is left alone. One caller at a time for a path.
///
/// # Errors
/// It can't be written.
pub fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    if std::fs::read(path).is_ok_and(|there| there == content) {
        return Ok(());
    }
    let new = beside(path, ".new");
    let write = || {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    write().map_err(|e| named(path, &e))
}

/// One byte more than is allowed: whoever parses it says that it is too long.
fn read(path: &Path, most: usize) -> std::io::Result<Option<Vec<u8>>> {
    let named = |e: std::io::Error| named(path, &e);
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(named(e)),
        Ok(meta) if !meta.is_file() => {
            return Err(named(std::io::Error::other("it is not a regular file")));
        }
        Ok(_) => {}
    }
    let file = match File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(named)?,
    };
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(named)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_it_is_given_and_nothing_of_before() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.wasm");
        let both = Evidence { signature: Some(b"s".to_vec()), bundle: Some(b"b".to_vec()) };
        both.keep(&file, b"one").unwrap();
        assert_eq!(
            (std::fs::read(&file).unwrap(), Evidence::beside(&file).unwrap()),
            (b"one".to_vec(), both)
        );
        let one = Evidence { signature: Some(b"t".to_vec()), bundle: None };
        one.keep(&file, b"two").unwrap();
        assert_eq!((std::fs::read(&file).unwrap(), Evidence::beside(&file).unwrap()), (b"two".to_vec(), one));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        let nowhere = dir.path().join("no/a.wasm");
        assert!(Evidence::default().keep(&nowhere, b"x").unwrap_err().to_string().contains("no/a.wasm"));
    }

    #[test]
    fn reads_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let component = dir.path().join("a.wasm");
        assert!(Evidence::beside(&component).unwrap().is_empty());
        std::fs::write(beside(&component, SIGNATURE_SUFFIX), b"s").unwrap();
        std::fs::write(dir.path().join("a.wasm.sigstore.json"), vec![0; sigstore::MAX_BYTES + 100]).unwrap();
        let found = Evidence::beside(&component).unwrap();
        assert_eq!(found.signature.as_deref(), Some(&b"s"[..]));
        assert_eq!(found.bundle.map(|b| b.len()), Some(sigstore::MAX_BYTES + 1));
        std::fs::remove_file(dir.path().join("a.wasm.sig")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join("a.wasm.sig")).unwrap();
        assert!(Evidence::beside(&component).unwrap_err().to_string().contains("a.wasm.sig"));
    }
}
