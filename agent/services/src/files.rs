//! Reading under granted roots.
use serde::{Deserialize, Serialize};

#[derive(Debug, Default)]
pub(crate) struct Desk;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Read { path: String },
    ListDirectory { path: String },
    ReadLink { path: String },
    StatFileSystem { path: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Bytes(Vec<u8>),
    Entries(Vec<Entry>),
    Target(String),
    FileSystem(FileSystem),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub name: String,
    pub kind: EntryKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    File,
    Directory,
    Link,
    Other,
}

/// statvfs(3), in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystem {
    pub size_bytes: u64,
    pub free_bytes: u64,
    pub available_bytes: u64,
    pub files: u64,
    pub files_free: u64,
    pub read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    #[error("{0}: not granted")]
    Denied(String),
    #[error("{0}: not found")]
    NotFound(String),
    #[error("{0}")]
    WrongKind(String),
    #[error("{0}")]
    TooLarge(String),
    #[error("{0}")]
    TimedOut(String),
    #[error("{0}")]
    Io(String),
}
