//! What was issued to which node, and who was revoked. Durable: whatever returned `Ok` survives a crash.
//!
//! Every certificate carries an *issue number* in the upper half of its serial: the time of issue in Unix
//! milliseconds, made strictly increasing. Revoking a node stores one such number, and every certificate of the
//! name up to it is void; so admission needs neither a list of serials nor the disk. Because the number is a time,
//! that also holds for a certificate that this database forgot (restored from an older copy), and for another CA's,
//! whose `notBefore` stands in.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use picket_proto::model::{NodeId, NodePattern};
use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::authority::{AuthorityError, Leaf};
use super::schema::Database;
use super::secret::{self, Hash};
use crate::clock::{Clock, millis, rfc3339};

/// Used and expired enrolment tokens are listed this long.
const KEEP_TOKENS: Duration = Duration::from_secs(30 * 24 * 3600);

/// The nodes and their certificates.
pub struct Registry {
    database: Arc<Database>,
    clock: Clock,
    state: Mutex<State>,
}

/// What admission looks at: the database's revocations, in memory.
#[derive(Default)]
struct State {
    voids: HashMap<NodeId, Void>,
    /// One a node admitted; cancelled by its revocation.
    cuts: HashMap<NodeId, CancellationToken>,
}

#[derive(Debug, Clone, Copy)]
struct Void {
    through: i64,
    revoked_ms: Option<i64>,
}

/// When a certificate was issued, as a number that no two share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IssueNumber(i64);

impl IssueNumber {
    /// The serial of the certificate with this number.
    pub fn serial(self, random: [u8; 8]) -> u128 {
        (u128::from(self.0.unsigned_abs()) << 64) | u128::from(u64::from_be_bytes(random))
    }

    /// The number in a serial; `None` where it is not one of Picket's.
    pub fn of_serial(serial: u128) -> Option<Self> {
        i64::try_from(serial >> 64).ok().filter(|n| *n > 0).map(Self)
    }
}

/// The part of a certificate that revocation asks for.
#[derive(Debug, Clone, Copy)]
pub enum Presented {
    /// One of Picket's CA.
    Issued(IssueNumber),
    /// One of another CA: its notBefore, Unix ms.
    Foreign { not_before_ms: i64 },
}

/// The node was revoked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the node {node} was revoked{}", when(*at_ms))]
pub struct Revoked {
    pub node: NodeId,
    pub at_ms: Option<i64>,
}

fn when(at_ms: Option<i64>) -> String {
    at_ms.map_or_else(String::new, |ms| format!(" at {}", rfc3339(ms)))
}

/// A node as the registry knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeRecord {
    pub name: String,
    pub first_seen_ms: i64,
    pub enrolled_ms: Option<i64>,
    /// Set while the node is revoked.
    pub revoked_ms: Option<i64>,
    pub revoked_by: Option<String>,
    /// When the newest certificate issued to it ends.
    pub certificate_expires_ms: Option<i64>,
}

/// A freshly made enrolment token: the only time that its secret is seen.
#[derive(Debug, Clone)]
pub struct NewEnrolmentToken {
    pub id: String,
    pub nodes: NodePattern,
    pub secret: String,
    pub expires_ms: i64,
}

/// An enrolment token as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EnrolmentToken {
    pub id: String,
    /// A name, or a pattern.
    pub node: String,
    pub created_ms: i64,
    pub created_by: String,
    pub expires_ms: i64,
    /// How many nodes may enrol with it.
    pub uses: u32,
    /// How many did.
    pub used: u32,
    /// When the last of them did.
    pub used_ms: Option<i64>,
    pub voided_ms: Option<i64>,
}

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("the identity database failed: {0}")]
    Database(#[from] rusqlite::Error),
    #[error("cannot open the identity database {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(
        "{} was written by a newer picket-aggregator (schema {version}, this one knows {known}): run that version, or restore a copy from before",
        path.display()
    )]
    Newer { path: PathBuf, version: usize, known: usize },
    #[error(transparent)]
    Randomness(#[from] secret::NoRandomness),
}

/// Why no certificate was given.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    #[error("this enrolment token is not known here")]
    Unknown,
    #[error("this enrolment token was used at {}; each works once: ask for a new one", rfc3339(*.at_ms))]
    Used { at_ms: i64 },
    #[error("this enrolment token expired at {}: ask for a new one", rfc3339(*.at_ms))]
    Expired { at_ms: i64 },
    #[error("this enrolment token was withdrawn at {}: ask for a new one", rfc3339(*.at_ms))]
    Withdrawn { at_ms: i64 },
    #[error("this enrolment token is for another node")]
    OtherNode,
    #[error("this enrolment token is for nodes named {pattern}, not for {name:?}")]
    OtherName { pattern: String, name: String },
    #[error(
        "a node {node} is known already, and this token makes new nodes only: ask for one of its own, `picket token create --node {node}`"
    )]
    Taken { node: NodeId },
    #[error(transparent)]
    Revoked(#[from] Revoked),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl From<rusqlite::Error> for EnrolmentError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Registry(error.into())
    }
}

impl Registry {
    /// Reads the revocations of `database`.
    pub fn new(database: Arc<Database>, clock: Clock) -> Result<Self, RegistryError> {
        let mut state = State::default();
        {
            let connection = database.lock();
            let mut statement = connection
                .prepare("SELECT name, revoked_through, revoked_ms FROM node WHERE revoked_through > 0")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let name: String = row.get(0)?;
                let void = Void { through: row.get(1)?, revoked_ms: row.get(2)? };
                match NodeId::new(&name) {
                    Ok(node) => drop(state.voids.insert(node, void)),
                    Err(error) => {
                        tracing::error!(%error, "the identity database holds a node with an invalid name")
                    }
                }
            }
        }
        Ok(Self { database, clock, state: Mutex::new(state) })
    }

    /// Lets a node in, unless it is revoked. The token is cancelled when it is revoked later. Never touches the disk.
    pub fn admit(&self, node: &NodeId, presented: Presented) -> Result<CancellationToken, Revoked> {
        let mut state = self.state();
        state.check(node, presented)?;
        Ok(state.cuts.entry(node.clone()).or_default().clone())
    }

    /// Voids every certificate issued to `node` until now and every open enrolment token for it, then cuts its
    /// streams. For good: only what an admin does afterwards (a new token, or [`Registry::readmit`]) lets it in again.
    pub fn revoke(&self, node: &NodeId, by: &str) -> Result<(), RegistryError> {
        let now = self.clock.now_ms();
        self.database.transaction(|t| -> Result<(), RegistryError> {
            let through = next_issue(t, now)?;
            t.execute(
                "INSERT INTO node (name, first_seen_ms, revoked_through, revoked_ms, revoked_by) VALUES (?1, ?2, ?3, ?2, ?4)
                 ON CONFLICT (name) DO UPDATE SET revoked_through = ?3, revoked_ms = ?2, revoked_by = ?4",
                params![node.as_str(), now, through, by],
            )?;
            t.execute(
                "UPDATE enrolment_token SET voided_ms = ?2 WHERE node = ?1 AND used_ms IS NULL AND voided_ms IS NULL",
                params![node.as_str(), now],
            )?;
            Ok(())
        })?;
        self.refresh(node)?;
        if let Some(cut) = self.state().cuts.remove(node) {
            cut.cancel();
        }
        Ok(())
    }

    /// Lets a revoked node in again with certificates made after its revocation. Returns whether it was revoked.
    pub fn readmit(&self, node: &NodeId) -> Result<bool, RegistryError> {
        let changed = self.database.transaction(|t| {
            t.execute("UPDATE node SET revoked_ms = NULL, revoked_by = NULL WHERE name = ?1 AND revoked_ms IS NOT NULL", [
                node.as_str(),
            ])
        })?;
        self.refresh(node)?;
        Ok(changed > 0)
    }

    /// Makes a token, good for `life`, with which `uses` nodes with such names can enrol: a one-time token for one
    /// node, or one for a batch of nodes that are not known yet.
    pub fn create_enrolment(
        &self,
        nodes: &NodePattern,
        uses: u32,
        life: Duration,
        by: &str,
    ) -> Result<NewEnrolmentToken, RegistryError> {
        let now = self.clock.now_ms();
        let token = NewEnrolmentToken {
            id: secret::generate_id()?,
            nodes: nodes.clone(),
            secret: secret::generate()?,
            expires_ms: now.saturating_add(millis(life)),
        };
        self.database.transaction(|t| {
            t.execute(
                "INSERT INTO enrolment_token (id, node, hash, created_ms, created_by, expires_ms, uses) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![token.id, nodes.as_str(), Hash::of(&token.secret).as_bytes(), now, by, token.expires_ms, uses],
            )
        })?;
        Ok(token)
    }

    /// Spends the token with this secret: checks it, has `issue` make the certificate, and stores both, as one
    /// transaction. Of two racing uses one wins; where `issue` fails, the token stays good.
    pub fn enrol(
        &self,
        secret: &str,
        wish: Option<&str>,
        issue: impl FnOnce(&NodeId, IssueNumber) -> Result<Leaf, AuthorityError>,
    ) -> Result<(NodeId, Leaf), EnrolmentError> {
        let now = self.clock.now_ms();
        let hash = Hash::of(secret);
        let (node, leaf) = self.database.transaction(|t| -> Result<_, EnrolmentError> {
            let token = t
                .query_row(
                    "SELECT * FROM enrolment_token WHERE hash = ?1",
                    [hash.as_bytes()],
                    enrolment_token,
                )
                .optional()?
                .ok_or(EnrolmentError::Unknown)?;
            if let Some(at_ms) = token.used_ms {
                return Err(EnrolmentError::Used { at_ms });
            }
            if let Some(at_ms) = token.voided_ms {
                return Err(EnrolmentError::Withdrawn { at_ms });
            }
            if token.expires_ms <= now {
                return Err(EnrolmentError::Expired { at_ms: token.expires_ms });
            }
            let node = named(t, &token.node, wish.unwrap_or_default())?;
            t.execute(
                "UPDATE enrolment_token SET used = used + 1, used_ms = CASE WHEN used + 1 >= uses THEN ?2 END WHERE id = ?1",
                params![token.id, now],
            )?;
            let number = IssueNumber(next_issue(t, now)?);
            let leaf = issue(&node, number)?;
            store(t, &node, number, &leaf)?;
            t.execute(
                "INSERT INTO node (name, first_seen_ms, enrolled_ms) VALUES (?1, ?2, ?2)
                 ON CONFLICT (name) DO UPDATE SET enrolled_ms = ?2, revoked_ms = NULL, revoked_by = NULL",
                params![node.as_str(), now],
            )?;
            Ok((node, leaf))
        })?;
        self.refresh(&node)?;
        Ok((node, leaf))
    }

    /// A new certificate for a node that holds a good one.
    pub fn renew(
        &self,
        node: &NodeId,
        presented: Presented,
        issue: impl FnOnce(IssueNumber) -> Result<Leaf, AuthorityError>,
    ) -> Result<Leaf, EnrolmentError> {
        let now = self.clock.now_ms();
        self.database.transaction(|t| {
            // Read in the transaction that a revocation would have to wait for: after it no number is given out
            // that it does not void.
            let through: Option<i64> = t
                .query_row("SELECT revoked_through FROM node WHERE name = ?1", [node.as_str()], |row| row.get(0))
                .optional()?;
            let held = match presented {
                Presented::Issued(number) => number.0,
                Presented::Foreign { not_before_ms } => not_before_ms,
            };
            if through.is_some_and(|through| held <= through) {
                return Err(Revoked { node: node.clone(), at_ms: None }.into());
            }
            let number = IssueNumber(next_issue(t, now)?);
            let leaf = issue(number)?;
            store(t, node, number, &leaf)?;
            t.execute(
                "INSERT INTO node (name, first_seen_ms, enrolled_ms) VALUES (?1, ?2, ?2) ON CONFLICT (name) DO NOTHING",
                params![node.as_str(), now],
            )?;
            Ok(leaf)
        })
    }

    /// All nodes ever seen, by name.
    pub fn nodes(&self) -> Result<Vec<NodeRecord>, RegistryError> {
        let connection = self.database.lock();
        let mut statement = connection.prepare_cached(&format!("{NODES} ORDER BY name"))?;
        let rows = statement.query_map([], node_record)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub fn node(&self, name: &str) -> Result<Option<NodeRecord>, RegistryError> {
        let connection = self.database.lock();
        let mut statement = connection.prepare_cached(&format!("{NODES} WHERE name = ?1"))?;
        Ok(statement.query_row([name], node_record).optional()?)
    }

    /// All enrolment tokens, newest first.
    pub fn enrolment_tokens(&self) -> Result<Vec<EnrolmentToken>, RegistryError> {
        let connection = self.database.lock();
        let mut statement = connection
            .prepare_cached("SELECT * FROM enrolment_token ORDER BY created_ms DESC, id LIMIT 10000")?;
        let rows = statement.query_map([], enrolment_token)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Withdraws a token. Returns whether there was one with this id that could still be used.
    pub fn withdraw_enrolment(&self, id: &str) -> Result<bool, RegistryError> {
        let now = self.clock.now_ms();
        let changed = self.database.transaction(|t| {
            t.execute(
                "UPDATE enrolment_token SET voided_ms = ?2 WHERE id = ?1 AND used_ms IS NULL AND voided_ms IS NULL",
                params![id, now],
            )
        })?;
        Ok(changed > 0)
    }

    /// Forgets certificates that have ended and tokens that ended long ago.
    pub fn tidy(&self) -> Result<(), RegistryError> {
        let now = self.clock.now_ms();
        self.database.transaction(|t| {
            t.execute(
                "DELETE FROM certificate WHERE not_after_ms < ?1 AND EXISTS
                 (SELECT 1 FROM certificate newer WHERE newer.node = certificate.node AND newer.issued > certificate.issued)",
                [now],
            )?;
            t.execute("DELETE FROM enrolment_token WHERE expires_ms < ?1", [now - millis(KEEP_TOKENS)])
        })?;
        Ok(())
    }

    /// Takes over what the database says. Reads under the lock of the state, so that of two changes at one time the
    /// later one is what stays.
    fn refresh(&self, node: &NodeId) -> Result<(), RegistryError> {
        let mut state = self.state();
        let void = self
            .database
            .lock()
            .query_row(
                "SELECT revoked_through, revoked_ms FROM node WHERE name = ?1",
                [node.as_str()],
                |row| Ok(Void { through: row.get(0)?, revoked_ms: row.get(1)? }),
            )
            .optional()?;
        if let Some(void) = void.filter(|void| void.through > 0) {
            state.voids.insert(node.clone(), void);
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&self, node: &NodeId, presented: Presented) -> Result<(), Revoked> {
        let Some(void) = self.voids.get(node) else { return Ok(()) };
        let good = match presented {
            Presented::Issued(number) => number.0 > void.through,
            // Another CA may go on signing by itself, so here an admin's word is needed too.
            Presented::Foreign { not_before_ms } => void.revoked_ms.is_none() && not_before_ms > void.through,
        };
        if good { Ok(()) } else { Err(Revoked { node: node.clone(), at_ms: void.revoked_ms }) }
    }
}

const NODES: &str = "SELECT name, first_seen_ms, enrolled_ms, revoked_ms, revoked_by,
    (SELECT max(not_after_ms) FROM certificate WHERE certificate.node = node.name) FROM node";

fn node_record(row: &Row<'_>) -> rusqlite::Result<NodeRecord> {
    Ok(NodeRecord {
        name: row.get(0)?,
        first_seen_ms: row.get(1)?,
        enrolled_ms: row.get(2)?,
        revoked_ms: row.get(3)?,
        revoked_by: row.get(4)?,
        certificate_expires_ms: row.get(5)?,
    })
}

fn enrolment_token(row: &Row<'_>) -> rusqlite::Result<EnrolmentToken> {
    Ok(EnrolmentToken {
        id: row.get("id")?,
        node: row.get("node")?,
        created_ms: row.get("created_ms")?,
        created_by: row.get("created_by")?,
        expires_ms: row.get("expires_ms")?,
        uses: row.get("uses")?,
        used: row.get("used")?,
        used_ms: row.get("used_ms")?,
        voided_ms: row.get("voided_ms")?,
    })
}

/// The name that a token gives to a node which wishes for this one. A token for many makes new nodes only: who has
/// it must not become one that is there, or that was revoked.
fn named(t: &Transaction<'_>, token: &str, wish: &str) -> Result<NodeId, EnrolmentError> {
    let pattern = NodePattern::new(token).map_err(|_| EnrolmentError::Unknown)?;
    if let Some(node) = pattern.name() {
        return if wish.is_empty() || wish == token { Ok(node) } else { Err(EnrolmentError::OtherNode) };
    }
    let other =
        || EnrolmentError::OtherName { pattern: token.to_owned(), name: wish.chars().take(253).collect() };
    let node = NodeId::new(wish).ok().filter(|node| pattern.matches(node)).ok_or_else(other)?;
    let known =
        t.query_row("SELECT 1 FROM node WHERE name = ?1", [node.as_str()], |_| Ok(())).optional()?.is_some();
    if known { Err(EnrolmentError::Taken { node }) } else { Ok(node) }
}

/// The next issue number: now, or one more than the last where the clock has not moved on (or went back).
fn next_issue(transaction: &Transaction<'_>, now_ms: i64) -> rusqlite::Result<i64> {
    transaction.query_row(
        "UPDATE counter SET value = max(value + 1, ?1) WHERE name = 'issue' RETURNING value",
        [now_ms],
        |row| row.get(0),
    )
}

fn store(
    transaction: &Transaction<'_>,
    node: &NodeId,
    number: IssueNumber,
    leaf: &Leaf,
) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO certificate (serial, node, issued, not_after_ms) VALUES (?1, ?2, ?3, ?4)",
        params![format!("{:032x}", leaf.serial), node.as_str(), number.0, leaf.not_after_ms],
    )?;
    Ok(())
}
