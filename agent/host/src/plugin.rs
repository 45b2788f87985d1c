//! One loaded plugin: its instance, its restarts, its calls.
//!
//! The instance stays warm between collects: what it registered lives in it. It is replaced after a failure, after a
//! number of collects, and when it has given out too many numbers. A failure costs one of the restarts; between them
//! the wait doubles; with none left the plugin is quarantined and says so. Time without failure gives the budget back.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use picket_agent_services::grants::Scope;
use picket_proto::model::{Family, PluginId};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::body::{Body, Seat};
use crate::call::{Call, Returned, Stopped};
use crate::desk::{Desk, Setting};
use crate::error::codes;
use crate::fault::stopped;
use crate::limits::Limits;
use crate::readings::Refused;
use crate::sink::SampleSink;
use crate::{ControlError, Phase, PluginError};

/// The longest wait before a restart.
const MAX_BACK_OFF: Duration = Duration::from_secs(60);
/// The most bytes of settings, of the operator's or of `control.set`.
const MAX_SETTINGS: usize = 1 << 20;
/// What is kept of an error's text that a plugin wrote, in bytes.
const MAX_TEXT: usize = 1024;

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
    pub isolation: Isolation,
}

/// Which plugins a plugin shares its process with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// All others that say nothing else: one process is little memory.
    #[default]
    Shared,
    /// None.
    Own,
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
    /// What it described and declared so far.
    pub families: Vec<Family>,
    /// The limits in force.
    pub limits: Limits,
    /// The manifest's JSON Schema of the settings.
    pub settings_schema: Option<serde_json::Value>,
}

/// How a plugin is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PluginState {
    Running,
    /// It failed and is started again by the first call after `until`.
    BackingOff {
        until: Instant,
        reason: String,
    },
    /// It failed too often and is left alone until [`Plugin::set_settings`] or [`Plugin::release`].
    Quarantined {
        reason: String,
    },
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
    /// CPU time of the guest and of the host calls done on its thread.
    pub guest_time: Duration,
    pub wall: Duration,
    /// Linear memory of the instance, in bytes.
    pub memory: u64,
    /// Of the call's time that in which it neither ran nor was answered: it waited for its turn.
    pub waited: Duration,
}

/// A loaded plugin. One task owns it; it makes one call at a time. A call that is dropped midway ends the instance; the
/// next call begins with a fresh one.
pub struct Plugin {
    info: PluginInfo,
    seat: Box<dyn Seat>,
    setting: Setting,
    /// The operator's settings as JSON.
    settings: String,
    state: PluginState,
    /// Failures since the last healthy time.
    failures: u32,
    last_failure: Option<Instant>,
    /// Its process ended while it ran, perhaps by its doing: it runs away from others until it has been healthy.
    suspect: bool,
    instance: Option<Running>,
    /// Collects of this instance.
    collects: u32,
}

/// An instance and what answers it.
struct Running {
    body: Box<dyn Body>,
    desk: Desk,
}

impl Running {
    async fn enter(&mut self, call: Call) -> Result<Returned, Stopped> {
        let _ended = self.desk.call();
        self.body.enter(call, &mut self.desk).await
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("info", &self.info).field("state", &self.state).finish_non_exhaustive()
    }
}

/// Numbers instances over the whole process, so that a generation never comes twice.
static GENERATION: AtomicU64 = AtomicU64::new(1);

impl Plugin {
    /// Starts the first instance.
    pub(crate) async fn start(
        info: PluginInfo,
        seat: Box<dyn Seat>,
        setting: Setting,
        settings: &serde_json::Value,
    ) -> Result<Self, PluginError> {
        let mut plugin = Self {
            info,
            seat,
            setting,
            settings: String::new(),
            state: PluginState::Running,
            failures: 0,
            last_failure: None,
            suspect: false,
            instance: None,
            collects: 0,
        };
        plugin.settings = plugin.settings_text(settings)?;
        let instance = match plugin.fresh(plugin.settings.clone()).await {
            // Perhaps by another plugin's doing: tried once more, away from all others.
            Err(error) if plugin.suspect => {
                tracing::warn!(plugin = %plugin.setting.plugin, "the first start is tried again: {error}");
                plugin.fresh(plugin.settings.clone()).await?
            }
            other => other?,
        };
        plugin.adopt(instance);
        Ok(plugin)
    }

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
    /// [`PluginError`]. PKT-0069 (the source's own error) leaves the instance running and costs no restart.
    pub async fn collect(&mut self, sink: &mut dyn SampleSink) -> Result<CollectStats, PluginError> {
        let begin = Instant::now();
        let mut instance = self.ready(Phase::Collect).await?;
        instance.desk.begin_collect(sink.log_room());
        let entered = Instant::now();
        let returned = instance.enter(Call::Collect).await;
        let call = entered.elapsed();
        let points = instance.desk.readings.hand_over(&self.setting.plugin, sink);
        let (cost, wall) = (instance.body.cost(), begin.elapsed());
        let stats = CollectStats {
            points,
            series: instance.desk.readings.series() as u64,
            // The word of another process, perhaps: never more than can be.
            guest_time: cost.guest_time.min(wall),
            waited: call.saturating_sub(cost.guest_time).saturating_sub(instance.desk.answered),
            wall,
            memory: cost.memory.min(self.setting.limits.memory),
        };
        match returned {
            Ok(Returned::Done(Ok(()))) => {
                if let Err(why) = instance.desk.hand_over_lines(sink).await {
                    sink.fail("lines", &why);
                }
                self.keep(instance);
                Ok(stats)
            }
            Ok(Returned::Done(Err((reason, message)))) => {
                let (reason, message) = (text(&reason), text(&message));
                // Through the same bounds as the plugin's own `fail`.
                instance.desk.readings.fail(&reason, &message);
                instance.desk.readings.hand_over(&self.setting.plugin, sink);
                self.keep(instance);
                Err(self.error(Phase::Collect, &codes::SOURCE, format!("{reason}: {message}")))
            }
            Ok(_) => Err(self.error(Phase::Collect, &codes::HOST, "another call's answer")),
            Err(end) => {
                let error = self.stopped(Phase::Collect, end);
                Err(self.failed(error))
            }
        }
    }

    /// A JSON Schema of what [`Self::control_set`] takes.
    ///
    /// # Errors
    /// [`ControlError`]
    pub async fn control_schema(&mut self) -> Result<String, ControlError> {
        self.control_text(Call::ControlSchema).await
    }

    /// The settings in force, as JSON.
    ///
    /// # Errors
    /// [`ControlError`]
    pub async fn control_get(&mut self) -> Result<String, ControlError> {
        self.control_text(Call::ControlGet).await
    }

    /// Applies settings, all or nothing, and returns those in force. They hold for as long as the instance does: after a
    /// restart the plugin begins with its own again.
    ///
    /// # Errors
    /// [`ControlError`]
    pub async fn control_set(&mut self, json: &str) -> Result<String, ControlError> {
        if json.len() > MAX_SETTINGS {
            return Err(ControlError::Refused(vec![format!("at most {MAX_SETTINGS} bytes of settings")]));
        }
        match self.control(Call::ControlSet(json.to_owned())).await? {
            Returned::Set(Ok(text)) => bounded(text).map_err(|m| self.told_too_much(m)),
            Returned::Set(Err(lines)) => {
                Err(ControlError::Refused(lines.iter().take(100).map(|l| text(l)).collect()))
            }
            _ => Err(self.error(Phase::Control, &codes::HOST, "another call's answer").into()),
        }
    }

    /// Replaces the plugin's own settings: a fresh instance is configured with them. On an error the old instance and
    /// the old settings stay in force. Ends a quarantine.
    ///
    /// # Errors
    /// [`PluginError`]
    pub async fn set_settings(&mut self, settings: serde_json::Value) -> Result<(), PluginError> {
        let text = self.settings_text(&settings)?;
        let instance = self.fresh(text.clone()).await?;
        self.settings = text;
        self.release();
        self.adopt(instance);
        Ok(())
    }

    /// Ends a quarantine or a back-off: the next call starts the plugin anew, with a full budget of restarts.
    pub fn release(&mut self) {
        self.state = PluginState::Running;
        self.failures = 0;
        self.last_failure = None;
    }

    async fn control_text(&mut self, call: Call) -> Result<String, ControlError> {
        match self.control(call).await? {
            Returned::Text(text) => bounded(text).map_err(|m| self.told_too_much(m)),
            _ => Err(self.error(Phase::Control, &codes::HOST, "another call's answer").into()),
        }
    }

    async fn control(&mut self, call: Call) -> Result<Returned, ControlError> {
        if !self.info.controllable {
            return Err(ControlError::NotControllable(self.info.id.clone()));
        }
        let mut instance = self.ready(Phase::Control).await?;
        match instance.enter(call).await {
            Ok(returned) => {
                self.instance = Some(instance);
                Ok(returned)
            }
            Err(end) => {
                let error = self.stopped(Phase::Control, end);
                Err(self.failed(error).into())
            }
        }
    }

    /// The instance, taken out: whoever does not put it back has dropped it.
    async fn ready(&mut self, phase: Phase) -> Result<Running, PluginError> {
        match &self.state {
            PluginState::Quarantined { reason } => {
                let message =
                    format!("it is quarantined after {} failures, the last: {reason}", self.failures);
                return Err(self.error(phase, &codes::QUARANTINED, message));
            }
            PluginState::BackingOff { until, reason } if Instant::now() < *until => {
                let wait = until.saturating_duration_since(Instant::now());
                let message = format!("it starts again in {:.1} s after: {reason}", wait.as_secs_f64());
                return Err(self.error(phase, &codes::BACKING_OFF, message));
            }
            PluginState::BackingOff { .. } | PluginState::Running => {}
        }
        if let Some(instance) = self.instance.take() {
            if instance.body.alive() {
                return Ok(instance);
            }
            // Not while it was entered: it has no part in that, and pays nothing for it.
            tracing::info!(plugin = %self.setting.plugin, "the process that held the plugin ended: it is started in another");
        }
        match self.fresh(self.settings.clone()).await {
            Ok(instance) => {
                self.adopt(instance);
                self.state = PluginState::Running;
                self.instance.take().ok_or_else(|| self.error(phase, &codes::HOST, "the instance is gone"))
            }
            Err(e) => Err(self.failed(e)),
        }
    }

    /// A new instance, described and configured.
    async fn fresh(&mut self, settings: String) -> Result<Running, PluginError> {
        let generation = GENERATION.fetch_add(1, Ordering::Relaxed);
        let mut desk = Desk::new(&self.setting, generation);
        let made = {
            let _ended = desk.call();
            self.seat.make(&mut desk, self.suspect).await
        };
        let body = made.map_err(|end| self.stopped(Phase::Instantiate, end))?;
        let mut instance = Running { body, desk };
        match instance.enter(Call::Describe).await {
            Ok(Returned::Described(families)) => {
                instance.desk.readings.describe(families).map_err(|e| {
                    let message = match e {
                        Refused::Quota { message, .. } => {
                            format!("it describes more than it may: {message}")
                        }
                        Refused::Invalid(m) | Refused::Other(m) => m,
                        Refused::UnknownId(id) => format!("it names the unknown number {id}"),
                    };
                    self.error(Phase::Describe, &codes::DESCRIPTION, message)
                })?;
            }
            Ok(_) => return Err(self.error(Phase::Describe, &codes::HOST, "another call's answer")),
            Err(end) => return Err(self.stopped(Phase::Describe, end)),
        }
        match instance.enter(Call::Configure(settings)).await {
            Ok(Returned::Done(Ok(()))) => Ok(instance),
            Ok(Returned::Done(Err((reason, message)))) => {
                let message = format!("{}: {}", text(&reason), text(&message));
                Err(self.error(Phase::Configure, &codes::SETTINGS, message))
            }
            Ok(_) => Err(self.error(Phase::Configure, &codes::HOST, "another call's answer")),
            Err(end) => Err(self.stopped(Phase::Configure, end)),
        }
    }

    /// A call did not end by itself.
    fn stopped(&mut self, phase: Phase, end: Stopped) -> PluginError {
        self.suspect |= matches!(end, Stopped::Lost(_));
        stopped(&self.setting.plugin, phase, end).of(&self.info.version, &self.info.digest)
    }

    fn told_too_much(&self, message: String) -> ControlError {
        self.error(Phase::Control, &codes::HOSTCALL, message).into()
    }

    fn adopt(&mut self, instance: Running) {
        self.info.families = instance.desk.readings.families();
        self.collects = 0;
        self.instance = Some(instance);
    }

    /// After a collect that ended by itself.
    fn keep(&mut self, instance: Running) {
        self.collects = self.collects.saturating_add(1);
        let limits = &self.setting.limits;
        if self.last_failure.is_some_and(|at| at.elapsed() >= limits.healthy_after) {
            self.failures = 0;
            self.last_failure = None;
            self.suspect = false;
        }
        let recycle = limits.recycle_after > 0 && self.collects >= limits.recycle_after;
        if recycle || instance.desk.readings.worn() {
            return;
        }
        if instance.desk.readings.family_count() != self.info.families.len() {
            self.info.families = instance.desk.readings.families();
        }
        self.instance = Some(instance);
    }

    /// A failure costs a restart. The instance is gone already.
    fn failed(&mut self, error: PluginError) -> PluginError {
        self.instance = None;
        let now = Instant::now();
        let limits = &self.setting.limits;
        if self.last_failure.is_some_and(|at| now.duration_since(at) >= limits.healthy_after) {
            self.failures = 0;
        }
        self.last_failure = Some(now);
        self.failures = self.failures.saturating_add(1);
        let reason = format!("{} {}: {}", error.code, error.phase, error.why());
        self.state = if self.failures > limits.restarts {
            PluginState::Quarantined { reason }
        } else {
            let doubled = 2u32.saturating_pow(self.failures - 1);
            let wait = limits.back_off.saturating_mul(doubled).min(MAX_BACK_OFF);
            PluginState::BackingOff { until: now + wait, reason }
        };
        error.of(&self.info.version, &self.info.digest)
    }

    fn settings_text(&self, settings: &serde_json::Value) -> Result<String, PluginError> {
        let text = match settings {
            serde_json::Value::Null => "{}".to_owned(),
            serde_json::Value::Object(_) => settings.to_string(),
            _ => {
                return Err(self.error(
                    Phase::Configure,
                    &codes::SETTINGS,
                    "the settings are not a JSON object",
                ));
            }
        };
        if text.len() > MAX_SETTINGS {
            let message = format!("the settings are {} bytes long, {MAX_SETTINGS} are allowed", text.len());
            return Err(self.error(Phase::Configure, &codes::SETTINGS, message));
        }
        Ok(text)
    }

    fn error(&self, phase: Phase, code: &'static codes::Code, message: impl Into<String>) -> PluginError {
        PluginError::new(&self.setting.plugin, phase, code, message).of(&self.info.version, &self.info.digest)
    }
}

/// A text of the plugin's that is passed on whole.
fn bounded(text: String) -> Result<String, String> {
    if text.len() <= MAX_SETTINGS {
        return Ok(text);
    }
    Err(format!("it answered with {} bytes, {MAX_SETTINGS} are allowed", text.len()))
}

/// A text of the plugin's, as it may stand in a log line.
fn text(raw: &str) -> String {
    let end = raw.floor_char_boundary(MAX_TEXT);
    raw.get(..end).unwrap_or_default().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
