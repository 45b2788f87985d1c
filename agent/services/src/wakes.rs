//! A plugin may be collected from before its time: when something happened that it should tell at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use picket_proto::model::PluginId;
use tokio::sync::Notify;

/// Who is to be woken. Cheap to clone; all clones are the same. Wakes that nobody has taken yet are one.
#[derive(Debug, Clone, Default)]
pub struct Wakes(Arc<Mutex<BTreeMap<PluginId, Arc<Notify>>>>);

impl Wakes {
    /// What the one who collects from the plugin waits on.
    pub fn of(&self, plugin: &PluginId) -> Arc<Notify> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(plugin.clone()).or_default().clone()
    }

    /// The plugin is no more.
    pub fn forget(&self, plugin: &PluginId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(plugin);
    }

    /// Does nothing where nobody collects from the plugin.
    pub fn wake(&self, plugin: &PluginId) {
        if let Some(notify) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(plugin) {
            notify.notify_one();
        }
    }
}
