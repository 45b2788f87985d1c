//! Deleting files by rule, and bundles of files for people; for actions. Grant: `files-write`.

use serde::{Deserialize, Serialize};

use crate::{Failure, sys};

/// Why nothing was found or deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilesWriteError {
    /// Outside the grant, too young for it, behind a link or a mount, or a call in which nothing may be changed.
    #[error("not allowed: {0}")]
    Denied(String),
    /// There is no such file.
    #[error("not found: {0}")]
    NotFound(String),
    /// No pattern.
    #[error("not valid: {0}")]
    Invalid(String),
    /// Another file stands there now, or it was changed since it was found.
    #[error("it is another one now: {0}")]
    Changed(String),
    /// More than the node looks at.
    #[error("too much to look at: {0}")]
    TooLarge(String),
    /// Too slow.
    #[error("{0}")]
    TimedOut(String),
    /// The system's own words.
    #[error("{0}")]
    Io(String),
    /// A reason that this version of the SDK does not know.
    #[error("{0}")]
    Other(String),
}

impl From<FilesWriteError> for Failure {
    fn from(error: FilesWriteError) -> Self {
        let reason = match error {
            FilesWriteError::Denied(_) => "denied",
            FilesWriteError::NotFound(_) => "not-found",
            FilesWriteError::Invalid(_) => "parameters",
            FilesWriteError::Changed(_) => "precondition",
            FilesWriteError::TooLarge(_) => "too-large",
            FilesWriteError::TimedOut(_) => "timed-out",
            FilesWriteError::Io(_) => "io",
            FilesWriteError::Other(_) => "other",
        };
        Self::new(reason, error.to_string())
    }
}

/// Which files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// Within a granted one.
    pub pattern: String,
    /// Not changed for so many seconds.
    pub older_than: u64,
    /// At least so many bytes.
    pub at_least: u64,
    /// The oldest so many.
    pub most: u32,
}

/// A file, as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Found {
    pub path: String,
    pub bytes: u64,
    /// Nanoseconds since the Unix epoch.
    pub modified: u64,
    pub inode: u64,
    pub device: u64,
}

/// What a search gave.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Search {
    /// The oldest first.
    pub files: Vec<Found>,
    /// There are more.
    pub more: bool,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum End {
    Deleted,
    /// It was not there any more.
    Gone,
}

/// The files that fit.
///
/// # Errors
/// Any [`FilesWriteError`].
pub fn find(rule: &Rule) -> Result<Search, FilesWriteError> {
    sys::files_find(rule)
}

/// Deletes exactly the file that was found.
///
/// # Errors
/// Any [`FilesWriteError`].
pub fn delete(found: &Found) -> Result<End, FilesWriteError> {
    sys::files_delete(found)
}

/// Bytes for a file of a bundle: in the place of what it holds (`first`), or behind it. Gives where the file lies.
///
/// # Errors
/// Any [`FilesWriteError`].
pub fn put(bundle: &str, file: &str, content: &[u8], first: bool) -> Result<String, FilesWriteError> {
    sys::files_put(bundle, file, content, first)
}
