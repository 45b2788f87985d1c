//! The SQLite file of identities: `STATE/identity.db`, 0600, WAL, every commit fsynced.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::registry::RegistryError;
use crate::database;

/// The open file. Calls block on the disk: from async code, through `spawn_blocking`.
pub struct Database(Mutex<Connection>);

impl Database {
    /// Opens `path`, made (0600) and brought to the newest schema where it is not.
    pub fn open(path: &Path) -> Result<Self, RegistryError> {
        open(path).map(|connection| Self(Mutex::new(connection)))
    }

    /// Runs `change` as one transaction: all of it is on disk when this returns `Ok`, none of it otherwise.
    pub(super) fn transaction<T, E: From<rusqlite::Error>>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = change(&transaction)?;
        transaction.commit()?;
        Ok(value)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Connection> {
        // A transaction that a panic left open was rolled back by its drop.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Each entry takes the file from the version of its index to the next. Entries are only ever added.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE node (
        name TEXT PRIMARY KEY,
        first_seen_ms INTEGER NOT NULL,
        enrolled_ms INTEGER,
        -- Certificates with an issue number up to this one are void.
        revoked_through INTEGER NOT NULL DEFAULT 0,
        -- Set while revoked; NULL again once re-admitted.
        revoked_ms INTEGER,
        revoked_by TEXT
    ) STRICT;
    CREATE TABLE certificate (
        serial TEXT PRIMARY KEY,
        node TEXT NOT NULL,
        issued INTEGER NOT NULL,
        not_after_ms INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX certificate_by_node ON certificate (node, not_after_ms);
    CREATE TABLE enrolment_token (
        id TEXT PRIMARY KEY,
        node TEXT NOT NULL,
        hash BLOB NOT NULL UNIQUE,
        created_ms INTEGER NOT NULL,
        created_by TEXT NOT NULL,
        expires_ms INTEGER NOT NULL,
        used_ms INTEGER,
        voided_ms INTEGER
    ) STRICT;
    CREATE TABLE api_token (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        role TEXT NOT NULL,
        hash BLOB NOT NULL,
        created_ms INTEGER NOT NULL,
        created_by TEXT NOT NULL,
        expires_ms INTEGER
    ) STRICT;
    CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
    INSERT INTO counter VALUES ('issue', 0);
",
    "
    -- How many nodes may enrol with it, and how many did; `node` is a pattern where it is not for one node.
    ALTER TABLE enrolment_token ADD COLUMN uses INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE enrolment_token ADD COLUMN used INTEGER NOT NULL DEFAULT 0;
    UPDATE enrolment_token SET used = 1 WHERE used_ms IS NOT NULL;
",
];

fn open(path: &Path) -> Result<Connection, RegistryError> {
    let mut connection = database::open(path, |path, source| RegistryError::File { path, source })?;
    let version = user_version(&connection)?;
    let Some(missing) = MIGRATIONS.get(version..) else {
        return Err(RegistryError::Newer { path: path.to_owned(), version, known: MIGRATIONS.len() });
    };
    for (index, sql) in missing.iter().enumerate() {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
        // Another process may have been faster between the look and the lock.
        if user_version(&transaction)? == version + index {
            transaction.execute_batch(sql)?;
            transaction.pragma_update(None, "user_version", (version + index + 1) as i64)?;
            transaction.commit()?;
        }
    }
    Ok(connection)
}

fn user_version(connection: &Connection) -> rusqlite::Result<usize> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(usize::try_from(version).unwrap_or(usize::MAX))
}
