//! The plugins' files that this node has let in: read once, judged, and kept by digest.
//!
//! A plugin is never loaded from where it was dropped: it is read from there, judged by the policy, and what was judged is
//! written to a folder of the agent's own (mode 0700), from where it is loaded. So nobody can change it in between, and the
//! version before is there when a new one turns out badly. Of each plugin the running version and the one before are kept,
//! whatever else goes when nobody uses it. All of it blocks on the disk.

mod records;

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use picket_artifact::{Digest, Evidence, MAX_COMPONENT_BYTES, Need};
use picket_proto::model::PluginId;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

pub use records::{Pin, Record};

use crate::schedule::{SourceError, SourceSpec};
use crate::trust::Trust;
use records::Records;

/// One version of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// SHA-256 of the component, hex.
    pub digest: String,
    /// Empty: the component has no manifest.
    pub version: String,
    /// Who vouches for it.
    pub signed_by: String,
}

/// What is to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// What the operator wants: what lies in the plugin folder, or what was rolled back to.
    Wanted,
    /// What was let in before, by its digest.
    Kept(String),
    /// What would be wanted if this version were; none: what lies in the plugin folder.
    Offered(Option<String>),
}

/// A file that was let in, held so that it is not cleared away.
#[derive(Debug)]
pub struct Staged {
    /// The wanted spec, with the agent's own copy as its file.
    pub spec: SourceSpec,
    pub version: Version,
    /// What its manifest asks for.
    pub needs: Vec<Need>,
    _hold: Arc<()>,
}

/// A file that was not let in.
#[derive(Debug, Clone)]
pub struct NotStaged {
    /// As far as it was read; else empty.
    pub digest: String,
    pub version: String,
    pub error: SourceError,
}

/// Cheap to share; all effects are behind one lock.
#[derive(Debug)]
pub struct Shelf {
    folder: PathBuf,
    trust: Arc<Trust>,
    records: Mutex<Records>,
    holds: Mutex<HashMap<String, Weak<()>>>,
    /// Held while a file is written.
    keeping: Mutex<()>,
    /// The digest that was last seen in the plugin folder, by plugin.
    seen: Mutex<HashMap<PluginId, String>>,
}

impl Shelf {
    /// In a folder below `state_dir`, or below `cache_dir` where that can't be written: then nothing outlives the agent.
    pub fn open(state_dir: &Path, cache_dir: &Path, trust: Arc<Trust>) -> Self {
        let wanted = state_dir.join("artifacts");
        let folder = match own_folder(&wanted) {
            Ok(()) => wanted,
            Err(error) => {
                tracing::warn!("{} can't be used: {error}; plugins are kept in the cache", wanted.display());
                cache_dir.join("artifacts")
            }
        };
        let records = Records::load(&folder.join("records.json"));
        let shelf = Self {
            folder,
            trust,
            records: Mutex::new(records),
            holds: Mutex::default(),
            keeping: Mutex::default(),
            seen: Mutex::default(),
        };
        shelf.clear();
        shelf
    }

    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Reads, judges and keeps.
    ///
    /// # Errors
    /// [`NotStaged`], for the operator.
    pub fn stage(&self, spec: &SourceSpec, which: &Which) -> Result<Staged, NotStaged> {
        match which {
            Which::Wanted => {
                let (bytes, evidence) = match read(&spec.file, true) {
                    Ok(read) => read,
                    Err(no) => {
                        // What a rollout brought needs no file in the folder.
                        let alone = if is_gone(&spec.file) { self.stands_alone(&spec.id) } else { None };
                        return match alone {
                            Some(digest) => self.stage(spec, &Which::Kept(digest)),
                            None => Err(no),
                        };
                    }
                };
                let digest = self.look(&spec.id, &bytes);
                // Before the match: its guard would be held to the end of it.
                let pinned = self.records().pinned(&spec.id, &digest);
                match pinned {
                    Some(pinned) => self.stage(spec, &Which::Kept(pinned)),
                    None => self.let_in(spec, &bytes, &evidence),
                }
            }
            Which::Kept(digest) => {
                let file = self.file(digest);
                let (bytes, evidence) = read(&file, false)?;
                let now = Digest::of(&bytes).to_string();
                if now != *digest {
                    let what = format!("{} is damaged: its digest is {now}", file.display());
                    return Err(refused(&now, "PKT-0004", what, "host"));
                }
                self.let_in(spec, &bytes, &evidence)
            }
            Which::Offered(Some(digest)) if !is_gone(&self.file(digest)) => {
                self.stage(spec, &Which::Kept(digest.clone()))
            }
            Which::Offered(digest) => {
                let (bytes, evidence) = read(&spec.file, true)?;
                let lies = self.look(&spec.id, &bytes);
                if digest.as_ref().is_some_and(|digest| *digest != lies) {
                    let what = "this version is not on the node any more".to_owned();
                    return Err(refused(digest.as_deref().unwrap_or_default(), "PKT-0103", what, "host"));
                }
                self.let_in(spec, &bytes, &evidence)
            }
        }
    }

    /// Remembers what lies in the plugin folder; gives its digest.
    fn look(&self, id: &PluginId, bytes: &[u8]) -> String {
        let digest = Digest::of(bytes).to_string();
        self.seen().insert(id.clone(), digest.clone());
        digest
    }

    fn let_in(&self, spec: &SourceSpec, bytes: &[u8], evidence: &Evidence) -> Result<Staged, NotStaged> {
        let digest = Digest::of(bytes).to_string();
        let verdict = self.trust.judge(&spec.id, bytes, evidence).map_err(|error| {
            let manifest = picket_artifact::manifest_bytes(bytes).ok().flatten();
            let version = manifest.and_then(|m| picket_artifact::Manifest::<Need>::parse(m).ok());
            NotStaged {
                digest: digest.clone(),
                version: version.map(|m| m.version).unwrap_or_default(),
                error,
            }
        })?;
        let version = Version {
            signed_by: verdict.signed_by(),
            version: verdict.manifest.as_ref().map(|m| m.version.clone()).unwrap_or_default(),
            digest: digest.clone(),
        };
        let quarantined = self.records().quarantined(&spec.id, &digest, &settings_of(spec));
        if let Some(why) = quarantined {
            let message = format!(
                "this version was quarantined: {why}. Replace it, change its settings or limits, or try it again: \
                 picket-agent plugins release {}",
                spec.id
            );
            let error = SourceError { code: "PKT-0081".to_owned(), message, reason: "quarantined" };
            return Err(NotStaged { digest, version: version.version, error });
        }
        let hold = self.hold(&digest);
        let file = self.keep(&digest, bytes, evidence).map_err(|error| {
            let what = format!("{} can't be written: {error}", self.folder.display());
            refused(&digest, "PKT-0019", what, "host")
        })?;
        Ok(Staged {
            spec: SourceSpec { file, ..spec.clone() },
            version,
            needs: verdict.manifest.map(|m| m.needs).unwrap_or_default(),
            _hold: hold,
        })
    }

    /// This version runs now.
    pub fn adopted(&self, id: &PluginId, version: &Version) {
        self.records().adopt(id, version);
        self.clear();
    }

    /// This version, with these settings, failed too often.
    pub fn quarantine(&self, spec: &SourceSpec, digest: &str, why: &str) {
        self.records().quarantine(&spec.id, digest, &settings_of(spec), why);
    }

    /// Forgets the quarantines of a plugin. False: there was none.
    pub fn release(&self, id: &PluginId) -> bool {
        self.records().release(id)
    }

    /// From now on the version before is wanted, until another file lies in the plugin folder. Gives the pin that was.
    ///
    /// # Errors
    /// There is none.
    pub fn roll_back(&self, spec: &SourceSpec) -> Result<Option<Pin>, String> {
        let id = &spec.id;
        let over = self.over(spec);
        let mut records = self.records();
        let Some(previous) = records.of(id).previous else {
            return Err(format!("no version of {id} from before the running one is kept"));
        };
        match over {
            Some(over) => Ok(records.pin(id, Some(Pin { digest: previous.digest, over, central: false }))),
            None => Err(format!("the file of {id} was never read; there is nothing to roll back")),
        }
    }

    /// From now on this version is wanted, as the aggregator offers it, until another file lies in the plugin folder; none:
    /// what lies there is. Gives the pin that was.
    pub fn want(&self, spec: &SourceSpec, digest: Option<&str>) -> Option<Pin> {
        let over = self.over(spec).unwrap_or_default();
        let pin = digest.map(|digest| Pin { digest: digest.to_owned(), over, central: true });
        self.records().pin(&spec.id, pin)
    }

    /// The pin that was is in force again.
    pub fn restore(&self, id: &PluginId, pin: Option<Pin>) {
        self.records().pin(id, pin);
    }

    /// What runs though no file lies in the plugin folder, because a rollout brought it.
    pub fn stands_alone(&self, id: &PluginId) -> Option<String> {
        self.records().pinned(id, "")
    }

    /// The digest of what lies in the plugin folder; empty: nothing does. None: it was not read yet.
    fn over(&self, spec: &SourceSpec) -> Option<String> {
        if is_gone(&spec.file) { Some(String::new()) } else { self.seen().get(&spec.id).cloned() }
    }

    /// Whether this version lies in the plugin folder.
    pub fn lies(&self, id: &PluginId, digest: &str) -> bool {
        self.seen().get(id).is_some_and(|seen| seen == digest)
    }

    /// A version that is kept. Blocks on the disk.
    pub fn kept(&self, digest: &str) -> Option<Vec<u8>> {
        let bytes = std::fs::read(self.file(digest)).ok()?;
        (Digest::of(&bytes).to_string() == digest).then_some(bytes)
    }

    /// Judges what was brought and keeps it, for as long as what is given is held. Blocks on the disk.
    ///
    /// # Errors
    /// [`NotStaged`], for the operator.
    pub fn receive(&self, id: &PluginId, bytes: &[u8], evidence: &Evidence) -> Result<Arc<()>, NotStaged> {
        let digest = Digest::of(bytes).to_string();
        // By the policy as it is now, not as it was at the last look.
        self.trust.refresh();
        self.trust.judge(id, bytes, evidence).map_err(|error| NotStaged {
            digest: digest.clone(),
            version: String::new(),
            error,
        })?;
        let hold = self.hold(&digest);
        self.keep(&digest, bytes, evidence).map_err(|error| {
            let what = format!("{} can't be written: {error}", self.folder.display());
            refused(&digest, "PKT-0019", what, "host")
        })?;
        Ok(hold)
    }

    /// Where what is being brought is put together.
    pub fn incoming(&self) -> PathBuf {
        self.folder.join("incoming")
    }

    pub fn record(&self, id: &PluginId) -> Record {
        self.records().of(id)
    }

    fn file(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{digest}.wasm"))
    }

    fn hold(&self, digest: &str) -> Arc<()> {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = holds.get(digest).and_then(Weak::upgrade) {
            return held;
        }
        let hold = Arc::new(());
        holds.insert(digest.to_owned(), Arc::downgrade(&hold));
        hold
    }

    fn keep(&self, digest: &str, bytes: &[u8], evidence: &Evidence) -> std::io::Result<PathBuf> {
        // Two plugins may be of one file.
        let _one = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        own_folder(&self.folder)?;
        let file = self.file(digest);
        evidence.keep(&file, bytes)?;
        Ok(file)
    }

    /// Removes what no record and no load needs.
    fn clear(&self) {
        let needed = self.records().digests();
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.retain(|_, hold| hold.strong_count() > 0);
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((digest, rest)) = name.split_once('.') else { continue };
            if rest.starts_with("wasm") && !needed.contains(digest) && !holds.contains_key(digest) {
                // What stays is tried again the next time.
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    fn records(&self) -> std::sync::MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, HashMap<PluginId, String>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether what lies in the plugin folder would be let in; keeps nothing.
///
/// # Errors
/// [`NotStaged`], for the operator.
pub fn judge(trust: &Trust, spec: &SourceSpec) -> Result<(), NotStaged> {
    let (bytes, evidence) = read(&spec.file, true)?;
    let judged = trust.judge(&spec.id, &bytes, &evidence);
    judged.map(|_| ()).map_err(|error| NotStaged { digest: String::new(), version: String::new(), error })
}

/// What a quarantine depends on beside the digest.
fn settings_of(spec: &SourceSpec) -> String {
    let text = format!("{} {:?} {:?}", spec.settings, spec.grants, spec.limits);
    Digest::of(text.as_bytes()).short()
}

fn refused(digest: &str, code: &str, message: String, reason: &'static str) -> NotStaged {
    NotStaged {
        digest: digest.to_owned(),
        version: String::new(),
        error: SourceError { code: code.to_owned(), message, reason },
    }
}

/// A component and what vouches for it. `foreign`: it was dropped there, by whomever.
fn read(path: &Path, foreign: bool) -> Result<(Vec<u8>, Evidence), NotStaged> {
    let shown = path.display();
    if foreign && path.extension().is_some_and(|e| e == "cwasm") {
        let what = format!(
            "{shown} is a compiled component (.cwasm), which is native code: give the agent the .wasm component, it \
             compiles plugins itself and trusts no compiled file"
        );
        return Err(refused("", "PKT-0007", what, "plugin"));
    }
    let unreadable = |e: std::io::Error| {
        refused(
            "",
            "PKT-0001",
            format!(
                "{shown} cannot be read: {e}. Check that it exists and that the agent's user may read it"
            ),
            "host",
        )
    };
    let meta = std::fs::symlink_metadata(path).map_err(unreadable)?;
    if meta.file_type().is_symlink() {
        let what = format!(
            "{shown} is a symbolic link: what it leads to can be another file a moment later. Copy the file itself there"
        );
        return Err(refused("", "PKT-0018", what, "host"));
    }
    // A pipe would block, and a device never end.
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits()).unwrap_or(0);
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(unreadable(std::io::Error::other("it is not a regular file")));
    }
    let mut bytes = Vec::new();
    file.take(MAX_COMPONENT_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_COMPONENT_BYTES {
        let what = format!(
            "{shown} is larger than {MAX_COMPONENT_BYTES} bytes. Strip the component's debug information"
        );
        return Err(refused("", "PKT-0002", what, "limit"));
    }
    let evidence = Evidence::beside(path).map_err(|e| {
        let digest = Digest::of(&bytes).to_string();
        refused(&digest, "PKT-0014", format!("what vouches for it cannot be read: {e}"), "trust")
    })?;
    Ok((bytes, evidence))
}

fn is_gone(file: &Path) -> bool {
    matches!(file.symlink_metadata(), Err(e) if e.kind() == std::io::ErrorKind::NotFound)
}

/// A folder that this user alone may enter, made where it is not there.
pub(crate) fn own_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let meta = std::fs::symlink_metadata(folder)?;
    if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o077 != 0 {
        let why = "it must be a folder of the agent's user with mode 0700: what lies in it was let in";
        return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, why));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
