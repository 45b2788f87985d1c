//! One loaded plugin: its instance, its restarts, its calls.

use std::path::PathBuf;
use std::time::Duration;

use picket_agent_services::grants::Scope;
use picket_proto::model::{Family, PluginId};
use tokio::time::Instant;

use crate::limits::Limits;
use crate::sink::SampleSink;
use crate::{ControlError, PluginError};

/// What the operator wants loaded.
#[derive(Debug, Clone)]
pub struct PluginSpec {
    /// The name in the operator's config; the manifest's own id is [`PluginInfo::name`].
    pub id: PluginId,
    pub file: PathBuf,
    /// A JSON object; `null` counts as an empty one.
    pub settings: serde_json::Value,
    pub grants: Vec<Scope>,
    pub limits: Limits,
}

/// What is known of a loaded plugin.
#[derive(Debug, Clone)]
pub struct PluginInfo {
    pub id: PluginId,
    /// The manifest's id; the file's name where there is no manifest.
    pub name: String,
    /// Empty where there is no manifest.
    pub version: String,
    /// SHA-256 of the component file, hex.
    pub digest: String,
    pub world: String,
    pub description: String,
    /// It exports `control`.
    pub controllable: bool,
    /// What it described.
    pub families: Vec<Family>,
    /// The limits in force.
    pub limits: Limits,
}

/// How a plugin is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PluginState {
    Running,
    /// It failed and is started again by the first call after `until`.
    BackingOff { until: Instant, reason: String },
    /// It failed too often and is left alone until [`Plugin::set_settings`] or [`Plugin::release`].
    Quarantined { reason: String },
}

impl PluginState {
    /// The word in metrics and APIs.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::BackingOff { .. } => "backing-off",
            Self::Quarantined { .. } => "quarantined",
        }
    }
}

/// What one collect cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CollectStats {
    /// Points handed to the sink.
    pub points: u64,
    /// Series registered at the end of the call.
    pub series: u64,
    /// CPU time of the guest and of the host calls that it waited for on its thread.
    pub guest_time: Duration,
    pub wall: Duration,
    /// Linear memory of the instance, in bytes.
    pub memory: u64,
}

/// A loaded plugin. One task owns it; it makes one call at a time.
#[derive(Debug)]
pub struct Plugin {
    info: PluginInfo,
    state: PluginState,
}

impl Plugin {
    pub const fn info(&self) -> &PluginInfo {
        &self.info
    }

    pub fn state(&self) -> PluginState {
        self.state.clone()
    }

    /// One reading, handed to `sink`, also when the call fails midway. A plugin that is backing off or quarantined is
    /// not entered: the answer is PKT-0080 or PKT-0081.
    ///
    /// # Errors
    /// [`PluginError`]
    pub async fn collect(&mut self, sink: &mut dyn SampleSink) -> Result<CollectStats, PluginError> {
        let _ = sink;
        Ok(CollectStats::default())
    }

    /// A JSON Schema of what [`Self::control_set`] takes.
    ///
    /// # Errors
    /// [`ControlError`]
    pub async fn control_schema(&mut self) -> Result<String, ControlError> {
        Err(ControlError::NotControllable(self.info.id.clone()))
    }

    /// The settings in force, as JSON.
    ///
    /// # Errors
    /// [`ControlError`]
    pub async fn control_get(&mut self) -> Result<String, ControlError> {
        Err(ControlError::NotControllable(self.info.id.clone()))
    }

    /// Applies settings, all or nothing, and returns those in force.
    ///
    /// # Errors
    /// [`ControlError`]
    pub async fn control_set(&mut self, json: &str) -> Result<String, ControlError> {
        let _ = json;
        Err(ControlError::NotControllable(self.info.id.clone()))
    }

    /// Replaces the plugin's own settings: a fresh instance is configured with them. On an error the old ones stay in force.
    ///
    /// # Errors
    /// [`PluginError`]
    pub async fn set_settings(&mut self, settings: serde_json::Value) -> Result<(), PluginError> {
        let _ = settings;
        Ok(())
    }

    /// Ends a quarantine or a back-off: the next call starts the plugin anew, with a full budget of restarts.
    pub fn release(&mut self) {
        self.state = PluginState::Running;
    }
}
