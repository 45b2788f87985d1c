//! API tokens: `picket-api-v1.<id>.<secret>`, each with a role. Looked up in the database on every call, so that
//! one made offline works at once and one revoked is dead at once.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};

use super::registry::RegistryError;
use super::schema::Database;
use super::secret::{self, Hash};
use crate::clock::{Clock, millis};

const PREFIX: &str = "picket-api-v1";
const MAX_NAME: usize = 64;

/// What a token may do; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads metrics, nodes, events.
    Viewer,
    /// Changes what agents do.
    Operator,
    /// Makes tokens, revokes nodes.
    Admin,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = AccessError;
    fn from_str(text: &str) -> Result<Self, AccessError> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| AccessError::Role { role: text.chars().take(32).collect() })
    }
}

/// A token as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApiToken {
    pub id: String,
    pub name: String,
    pub role: Role,
    pub created_ms: i64,
    pub created_by: String,
    pub expires_ms: Option<i64>,
}

/// A token just made: the only time that its text is seen.
#[derive(Debug, Clone)]
pub struct NewApiToken {
    pub text: String,
    pub token: ApiToken,
}

#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("there is a token named {name:?} already; revoke it first or choose another name")]
    NameTaken { name: String },
    #[error("a token's name has 1 to {MAX_NAME} printable characters")]
    Name,
    #[error("there is no role {role:?}; roles are viewer, operator, admin")]
    Role { role: String },
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl From<rusqlite::Error> for AccessError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Registry(error.into())
    }
}

impl From<secret::NoRandomness> for AccessError {
    fn from(error: secret::NoRandomness) -> Self {
        Self::Registry(error.into())
    }
}

/// The API tokens of a database.
pub struct Access {
    database: Arc<Database>,
    clock: Clock,
}

impl Access {
    pub fn new(database: Arc<Database>, clock: Clock) -> Self {
        Self { database, clock }
    }

    /// Makes a token; `life` of `None` is for ever.
    pub fn create(
        &self,
        name: &str,
        role: Role,
        life: Option<Duration>,
        by: &str,
    ) -> Result<NewApiToken, AccessError> {
        if name.is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
            return Err(AccessError::Name);
        }
        let now = self.clock.now_ms();
        let token = ApiToken {
            id: secret::generate_id()?,
            name: name.to_owned(),
            role,
            created_ms: now,
            created_by: by.to_owned(),
            expires_ms: life.map(|life| now.saturating_add(millis(life))),
        };
        let secret = secret::generate()?;
        self.database.transaction(|t| -> Result<(), AccessError> {
            // An expired token's name is free again.
            t.execute("DELETE FROM api_token WHERE name = ?1 AND expires_ms <= ?2", params![name, now])?;
            let added = t.execute(
                "INSERT INTO api_token (id, name, role, hash, created_ms, created_by, expires_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (name) DO NOTHING",
                params![
                    token.id,
                    token.name,
                    role.as_str(),
                    Hash::of(&secret).as_bytes(),
                    now,
                    by,
                    token.expires_ms
                ],
            )?;
            if added == 0 { Err(AccessError::NameTaken { name: name.to_owned() }) } else { Ok(()) }
        })?;
        Ok(NewApiToken { text: format!("{PREFIX}.{}.{secret}", token.id), token })
    }

    /// Whose token this is; `None` where it is nobody's, or no more.
    pub fn check(&self, text: &str) -> Result<Option<ApiToken>, RegistryError> {
        let mut parts = text.split('.');
        let (Some(PREFIX), Some(id), Some(secret), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Ok(None);
        };
        let row = {
            let connection = self.database.lock();
            let mut statement = connection.prepare_cached("SELECT * FROM api_token WHERE id = ?1")?;
            statement
                .query_row([id], |row| Ok((api_token(row)?, row.get::<_, Vec<u8>>("hash")?)))
                .optional()?
        };
        let Some((token, hash)) = row else { return Ok(None) };
        let good = Hash::from_bytes(&hash).is_some_and(|hash| hash.matches(&Hash::of(secret)));
        let alive = token.expires_ms.is_none_or(|end| self.clock.now_ms() < end);
        Ok((good && alive).then_some(token))
    }

    /// All tokens, newest first.
    pub fn list(&self) -> Result<Vec<ApiToken>, RegistryError> {
        let connection = self.database.lock();
        let mut statement =
            connection.prepare_cached("SELECT * FROM api_token ORDER BY created_ms DESC, id LIMIT 10000")?;
        let rows = statement.query_map([], api_token)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Ends the token with this id or name. Returns whether there was one.
    pub fn revoke(&self, id_or_name: &str) -> Result<bool, RegistryError> {
        let gone = self
            .database
            .transaction(|t| t.execute("DELETE FROM api_token WHERE id = ?1 OR name = ?1", [id_or_name]))?;
        Ok(gone > 0)
    }
}

fn api_token(row: &Row<'_>) -> rusqlite::Result<ApiToken> {
    let role: String = row.get("role")?;
    Ok(ApiToken {
        id: row.get("id")?,
        name: row.get("name")?,
        // A role of a newer version's is the least here.
        role: role.parse().unwrap_or(Role::Viewer),
        created_ms: row.get("created_ms")?,
        created_by: row.get("created_by")?,
        expires_ms: row.get("expires_ms")?,
    })
}
