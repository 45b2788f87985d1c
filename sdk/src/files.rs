//! Reading under granted roots. Paths are absolute. Grant: `files`.

use crate::{Failure, sys};

/// Why a file could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// Outside the grant.
    #[error("{0} is not granted to this plugin")]
    Denied(String),
    /// Nothing is there.
    #[error("{0} is not there")]
    NotFound(String),
    /// Not a regular file, not a directory, not a link, as the call wants one.
    #[error("{0} is of another kind")]
    WrongKind(String),
    /// Larger than the node allows a read to be.
    #[error("{0} is larger than a read may be")]
    TooLarge(String),
    /// Nothing answered in time (a network file system).
    #[error("{0} did not answer in time")]
    TimedOut(String),
    /// The system's own word.
    #[error("{0}")]
    Io(String),
    /// A reason that this version of the SDK does not know.
    #[error("{0}")]
    Other(String),
}

impl From<FilesError> for Failure {
    fn from(error: FilesError) -> Self {
        let reason = match error {
            FilesError::Denied(_) => "denied",
            FilesError::NotFound(_) => "not-found",
            FilesError::WrongKind(_) => "wrong-kind",
            FilesError::TooLarge(_) => "too-large",
            FilesError::TimedOut(_) => "timed-out",
            FilesError::Io(_) | FilesError::Other(_) => "io",
        };
        Self::new(reason, error.to_string())
    }
}

/// What a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum EntryKind {
    File,
    Directory,
    Link,
    Other,
}

/// A directory entry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Entry {
    pub name: String,
    pub kind: EntryKind,
}

/// What statvfs(3) says, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct FileSystem {
    pub size_bytes: u64,
    pub free_bytes: u64,
    pub available_bytes: u64,
    pub files: u64,
    pub files_free: u64,
    pub read_only: bool,
}

/// All of a file.
///
/// # Errors
/// Any [`FilesError`].
pub fn read(path: &str) -> Result<Vec<u8>, FilesError> {
    sys::read(path)
}

/// All of each of several files, one answer a path: cheaper than one call each. All of them together may be as large as one
/// read may be, and 1,024 files at most: what does not fit is [`FilesError::TooLarge`], and may be read by itself.
pub fn read_many(paths: &[&str]) -> Vec<Result<Vec<u8>, FilesError>> {
    sys::read_many(paths)
}

/// The entries of a directory, in no order.
///
/// # Errors
/// Any [`FilesError`].
pub fn list_directory(path: &str) -> Result<Vec<Entry>, FilesError> {
    sys::list_directory(path)
}

/// Where a link points, as it is written in it.
///
/// # Errors
/// Any [`FilesError`].
pub fn read_link(path: &str) -> Result<String, FilesError> {
    sys::read_link(path)
}

/// When its content was last changed, since the Unix epoch. Links are followed.
///
/// # Errors
/// Any [`FilesError`].
pub fn modified(path: &str) -> Result<std::time::Duration, FilesError> {
    sys::modified(path).map(std::time::Duration::from_nanos)
}

/// Sizes of the file system mounted at `path`. Needs `filesystems` in the grant.
///
/// # Errors
/// [`FilesError::TimedOut`] at once for a mount that does not answer, until it does.
pub fn stat_file_system(path: &str) -> Result<FileSystem, FilesError> {
    sys::stat_file_system(path)
}

/// The same of several file systems, one answer a path: cheaper than one call each, and one that does not answer holds up
/// no other.
pub fn stat_file_systems(paths: &[&str]) -> Vec<Result<FileSystem, FilesError>> {
    sys::stat_file_systems(paths)
}
