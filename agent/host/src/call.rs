//! What crosses the border between a plugin's instance and who runs it, towards the guest: one call of the contract, and
//! how it ended. Owned, serializable data: the two may stand in two processes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::action::model::{Applied, Declined, Described, Plan, Step, Verdict};
use crate::readings::Declared;

/// One call of the contract.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Call {
    Describe,
    Configure(String),
    Collect,
    ControlSchema,
    ControlGet,
    ControlSet(String),
    /// Of an action plugin.
    Action(ActionCall),
}

/// One call of an action's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ActionCall {
    Describe,
    Plan { name: String, parameters: String },
    Apply { name: String, step: Step },
    Probe { name: String, step: Step },
    Revert { name: String, step: Step, before: String },
}

/// What it returned, not looked at yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ActionReturned {
    Described(Vec<Described>),
    Planned(Result<Plan, Declined>),
    Applied(Result<Applied, Declined>),
    Probed(Verdict),
    Reverted(Result<String, Declined>),
}

/// What a call returned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Returned {
    Described(Vec<Declared>),
    /// Of `configure` and `collect`: done, or the source's error as reason and message.
    Done(Result<(), (String, String)>),
    Text(String),
    /// Of `control.set`: the settings in force, or what is allowed.
    Set(Result<String, Vec<String>>),
    Action(ActionReturned),
}

/// Why a call did not end by itself. The instance must not be entered again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Stopped {
    /// `call_time` is over.
    TimedOut(Duration),
    /// `guest_time` is over.
    OverTime(Duration),
    OverMemory {
        wanted: u64,
        limit: u64,
    },
    /// Tables, memories or instances.
    Resources(String),
    /// More data in one host call than `hostcall_bytes`.
    Hostcall,
    Stack,
    Trapped(String),
    /// It broke the component model's rules.
    Rules(String),
    /// The plugin reached an interface without a grant behind it: a fault of ours.
    NoGrant(String),
    /// The process that ran it is no more, or had to be ended.
    Lost(String),
    /// There is no process to run it in.
    NoRoom(String),
}

/// What a call cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// CPU time of the guest and of the host calls done on its thread.
    pub guest_time: Duration,
    /// Linear memory of the instance, in bytes.
    pub memory: u64,
}

/// The limits that hold where the guest runs; the others hold where its calls are answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bounds {
    pub memory: u64,
    pub guest_time: Duration,
    pub call_time: Duration,
    pub hostcall_bytes: u64,
}

impl From<&crate::Limits> for Bounds {
    fn from(limits: &crate::Limits) -> Self {
        Self {
            memory: limits.memory,
            guest_time: limits.guest_time,
            call_time: limits.call_time,
            hostcall_bytes: limits.hostcall_bytes,
        }
    }
}
