//! The rollouts in SQLite: `STATE/rollouts.db`, every change fsynced before anything is offered by it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::machine::{Agent, Machine};
use super::plan::NodeSelector;
use crate::database;

/// Rollouts that are over and are kept, the newest of them.
const KEPT: usize = 200;

/// One rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    pub id: String,
    /// The plugin's name in the nodes' configuration.
    pub plugin: String,
    /// As it was asked for, and exactly what that was.
    pub reference: String,
    pub resolved: String,
    pub version: String,
    pub signed_by: String,
    /// Of the component, in bytes.
    pub size: u64,
    pub selector: NodeSelector,
    pub created_ms: i64,
    pub created_by: String,
    pub changed_ms: i64,
    pub machine: Machine,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database of rollouts failed: {0}")]
    Database(#[from] rusqlite::Error),
    #[error("cannot open the database of rollouts {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(
        "the database of rollouts holds what this aggregator cannot read: {0}; was it written by a newer one?"
    )]
    Content(#[from] serde_json::Error),
}

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS rollout (
        id TEXT PRIMARY KEY,
        created_ms INTEGER NOT NULL,
        content TEXT NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS agent (
        rollout TEXT NOT NULL REFERENCES rollout (id) ON DELETE CASCADE,
        node TEXT NOT NULL,
        content TEXT NOT NULL,
        PRIMARY KEY (rollout, node)
    ) STRICT, WITHOUT ROWID;
";

pub(super) struct Store(Mutex<Connection>);

impl Store {
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = database::open(path, |path, source| StoreError::File { path, source })?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self(Mutex::new(connection)))
    }

    /// All of them, the oldest first.
    pub fn load(&self) -> Result<Vec<Rollout>, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare("SELECT content FROM rollout ORDER BY created_ms, id")?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        let mut rollouts = Vec::new();
        for content in rows {
            rollouts.push(serde_json::from_str::<Rollout>(&content?)?);
        }
        let mut statement = connection.prepare("SELECT node, content FROM agent WHERE rollout = ?1")?;
        for rollout in &mut rollouts {
            let rows =
                statement.query_map([&rollout.id], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
            for row in rows {
                let (node, content): (String, String) = row?;
                rollout.machine.agents.insert(node, serde_json::from_str::<Agent>(&content)?);
            }
        }
        Ok(rollouts)
    }

    /// Writes down a rollout, with these of its agents; one that it has no more is taken out. All or nothing.
    pub fn put<'a>(
        &self,
        rollout: &Rollout,
        agents: impl IntoIterator<Item = &'a String>,
    ) -> Result<(), StoreError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        transaction.execute(
            "INSERT INTO rollout VALUES (?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET content = ?3",
            params![rollout.id, rollout.created_ms, serde_json::to_string(rollout)?],
        )?;
        for node in agents {
            match rollout.machine.agents.get(node) {
                Some(agent) => transaction
                    .prepare_cached("INSERT OR REPLACE INTO agent VALUES (?1, ?2, ?3)")?
                    .execute(params![rollout.id, node, serde_json::to_string(agent)?])?,
                None => transaction
                    .prepare_cached("DELETE FROM agent WHERE rollout = ?1 AND node = ?2")?
                    .execute(params![rollout.id, node])?,
            };
        }
        Ok(transaction.commit()?)
    }

    /// Forgets rollouts that are over, all but the newest; gives the ids of those that went.
    pub fn trim(&self, rollouts: &[&Rollout]) -> Result<Vec<String>, StoreError> {
        let mut over: Vec<&Rollout> =
            rollouts.iter().copied().filter(|rollout| !rollout.machine.phase.is_live()).collect();
        over.sort_by_key(|rollout| std::cmp::Reverse(rollout.created_ms));
        let connection = self.lock();
        let mut gone = Vec::new();
        for rollout in over.into_iter().skip(KEPT) {
            connection.execute("DELETE FROM rollout WHERE id = ?1", [&rollout.id])?;
            gone.push(rollout.id.clone());
        }
        Ok(gone)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
