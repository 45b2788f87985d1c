//! Where the host's files are: at their own places, or below a folder at which a container sees them.
//!
//! A collect reads much the same files each time, and asking for one costs more than reading it. So what the last collect read is
//! asked for in one call when the next begins, and given out as it is asked for.

use std::borrow::Cow;
use std::cell::RefCell;

use picket_sdk::Failure;
use picket_sdk::files::{self, Entry, FilesError};

use crate::text::unsigned;

/// What is kept in mind of a collect's files.
const MOST_AHEAD: usize = 1024;

#[derive(Debug, Default)]
pub struct Root {
    /// Without a slash at its end; empty where the host's root is ours.
    folder: String,
    ahead: RefCell<Ahead>,
}

#[derive(Debug, Default)]
struct Ahead {
    /// What this collect asked for so far, in its order.
    asked: Vec<String>,
    /// What the last one asked for, and what is there now; none: given out.
    there: Vec<(String, Option<Result<Vec<u8>, FilesError>>)>,
    /// Where in it the next one is, if the order is the same.
    next: usize,
}

impl Ahead {
    fn take(&mut self, path: &str) -> Option<Result<Vec<u8>, FilesError>> {
        let is = |(there, found): &(String, Option<_>)| there == path && found.is_some();
        let place = match self.there.get(self.next) {
            Some(next) if is(next) => self.next,
            _ => self.there.iter().position(is)?,
        };
        self.next = place + 1;
        // By itself it may be read.
        self.there.get_mut(place)?.1.take().filter(|found| !matches!(found, Err(FilesError::TooLarge(_))))
    }
}

impl Root {
    pub fn new(folder: &str) -> Result<Self, Failure> {
        let plain = !folder.split('/').any(|part| part == "." || part == "..");
        if !folder.is_empty() && !(folder.starts_with('/') && plain) {
            let message = format!("settings: root {folder:?} is not an absolute path without . and ..");
            return Err(Failure::new("settings", message));
        }
        Ok(Self { folder: folder.trim_end_matches('/').to_owned(), ahead: RefCell::default() })
    }

    /// A collect begins.
    pub fn begin(&self) {
        let mut ahead = self.ahead.borrow_mut();
        let asked = std::mem::take(&mut ahead.asked);
        ahead.next = 0;
        ahead.there.clear();
        if !asked.is_empty() {
            let paths: Vec<&str> = asked.iter().map(String::as_str).collect();
            let found = files::read_many(&paths);
            ahead.there = asked.into_iter().zip(found.into_iter().map(Some)).collect();
        }
    }

    /// Where a path of the host's is for us.
    pub fn path<'a>(&self, path: &'a str) -> Cow<'a, str> {
        match (self.folder.as_str(), path) {
            ("", path) => Cow::Borrowed(path),
            (root, "/") => Cow::Owned(root.to_owned()),
            (root, path) => Cow::Owned(format!("{root}{path}")),
        }
    }

    /// What a path of ours is on the host: the mount table may have either.
    pub fn on_host<'a>(&self, path: &'a str) -> &'a str {
        match path.strip_prefix(self.folder.as_str()) {
            Some("") => "/",
            Some(rest) if rest.starts_with('/') => rest,
            _ => path,
        }
    }

    pub fn read(&self, path: &str) -> Result<Vec<u8>, FilesError> {
        let path = self.path(path);
        let mut ahead = self.ahead.borrow_mut();
        let found = ahead.take(&path).unwrap_or_else(|| files::read(&path));
        if ahead.asked.len() < MOST_AHEAD {
            ahead.asked.push(path.into_owned());
        }
        found
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

    fn found(text: &str) -> Option<Result<Vec<u8>, FilesError>> {
        Some(Ok(text.as_bytes().to_vec()))
    }

    #[test]
    fn what_was_read_ahead_is_given_out_once() {
        let list = [("/a", "1"), ("/b", "2"), ("/a", "3")];
        let there = list.map(|(path, text)| (path.to_owned(), found(text))).into();
        let mut ahead = Ahead { there, ..Ahead::default() };
        assert_eq!(ahead.take("/c"), None);
        assert_eq!(ahead.take("/b"), found("2"), "in any order");
        assert_eq!(ahead.take("/a"), found("3"));
        assert_eq!(ahead.take("/a"), found("1"));
        assert_eq!(ahead.take("/a"), None);
        let large = Some(Err(FilesError::TooLarge("/d".to_owned())));
        let mut ahead = Ahead { there: vec![("/d".to_owned(), large)], ..Ahead::default() };
        assert_eq!(ahead.take("/d"), None, "by itself it may be read");
    }

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
