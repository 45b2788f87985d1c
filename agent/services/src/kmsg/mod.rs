//! Kernel messages, from a cursor that the reader keeps.
//!
//! One task reads /dev/kmsg for all plugins, from when the first one asks, and keeps the messages that some grant admits,
//! within bounds. A message that comes wakes the plugins that may see it. The cursor is the boot's id and the kernel's own
//! sequence number, so it outlives the agent; what the kernel overwrote before it was read is counted, by the numbers
//! that are missing.

mod cursor;
mod record;
mod ring;
mod scope;
mod tail;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use picket_proto::model::PluginId;
use serde::{Deserialize, Serialize};
use tokio_util::task::AbortOnDropHandle;

use crate::wakes::Wakes;
use cursor::Cursor;
use ring::Ring;
pub(crate) use scope::Filter;
pub use scope::Scope;
use tail::Tail;

/// The most messages of one page.
const PAGE: usize = 512;
/// A first reader waits so long for what the kernel holds.
const CATCH_UP: Duration = Duration::from_secs(2);

/// Where kernel messages are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub path: PathBuf,
    /// When a file that can't be read is tried again.
    pub again: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { path: "/dev/kmsg".into(), again: Duration::from_secs(10) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Read {
        /// What an earlier [`Answer::cursor`] was; none: from the oldest message that the kernel holds.
        after: Option<String>,
        /// The most messages.
        most: u32,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub messages: Vec<Message>,
    pub cursor: String,
    /// Messages that the kernel overwrote before they were read.
    pub lost: u64,
    /// Later ones are there.
    pub more: bool,
}

/// A record of /dev/kmsg (Documentation/ABI/testing/dev-kmsg).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub sequence: u64,
    /// Milliseconds since the Unix epoch.
    pub timestamp: u64,
    /// 0 (emergency) to 7 (debug), syslog(3).
    pub priority: u8,
    pub facility: u8,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    #[error("the cursor is none that this capability gave: {0}")]
    Invalid(String),
    #[error("kernel messages cannot be read: {0}")]
    Unavailable(String),
    #[error("{0}")]
    Other(String),
}

/// Reads for all plugins. Nothing is opened before the first one asks.
#[derive(Debug)]
pub(crate) struct Kmsg {
    options: Options,
    wakes: Wakes,
    ring: Arc<Mutex<Ring>>,
    tail: tokio::sync::Mutex<Option<Running>>,
}

/// The reading task, and how far it is.
#[derive(Debug)]
struct Running {
    progress: tokio::sync::watch::Receiver<tail::Progress>,
    _task: AbortOnDropHandle<()>,
}

impl Kmsg {
    pub fn new(options: Options, wakes: Wakes) -> Self {
        Self { options, wakes, ring: Arc::default(), tail: tokio::sync::Mutex::default() }
    }

    /// The messages that the filter admits.
    pub async fn call(&self, plugin: &PluginId, filter: &Filter, request: Request) -> Result<Answer, Error> {
        let Request::Read { after, most } = request;
        let boot = cursor::boot_id()?;
        let after = after.map(|text| Cursor::parse(&text)).transpose()?;
        // Of an earlier boot: everything since is after it.
        let after = after.filter(|cursor| cursor.boot == boot).map(|cursor| cursor.sequence);
        self.follow(plugin, filter).await?;
        let most = usize::try_from(most).unwrap_or(PAGE).min(PAGE);
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let page = ring.page(filter, after, most);
        let cursor = Cursor { boot, sequence: page.last }.to_string();
        Ok(Answer { messages: page.messages, cursor, lost: page.lost, more: page.more })
    }

    /// Sees to it that the task runs and keeps what this filter admits, and waits until it has read what is there.
    async fn follow(&self, plugin: &PluginId, filter: &Filter) -> Result<(), Error> {
        let mut progress = {
            let mut tail = self.tail.lock().await;
            let new = self.ring.lock().unwrap_or_else(PoisonError::into_inner).admit(plugin, filter);
            // With a word that nobody had, the kernel's messages are read from the oldest again.
            match tail.as_ref().filter(|_| !new) {
                Some(running) => running.progress.clone(),
                None => {
                    let (sender, progress) = tokio::sync::watch::channel(tail::Progress::Behind);
                    let reader = Tail {
                        options: self.options.clone(),
                        ring: self.ring.clone(),
                        wakes: self.wakes.clone(),
                        progress: sender,
                    };
                    let task = AbortOnDropHandle::new(tokio::spawn(reader.run()));
                    *tail = Some(Running { progress: progress.clone(), _task: task });
                    progress
                }
            }
        };
        let reached =
            tokio::time::timeout(CATCH_UP, progress.wait_for(|p| !matches!(p, tail::Progress::Behind))).await;
        match reached {
            Ok(Ok(now)) => match &*now {
                tail::Progress::Failed(error) => Err(error.clone()),
                _ => Ok(()),
            },
            Ok(Err(_)) => Err(Error::Other("the task that reads kernel messages ended".to_owned())),
            // A flood: what has been read by now is given.
            Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
