use std::io;
use std::path::PathBuf;

/// Why the spool could not be opened, or did not take a record.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("the spool folder {dir} is used by another agent; each agent needs its own state_dir")]
    Locked { dir: PathBuf },
    #[error("the spool folder {dir} is on a read-only file system")]
    ReadOnly { dir: PathBuf, source: io::Error },
    #[error("the spool cannot {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("the spool's writer thread could not be started: {source}")]
    Thread { source: io::Error },
    #[error("spool option {option}: {problem}")]
    Options { option: &'static str, problem: &'static str },
    #[error("a record of {bytes} bytes is too large for the spool; the limit is {max} bytes")]
    TooLarge { bytes: usize, max: usize },
    #[error(
        "the record was refused: {queued} bytes wait to be written, {limit} are allowed; {}",
        why.as_deref().unwrap_or("the disk does not keep up")
    )]
    Full { queued: usize, limit: usize, why: Option<String> },
    #[error("the spool is closed")]
    Closed,
    #[error("the spool was closed before record {sequence} was durable: {why}")]
    NotDurable { sequence: u64, why: String },
    #[error("the spool gave up on {records} records when it was closed: {why}")]
    NotFlushed { records: u64, why: String },
}
