//! What is remembered of each plugin's versions, in one small file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use picket_artifact::replace;
use picket_proto::model::PluginId;
use serde::{Deserialize, Serialize};

use super::Version;

/// Versions of one plugin that are remembered as quarantined.
const MAX_QUARANTINED: usize = 8;

/// Of one plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// The version that last came to run.
    pub current: Option<Version>,
    /// The one that ran before it.
    pub previous: Option<Version>,
    /// What was rolled back to, or was brought by a rollout.
    pub pin: Option<Pin>,
    quarantined: Vec<Quarantined>,
}

/// Holds for as long as the same file lies in the plugin folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// What runs.
    pub digest: String,
    /// What lies in the folder; empty: nothing does.
    pub over: String,
    /// It came by way of the aggregator; else somebody rolled back to it here.
    #[serde(default)]
    pub central: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Quarantined {
    digest: String,
    /// With other settings it is tried again.
    settings: String,
    why: String,
}

#[derive(Debug)]
pub(super) struct Records {
    file: PathBuf,
    plugins: BTreeMap<String, Record>,
}

impl Records {
    /// A file that can't be read counts as an empty one: then there is nothing to roll back to.
    pub fn load(file: &Path) -> Self {
        let plugins = match std::fs::read(file) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!("{} is damaged and is begun anew: {error}", file.display());
                BTreeMap::new()
            }),
            Err(_) => BTreeMap::new(),
        };
        Self { file: file.to_owned(), plugins }
    }

    pub fn of(&self, id: &PluginId) -> Record {
        self.plugins.get(id.as_str()).cloned().unwrap_or_default()
    }

    pub fn pinned(&self, id: &PluginId, seen: &str) -> Option<String> {
        let pin = self.plugins.get(id.as_str())?.pin.as_ref()?;
        (pin.over == seen).then(|| pin.digest.clone())
    }

    pub fn quarantined(&self, id: &PluginId, digest: &str, settings: &str) -> Option<String> {
        let list = &self.plugins.get(id.as_str())?.quarantined;
        list.iter().find(|q| q.digest == digest && q.settings == settings).map(|q| q.why.clone())
    }

    pub fn adopt(&mut self, id: &PluginId, version: &Version) {
        self.change(id, |record| {
            match &record.current {
                Some(current) if current.digest == version.digest => {}
                _ => record.previous = record.current.take(),
            }
            record.current = Some(version.clone());
            if record.pin.as_ref().is_some_and(|pin| pin.digest != version.digest) {
                record.pin = None;
            }
        });
    }

    /// Gives the pin that was.
    pub fn pin(&mut self, id: &PluginId, pin: Option<Pin>) -> Option<Pin> {
        // To what lies in the folder itself no pin is needed.
        let pin = pin.filter(|pin| pin.digest != pin.over);
        let before = self.of(id).pin;
        self.change(id, |record| record.pin = pin);
        before
    }

    pub fn quarantine(&mut self, id: &PluginId, digest: &str, settings: &str, why: &str) {
        self.change(id, |record| {
            record.quarantined.retain(|q| q.digest != digest || q.settings != settings);
            record.quarantined.push(Quarantined {
                digest: digest.to_owned(),
                settings: settings.to_owned(),
                why: why.to_owned(),
            });
            let surplus = record.quarantined.len().saturating_sub(MAX_QUARANTINED);
            record.quarantined.drain(..surplus);
        });
    }

    pub fn release(&mut self, id: &PluginId) -> bool {
        let any = self.plugins.get(id.as_str()).is_some_and(|record| !record.quarantined.is_empty());
        if any {
            self.change(id, |record| record.quarantined.clear());
        }
        any
    }

    /// All that are needed.
    pub fn digests(&self) -> BTreeSet<String> {
        let versions = self.plugins.values().flat_map(|record| [&record.current, &record.previous]);
        let kept = versions.flatten().map(|version| version.digest.clone());
        let pinned = self.plugins.values().filter_map(|r| r.pin.as_ref()).map(|pin| pin.digest.clone());
        kept.chain(pinned).collect()
    }

    fn change(&mut self, id: &PluginId, change: impl FnOnce(&mut Record)) {
        let record = self.plugins.entry(id.as_str().to_owned()).or_default();
        let before = record.clone();
        change(record);
        if *record == before {
            return;
        }
        let kept = serde_json::to_vec_pretty(&self.plugins)
            .map_err(std::io::Error::from)
            .and_then(|bytes| replace(&self.file, &bytes));
        if let Err(error) = kept {
            tracing::warn!("{error}; what runs now can't be rolled back after a restart");
        }
    }
}
