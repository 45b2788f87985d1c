//! Errors that hold until something ends them. Pure: the clock and what the GPUs say now are passed in.
//!
//! An error opens a condition, or joins the one of the same device and code that is open: a flap is one condition. What
//! ends it depends on what it asks for:
//!
//! | asks for | ends when |
//! | --- | --- |
//! | anything | the node was booted again, or the GPU was reset (its counters began anew) |
//! | nothing, or a restart of the application | the process is gone; or nothing came for a while |
//! | more | the driver's recovery action is none, and the GPU is there |
//!
//! The last two must hold without a break for a time, and not while the driver asks for something.

use serde::{Deserialize, Serialize};

use crate::catalogue::{Action, Level, Recovery, Verdict};

/// Conditions that are open at once.
const MANY: usize = 256;

/// What it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Xid,
    Sxid,
    /// Of PCIe.
    Aer,
}

/// An open condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub kind: Kind,
    /// The GPU's UUID, the switch's name, or a place on PCIe.
    pub device: String,
    pub code: u32,
    pub action: Action,
    pub severity: Level,
    /// Who says so.
    pub source: String,
    pub pid: Option<u32>,
    /// Milliseconds since the Unix epoch.
    pub first_ms: u64,
    pub last_ms: u64,
    pub times: u64,
    /// Of the boot that it came in.
    pub boot: String,
    /// Since when it could end.
    #[serde(default)]
    pub good_since: Option<u64>,
}

impl Fault {
    /// Names it in events.
    pub fn key(&self) -> String {
        let kind = match self.kind {
            Kind::Xid => "xid",
            Kind::Sxid => "sxid",
            Kind::Aer => "aer",
        };
        format!("{}/{kind}-{}", self.device, self.code)
    }
}

/// An error that came.
#[derive(Debug, Clone)]
pub struct Error {
    pub kind: Kind,
    pub device: String,
    pub code: u32,
    pub pid: Option<u32>,
    pub at_ms: u64,
}

/// What a device says now.
#[derive(Debug, Clone, Default)]
pub struct Now {
    /// It is not there, or answers nothing.
    pub lost: bool,
    /// Its counters began anew since the last time.
    pub reset: bool,
    /// None: the driver has no such field.
    pub recovery: Option<Recovery>,
    /// The processes on it.
    pub pids: Vec<u32>,
}

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub clear_after_ms: u64,
    pub transient_after_ms: u64,
}

/// What [`Faults::add`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Added {
    Opened,
    /// It was open, and asks for more now.
    Worse,
    /// It was open.
    Again,
}

/// The open conditions, in the order in which they began.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Faults(Vec<Fault>);

impl Faults {
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }

    /// Where there are too many, drops the oldest of the mildest, and gives it.
    pub fn make_room(&mut self) -> Option<Fault> {
        if self.0.len() < MANY {
            return None;
        }
        let mildest = self.0.iter().map(|f| f.severity).min();
        let at = self.0.iter().position(|f| Some(f.severity) == mildest)?;
        Some(self.0.remove(at))
    }

    pub fn add(&mut self, error: &Error, verdict: &Verdict, boot: &str) -> Added {
        let open = self
            .0
            .iter_mut()
            .find(|f| f.kind == error.kind && f.code == error.code && f.device == error.device);
        if let Some(fault) = open {
            fault.last_ms = fault.last_ms.max(error.at_ms);
            fault.times = fault.times.saturating_add(1);
            fault.pid = error.pid.or(fault.pid);
            fault.good_since = None;
            boot.clone_into(&mut fault.boot);
            return if fault.raise(verdict) { Added::Worse } else { Added::Again };
        }
        self.0.push(Fault {
            kind: error.kind,
            device: error.device.clone(),
            code: error.code,
            action: verdict.immediate,
            severity: verdict.severity,
            source: verdict.source.clone(),
            pid: error.pid,
            first_ms: error.at_ms,
            last_ms: error.at_ms,
            times: 1,
            boot: boot.to_owned(),
            good_since: None,
        });
        Added::Opened
    }

    /// The driver asks for something of a device now: its open conditions ask for that. Gives those that ask for more
    /// than before.
    pub fn driver_asks(&mut self, device: &str, verdict_of: impl Fn(&Fault) -> Verdict) -> Vec<Fault> {
        let mut worse = Vec::new();
        for fault in self.0.iter_mut().filter(|f| f.kind == Kind::Xid && f.device == device) {
            // What asks for nothing has no part in it.
            if fault.action > Action::Ignore && fault.raise(&verdict_of(fault)) {
                worse.push(fault.clone());
            }
        }
        worse
    }

    /// Ends what is over; gives it with the reason.
    pub fn settle(
        &mut self,
        now_ms: u64,
        boot: &str,
        times: Times,
        now_of: impl Fn(&Fault) -> Now,
    ) -> Vec<(Fault, &'static str)> {
        let mut ended = Vec::new();
        self.0.retain_mut(|fault| match over(fault, now_ms, boot, times, &now_of(fault)) {
            Some(reason) => {
                ended.push((fault.clone(), reason));
                false
            }
            None => true,
        });
        ended
    }

    /// The code of the last XID of a GPU that is not over.
    pub fn last_xid(&self, device: &str) -> Option<u32> {
        let of = self.0.iter().filter(|f| f.kind == Kind::Xid && f.device == device);
        of.max_by_key(|f| f.last_ms).map(|f| f.code)
    }
}

impl Fault {
    /// Whether the verdict asks for more than was known.
    fn raise(&mut self, verdict: &Verdict) -> bool {
        let worse = verdict.immediate > self.action || verdict.severity > self.severity;
        if worse {
            self.action = self.action.max(verdict.immediate);
            self.severity = self.severity.max(verdict.severity);
            self.source.clone_from(&verdict.source);
        }
        worse
    }
}

fn over(fault: &mut Fault, now_ms: u64, boot: &str, times: Times, now: &Now) -> Option<&'static str> {
    if !boot.is_empty() && !fault.boot.is_empty() && fault.boot != boot {
        return Some("reboot");
    }
    if now.reset && !now.lost {
        return Some("gpu-reset");
    }
    let quiet = now_ms.saturating_sub(fault.last_ms);
    let asks = now.recovery.is_some_and(|r| r.action().is_some());
    // An error of PCIe or of a switch has nobody who says that it is well again, unless it was fatal: then only a
    // reset or a reboot makes it so.
    let mild =
        fault.action <= Action::RestartApp || fault.kind != Kind::Xid && fault.severity < Level::Critical;
    let (good, wait, reason) = if asks {
        (false, 0, "")
    } else if mild {
        let gone = fault.pid.is_some_and(|pid| !now.pids.contains(&pid));
        if gone && fault.action == Action::RestartApp {
            (true, times.clear_after_ms, "process-gone")
        } else {
            (quiet >= times.transient_after_ms, 0, "quiet")
        }
    } else {
        let well = now.recovery == Some(Recovery::None) && !now.lost && fault.kind == Kind::Xid;
        (well, times.clear_after_ms, "recovery-none")
    };
    if !good {
        fault.good_since = None;
        return None;
    }
    let since = *fault.good_since.get_or_insert(now_ms);
    // A clock that was set back starts the wait anew.
    if since > now_ms {
        fault.good_since = Some(now_ms);
        return None;
    }
    (now_ms - since >= wait).then_some(reason)
}

#[cfg(test)]
mod tests;
