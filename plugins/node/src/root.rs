//! Where the host's files are: at their own places, or below a folder at which a container sees them.

use std::borrow::Cow;

use picket_sdk::Failure;
use picket_sdk::files::{self, Entry, FilesError};

use crate::text::unsigned;

/// The folder, without a slash at its end; empty where the host's root is ours.
#[derive(Debug, Default)]
pub struct Root(String);

impl Root {
    pub fn new(folder: &str) -> Result<Self, Failure> {
        let plain = !folder.split('/').any(|part| part == "." || part == "..");
        if !folder.is_empty() && !(folder.starts_with('/') && plain) {
            let message = format!("settings: root {folder:?} is not an absolute path without . and ..");
            return Err(Failure::new("settings", message));
        }
        Ok(Self(folder.trim_end_matches('/').to_owned()))
    }

    /// Where a path of the host's is for us.
    pub fn path<'a>(&self, path: &'a str) -> Cow<'a, str> {
        match (self.0.as_str(), path) {
            ("", path) => Cow::Borrowed(path),
            (root, "/") => Cow::Owned(root.to_owned()),
            (root, path) => Cow::Owned(format!("{root}{path}")),
        }
    }

    /// What a path of ours is on the host: the mount table may have either.
    pub fn on_host<'a>(&self, path: &'a str) -> &'a str {
        match path.strip_prefix(self.0.as_str()) {
            Some("") => "/",
            Some(rest) if rest.starts_with('/') => rest,
            _ => path,
        }
    }

    pub fn read(&self, path: &str) -> Result<Vec<u8>, FilesError> {
        files::read(&self.path(path))
    }

    pub fn list(&self, path: &str) -> Result<Vec<Entry>, FilesError> {
        files::list_directory(&self.path(path))
    }

    pub fn link(&self, path: &str) -> Result<String, FilesError> {
        files::read_link(&self.path(path))
    }

    /// A file that holds one number. None: it is not there, or it can't be read as such (sysfs files of a device that has
    /// no such value fail in many ways).
    pub fn number(&self, path: &str) -> Option<u64> {
        let text = self.read(path).ok()?;
        unsigned(text.trim_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (root, path, here) in [
            ("", "/proc/stat", "/proc/stat"),
            ("/", "/proc/stat", "/proc/stat"),
            ("/host", "/proc/stat", "/host/proc/stat"),
            ("/host/", "/", "/host"),
        ] {
            let root = Root::new(root).unwrap();
            assert_eq!(root.path(path), here);
            assert_eq!(root.on_host(here), path);
        }
        let root = Root::new("/host").unwrap();
        assert_eq!((root.on_host("/var"), root.on_host("/hostile/a")), ("/var", "/hostile/a"));
        for bad in ["host", "./host", "/host/..", "/a/./b"] {
            assert!(Root::new(bad).is_err(), "{bad}");
        }
    }
}
