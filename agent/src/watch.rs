//! Looks at the plugins' files twice a second, and tells their tasks what it sees.
//!
//! By asking, not by being told: what tells of changes (inotify) says nothing of a network's file system, loses what comes too
//! fast, and would need the asking beside it; and a few dozen questions cost a few dozen microseconds. A file is taken for
//! written once it has looked the same twice and was last changed a moment ago; one that is gone is gone at once. All that waits
//! for a disk happens on one thread, so that a disk that hangs stops the looking and nothing else.
//!
//! An operator's wishes come the same way, as files in the state folder: who may write there is who may roll back.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use picket_artifact::{SIGNATURE_SUFFIX, SIGSTORE_SUFFIX, beside};
use picket_proto::model::PluginId;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::schedule::{Schedule, Stray, Wish};
use crate::shelf::Shelf;

const LOOK_EVERY: Duration = Duration::from_millis(400);
/// A file that was changed so lately may still be written to.
const SETTLED_AFTER: Duration = Duration::from_millis(300);
/// Entries of the plugin folder that are looked at.
const MAX_ENTRIES: usize = 1_000;
/// Strays that are told.
const MAX_STRAYS: usize = 100;
/// Wishes that are taken at a time, and the longest one, in bytes.
const MAX_WISHES: usize = 16;
const MAX_WISH: u64 = 4096;
/// An answer that nobody fetched goes after this long.
const ANSWERS_KEPT: Duration = Duration::from_secs(60);

/// How a plugin's file looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Seen {
    #[default]
    Unknown,
    Gone,
    There {
        stamp: Stamp,
        /// Of the policy.
        revision: u64,
    },
}

/// Tells whether a file, or what vouches for it, is another one than before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Stamp([Option<Mark>; 3]);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Mark {
    inode: u64,
    len: u64,
    modified: Option<SystemTime>,
    changed: i64,
}

impl Mark {
    fn of(file: &Path) -> Option<Self> {
        let meta = std::fs::symlink_metadata(file).ok()?;
        let (inode, len, modified) = (meta.ino(), meta.len(), meta.modified().ok());
        Some(Self { inode, len, modified, changed: meta.ctime_nsec() ^ (meta.ctime() << 30) })
    }
}

impl Stamp {
    /// Blocks on the disk, for the time of three questions.
    pub fn of(file: &Path) -> Self {
        Self([
            Mark::of(file),
            Mark::of(&beside(file, SIGNATURE_SUFFIX)),
            Mark::of(&beside(file, SIGSTORE_SUFFIX)),
        ])
    }

    pub fn is_there(&self) -> bool {
        matches!(self.0, [Some(_), ..])
    }

    /// None of the files was changed just now.
    fn settled(&self, now: SystemTime) -> bool {
        self.0.iter().flatten().all(|mark| {
            // A time in the future is no reason to wait for it.
            mark.modified.is_none_or(|at| now.duration_since(at).map_or(true, |ago| ago >= SETTLED_AFTER))
        })
    }
}

/// What is looked at.
pub struct Watcher {
    pub schedule: Schedule,
    pub shelf: Arc<Shelf>,
    /// The plugin folder; a reload may name another one.
    pub folder: Arc<Mutex<PathBuf>>,
    pub state_dir: PathBuf,
}

/// A wish, as it lies in the state folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wished {
    pub plugin: String,
    pub wish: Wish,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub done: bool,
    pub message: String,
}

/// One look.
#[derive(Debug, Default)]
struct Look {
    stamps: BTreeMap<PluginId, Stamp>,
    strays: Vec<Stray>,
    wishes: Vec<(PathBuf, Result<Wished, String>)>,
    revision: u64,
}

impl Watcher {
    pub async fn run(self, stop: CancellationToken) {
        // The agent's own from the start: one that another user makes would be that user's.
        if let Err(error) = make_wishes_folder(&self.state_dir) {
            tracing::warn!("no wish of an operator is taken: {error}");
        }
        let mut before: HashMap<PluginId, Stamp> = HashMap::new();
        let mut strays = Vec::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let files = self.schedule.files().await;
            let folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let (shelf, wishes) = (self.shelf.clone(), wishes_folder(&self.state_dir));
            let looked = tokio::task::spawn_blocking(move || look(&files, &folder, &wishes, &shelf)).await;
            let Ok(look) = looked else { continue };
            let now = SystemTime::now();
            for (id, stamp) in &look.stamps {
                let known = before.insert(id.clone(), *stamp);
                if !stamp.is_there() {
                    self.schedule.see(id, Seen::Gone).await;
                } else if known == Some(*stamp) && stamp.settled(now) {
                    let seen = Seen::There { stamp: *stamp, revision: look.revision };
                    self.schedule.see(id, seen).await;
                }
            }
            before.retain(|id, _| look.stamps.contains_key(id));
            if look.strays != strays {
                tell(look.strays.iter().filter(|stray| !strays.contains(stray)));
                strays.clone_from(&look.strays);
                self.schedule.board().set_strays(look.strays);
            }
            for (file, wished) in look.wishes {
                let schedule = self.schedule.clone();
                tokio::spawn(async move {
                    let done = match wished {
                        Ok(Wished { plugin, wish }) => schedule.wish(&plugin, wish).await,
                        Err(why) => Err(why),
                    };
                    let answer = match done {
                        Ok(message) => Answer { done: true, message },
                        Err(message) => Answer { done: false, message },
                    };
                    answer.write(&file);
                });
            }
        }
    }
}

/// What is refused, each by itself; what merely isn't asked for, in one line: a package brings a folder full of those.
fn tell<'a>(strays: impl Iterator<Item = &'a Stray>) {
    let (refused, idle): (Vec<&Stray>, Vec<&Stray>) = strays.partition(|stray| stray.refused);
    for stray in refused {
        tracing::warn!(file = %stray.file.display(), code = stray.code, "{}", stray.reason);
    }
    match idle.as_slice() {
        [] => {}
        [one] => tracing::info!("{}", one.reason),
        many => {
            let names: Vec<_> = many.iter().filter_map(|stray| stray.file.file_name()?.to_str()).collect();
            tracing::info!(
                "{} plugins of the folder do not run, since the configuration names none of them: {}. \
                 `picket plugin grants FILE` says what one needs",
                many.len(),
                names.join(", ")
            );
        }
    }
}

impl Answer {
    fn write(&self, wish: &Path) {
        let file = wish.with_extension("answer");
        let written = serde_json::to_vec(self)
            .map_err(std::io::Error::from)
            .and_then(|bytes| std::fs::write(file.with_extension("new"), bytes))
            .and_then(|()| std::fs::rename(file.with_extension("new"), &file));
        if let Err(error) = written {
            tracing::warn!("{} cannot be written: {error}", file.display());
        }
    }
}

fn make_wishes_folder(state_dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(wishes_folder(state_dir))
}

/// Where wishes lie.
pub fn wishes_folder(state_dir: &Path) -> PathBuf {
    state_dir.join("wishes")
}

fn look(files: &[(PluginId, PathBuf)], folder: &Path, wishes: &Path, shelf: &Shelf) -> Look {
    shelf.trust().refresh();
    Look {
        stamps: files.iter().map(|(id, file)| (id.clone(), Stamp::of(file))).collect(),
        strays: strays(files, folder),
        wishes: take_wishes(wishes),
        revision: shelf.trust().revision(),
    }
}

/// Files of the folder that look like plugins and that nobody asked for.
fn strays(files: &[(PluginId, PathBuf)], folder: &Path) -> Vec<Stray> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut strays: Vec<Stray> = entries
        .take(MAX_ENTRIES)
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| !files.iter().any(|(_, file)| file == path))
        .filter_map(|path| stray(&path))
        .collect();
    strays.sort_by(|a, b| a.file.cmp(&b.file));
    strays.truncate(MAX_STRAYS);
    strays
}

fn stray(path: &Path) -> Option<Stray> {
    let shown = path.display();
    let stem = path.file_stem()?.to_string_lossy().into_owned();
    match path.extension()?.to_str()? {
        "cwasm" => Some(Stray {
            file: path.to_owned(),
            refused: true,
            code: "PKT-0007".to_owned(),
            reason: format!(
                "{shown} is refused: a compiled component (.cwasm) is native code. Drop the .wasm component, the agent compiles \
                 it itself and trusts no compiled file"
            ),
        }),
        "wasm" => Some(Stray {
            file: path.to_owned(),
            refused: false,
            code: String::new(),
            reason: format!(
                "{shown} does not run: no plugin of the configuration names it. See what it needs with `picket plugin grants \
                 {shown}` and write [plugins.{stem}]"
            ),
        }),
        _ => None,
    }
}

fn take_wishes(folder: &Path) -> Vec<(PathBuf, Result<Wished, String>)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut wishes = Vec::new();
    for path in entries.take(MAX_ENTRIES).filter_map(|entry| Some(entry.ok()?.path())) {
        match path.extension().and_then(|e| e.to_str()) {
            Some("wish") if wishes.len() < MAX_WISHES => {
                let wished = read_wish(&path);
                if std::fs::remove_file(&path).is_ok() {
                    wishes.push((path, wished));
                }
            }
            Some("answer" | "new") => {
                let age = path.metadata().and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok());
                if age.is_some_and(|age| age > ANSWERS_KEPT) {
                    let _ = std::fs::remove_file(&path);
                }
            }
            _ => {}
        }
    }
    wishes
}

fn read_wish(path: &Path) -> Result<Wished, String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_WISH).read_to_end(&mut bytes))
        .map_err(|e| format!("the wish cannot be read: {e}"))?;
    serde_json::from_slice(&bytes).map_err(|e| format!("the wish is not understood: {e}"))
}

/// Writes a wish down and waits for what comes of it.
///
/// # Errors
/// For the operator: nobody answered, or nothing was done.
pub async fn ask(state_dir: &Path, wished: &Wished, within: Duration) -> Result<String, String> {
    let folder = wishes_folder(state_dir);
    PluginId::check(&wished.plugin).map_err(|e| e.to_string())?;
    let name = format!("{}-{}", std::process::id(), wished.plugin);
    let (new, wish) = (folder.join(format!("{name}.part")), folder.join(format!("{name}.wish")));
    let answer = folder.join(format!("{name}.answer"));
    // Root's file, perhaps, which the agent's user is to read.
    let readable = std::fs::Permissions::from_mode(0o644);
    let written = make_wishes_folder(state_dir)
        .and_then(|()| serde_json::to_vec(wished).map_err(std::io::Error::from))
        .and_then(|bytes| std::fs::write(&new, bytes))
        .and_then(|()| std::fs::set_permissions(&new, readable))
        .and_then(|()| std::fs::rename(&new, &wish));
    written.map_err(|e| {
        format!("{} cannot be written: {e}; run this as the agent's user or as root", wish.display())
    })?;
    let deadline = tokio::time::Instant::now() + within;
    loop {
        if let Ok(bytes) = std::fs::read(&answer) {
            let _ = std::fs::remove_file(&answer);
            let answer: Answer = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
            return if answer.done { Ok(answer.message) } else { Err(answer.message) };
        }
        if tokio::time::Instant::now() >= deadline {
            let taken = std::fs::remove_file(&wish).is_err();
            return Err(if taken {
                "the agent took it and has not answered yet; see `picket-agent plugins`".to_owned()
            } else {
                "no agent took it: is it running with this state_dir?".to_owned()
            });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_shows() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.wasm");
        let mut stamps = vec![Stamp::of(&file)];
        assert!(!stamps[0].is_there());
        std::fs::write(&file, b"1").unwrap();
        stamps.push(Stamp::of(&file));
        std::fs::write(dir.path().join("a.wasm.sig"), b"1").unwrap();
        stamps.push(Stamp::of(&file));
        // The same length and, on a coarse clock, the same time: another file has another number.
        std::fs::write(dir.path().join("b"), b"2").unwrap();
        std::fs::rename(dir.path().join("b"), &file).unwrap();
        stamps.push(Stamp::of(&file));
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
        stamps.push(Stamp::of(&file));
        for (i, a) in stamps.iter().enumerate() {
            assert!(stamps.iter().skip(i + 1).all(|b| a != b), "{i}: {stamps:?}");
        }
        let written = stamps[1];
        assert!(!written.settled(SystemTime::now()));
        assert!(written.settled(SystemTime::now() + Duration::from_secs(1)));
        assert!(written.settled(SystemTime::now() - Duration::from_secs(60)));
    }

    #[test]
    fn strays_are_named() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.wasm", "b.wasm", "c.cwasm", "d.txt", "a.wasm.sig"] {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        let files = [(PluginId::new("a").unwrap(), dir.path().join("a.wasm"))];
        let found = strays(&files, dir.path());
        let said: Vec<_> = found.iter().map(|s| (s.refused, s.code.as_str())).collect();
        assert_eq!(said, [(false, ""), (true, "PKT-0007")]);
        assert!(found[0].reason.contains("[plugins.b]") && found[1].reason.contains("c.cwasm"));
        assert!(strays(&files, Path::new("/nowhere")).is_empty());
    }

    #[test]
    fn wishes_are_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let wished = Wished { plugin: "a".to_owned(), wish: Wish::RollBack };
        std::fs::write(dir.path().join("1.wish"), serde_json::to_vec(&wished).unwrap()).unwrap();
        std::fs::write(dir.path().join("2.wish"), b"{}").unwrap();
        std::fs::write(dir.path().join("3.part"), b"{}").unwrap();
        let mut taken = take_wishes(dir.path());
        taken.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(taken.len(), 2);
        assert_eq!(taken[0].1, Ok(wished));
        assert!(taken[1].1.as_ref().is_err_and(|why| why.contains("not understood")));
        assert!(take_wishes(dir.path()).is_empty());
    }
}
