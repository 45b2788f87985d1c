//! The node's policy about plugins, as it stands in its file now.
//!
//! A file that can't be read trusts nobody; one that was good and has a mistake now stays in force as it was, and that is said.
//! Without a file nobody is trusted, which is the default.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use picket_artifact::{Evidence, Policy, Subject, Verdict};
use picket_proto::model::PluginId;

use crate::config;
use crate::schedule::SourceError;

/// The `reason` of what is refused for want of trust.
pub const REASON: &str = "trust";

/// Shared by whoever loads plugins.
#[derive(Debug)]
pub struct Trust {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    settings: config::Trust,
    stamp: Stamp,
    policy: Arc<Policy>,
    /// Counts the policies that came into force.
    revision: u64,
    /// Why the file as it is now is not in force.
    trouble: Option<String>,
    /// A policy was read, or there is none: what is refused is refused by it.
    known: bool,
}

/// Tells whether a file is another one than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp(Option<(u64, u64, Option<SystemTime>)>);

impl Stamp {
    fn of(file: &Path) -> Self {
        let meta = std::fs::metadata(file).ok();
        Self(meta.map(|meta| (meta.ino(), meta.len(), meta.modified().ok())))
    }
}

impl Trust {
    /// Reads the policy. Blocks on the disk.
    pub fn open(settings: &config::Trust) -> Self {
        let state = State {
            settings: settings.clone(),
            stamp: Stamp(None),
            policy: Arc::default(),
            revision: 0,
            trouble: None,
            known: false,
        };
        let trust = Self { state: Mutex::new(state) };
        trust.read(settings.clone());
        trust
    }

    /// Reads the policy again, with settings that may have changed.
    pub fn reload(&self, settings: &config::Trust) {
        self.read(settings.clone());
    }

    /// Reads the policy again where its file is another one than it was.
    pub fn refresh(&self) {
        let (settings, stamp) = {
            let state = self.lock();
            (state.settings.clone(), state.stamp)
        };
        if Stamp::of(&settings.policy) != stamp {
            self.read(settings);
        }
    }

    fn read(&self, settings: config::Trust) {
        let stamp = Stamp::of(&settings.policy);
        let loaded = match std::fs::symlink_metadata(&settings.policy) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Policy::default()),
            _ => Policy::load(&settings.policy),
        };
        let mut state = self.lock();
        state.stamp = stamp;
        match loaded {
            Ok(policy) => {
                let policy = if settings.allow_unsigned { policy.allowing_unsigned() } else { policy };
                if !state.known || *state.policy != policy {
                    state.policy = Arc::new(policy);
                    state.revision += 1;
                }
                state.known = true;
                state.trouble = None;
            }
            Err(error) => {
                tracing::error!("the policy is not in force as it is now: {error}");
                state.trouble = Some(error.to_string());
                // The former one was of another file.
                if settings.policy != state.settings.policy {
                    state.policy = Arc::default();
                    state.known = false;
                    state.revision += 1;
                }
            }
        }
        state.settings = settings;
    }

    /// Another number: what was judged before may be judged otherwise now.
    pub fn revision(&self) -> u64 {
        self.lock().revision
    }

    /// Why the policy's file as it is now is not in force.
    pub fn trouble(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// The operator has said that plugins run unsigned.
    pub fn allows_unsigned(&self) -> bool {
        self.lock().settings.allow_unsigned
    }

    /// Whether these bytes may run as this plugin, and by whose word.
    ///
    /// # Errors
    /// Why not, for the operator.
    pub fn judge(&self, id: &PluginId, bytes: &[u8], evidence: &Evidence) -> Result<Verdict, SourceError> {
        let (policy, unusable, missing) = {
            let state = self.lock();
            let unusable = if state.known { None } else { state.trouble.clone() };
            let missing = state.stamp.0.is_none().then(|| state.settings.policy.clone());
            (state.policy.clone(), unusable, missing)
        };
        if let Some(why) = unusable {
            return Err(SourceError {
                code: "PKT-0017".to_owned(),
                message: format!(
                    "nobody is trusted, because the policy can't be read: {why}. Mend it, or trust.policy"
                ),
                reason: REASON,
            });
        }
        policy.judge(Subject { configured: Some(id), bytes, evidence }).map_err(|untrusted| SourceError {
            code: untrusted.code().to_owned(),
            message: match missing {
                Some(path) => format!(
                    "{untrusted}, and there is no policy at {} that would trust anybody. {}",
                    path.display(),
                    untrusted.advice()
                ),
                None => format!("{untrusted}. {}", untrusted.advice()),
            },
            reason: REASON,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl config::Trust {
    /// Every plugin runs, signed or not.
    pub fn of_anybody() -> Self {
        Self { policy: PathBuf::from("/nowhere/policy.toml"), allow_unsigned: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_changes_nothing_and_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let policy = dir.path().join("policy.toml");
        let settings = config::Trust { policy: policy.clone(), allow_unsigned: false };
        let id = PluginId::new("a").unwrap();
        let component = b"\0asm\x0d\0\x01\0";
        let code = |trust: &Trust| match trust.judge(&id, component, &Evidence::default()) {
            Ok(_) => "in".to_owned(),
            Err(error) => error.code,
        };
        let trust = Trust::open(&settings);
        assert_eq!((code(&trust).as_str(), trust.trouble()), ("PKT-0011", None));
        let first = trust.revision();
        std::fs::write(&policy, "policy = 1\n[default]\nallow_unsigned = true\n").unwrap();
        trust.refresh();
        assert_eq!((code(&trust).as_str(), trust.revision()), ("in", first + 1));
        trust.refresh();
        assert_eq!(trust.revision(), first + 1);
        std::fs::write(&policy, "policy = 1\n[defaults]\n").unwrap();
        trust.refresh();
        assert_eq!((code(&trust).as_str(), trust.revision()), ("in", first + 1));
        assert!(trust.trouble().unwrap().contains("defaults"));
        // From the start, nobody.
        let trust = Trust::open(&settings);
        assert_eq!(code(&trust), "PKT-0017");
        trust.reload(&config::Trust { policy: dir.path().into(), ..settings.clone() });
        assert_eq!(code(&trust), "PKT-0017");
        trust.reload(&config::Trust { policy: "/nowhere/p.toml".into(), ..settings.clone() });
        assert_eq!(code(&trust), "PKT-0011");
        trust.reload(&config::Trust::of_anybody());
        assert_eq!((code(&trust).as_str(), trust.trouble()), ("in", None));
    }
}
