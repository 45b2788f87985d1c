//! The actions of the fleet in SQLite: `STATE/actions.db`, every change fsynced.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension as _, Row, params, params_from_iter};
use serde_json::{Value, json};

use super::fleet::Seen;
use crate::database;

const HOUR_MS: i64 = 3_600_000;
const RECENT_MS: i64 = 600_000;
/// Actions that are kept; the oldest that ended go first.
const KEPT: i64 = 100_000;

/// One action, from its plan to its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The execution's name too.
    pub id: String,
    pub node: String,
    pub plugin: String,
    pub action: String,
    /// JSON.
    pub parameters: String,
    pub digest: String,
    pub dangerous: bool,
    pub reversible: bool,
    /// `planned`, `sent`, `refused`, `lost`, or what the node says.
    pub state: String,
    pub message: String,
    /// JSON: as the node showed it.
    pub plan: String,
    /// JSON: a list of state and message.
    pub steps: String,
    /// The node's.
    pub revision: u64,
    pub planned_ms: i64,
    pub planned_by: String,
    pub expires_ms: i64,
    pub approved_ms: Option<i64>,
    pub approved_by: Option<String>,
    pub applied_ms: Option<i64>,
    pub applied_by: Option<String>,
    pub ended_ms: Option<i64>,
}

impl Record {
    /// As the API gives it.
    pub fn json(&self, with_plan: bool) -> Value {
        let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
        let mut json = json!({
            "id": self.id, "node": self.node, "plugin": self.plugin, "action": self.action,
            "parameters": parsed(&self.parameters), "digest": self.digest, "dangerous": self.dangerous,
            "reversible": self.reversible, "state": self.state, "message": self.message,
            "steps": parsed(&self.steps), "planned_ms": self.planned_ms, "planned_by": self.planned_by,
            "expires_ms": self.expires_ms, "approved_ms": self.approved_ms, "approved_by": self.approved_by,
            "applied_ms": self.applied_ms, "applied_by": self.applied_by, "ended_ms": self.ended_ms,
        });
        if with_plan && let Some(map) = json.as_object_mut() {
            map.insert("plan".to_owned(), parsed(&self.plan));
        }
        json
    }
}

/// Which actions.
#[derive(Debug, Clone, Default)]
pub struct Query {
    pub node: Option<String>,
    pub state: Option<String>,
    pub limit: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database of actions failed: {0}")]
    Database(#[from] rusqlite::Error),
    #[error("cannot open the database of actions {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
}

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS action (
        id TEXT PRIMARY KEY,
        node TEXT NOT NULL,
        plugin TEXT NOT NULL,
        action TEXT NOT NULL,
        parameters TEXT NOT NULL,
        digest TEXT NOT NULL,
        dangerous INTEGER NOT NULL,
        reversible INTEGER NOT NULL,
        state TEXT NOT NULL,
        message TEXT NOT NULL,
        plan TEXT NOT NULL,
        steps TEXT NOT NULL,
        revision INTEGER NOT NULL,
        planned_ms INTEGER NOT NULL,
        planned_by TEXT NOT NULL,
        expires_ms INTEGER NOT NULL,
        approved_ms INTEGER,
        approved_by TEXT,
        applied_ms INTEGER,
        applied_by TEXT,
        ended_ms INTEGER
    ) STRICT;
    CREATE INDEX IF NOT EXISTS action_by_node ON action (node, planned_ms);
    CREATE INDEX IF NOT EXISTS action_by_time ON action (planned_ms);
    CREATE INDEX IF NOT EXISTS action_open ON action (state) WHERE state IN ('sent', 'running', 'reverting');
    CREATE TABLE IF NOT EXISTS breaker (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        reason TEXT NOT NULL,
        by TEXT NOT NULL
    ) STRICT;
";

pub(super) struct Store(Mutex<Connection>);

impl Store {
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = database::open(path, |path, source| StoreError::File { path, source })?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self(Mutex::new(connection)))
    }

    pub fn put(&self, r: &Record) -> Result<(), StoreError> {
        let connection = self.lock();
        connection.prepare_cached(
            "INSERT OR REPLACE INTO action VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15,
             ?16, ?17, ?18, ?19, ?20, ?21)",
        )?
        .execute(params![
            r.id,
            r.node,
            r.plugin,
            r.action,
            r.parameters,
            r.digest,
            r.dangerous,
            r.reversible,
            r.state,
            r.message,
            r.plan,
            r.steps,
            i64::try_from(r.revision).unwrap_or(i64::MAX),
            r.planned_ms,
            r.planned_by,
            r.expires_ms,
            r.approved_ms,
            r.approved_by,
            r.applied_ms,
            r.applied_by,
            r.ended_ms,
        ])?;
        connection.execute(
            "DELETE FROM action WHERE state NOT IN ('sent', 'running', 'reverting') AND planned_ms <
             (SELECT planned_ms FROM action ORDER BY planned_ms DESC LIMIT 1 OFFSET ?1)",
            [KEPT],
        )?;
        Ok(())
    }

    pub fn get(&self, id: &str) -> Result<Option<Record>, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("SELECT * FROM action WHERE id = ?1")?;
        Ok(statement.query_row([id], record).optional()?)
    }

    pub fn list(&self, query: &Query) -> Result<Vec<Record>, StoreError> {
        let (mut clauses, mut values) = (Vec::new(), Vec::new());
        for (column, wanted) in [("node", &query.node), ("state", &query.state)] {
            if let Some(wanted) = wanted {
                values.push(Sql::from(wanted.clone()));
                clauses.push(format!("{column} = ?{}", values.len()));
            }
        }
        let filter =
            if clauses.is_empty() { String::new() } else { format!("WHERE {}", clauses.join(" AND ")) };
        values.push(Sql::from(i64::from(query.limit.max(1))));
        let sql =
            format!("SELECT * FROM action {filter} ORDER BY planned_ms DESC, id LIMIT ?{}", values.len());
        let connection = self.lock();
        let mut statement = connection.prepare_cached(&sql)?;
        let rows = statement.query_map(params_from_iter(values), record)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What is open on one node.
    pub fn open_on(&self, node: &str) -> Result<Vec<Record>, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "SELECT * FROM action WHERE state IN ('sent', 'running', 'reverting') AND node = ?1",
        )?;
        let rows = statement.query_map([node], record)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// For the fleet's bounds.
    pub fn seen(&self, now_ms: i64) -> Result<Seen, StoreError> {
        let paused = self.breaker()?.is_some();
        let connection = self.lock();
        let mut running = connection
            .prepare_cached("SELECT node FROM action WHERE state IN ('sent', 'running', 'reverting')")?;
        let running = running.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let last_hour: i64 = connection.query_row(
            "SELECT COUNT(*) FROM action WHERE applied_ms > ?1 AND state NOT IN ('refused', 'lost')",
            [now_ms.saturating_sub(HOUR_MS)],
            |row| row.get(0),
        )?;
        let mut recent = connection.prepare_cached(
            "SELECT DISTINCT node FROM action WHERE applied_ms > ?1 AND state NOT IN ('refused', 'lost')",
        )?;
        let recent_nodes = recent
            .query_map([now_ms.saturating_sub(RECENT_MS)], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        Ok(Seen { running, last_hour: usize::try_from(last_hour).unwrap_or(0), recent_nodes, paused })
    }

    pub fn breaker(&self) -> Result<Option<Value>, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("SELECT reason, by FROM breaker")?;
        let row =
            |row: &Row<'_>| Ok(json!({ "reason": row.get::<_, String>(0)?, "by": row.get::<_, String>(1)? }));
        Ok(statement.query_row([], row).optional()?)
    }

    pub fn set_breaker(&self, open: Option<(&str, &str)>) -> Result<(), StoreError> {
        let connection = self.lock();
        match open {
            Some((reason, by)) => connection
                .execute("INSERT OR REPLACE INTO breaker VALUES (1, ?1, ?2)", params![reason, by])?,
            None => connection.execute("DELETE FROM breaker", [])?,
        };
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        id: row.get("id")?,
        node: row.get("node")?,
        plugin: row.get("plugin")?,
        action: row.get("action")?,
        parameters: row.get("parameters")?,
        digest: row.get("digest")?,
        dangerous: row.get("dangerous")?,
        reversible: row.get("reversible")?,
        state: row.get("state")?,
        message: row.get("message")?,
        plan: row.get("plan")?,
        steps: row.get("steps")?,
        revision: u64::try_from(row.get::<_, i64>("revision")?).unwrap_or(0),
        planned_ms: row.get("planned_ms")?,
        planned_by: row.get("planned_by")?,
        expires_ms: row.get("expires_ms")?,
        approved_ms: row.get("approved_ms")?,
        approved_by: row.get("approved_by")?,
        applied_ms: row.get("applied_ms")?,
        applied_by: row.get("applied_by")?,
        ended_ms: row.get("ended_ms")?,
    })
}
