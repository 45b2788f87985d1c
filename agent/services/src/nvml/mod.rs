//! NVIDIA GPUs, read only: one snapshot shared by all that ask within a tick.
//!
//! The driver's library is never loaded into this process: a call into a sick driver may not return, and a process that
//! is in one can't even be killed. A helper, `picket-nvml`, makes the calls; one task here ([`desk`]) asks it, and puts
//! another one in its place when it hangs. What a plugin is not granted is taken out here, before it sees anything.

mod desk;
mod helper;
mod scope;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use picket_proto::model::PluginId;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::wakes::Wakes;
use desk::{Desk, Taken};
use scope::Devices;
pub use scope::Scope;

/// Plugins that wait for a snapshot.
const WAITING: usize = 64;

/// How the driver is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The program `picket-nvml`.
    pub helper: PathBuf,
    /// The driver's library; none: where the system has it.
    pub library: Option<PathBuf>,
    /// What one call into the library may take before the driver is said to hang.
    pub timeout: Duration,
    /// What a whole snapshot may take.
    pub snapshot_time: Duration,
    /// When a driver that is not there is looked for again.
    pub absent_again: Duration,
    /// The wait before a helper that hung or failed is replaced; it doubles up to the other.
    pub back_off: Duration,
    pub back_off_max: Duration,
    /// A helper that nobody has asked for so long is ended.
    pub idle: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            helper: "picket-nvml".into(),
            library: None,
            timeout: Duration::from_secs(2),
            snapshot_time: Duration::from_secs(8),
            absent_again: Duration::from_secs(60),
            back_off: Duration::from_secs(5),
            back_off_max: Duration::from_secs(300),
            idle: Duration::from_secs(900),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Snapshot {
        /// Milliseconds. An older snapshot is not given: a new one is taken.
        max_age: u32,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// When the snapshot was taken, milliseconds since the Unix epoch.
    pub timestamp: u64,
    /// JSON, as `docs/plugins/capabilities.md` describes it.
    pub document: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    #[error("no NVIDIA driver: {0}")]
    NoDriver(String),
    #[error("the NVIDIA driver does not answer: {0}")]
    Hung(String),
    #[error("{0}")]
    Other(String),
}

/// Asks for snapshots. Nothing is started before the first one is asked for.
#[derive(Debug)]
pub(crate) struct Nvml {
    options: Options,
    wakes: Wakes,
    desk: OnceLock<mpsc::Sender<desk::Ask>>,
}

impl Nvml {
    pub fn new(options: Options, wakes: Wakes) -> Self {
        Self { options, wakes, desk: OnceLock::new() }
    }

    /// Of the granted devices alone.
    pub async fn call(
        &self,
        plugin: &PluginId,
        devices: &Devices,
        request: Request,
    ) -> Result<Answer, Error> {
        let Request::Snapshot { max_age } = request;
        let taken = self.snapshot(plugin, devices, Duration::from_millis(max_age.into())).await?;
        Ok(Answer { timestamp: taken.timestamp_ms, document: taken.document(devices) })
    }

    async fn snapshot(
        &self,
        plugin: &PluginId,
        devices: &Devices,
        max_age: Duration,
    ) -> Result<Arc<Taken>, Error> {
        let desk = self.desk.get_or_init(|| {
            let (sender, asks) = mpsc::channel(WAITING);
            tokio::spawn(Desk::new(self.options.clone(), self.wakes.clone(), asks).run());
            sender
        });
        let (reply, answer) = oneshot::channel();
        let ask = desk::Ask { plugin: plugin.clone(), devices: devices.clone(), max_age, reply };
        desk.try_send(ask).map_err(|_| Error::Other("too many plugins ask at once".to_owned()))?;
        answer.await.unwrap_or_else(|_| Err(Error::Other("the agent stops".to_owned())))
    }
}

#[cfg(test)]
mod tests;
