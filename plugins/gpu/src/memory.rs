//! What must outlive the instance and the agent, as one value of the store: where reading went on, what is open, which
//! GPUs there are, what was counted. Written where it changed, and the place in the kernel's log once a minute.

use std::collections::BTreeMap;

use picket_sdk::{Collect, store};
use serde::{Deserialize, Serialize};

use crate::catalogue::{Action, Level};
use crate::faults::{Faults, Kind};
use crate::health::{Health, Known};
use crate::idle::Idle;

const KEY: &str = "memory";
/// Series of counted errors.
const MANY: usize = 512;
/// Milliseconds between writes of what changes all the time.
const SAVE: u64 = 60_000;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Of the kernel's log.
    pub cursor: Option<String>,
    /// Of NVML's events.
    pub life: String,
    pub sequence: u64,
    /// The GPUs that there are when all is well, by UUID.
    pub baseline: BTreeMap<String, Known>,
    pub faults: Faults,
    pub health: Health,
    pub idle: Idle,
    pub counts: Vec<Count>,
    /// Energy counters at the last look, by UUID: one that is lower began anew.
    pub energy: BTreeMap<String, u64>,
}

/// How often an error came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Count {
    pub kind: Kind,
    pub device: String,
    pub code: u32,
    pub action: Action,
    pub severity: Level,
    pub times: u64,
    pub last_ms: u64,
}

/// The memory, and what of it is written.
#[derive(Default)]
pub struct Kept {
    pub now: Memory,
    written: String,
    written_at: u64,
    loaded: bool,
}

impl Kept {
    pub fn load(&mut self, c: &mut Collect<'_>) {
        if std::mem::replace(&mut self.loaded, true) {
            return;
        }
        match store::get(KEY) {
            Ok(Some(bytes)) => match serde_json::from_slice(&bytes) {
                Ok(memory) => self.now = memory,
                Err(error) => {
                    c.fail("store", &format!("what was kept cannot be read, and is begun anew: {error}"))
                }
            },
            Ok(None) => {}
            Err(error) => c.failed(error),
        }
        self.written = self.important();
    }

    pub fn save(&mut self, c: &mut Collect<'_>, now_ms: u64) {
        let important = self.important();
        if important == self.written && now_ms.saturating_sub(self.written_at) < SAVE {
            return;
        }
        let written = serde_json::to_vec(&self.now).map_err(|e| e.to_string());
        match written.map(|bytes| store::set(KEY, &bytes, None)) {
            Ok(Ok(())) => {
                self.written = important;
                self.written_at = now_ms;
            }
            Ok(Err(error)) => c.failed(error),
            Err(error) => c.fail("store", &error),
        }
    }

    /// Without what moves with every collect.
    fn important(&self) -> String {
        let mut memory = self.now.clone();
        memory.cursor = None;
        memory.energy.clear();
        memory.idle = memory.idle.told();
        serde_json::to_string(&memory).unwrap_or_default()
    }
}

impl Memory {
    pub fn count(&mut self, count: Count) {
        let same = |c: &&mut Count| {
            c.kind == count.kind
                && c.device == count.device
                && c.code == count.code
                && c.action == count.action
                && c.severity == count.severity
        };
        if let Some(known) = self.counts.iter_mut().find(same) {
            known.times = known.times.saturating_add(count.times);
            known.last_ms = known.last_ms.max(count.last_ms);
        } else if self.counts.len() < MANY {
            self.counts.push(count);
        }
    }
}
