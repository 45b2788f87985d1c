//! What the plugin under test sees.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::commands::Commands;
use super::engine::Engine;
use super::gpu::{Kmsg, Snapshots};
use super::lines::Lines;
use super::sink::Sink;
use crate::files::{Entry, EntryKind, FileSystem, FilesError};
use crate::http::{HttpError, Request, Response};
use crate::log::Level;
use crate::store::StoreError;
use crate::system::{TimeZone, Uname};

pub(crate) type Answer = Rc<RefCell<dyn FnMut(&Request) -> Result<Response, HttpError>>>;

pub(crate) type UnixAnswer = Rc<RefCell<dyn FnMut(&str, &Request) -> Result<Response, HttpError>>>;

pub(crate) struct World {
    pub sink: Sink,
    pub root: Option<PathBuf>,
    pub files: BTreeMap<String, Result<Vec<u8>, FilesError>>,
    /// When files were changed that were given a time; the others at the clock's beginning.
    pub modified: BTreeMap<String, Duration>,
    pub links: BTreeMap<String, String>,
    pub file_systems: BTreeMap<String, Result<FileSystem, FilesError>>,
    /// None: this machine's.
    pub now: Option<Duration>,
    pub monotonic: Duration,
    start: Instant,
    pub seed: u64,
    pub uname: Option<Uname>,
    pub zone: TimeZone,
    pub http: Option<Answer>,
    pub unix_http: Option<UnixAnswer>,
    pub engine: Option<Engine>,
    pub nvml: Option<Snapshots>,
    pub kmsg: Kmsg,
    pub lines: Lines,
    pub commands: Commands,
    pub units: std::collections::BTreeMap<String, crate::systemd_control::Unit>,
    pub unit_changes: Vec<(String, crate::systemd_control::Verb)>,
    pub broken_units: Option<crate::systemd_control::SystemdError>,
    /// Files that may be deleted; the rule's pattern is taken as the beginning and the end around its stars.
    pub deletable: Vec<crate::files_write::Found>,
    pub bundles: std::collections::BTreeMap<String, Vec<u8>>,
    /// Effects are refused, as while an action plans.
    pub held: bool,
    pub store: Store,
    pub log: Vec<(Level, String)>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            sink: Sink::default(),
            root: None,
            files: BTreeMap::new(),
            modified: BTreeMap::new(),
            links: BTreeMap::new(),
            file_systems: BTreeMap::new(),
            now: Some(Duration::from_secs(1_767_225_600)),
            monotonic: Duration::from_secs(1000),
            start: Instant::now(),
            seed: 1,
            uname: None,
            zone: TimeZone { name: "UTC".to_owned(), offset_seconds: 0 },
            http: None,
            unix_http: None,
            engine: None,
            nvml: None,
            kmsg: Kmsg::default(),
            lines: Lines::default(),
            commands: Commands::default(),
            units: std::collections::BTreeMap::new(),
            unit_changes: Vec::new(),
            broken_units: None,
            deletable: Vec::new(),
            bundles: std::collections::BTreeMap::new(),
            held: false,
            store: Store::default(),
            log: Vec::new(),
        }
    }
}

impl World {
    pub fn advance(&mut self, by: Duration) {
        self.now = self.now.map(|now| now + by);
        self.monotonic += by;
    }

    pub fn now(&self) -> Duration {
        self.now.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    pub fn monotonic(&self) -> Duration {
        match self.now {
            Some(_) => self.monotonic,
            None => self.start.elapsed(),
        }
    }

    /// A splitmix64 of the seed: repeatable.
    pub fn random(&mut self, len: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len.min(4096) as usize {
            self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.seed;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            bytes.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
        }
        bytes.truncate(len as usize);
        bytes
    }

    pub fn uname(&self) -> Uname {
        if let Some(uname) = &self.uname {
            return uname.clone();
        }
        let u = rustix::system::uname();
        let text = |c: &std::ffi::CStr| c.to_string_lossy().into_owned();
        Uname {
            sysname: text(u.sysname()),
            nodename: text(u.nodename()),
            release: text(u.release()),
            version: text(u.version()),
            machine: text(u.machine()),
            domainname: text(u.domainname()),
        }
    }

    fn real(&self, path: &str) -> Option<PathBuf> {
        self.root.as_ref().map(|root| root.join(path.trim_start_matches('/')))
    }

    pub fn read(&self, path: &str) -> Result<Vec<u8>, FilesError> {
        if let Some(file) = self.files.get(path) {
            return file.clone();
        }
        match self.real(path) {
            Some(real) => std::fs::read(real).map_err(|e| error(path, &e)),
            None => Err(FilesError::NotFound(path.to_owned())),
        }
    }

    pub fn list(&self, path: &str) -> Result<Vec<Entry>, FilesError> {
        if let Some(Err(error)) = self.files.get(path) {
            return Err(error.clone());
        }
        let prefix = format!("{}/", path.trim_end_matches('/'));
        let mut found: BTreeMap<String, EntryKind> = BTreeMap::new();
        let files = self.files.keys().map(|p| (p, EntryKind::File));
        for (file, kind) in files.chain(self.links.keys().map(|p| (p, EntryKind::Link))) {
            let Some(rest) = file.strip_prefix(&prefix) else { continue };
            match rest.split_once('/') {
                Some((name, _)) => found.insert(name.to_owned(), EntryKind::Directory),
                None => found.insert(rest.to_owned(), kind),
            };
        }
        match self.real(path).map(std::fs::read_dir) {
            Some(Ok(entries)) => {
                for entry in entries.flatten() {
                    let kind = match entry.file_type() {
                        Ok(t) if t.is_file() => EntryKind::File,
                        Ok(t) if t.is_dir() => EntryKind::Directory,
                        Ok(t) if t.is_symlink() => EntryKind::Link,
                        _ => EntryKind::Other,
                    };
                    found.entry(entry.file_name().to_string_lossy().into_owned()).or_insert(kind);
                }
            }
            Some(Err(e)) if found.is_empty() => return Err(error(path, &e)),
            None if found.is_empty() => return Err(FilesError::NotFound(path.to_owned())),
            _ => {}
        }
        Ok(found.into_iter().map(|(name, kind)| Entry { name, kind }).collect())
    }

    pub fn link(&self, path: &str) -> Result<String, FilesError> {
        if let Some(target) = self.links.get(path) {
            return Ok(target.clone());
        }
        match self.real(path) {
            Some(real) => match std::fs::read_link(real) {
                Ok(target) => Ok(target.to_string_lossy().into_owned()),
                Err(e) => Err(error(path, &e)),
            },
            None => Err(FilesError::NotFound(path.to_owned())),
        }
    }

    pub fn modified(&self, path: &str) -> Result<u64, FilesError> {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if let Some(Err(error)) = self.files.get(path) {
            return Err(error.clone());
        }
        if let Some(time) = self.modified.get(path) {
            return Ok(nanoseconds(*time));
        }
        if self.files.contains_key(path) {
            return Ok(nanoseconds(Duration::from_secs(1_767_225_600)));
        }
        let Some(real) = self.real(path) else { return Err(FilesError::NotFound(path.to_owned())) };
        let time = std::fs::metadata(real).and_then(|m| m.modified()).map_err(|e| error(path, &e))?;
        Ok(nanoseconds(time.duration_since(UNIX_EPOCH).unwrap_or_default()))
    }

    pub fn stat(&self, path: &str) -> Result<FileSystem, FilesError> {
        if let Some(result) = self.file_systems.get(path) {
            return result.clone();
        }
        let Some(real) = self.real(path) else { return Err(FilesError::NotFound(path.to_owned())) };
        let s = rustix::fs::statvfs(real).map_err(|e| error(path, &e.into()))?;
        Ok(FileSystem {
            size_bytes: s.f_blocks * s.f_frsize,
            free_bytes: s.f_bfree * s.f_frsize,
            available_bytes: s.f_bavail * s.f_frsize,
            files: s.f_files,
            files_free: s.f_ffree,
            read_only: s.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        })
    }
}

fn error(path: &str, e: &std::io::Error) -> FilesError {
    use std::io::ErrorKind as K;
    match e.kind() {
        K::NotFound => FilesError::NotFound(path.to_owned()),
        K::PermissionDenied => FilesError::Io(format!("{path}: {e}")),
        K::IsADirectory | K::NotADirectory | K::InvalidInput => FilesError::WrongKind(path.to_owned()),
        K::TimedOut => FilesError::TimedOut(path.to_owned()),
        _ => FilesError::Io(format!("{path}: {e}")),
    }
}

pub(crate) struct Store {
    pub capacity: usize,
    values: BTreeMap<String, (Vec<u8>, Option<Duration>)>,
}

impl Default for Store {
    fn default() -> Self {
        Self { capacity: 64 << 10, values: BTreeMap::new() }
    }
}

impl Store {
    pub fn get(&mut self, key: &str, now: Duration) -> Option<Vec<u8>> {
        self.expire(now);
        self.values.get(key).map(|(value, _)| value.clone())
    }

    pub fn set(
        &mut self,
        key: &str,
        value: &[u8],
        ttl: Option<u64>,
        now: Duration,
    ) -> Result<(), StoreError> {
        self.expire(now);
        let others = self.values.iter().filter(|(k, _)| *k != key);
        let used: usize = others.map(|(k, (v, _))| k.len() + v.len()).sum();
        let wanted = used + key.len() + value.len();
        if wanted > self.capacity {
            return Err(StoreError::Full(format!("{wanted} bytes, {} are granted", self.capacity)));
        }
        let until = ttl.map(|seconds| now + Duration::from_secs(seconds));
        self.values.insert(key.to_owned(), (value.to_vec(), until));
        Ok(())
    }

    pub fn delete(&mut self, key: &str) {
        self.values.remove(key);
    }

    pub fn keys(&mut self, prefix: &str, now: Duration) -> Vec<String> {
        self.expire(now);
        self.values.keys().filter(|k| k.starts_with(prefix)).cloned().collect()
    }

    fn expire(&mut self, now: Duration) {
        self.values.retain(|_, (_, until)| until.is_none_or(|until| until > now));
    }
}
