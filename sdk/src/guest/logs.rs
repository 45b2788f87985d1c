use std::time::Duration;

use super::host::logs as wit;
use super::{labels, pairs};
use crate::logs::{Batch, Chunk, LogsError, Page, Selection, SourceKind};

pub(crate) fn logs_read(wanted: &Selection, most: u32) -> Result<Page, LogsError> {
    let wanted = wit::Selection {
        files: wanted.files.clone(),
        units: wanted.units.clone(),
        from_the_end: wanted.from_the_end,
    };
    let page = wit::read(&wanted, most).map_err(error)?;
    let chunk = |c: wit::Chunk| Chunk {
        id: c.id,
        kind: match c.kind {
            wit::SourceKind::File => SourceKind::File,
            wit::SourceKind::Journal => SourceKind::Journal,
            wit::SourceKind::Other(_) => SourceKind::Other,
        },
        name: c.name,
        labels: pairs(c.labels),
        bytes: c.bytes,
        waited: Duration::from_millis(c.waited),
        last: c.last,
        cut: c.cut,
    };
    Ok(Page {
        chunks: page.chunks.into_iter().map(chunk).collect(),
        more: page.more,
        full: page.full,
        failures: page.failures.into_iter().map(|f| (f.reason, f.message)).collect(),
    })
}

pub(crate) fn logs_hold(chunk: u32, bytes: u32) -> Result<(), LogsError> {
    wit::hold(chunk, bytes).map_err(error)
}

pub(crate) fn logs_emit(batches: Vec<Batch>) -> Result<(), LogsError> {
    let batch = |b: Batch| wit::Batch { labels: labels(b.labels), timestamps: b.timestamps, lines: b.lines };
    let batches: Vec<wit::Batch> = batches.into_iter().map(batch).collect();
    wit::emit(&batches).map_err(error)
}

fn error(error: wit::LogsError) -> LogsError {
    match error {
        wit::LogsError::Denied(text) => LogsError::Denied(text),
        wit::LogsError::Invalid(text) => LogsError::Invalid(text),
        wit::LogsError::TimedOut(text) => LogsError::TimedOut(text),
        wit::LogsError::Quota(text) => LogsError::Quota(text),
        wit::LogsError::Other(text) => LogsError::Other(text),
    }
}
