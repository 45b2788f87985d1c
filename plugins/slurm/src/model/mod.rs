//! One model of a cluster, whatever it was read with.
//!
//! What a dump lists is taken in one by one and added up at once: of jobs only sums are kept, of nodes what their series and
//! events need. So the memory of a reading does not grow with the number of jobs, and with that of nodes slowly.

mod gres;
mod nodes;
mod queue;
mod state;

pub use gres::{Gres, gpus};
pub use nodes::{Node, NodeSums, Nodes};
pub use queue::{Job, Owner, Queue, tasks};
pub use state::{COUNTED, JOB_STATES, Status, is_silent, job_state, status};

/// A partition as the controller has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    pub name: String,
    /// `UP`, `DOWN`, `DRAIN`, `INACTIVE`.
    pub state: String,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reservation {
    pub name: String,
    pub state: String,
    pub users: String,
    pub nodes: String,
    pub partition: String,
    pub flags: String,
    /// Seconds since the Unix epoch.
    pub start: Option<f64>,
    pub end: Option<f64>,
    pub node_count: Option<f64>,
    pub core_count: Option<f64>,
}

/// A controller of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    pub host: String,
    /// `primary`, `backup` …
    pub mode: String,
    pub up: bool,
}

/// What `sdiag` tells; what it does not tell is none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scheduler {
    pub threads: Option<f64>,
    pub queue_size: Option<f64>,
    pub dbd_queue_size: Option<f64>,
    pub last_cycle: Option<f64>,
    pub mean_cycle: Option<f64>,
    pub cycle_per_minute: Option<f64>,
    pub backfill_last_cycle: Option<f64>,
    pub backfill_mean_cycle: Option<f64>,
    pub backfill_depth_mean: Option<f64>,
    pub backfilled_since_start: Option<f64>,
    pub backfilled_since_cycle: Option<f64>,
    pub backfilled_heterogeneous: Option<f64>,
    pub jobs_submitted: Option<f64>,
    pub jobs_started: Option<f64>,
    pub jobs_completed: Option<f64>,
    pub jobs_canceled: Option<f64>,
    pub jobs_failed: Option<f64>,
    pub by_operation: Vec<Rpc>,
    pub by_user: Vec<Rpc>,
}

/// Remote procedure calls of one kind or user; times in microseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rpc {
    pub name: String,
    pub count: f64,
    pub average_time: f64,
    pub total_time: f64,
}
