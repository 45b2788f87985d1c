//! Nodes, added up.

use std::collections::BTreeMap;

use super::state::{COUNTED, Status};
use super::{Gres, gpus};

/// One node as a reader has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub name: String,
    pub status: Status,
    /// The controller hears nothing of it.
    pub silent: bool,
    pub cpus: u64,
    pub cpus_alloc: u64,
    /// Megabytes, as Slurm counts.
    pub memory: Option<u64>,
    pub memory_alloc: Option<u64>,
    pub partitions: Vec<String>,
    pub gres: Vec<Gres>,
    pub gres_used: Vec<Gres>,
    pub reason: String,
    pub reason_user: String,
    /// Seconds since the Unix epoch.
    pub reason_since: Option<f64>,
}

/// Sums over nodes: of the cluster, or of a partition.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeSums {
    pub nodes: u64,
    pub by_status: [u64; COUNTED.len()],
    pub cpus: u64,
    pub cpus_alloc: u64,
    pub cpus_idle: u64,
    pub gpus: u64,
    pub gpus_alloc: u64,
    pub gpus_idle: u64,
}

/// What is kept of a node for its own series and events.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    pub node: Node,
    /// It has series of its own.
    pub shown: bool,
}

/// All nodes of one reading.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Nodes {
    pub all: NodeSums,
    pub partitions: BTreeMap<String, NodeSums>,
    pub kept: Vec<Kept>,
    /// Nodes without series of their own, because there are more than are wanted.
    pub hidden: u64,
    most: usize,
}

/// Nodes that are out beyond those with series of their own: they are kept for their events.
const MOST_OUT: usize = 4096;
/// Sums by partition.
const MOST_PARTITIONS: usize = 1000;

impl Node {
    /// Free, and to be had.
    pub fn cpus_idle(&self) -> u64 {
        if self.status.is_out() { 0 } else { self.cpus.saturating_sub(self.cpus_alloc) }
    }

    /// Neither allocated nor to be had.
    pub fn cpus_other(&self) -> u64 {
        self.cpus.saturating_sub(self.cpus_alloc).saturating_sub(self.cpus_idle())
    }
}

impl NodeSums {
    fn add(&mut self, node: &Node) {
        self.nodes += 1;
        if let Some(count) = self.by_status.get_mut(node.status.counted()) {
            *count += 1;
        }
        self.cpus = self.cpus.saturating_add(node.cpus);
        self.cpus_alloc = self.cpus_alloc.saturating_add(node.cpus_alloc);
        self.cpus_idle = self.cpus_idle.saturating_add(node.cpus_idle());
        let (all, used) = (gpus(&node.gres), gpus(&node.gres_used));
        self.gpus = self.gpus.saturating_add(all);
        self.gpus_alloc = self.gpus_alloc.saturating_add(used);
        if !node.status.is_out() {
            self.gpus_idle = self.gpus_idle.saturating_add(all.saturating_sub(used));
        }
    }

    pub fn cpus_other(&self) -> u64 {
        self.cpus.saturating_sub(self.cpus_alloc).saturating_sub(self.cpus_idle)
    }

    pub fn gpus_other(&self) -> u64 {
        self.gpus.saturating_sub(self.gpus_alloc).saturating_sub(self.gpus_idle)
    }
}

impl Nodes {
    /// Of which the first `most` have series of their own.
    pub fn new(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    pub fn add(&mut self, node: Node) {
        self.all.add(&node);
        for partition in &node.partitions {
            if self.partitions.len() < MOST_PARTITIONS || self.partitions.contains_key(partition) {
                self.partitions.entry(partition.clone()).or_default().add(&node);
            }
        }
        let shown = self.kept.len() < self.most;
        if !shown {
            self.hidden += 1;
        }
        if shown || (node.status.is_out() && self.kept.len() < self.most.saturating_add(MOST_OUT)) {
            self.kept.push(Kept { node, shown });
        }
    }
}
