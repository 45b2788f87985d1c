use super::host::containers;
use crate::containers::{ContainersError, Listing, LogLine, LogPage, SocketState};

fn error(error: containers::ContainersError) -> ContainersError {
    use containers::ContainersError as E;
    match error {
        E::Denied(text) => ContainersError::Denied(text),
        E::NotFound(text) => ContainersError::NotFound(text),
        E::Absent(text) => ContainersError::Absent(text),
        E::Unreachable(text) => ContainersError::Unreachable(text),
        E::TimedOut(text) => ContainersError::TimedOut(text),
        E::TooLarge(text) => ContainersError::TooLarge(text),
        E::Malformed(text) => ContainersError::Malformed(text),
        E::Refused(text) => ContainersError::Refused(text),
        E::Other(text) => ContainersError::Other(text),
    }
}

pub(crate) fn containers_list(all: bool) -> Result<Listing, ContainersError> {
    let listing = containers::list(all).map_err(error)?;
    let sockets = listing
        .sockets
        .into_iter()
        .map(|s| SocketState { path: s.path, error: s.error.map(error) })
        .collect();
    Ok(Listing { containers: listing.containers, sockets })
}

pub(crate) fn containers_inspect(ids: &[String]) -> Vec<Result<String, ContainersError>> {
    containers::inspect(ids).into_iter().map(|one| one.map_err(error)).collect()
}

pub(crate) fn containers_stats(ids: &[String]) -> Vec<Result<String, ContainersError>> {
    containers::stats(ids).into_iter().map(|one| one.map_err(error)).collect()
}

pub(crate) fn containers_logs(
    id: &str,
    since_ns: Option<u64>,
    tail: Option<u32>,
) -> Result<LogPage, ContainersError> {
    let page = containers::logs(id, since_ns, tail).map_err(error)?;
    let lines = page
        .lines
        .into_iter()
        .map(|l| LogLine { stderr: l.stderr, timestamp_ns: l.timestamp, text: l.text })
        .collect();
    Ok(LogPage { lines, more: page.more })
}
