//! Another version of an action plugin takes the place of the one that runs, as the aggregator offers it.
//!
//! It is let in and loaded beside the one that runs, which stays where that fails. The place changes only while none of the
//! plugin's executions is open: what became of a step can be asked of the version alone that began it, also after a crash,
//! so the other version is not even written down as wanted before.

use picket_proto::model::PluginId;

use super::Actions;
use super::executor::ActionsOptions;
use super::let_in::let_in;
use crate::schedule::{RefusedVersion, TAKEN_BACK};
use crate::shelf::Which;
use crate::watch::Stamp;

/// Why another version was not taken; what ran before runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotTaken {
    /// An action of the plugin is under way: see [`Actions::quiet`].
    Busy,
    Refused(RefusedVersion),
}

impl Actions {
    /// Whether this is an action plugin that the operator wants here.
    pub fn has(&self, id: &PluginId) -> bool {
        self.book().planned(id).is_some()
    }

    /// Runs this version of a plugin, which the shelf has; none: what lies in the plugin folder, if anything does.
    ///
    /// # Errors
    /// [`NotTaken`]
    pub async fn take(&self, id: &PluginId, digest: Option<String>) -> Result<(), NotTaken> {
        let _one = self.inner.loading.lock().await;
        let ActionsOptions { loader, shelf, board, .. } = &self.inner.options;
        let Some(one) = self.book().planned(id).cloned() else {
            let reason = format!("no plugin {id} is configured on this node, or it is disabled");
            let code = "PKT-0102".to_owned();
            return Err(NotTaken::Refused(RefusedVersion { code, reason, ..RefusedVersion::default() }));
        };
        if self.is_busy(id) {
            return Err(NotTaken::Busy);
        }
        let brought = if digest.is_none() && !Stamp::of(&one.spec.file).is_there() {
            None
        } else {
            match let_in(&**loader, shelf, &one.spec, Which::Offered(digest.clone())).await {
                Ok(let_in) => Some(let_in),
                Err(told) => {
                    self.book().kept(id, &told, board);
                    return Err(NotTaken::Refused(told));
                }
            }
        };
        // From here on no action begins.
        let _door = self.inner.door.lock().await;
        if self.is_busy(id) {
            return Err(NotTaken::Busy);
        }
        let (shelf, spec) = (shelf.clone(), one.spec.clone());
        // Where it fails the file in the folder runs after the next start, as it would without a rollout.
        let _ = tokio::task::spawn_blocking(move || shelf.want(&spec, digest.as_deref())).await;
        match brought {
            Some(let_in) => self.install(one, let_in).await,
            None => self.book().removed(id, TAKEN_BACK, board),
        }
        self.publish();
        Ok(())
    }

    /// Ends when nothing of one of these plugins is under way.
    pub async fn quiet(&self, plugins: &[PluginId]) {
        let mut turns = self.inner.telemetry.subscribe();
        while plugins.iter().all(|id| self.is_busy(id)) {
            if turns.changed().await.is_err() {
                return;
            }
        }
    }

    /// An execution of it, or its undoing, is open.
    fn is_busy(&self, id: &PluginId) -> bool {
        let Some(Ok(journal)) = &self.inner.options.journal else { return false };
        journal.read(|known| known.open().any(|open| open.accepted.plugin == id.as_str()))
    }
}
