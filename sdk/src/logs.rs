//! Lines of log files and of the journal, read and handed on. Grant: `logs`.
//!
//! What a collect read is done with when the collect has ended well, in one durable step with what it emitted; the lines
//! of any other collect come again. So a plugin keeps no position, and nothing of a line between two collects: what is not
//! whole yet is held back ([`hold`]) and comes again with what follows it.

use std::time::Duration;

use crate::{Failure, sys};

/// Why nothing was read or taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogsError {
    /// Outside the grant; the text says which pattern or unit.
    #[error("not granted: {0}")]
    Denied(String),
    /// Not a pattern, not a label, not a chunk of this collect.
    #[error("{0}")]
    Invalid(String),
    /// A file did not answer in time.
    #[error("{0}")]
    TimedOut(String),
    /// A bound of the node's is reached; the text says which.
    #[error("{0}")]
    Quota(String),
    /// A reason that this version of the SDK does not know.
    #[error("{0}")]
    Other(String),
}

impl From<LogsError> for Failure {
    fn from(error: LogsError) -> Self {
        let reason = match error {
            LogsError::Denied(_) => "denied",
            LogsError::Invalid(_) => "invalid",
            LogsError::TimedOut(_) => "timed-out",
            LogsError::Quota(_) => "quota",
            LogsError::Other(_) => "logs",
        };
        Self::new(reason, error.to_string())
    }
}

/// What is to be read, within the grant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Patterns of paths; none: all that are granted.
    pub files: Vec<String>,
    /// Units of the journal, `*`: all; none: nothing of it.
    pub units: Vec<String>,
    /// Files that are there when a pattern is looked for the first time are read from their end, and so is the journal.
    pub from_the_end: bool,
}

/// What a chunk is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// The file's own bytes.
    File,
    /// Entries as `journalctl --output=json` writes them.
    Journal,
    /// A kind that this version of the SDK does not know.
    Other,
}

/// Whole lines of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Its number in this collect.
    pub id: u32,
    /// What it is of.
    pub kind: SourceKind,
    /// The path under which the file was found, whatever its name is by now.
    pub name: String,
    /// What the host knows of it. Of a container's log file: `container`, `id`, `image`, `label.NAME`.
    pub labels: Vec<(String, String)>,
    /// Each line with its newline.
    pub bytes: Vec<u8>,
    /// How long the first of these lines has been held back.
    pub waited: Duration,
    /// The source ends here, perhaps without a newline.
    pub last: bool,
    /// The one line that this is, is longer: the rest of it is left out.
    pub cut: bool,
}

/// What one [`read`] gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order of each source.
    pub chunks: Vec<Chunk>,
    /// A bound was reached: ask again, now or in the next collect.
    pub more: bool,
    /// Nothing is read because what was emitted cannot be kept: the lines wait where they are.
    pub full: bool,
    /// What could not be read, as reason and message.
    pub failures: Vec<(String, String)>,
}

/// Lines with the same labels, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Names and values.
    pub labels: Vec<(String, String)>,
    /// Nanoseconds since the Unix epoch, one a line.
    pub timestamps: Vec<u64>,
    /// A line may hold newlines: a trace is one.
    pub lines: Vec<String>,
}

/// The next lines of each source, about `most` bytes of them. Each call goes on where the last one ended.
///
/// # Errors
/// Any [`LogsError`].
pub fn read(wanted: &Selection, most: u32) -> Result<Page, LogsError> {
    sys::logs_read(wanted, most)
}

/// The last `bytes` bytes of a chunk come again in the next collect; its source is not read again in this one.
///
/// # Errors
/// Too much is held back.
pub fn hold(chunk: u32, bytes: u32) -> Result<(), LogsError> {
    sys::logs_hold(chunk, bytes)
}

/// Hands lines on, all or nothing.
///
/// # Errors
/// [`LogsError::Invalid`] labels, or [`LogsError::Quota`].
pub fn emit(batches: Vec<Batch>) -> Result<(), LogsError> {
    sys::logs_emit(batches)
}
