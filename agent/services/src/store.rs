//! Keys and values of a plugin that outlive its instance and the agent: one small file a plugin, written whole and put
//! in place by rename, so that it holds either the old or the new content. A file that is damaged is set aside (as
//! `NAME.store.damaged`), counted, and the plugin begins with an empty store: losing its memory must not stop a plugin.
//!
//! Layout, little-endian: `PKTSTOR1`, then for each entry key length (u32), value length (u32), the end of its life in
//! milliseconds since the epoch (u64, 0: none), key, value; last the SHA-256 of everything before it.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use picket_proto::model::PluginId;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use serde::{Deserialize, Serialize};

use crate::Octets;

const MAGIC: &[u8; 8] = b"PKTSTOR1";
/// What an entry costs beside its key and value.
const ENTRY_BYTES: u64 = 16;
/// The longest key, in bytes.
const MAX_KEY: usize = 1024;
/// No grant makes a store larger than this: it is held in memory and written whole.
const MAX_BYTES: u64 = 16 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Get {
        key: String,
    },
    /// `ttl`: seconds after which the value is gone.
    Set {
        key: String,
        #[serde(with = "crate::octets")]
        value: Vec<u8>,
        ttl: Option<u64>,
    },
    Delete {
        key: String,
    },
    /// The keys that begin with `prefix`, in order.
    Keys {
        prefix: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Value(Option<Octets>),
    Keys(Vec<String>),
    Done,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Full(String),
    #[error("{0}")]
    Other(String),
}

/// The stores of all plugins.
#[derive(Debug)]
pub(crate) struct Stores {
    folder: PathBuf,
    open: Mutex<HashMap<PluginId, Arc<Mutex<Store>>>>,
    damaged: Arc<AtomicU64>,
}

impl Stores {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, open: Mutex::default(), damaged: Arc::default() }
    }

    /// Files that were found damaged since the start.
    pub(crate) fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    pub(crate) async fn call(
        &self,
        plugin: &PluginId,
        bytes: u64,
        now_ms: u64,
        request: Request,
    ) -> Result<Answer, Error> {
        let known = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(plugin).cloned();
        let (folder, plugin, damaged) = (self.folder.clone(), plugin.clone(), self.damaged.clone());
        // Reading is done in place once the store is open; opening and writing wait for the disk.
        let store = match known {
            Some(store) => store,
            None => {
                let (folder, id) = (folder.clone(), plugin.clone());
                let opened = tokio::task::spawn_blocking(move || Store::open(&folder, &id, &damaged))
                    .await
                    .map_err(|e| Error::Other(format!("the store was lost: {e}")))??;
                let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
                open.entry(plugin).or_insert_with(|| Arc::new(Mutex::new(opened))).clone()
            }
        };
        match request {
            Request::Get { .. } | Request::Keys { .. } => lock(&store).answer(bytes, now_ms, request),
            Request::Set { .. } | Request::Delete { .. } => {
                tokio::task::spawn_blocking(move || lock(&store).answer(bytes, now_ms, request))
                    .await
                    .map_err(|e| Error::Other(format!("the store was lost: {e}")))?
            }
        }
    }
}

fn lock(store: &Mutex<Store>) -> std::sync::MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    value: Vec<u8>,
    /// Milliseconds since the epoch; none: for ever.
    until: Option<u64>,
}

impl Entry {
    fn alive(&self, now_ms: u64) -> bool {
        self.until.is_none_or(|until| now_ms < until)
    }
}

#[derive(Debug)]
struct Store {
    file: PathBuf,
    entries: BTreeMap<String, Entry>,
}

impl Store {
    fn open(folder: &Path, plugin: &PluginId, damaged: &AtomicU64) -> Result<Self, Error> {
        let file = folder.join(format!("{plugin}.store"));
        let bytes = match std::fs::read(&file) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self { file, entries: BTreeMap::new() });
            }
            Err(e) => return Err(Error::Other(format!("{}: {e}", file.display()))),
        };
        let entries = decode(&bytes).unwrap_or_else(|| {
            damaged.fetch_add(1, Ordering::Relaxed);
            let aside = folder.join(format!("{plugin}.store.damaged"));
            let moved = std::fs::rename(&file, &aside);
            tracing::warn!(
                plugin = plugin.as_str(),
                file = %file.display(),
                aside = %aside.display(),
                error = moved.err().map(tracing::field::display),
                "the plugin's store is damaged and was set aside; it begins empty"
            );
            BTreeMap::new()
        });
        Ok(Self { file, entries })
    }

    fn answer(&mut self, bytes: u64, now_ms: u64, request: Request) -> Result<Answer, Error> {
        match request {
            Request::Get { key } => {
                let alive = self.entries.get(&key).filter(|e| e.alive(now_ms));
                Ok(Answer::Value(alive.map(|e| Octets(e.value.clone()))))
            }
            Request::Keys { prefix } => Ok(Answer::Keys(
                self.entries
                    .range(prefix.clone()..)
                    .take_while(|(k, _)| k.starts_with(&prefix))
                    .filter(|(_, e)| e.alive(now_ms))
                    .map(|(k, _)| k.clone())
                    .collect(),
            )),
            Request::Set { key, value, ttl } => {
                if key.len() > MAX_KEY {
                    return Err(Error::Other(format!(
                        "the key is {} bytes long, {MAX_KEY} are allowed",
                        key.len()
                    )));
                }
                let until = ttl.map(|s| now_ms.saturating_add(s.saturating_mul(1000)));
                let entry = Entry { value, until };
                if self.entries.get(&key) == Some(&entry) {
                    return Ok(Answer::Done);
                }
                let mut next = self.entries.clone();
                next.retain(|_, e| e.alive(now_ms));
                next.insert(key, entry);
                let (size, cap) = (size(&next), bytes.min(MAX_BYTES));
                if size > cap {
                    return Err(Error::Full(format!("the store would hold {size} bytes, {cap} are granted")));
                }
                self.replace(next)
            }
            Request::Delete { key } => {
                if !self.entries.contains_key(&key) {
                    return Ok(Answer::Done);
                }
                let mut next = self.entries.clone();
                next.remove(&key);
                self.replace(next)
            }
        }
    }

    /// What is in memory changes only once it is on disk.
    fn replace(&mut self, next: BTreeMap<String, Entry>) -> Result<Answer, Error> {
        write(&self.file, &encode(&next)).map_err(|e| {
            Error::Other(format!("the store could not be written to {}: {e}", self.file.display()))
        })?;
        self.entries = next;
        Ok(Answer::Done)
    }
}

fn size(entries: &BTreeMap<String, Entry>) -> u64 {
    entries.iter().map(|(k, e)| k.len() as u64 + e.value.len() as u64 + ENTRY_BYTES).sum()
}

fn write(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let temporary = file.with_extension("store.new");
    let mut out =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    std::fs::rename(&temporary, file)?;
    std::fs::File::open(folder)?.sync_all()
}

fn encode(entries: &BTreeMap<String, Entry>) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    for (key, entry) in entries {
        // Keys and values are far below 4 GiB: MAX_KEY and MAX_BYTES.
        out.extend_from_slice(&(key.len() as u32).to_le_bytes());
        out.extend_from_slice(&(entry.value.len() as u32).to_le_bytes());
        out.extend_from_slice(&entry.until.unwrap_or(0).to_le_bytes());
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(&entry.value);
    }
    let sum = digest(&SHA256, &out);
    out.extend_from_slice(sum.as_ref());
    out
}

fn decode(bytes: &[u8]) -> Option<BTreeMap<String, Entry>> {
    let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(SHA256_OUTPUT_LEN)?)?;
    if digest(&SHA256, body).as_ref() != sum {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let mut entries = BTreeMap::new();
    while !rest.is_empty() {
        let (key_len, after) = rest.split_first_chunk::<4>()?;
        let (value_len, after) = after.split_first_chunk::<4>()?;
        let (until, after) = after.split_first_chunk::<8>()?;
        let (key, after) = after.split_at_checked(u32::from_le_bytes(*key_len) as usize)?;
        let (value, after) = after.split_at_checked(u32::from_le_bytes(*value_len) as usize)?;
        let until = Some(u64::from_le_bytes(*until)).filter(|u| *u != 0);
        entries.insert(std::str::from_utf8(key).ok()?.to_owned(), Entry { value: value.to_vec(), until });
        rest = after;
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id() -> PluginId {
        PluginId::new("p").unwrap()
    }

    fn set(key: &str, value: &[u8], ttl: Option<u64>) -> Request {
        Request::Set { key: key.to_owned(), value: value.to_vec(), ttl }
    }

    fn get(key: &str) -> Request {
        Request::Get { key: key.to_owned() }
    }

    #[tokio::test]
    async fn kept_over_a_restart_until_the_time_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let stores = Stores::new(folder.path().join("plugins"));
        assert_eq!(stores.call(&id(), 1000, 1, get("a")).await, Ok(Answer::Value(None)));
        stores.call(&id(), 1000, 1, set("a", b"1", None)).await.unwrap();
        stores.call(&id(), 1000, 1, set("ab", b"2", Some(1))).await.unwrap();
        stores.call(&id(), 1000, 1, set("b", b"3", None)).await.unwrap();
        let stores = Stores::new(folder.path().join("plugins"));
        let keys = |prefix: &str| Request::Keys { prefix: prefix.to_owned() };
        let list = |keys: &[&str]| Ok(Answer::Keys(keys.iter().map(|k| (*k).to_owned()).collect()));
        assert_eq!(stores.call(&id(), 1000, 1000, keys("a")).await, list(&["a", "ab"]));
        assert_eq!(stores.call(&id(), 1000, 1001, keys("a")).await, list(&["a"]));
        assert_eq!(stores.call(&id(), 1000, 1001, get("ab")).await, Ok(Answer::Value(None)));
        stores.call(&id(), 1000, 1, Request::Delete { key: "a".to_owned() }).await.unwrap();
        assert_eq!(stores.call(&id(), 1000, 1, get("a")).await, Ok(Answer::Value(None)));
        assert_eq!(
            stores.call(&id(), 1000, 1, get("b")).await,
            Ok(Answer::Value(Some(Octets(b"3".to_vec()))))
        );
    }

    #[tokio::test]
    async fn bounded() {
        let folder = tempfile::tempdir().unwrap();
        let stores = Stores::new(folder.path().to_owned());
        stores.call(&id(), 100, 1, set("a", &[0; 83], Some(1))).await.unwrap();
        assert!(matches!(stores.call(&id(), 100, 1, set("b", b"", None)).await, Err(Error::Full(_))));
        stores.call(&id(), 100, 5000, set("b", b"", None)).await.unwrap();
        assert!(stores.call(&id(), 1 << 30, 1, set(&"k".repeat(2000), b"", None)).await.is_err());
        let huge = vec![0; MAX_BYTES as usize];
        assert!(matches!(stores.call(&id(), u64::MAX, 1, set("h", &huge, None)).await, Err(Error::Full(_))));
    }

    #[tokio::test]
    async fn a_damaged_file_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let stores = Stores::new(folder.path().to_owned());
        stores.call(&id(), 1000, 1, set("a", b"1", None)).await.unwrap();
        let file = folder.path().join("p.store");
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[10] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        let stores = Stores::new(folder.path().to_owned());
        assert_eq!(stores.call(&id(), 1000, 1, get("a")).await, Ok(Answer::Value(None)));
        assert_eq!(stores.damaged(), 1);
        assert!(folder.path().join("p.store.damaged").exists());
        stores.call(&id(), 1000, 1, set("a", b"2", None)).await.unwrap();
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let stores = Stores::new(folder.path().join("file"));
        assert!(stores.call(&id(), 1000, 1, set("a", b"1", None)).await.is_err());
    }

    proptest! {
        #[test]
        fn the_file_holds_what_was_put_in(map in proptest::collection::btree_map(
            ".{0,20}",
            (proptest::collection::vec(any::<u8>(), 0..50), proptest::option::of(1u64..)),
            0..20,
        )) {
            let entries: BTreeMap<String, Entry> =
                map.into_iter().map(|(k, (value, until))| (k, Entry { value, until })).collect();
            prop_assert_eq!(decode(&encode(&entries)), Some(entries));
        }

        #[test]
        fn damage_is_seen(at in 0usize..100, bit in 0u8..8) {
            let entries = BTreeMap::from([("key".to_owned(), Entry { value: b"value".to_vec(), until: None })]);
            let mut bytes = encode(&entries);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(decode(&bytes), None);
        }

        #[test]
        fn foreign_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
