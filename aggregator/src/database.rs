//! The state folder's SQLite files: 0600, write-ahead log, every commit fsynced.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

/// Opens `path`, made where it is missing. `file` says that it can't be.
pub(crate) fn open<E: From<rusqlite::Error>>(
    path: &Path,
    file: impl FnOnce(PathBuf, io::Error) -> E,
) -> Result<Connection, E> {
    // SQLite would make it with the umask's mode; its -wal and -shm take this one's.
    let made = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    made.map_err(|source| file(path.to_owned(), source))?;
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(connection)
}
