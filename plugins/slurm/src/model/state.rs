//! States of nodes and jobs: Slurm's words made one.

/// What `sinfo` would show of a node: its base state and its flags as one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    Allocated,
    Completing,
    Down,
    Drained,
    Draining,
    Error,
    Fail,
    Failing,
    Idle,
    Inval,
    Maint,
    Mixed,
    Planned,
    Reserved,
    Unknown,
    Other,
}

/// The counts of nodes, each with the word of its name `slurm_nodes_*`.
pub const COUNTED: [&str; 13] = [
    "alloc", "comp", "down", "drain", "err", "fail", "idle", "inval", "maint", "mix", "planned", "resv",
    "other",
];

impl Status {
    /// As `sinfo -o %T` writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Allocated => "allocated",
            Self::Completing => "completing",
            Self::Down => "down",
            Self::Drained => "drained",
            Self::Draining => "draining",
            Self::Error => "error",
            Self::Fail => "fail",
            Self::Failing => "failing",
            Self::Idle => "idle",
            Self::Inval => "inval",
            Self::Maint => "maint",
            Self::Mixed => "mixed",
            Self::Planned => "planned",
            Self::Reserved => "reserved",
            Self::Unknown => "unknown",
            Self::Other => "other",
        }
    }

    /// The place in [`COUNTED`].
    pub fn counted(self) -> usize {
        match self {
            Self::Allocated => 0,
            Self::Completing => 1,
            Self::Down => 2,
            Self::Drained | Self::Draining => 3,
            Self::Error => 4,
            Self::Fail | Self::Failing => 5,
            Self::Idle => 6,
            Self::Inval => 7,
            Self::Maint => 8,
            Self::Mixed => 9,
            Self::Planned => 10,
            Self::Reserved => 11,
            Self::Unknown | Self::Other => 12,
        }
    }

    /// Its free processors and GPUs cannot be had.
    pub fn is_out(self) -> bool {
        matches!(
            self,
            Self::Down
                | Self::Drained
                | Self::Draining
                | Self::Error
                | Self::Fail
                | Self::Failing
                | Self::Inval
        )
    }
}

/// Of the words of base state and flags, in any case and order (`IDLE+DRAIN`, `["MIXED", "DRAIN"]`, `mixed`, `down*`),
/// in `sinfo`'s own order of precedence.
pub fn status<'a>(words: impl IntoIterator<Item = &'a str>) -> Status {
    let mut seen = Seen::default();
    for word in words.into_iter().flat_map(|w| w.split('+')) {
        // Flags that are written as one sign at the end: not responding, powering up, being rebooted.
        seen.add(word.trim().trim_end_matches(['*', '~', '#', '!', '%', '$', '@', '^', '-']));
    }
    seen.status()
}

/// Whether the controller hears nothing of the node.
pub fn is_silent<'a>(words: impl IntoIterator<Item = &'a str>) -> bool {
    words
        .into_iter()
        .flat_map(|w| w.split('+'))
        .any(|w| w.ends_with('*') || w.eq_ignore_ascii_case("NOT_RESPONDING"))
}

#[derive(Default)]
struct Seen {
    base: Option<Status>,
    drain: bool,
    fail: bool,
    maint: bool,
    completing: bool,
    reserved: bool,
    planned: bool,
    inval: bool,
}

impl Seen {
    fn add(&mut self, word: &str) {
        let is = |name: &str| word.eq_ignore_ascii_case(name);
        let base = if is("ALLOCATED") {
            Status::Allocated
        } else if is("MIXED") {
            Status::Mixed
        } else if is("IDLE") {
            Status::Idle
        } else if is("DOWN") {
            Status::Down
        } else if is("ERROR") {
            Status::Error
        } else if is("UNKNOWN") {
            Status::Unknown
        } else if is("FUTURE") {
            Status::Other
        } else {
            self.drain |= is("DRAIN") || is("DRAINED") || is("DRAINING");
            self.fail |= is("FAIL") || is("FAILING");
            self.maint |= is("MAINTENANCE") || is("MAINT");
            self.completing |= is("COMPLETING");
            self.reserved |= is("RESERVED") || is("RESV");
            self.planned |= is("PLANNED");
            self.inval |= is("INVALID_REG") || is("INVAL");
            // `sinfo` alone has these words, and says no base state beside them.
            if is("DRAINING") || is("FAILING") {
                Status::Allocated
            } else {
                return;
            }
        };
        self.base = Some(base);
    }

    fn status(&self) -> Status {
        let busy = self.completing || matches!(self.base, Some(Status::Allocated | Status::Mixed));
        if self.inval {
            return Status::Inval;
        }
        if self.drain {
            return if busy { Status::Draining } else { Status::Drained };
        }
        if self.fail {
            return if busy { Status::Failing } else { Status::Fail };
        }
        match self.base {
            Some(Status::Down) => return Status::Down,
            Some(base @ (Status::Allocated | Status::Mixed)) if !self.completing => return base,
            _ => {}
        }
        if self.completing {
            return Status::Completing;
        }
        if self.maint {
            return Status::Maint;
        }
        if self.reserved {
            return Status::Reserved;
        }
        if self.planned {
            return Status::Planned;
        }
        self.base.unwrap_or(Status::Unknown)
    }
}

/// The states of jobs that have a name `slurm_queue_*`; pending ones first, then running.
pub const JOB_STATES: [&str; 11] = [
    "pending",
    "running",
    "suspended",
    "completing",
    "completed",
    "configuring",
    "failed",
    "timeout",
    "preempted",
    "node_fail",
    "cancelled",
];

/// The place in [`JOB_STATES`] of a job with these words (`RUNNING`, `["RUNNING", "CONFIGURING"]`); none: one that no
/// name stands for.
pub fn job_state<'a>(words: impl IntoIterator<Item = &'a str>) -> Option<usize> {
    let mut base = None;
    for word in words {
        let is = |name: &str| word.eq_ignore_ascii_case(name);
        // These two are flags beside a base state.
        if is("COMPLETING") {
            return Some(3);
        }
        if is("CONFIGURING") {
            base = Some(5);
            continue;
        }
        let found = match word {
            _ if is("OUT_OF_MEMORY") || is("BOOT_FAIL") || is("DEADLINE") || is("LAUNCH_FAILED") => Some(6),
            _ if is("REQUEUED")
                || is("REQUEUE_HOLD")
                || is("REQUEUE_FED")
                || is("SPECIAL_EXIT")
                || is("RESV_DEL_HOLD") =>
            {
                Some(0)
            }
            _ if is("STOPPED") => Some(2),
            _ if is("REVOKED") => Some(10),
            _ if is("RESIZING") || is("SIGNALING") || is("STAGE_OUT") => Some(1),
            _ => JOB_STATES.iter().position(|s| is(s)),
        };
        base = base.or(found);
    }
    base
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes() {
        for (words, wanted) in [
            (&["IDLE"][..], "idle"),
            (&["idle"], "idle"),
            (&["MIXED"], "mixed"),
            (&["IDLE+DRAIN"], "drained"),
            (&["IDLE", "DRAIN"], "drained"),
            (&["mixed", "DRAIN"], "draining"),
            (&["ALLOCATED+DRAIN"], "draining"),
            (&["DOWN+DRAIN"], "drained"),
            (&["DOWN*"], "down"),
            (&["DOWN*+CLOUD"], "down"),
            (&["DOWN", "NOT_RESPONDING"], "down"),
            (&["drained*"], "drained"),
            (&["draining@"], "draining"),
            (&["IDLE+MAINTENANCE+RESERVED"], "maint"),
            (&["ALLOCATED+MAINTENANCE+RESERVED"], "allocated"),
            (&["IDLE+RESERVED"], "reserved"),
            (&["IDLE+PLANNED"], "planned"),
            (&["IDLE+COMPLETING"], "completing"),
            (&["ALLOCATED", "COMPLETING"], "completing"),
            (&["IDLE+FAIL"], "fail"),
            (&["MIXED+FAIL"], "failing"),
            (&["IDLE", "INVALID_REG"], "inval"),
            (&["IDLE+CLOUD+POWERED_DOWN"], "idle"),
            (&["UNKNOWN"], "unknown"),
            (&["ERROR"], "error"),
            (&["FUTURE"], "other"),
            (&["something new"], "unknown"),
            (&[], "unknown"),
        ] {
            assert_eq!(status(words.iter().copied()).word(), wanted, "{words:?}");
        }
        assert!(is_silent(["DOWN*"]) && is_silent(["DOWN", "NOT_RESPONDING"]) && !is_silent(["DOWN"]));
    }

    #[test]
    fn jobs() {
        for (words, wanted) in [
            (&["PENDING"][..], Some("pending")),
            (&["RUNNING"], Some("running")),
            (&["RUNNING", "CONFIGURING"], Some("configuring")),
            (&["COMPLETED", "COMPLETING"], Some("completing")),
            (&["CANCELLED"], Some("cancelled")),
            (&["OUT_OF_MEMORY"], Some("failed")),
            (&["NODE_FAIL"], Some("node_fail")),
            (&["TIMEOUT"], Some("timeout")),
            (&["SOMETHING"], None),
            (&[], None),
        ] {
            assert_eq!(
                job_state(words.iter().copied()).and_then(|i| JOB_STATES.get(i).copied()),
                wanted,
                "{words:?}"
            );
        }
    }
}
