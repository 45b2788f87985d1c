//! What happened on the nodes: SQLite in `STATE/events.db`, every batch fsynced before the agent hears of it.
//!
//! Idempotent: a batch that comes again (the aggregator died between storing it and acknowledging it) changes
//! nothing, because an event's identity is node, agent life, sequence and place in the batch.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use picket_proto::model::{NodeId, Severity};
use picket_proto::v1;
use rusqlite::types::Value;
use rusqlite::{Connection, Row, TransactionBehavior, params, params_from_iter};
use serde::Serialize;

use crate::clock::{Clock, millis};
use crate::database;
use crate::ingest::EventSink;

/// Longer texts are cut, so that one node can't fill the disk with one event.
const MAX_MESSAGE: usize = 16 * 1024;
const MAX_WORD: usize = 512;
const MAX_ATTRIBUTES: usize = 64;
/// Old events are dropped after this many new ones.
const TRIM_EVERY: u64 = 4096;

/// The event database.
pub struct Events {
    connection: Mutex<Connection>,
    clock: Clock,
    max_count: u64,
    max_age: Duration,
    since_trim: AtomicU64,
}

/// An event as the API gives it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// Rises with the order of arrival; `before` of the next page.
    pub id: i64,
    pub node: String,
    pub timestamp_ms: i64,
    pub received_ms: i64,
    pub plugin: String,
    pub kind: String,
    pub severity: &'static str,
    pub subject_kind: String,
    pub subject_id: String,
    pub message: String,
    pub attributes: serde_json::Value,
    pub key: String,
    pub clear: bool,
}

/// Which events; each `None` is any.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    pub node: Option<String>,
    pub kind: Option<String>,
    pub plugin: Option<String>,
    pub subject: Option<String>,
    pub key: Option<String>,
    /// This severity and worse.
    pub severity: Option<Severity>,
    pub since_ms: Option<i64>,
    pub until_ms: Option<i64>,
    /// Older than the event with this id.
    pub before: Option<i64>,
    pub limit: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    #[error("the event database failed: {0}")]
    Database(#[from] rusqlite::Error),
    #[error("cannot open the event database {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
}

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS event (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        node TEXT NOT NULL,
        life INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        position INTEGER NOT NULL,
        timestamp_ms INTEGER NOT NULL,
        received_ms INTEGER NOT NULL,
        plugin TEXT NOT NULL,
        kind TEXT NOT NULL,
        severity INTEGER NOT NULL,
        subject_kind TEXT NOT NULL,
        subject_id TEXT NOT NULL,
        message TEXT NOT NULL,
        attributes TEXT NOT NULL,
        key TEXT NOT NULL,
        clear INTEGER NOT NULL,
        UNIQUE (node, life, sequence, position)
    ) STRICT;
    CREATE INDEX IF NOT EXISTS event_by_node ON event (node, id);
    CREATE INDEX IF NOT EXISTS event_by_arrival ON event (received_ms);
";

impl Events {
    /// Opens the database of `path`, made (0600) where there is none.
    pub fn open(path: &Path, max_count: u64, max_age: Duration, clock: Clock) -> Result<Self, EventsError> {
        let connection = database::open(path, |path, source| EventsError::File { path, source })?;
        connection.execute_batch(SCHEMA)?;
        let events = Self {
            connection: Mutex::new(connection),
            clock,
            max_count,
            max_age,
            since_trim: AtomicU64::new(0),
        };
        events.trim()?;
        Ok(events)
    }

    /// Stores the events of one batch. On disk when this returns. Blocks.
    pub fn insert(
        &self,
        node: &NodeId,
        life: u64,
        sequence: u64,
        events: &[v1::Event],
    ) -> Result<(), EventsError> {
        if events.is_empty() {
            return Ok(());
        }
        let now = self.clock.now_ms();
        let mut added = 0;
        {
            let mut connection = self.lock();
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            {
                let mut statement = transaction.prepare_cached(
                    "INSERT INTO event (node, life, sequence, position, timestamp_ms, received_ms, plugin, kind, severity,
                        subject_kind, subject_id, message, attributes, key, clear)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) ON CONFLICT DO NOTHING",
                )?;
                for (position, event) in (0_i64..).zip(events) {
                    added += statement.execute(params![
                        node.as_str(),
                        // SQLite has no unsigned integers: the same bits.
                        life.cast_signed(),
                        sequence.cast_signed(),
                        position,
                        event.timestamp_ms,
                        now,
                        cut(&event.plugin, MAX_WORD),
                        cut(&event.kind, MAX_WORD),
                        event.severity,
                        cut(&event.subject_kind, MAX_WORD),
                        cut(&event.subject_id, MAX_WORD),
                        cut(&event.message, MAX_MESSAGE),
                        attributes(&event.attributes),
                        cut(&event.key, MAX_WORD),
                        event.clear,
                    ])?;
                }
            }
            transaction.commit()?;
        }
        metrics::counter!("picket_aggregator_events_total").increment(added as u64);
        if self.since_trim.fetch_add(added as u64, Ordering::Relaxed) >= TRIM_EVERY {
            self.trim()?;
        }
        Ok(())
    }

    /// The newest events that fit, newest first.
    pub fn query(&self, query: &EventQuery) -> Result<Vec<Event>, EventsError> {
        let mut sql = String::from(
            "SELECT id, node, timestamp_ms, received_ms, plugin, kind, severity, subject_kind, subject_id, message,
             attributes, key, clear FROM event WHERE true",
        );
        let mut values: Vec<Value> = Vec::new();
        let mut also = |condition: &str, value: Option<Value>| {
            if let Some(value) = value {
                sql.push_str(" AND ");
                sql.push_str(condition);
                values.push(value);
            }
        };
        let text = |value: &Option<String>| value.clone().map(Value::Text);
        also("node = ?", text(&query.node));
        also("kind = ?", text(&query.kind));
        also("plugin = ?", text(&query.plugin));
        also("subject_id = ?", text(&query.subject));
        also("key = ?", text(&query.key));
        also("severity >= ?", query.severity.map(|s| Value::Integer(i64::from(s as i32))));
        also("timestamp_ms >= ?", query.since_ms.map(Value::Integer));
        also("timestamp_ms < ?", query.until_ms.map(Value::Integer));
        also("id < ?", query.before.map(Value::Integer));
        sql.push_str(" ORDER BY id DESC LIMIT ?");
        values.push(Value::Integer(i64::from(query.limit)));
        let connection = self.lock();
        let mut statement = connection.prepare_cached(&sql)?;
        let rows = statement.query_map(params_from_iter(values), event)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Drops what is too old or too much.
    pub fn trim(&self) -> Result<(), EventsError> {
        self.since_trim.store(0, Ordering::Relaxed);
        let oldest = self.clock.now_ms().saturating_sub(millis(self.max_age));
        let count = i64::try_from(self.max_count).unwrap_or(i64::MAX);
        let connection = self.lock();
        connection.execute("DELETE FROM event WHERE received_ms < ?1", [oldest])?;
        connection.execute("DELETE FROM event WHERE id <= (SELECT max(id) FROM event) - ?1", [count])?;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventSink for Events {
    fn record(&self, node: &NodeId, life: u64, sequence: u64, events: &[v1::Event]) -> Result<(), String> {
        self.insert(node, life, sequence, events).map_err(|error| error.to_string())
    }
}

/// The word of a severity in the API.
pub fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    }
}

fn event(row: &Row<'_>) -> rusqlite::Result<Event> {
    let severity: i32 = row.get(6)?;
    let attributes: String = row.get(10)?;
    Ok(Event {
        id: row.get(0)?,
        node: row.get(1)?,
        timestamp_ms: row.get(2)?,
        received_ms: row.get(3)?,
        plugin: row.get(4)?,
        kind: row.get(5)?,
        severity: severity_word(Severity::try_from(severity).unwrap_or(Severity::Critical)),
        subject_kind: row.get(7)?,
        subject_id: row.get(8)?,
        message: row.get(9)?,
        attributes: serde_json::from_str(&attributes).unwrap_or_default(),
        key: row.get(11)?,
        clear: row.get(12)?,
    })
}

fn attributes(labels: &[v1::Label]) -> String {
    let map: serde_json::Map<String, serde_json::Value> = labels
        .iter()
        .take(MAX_ATTRIBUTES)
        .map(|label| (cut(&label.name, MAX_WORD).to_owned(), cut(&label.value, MAX_MESSAGE).into()))
        .collect();
    serde_json::Value::Object(map).to_string()
}

fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, max_count: u64, clock: &Clock) -> Events {
        Events::open(&dir.join("events.db"), max_count, Duration::from_secs(3600), clock.clone()).unwrap()
    }

    fn event(kind: &str, severity: Severity) -> v1::Event {
        v1::Event {
            timestamp_ms: 5,
            kind: kind.into(),
            severity: severity as i32,
            message: "ä".repeat(MAX_MESSAGE),
            attributes: vec![v1::Label { name: "xid".into(), value: "79".into() }],
            ..Default::default()
        }
    }

    #[test]
    fn stored_once_and_found() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(1_000);
        let node = NodeId::new("n1").unwrap();
        let events = open(dir.path(), 100, &clock);
        let batch = [event("a", Severity::Info), event("b", Severity::Critical)];
        for _ in 0..2 {
            events.insert(&node, u64::MAX, 7, &batch).unwrap();
        }
        let again = open(dir.path(), 100, &clock);
        let all = again.query(&EventQuery { limit: 10, ..Default::default() }).unwrap();
        assert_eq!(all.iter().map(|e| e.kind.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(all[0].attributes["xid"], "79");
        assert!(all[0].message.len() <= MAX_MESSAGE);
        for (query, count) in [
            (EventQuery { severity: Some(Severity::Warning), ..Default::default() }, 1),
            (EventQuery { kind: Some("a".into()), ..Default::default() }, 1),
            (EventQuery { node: Some("n2".into()), ..Default::default() }, 0),
            (EventQuery { before: Some(all[0].id), ..Default::default() }, 1),
            (EventQuery { since_ms: Some(6), ..Default::default() }, 0),
            (EventQuery { until_ms: Some(6), ..Default::default() }, 2),
        ] {
            let found = again.query(&EventQuery { limit: 10, ..query.clone() }).unwrap();
            assert_eq!(found.len(), count, "{query:?}");
        }
    }

    #[test]
    fn bounded_by_count_and_age() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(1_000);
        let node = NodeId::new("n1").unwrap();
        let events = open(dir.path(), 3, &clock);
        for sequence in 0..10 {
            events.insert(&node, 1, sequence, &[event("a", Severity::Info)]).unwrap();
        }
        events.trim().unwrap();
        let all = EventQuery { limit: 100, ..Default::default() };
        assert_eq!(events.query(&all).unwrap().len(), 3);
        clock.advance(Duration::from_secs(3601));
        events.trim().unwrap();
        assert!(events.query(&all).unwrap().is_empty());
    }
}
