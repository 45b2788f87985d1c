//! The families, and how the model becomes their values.
//!
//! Names are those of the exporters that are in use for Slurm. Their labels differ: with `labels = "vpenso"` a family has those
//! of the older one, with `"sckyzo"` those of the newer one. A label that has no value does not stand there.
//! Some families are the controller's own too, when its metrics are passed on: those have the labels of both.

use std::collections::{BTreeMap, BTreeSet};

use picket_sdk::{CounterFamily, Describe, GaugeFamily, InfoFamily};

use crate::model::{COUNTED, JOB_STATES};
use crate::model::{Controller, Node, NodeSums, Nodes, Owner, Partition, Queue, Reservation, Rpc, Scheduler};
use crate::settings::{Labels, Settings};

/// Text of people that a label may hold.
const MOST_TEXT: usize = 256;
/// Series of one kind that come of names which others choose.
const MOST_ROWS: usize = 1000;

pub struct Metrics {
    cpus: [GaugeFamily; 4],
    gpus: [GaugeFamily; 4],
    gpus_utilization: GaugeFamily,
    nodes: Vec<GaugeFamily<2>>,
    nodes_total: GaugeFamily,
    node: PerNode,
    partition: PerPartition,
    queue: Vec<GaugeFamily<3>>,
    cores: Vec<GaugeFamily<3>>,
    pending_dependency: GaugeFamily,
    jobs: Vec<GaugeFamily>,
    jobs_cores: [GaugeFamily; 2],
    pending_by_reason: GaugeFamily<1>,
    users: [GaugeFamily<3>; 5],
    accounts: [GaugeFamily<3>; 5],
    scheduler: Vec<GaugeFamily>,
    rpc: [GaugeFamily<1>; 3],
    user_rpc: [GaugeFamily<1>; 3],
    reservation: PerReservation,
    pub own: Own,
}

struct PerNode {
    /// cpu alloc, idle, other, total; mem alloc, total; status
    plain: [GaugeFamily<3>; 7],
    gres: [GaugeFamily<4>; 2],
    drain_reason: InfoFamily<2>,
    drain_since: GaugeFamily<1>,
}

struct PerPartition {
    cpus: [GaugeFamily<1>; 4],
    gpus: [GaugeFamily<1>; 2],
    jobs: [GaugeFamily<2>; 2],
    up: GaugeFamily<1>,
}

struct PerReservation {
    info: InfoFamily<6>,
    start: GaugeFamily<1>,
    end: GaugeFamily<1>,
    nodes: GaugeFamily<1>,
    cores: GaugeFamily<1>,
}

/// What the plugin says of itself and of the controller.
pub struct Own {
    pub age: GaugeFamily<1>,
    pub duration: GaugeFamily<1>,
    pub dumps: CounterFamily<1>,
    pub reader: InfoFamily<2>,
    pub poller: GaugeFamily,
    pub controller: GaugeFamily<2>,
    pub hidden: GaugeFamily,
    pub health: GaugeFamily<2>,
}

const HEALTH: [&str; 4] = ["healthy", "degraded", "unhealthy", "unknown"];

impl Metrics {
    pub fn new(d: &mut Describe) -> Self {
        let mut plain = |name: &str, help: &str| d.gauge(name, help);
        let cpus = [
            plain("slurm_cpus_alloc", "Allocated CPUs."),
            plain("slurm_cpus_idle", "Idle CPUs."),
            plain(
                "slurm_cpus_other",
                "CPUs that are neither allocated nor to be had: of nodes that are down or drained.",
            ),
            plain("slurm_cpus_total", "All CPUs."),
        ];
        let gpus = [
            plain("slurm_gpus_alloc", "Allocated GPUs."),
            plain("slurm_gpus_idle", "GPUs that are free and to be had."),
            plain("slurm_gpus_other", "GPUs that are neither allocated nor to be had."),
            plain("slurm_gpus_total", "All GPUs."),
        ];
        let gpus_utilization = plain("slurm_gpus_utilization", "Allocated GPUs of all, 0 to 1.");
        let nodes_total = plain("slurm_nodes_total", "All nodes.");
        let pending_dependency =
            plain("slurm_queue_pending_dependency", "Pending jobs that wait for another.");
        let jobs = JOB_STATES
            .iter()
            .map(|s| plain(&format!("slurm_jobs_{s}"), &format!("Jobs that are {s}.")))
            .collect();
        let jobs_cores = [
            plain("slurm_jobs_cores_running", "Cores of running jobs."),
            plain("slurm_jobs_cores_pending", "Cores that pending jobs ask for."),
        ];
        let scheduler =
            SCHEDULER.iter().map(|(name, help, _)| plain(&format!("slurm_scheduler_{name}"), help)).collect();
        let nodes = COUNTED
            .iter()
            .map(|s| {
                d.gauge(&format!("slurm_nodes_{s}"), &format!("Nodes in state {s}."))
                    .labels(&["partition", "job"])
            })
            .collect();
        let mut by_job = |prefix: &str, what: &str| -> Vec<GaugeFamily<3>> {
            let family = |s: &&str| {
                d.gauge(&format!("slurm_{prefix}_{s}"), &format!("{what} that are {s}.")).labels(&[
                    "user",
                    "partition",
                    "reason",
                ])
            };
            JOB_STATES.iter().map(family).collect()
        };
        let (queue, cores) = (by_job("queue", "Jobs"), by_job("cores", "Cores of jobs"));
        let mut owner = |who: &str| {
            let mut one = |what: &str, help: &str| {
                d.gauge(&format!("slurm_{who}_{what}"), help).labels(&[who, "username", "job"])
            };
            [
                one("jobs_pending", "Pending jobs."),
                one("jobs_running", "Running jobs."),
                one("jobs_suspended", "Suspended jobs."),
                one("cpus_running", "CPUs of running jobs."),
                one("gpus_running", "GPUs of running jobs."),
            ]
        };
        let (users, accounts) = (owner("user"), owner("account"));
        let mut rpcs = |prefix: &str, label: &'static str| {
            [
                d.gauge(&format!("{prefix}_stats"), "Calls to the controller since its statistics began.")
                    .labels(&[label]),
                d.gauge(&format!("{prefix}_stats_avg_time"), "Average time of a call, in microseconds.")
                    .labels(&[label]),
                d.gauge(&format!("{prefix}_stats_total_time"), "Time of all calls, in microseconds.")
                    .labels(&[label]),
            ]
        };
        Self {
            cpus,
            gpus,
            gpus_utilization,
            nodes,
            nodes_total,
            rpc: rpcs("slurm_rpc", "operation"),
            user_rpc: rpcs("slurm_user_rpc", "user"),
            node: PerNode::new(d),
            partition: PerPartition::new(d),
            queue,
            cores,
            pending_dependency,
            jobs,
            jobs_cores,
            pending_by_reason: d
                .gauge("picket_slurm_jobs_pending", "Pending jobs by the reason that Slurm gives.")
                .labels(&["reason"]),
            users,
            accounts,
            scheduler,
            reservation: PerReservation::new(d),
            own: Own::new(d),
        }
    }

    pub fn nodes(&self, nodes: &Nodes, labels: Labels) {
        let all = &nodes.all;
        set(&self.cpus, [all.cpus_alloc, all.cpus_idle, all.cpus_other(), all.cpus]);
        set(&self.gpus, [all.gpus_alloc, all.gpus_idle, all.gpus_other(), all.gpus]);
        if all.gpus > 0 {
            self.gpus_utilization.set(all.gpus_alloc as f64 / all.gpus as f64);
        }
        self.nodes_total.set(all.nodes as f64);
        match labels {
            Labels::Vpenso => self.states("", all),
            Labels::Sckyzo => nodes.partitions.iter().for_each(|(name, sums)| self.states(name, sums)),
        }
        self.own.hidden.set(nodes.hidden as f64);
        for kept in nodes.kept.iter().filter(|k| k.shown) {
            match labels {
                Labels::Vpenso => self.node.set(&kept.node, ""),
                Labels::Sckyzo => kept.node.partitions.iter().for_each(|p| self.node.set(&kept.node, p)),
            }
            self.node.set_drain(&kept.node);
        }
        for (name, sums) in &nodes.partitions {
            let name = &[name.as_str()];
            for (family, value) in self.partition.cpus.iter().zip([
                sums.cpus_alloc,
                sums.cpus_idle,
                sums.cpus_other(),
                sums.cpus,
            ]) {
                family.with(name).set(value as f64);
            }
            for (family, value) in self.partition.gpus.iter().zip([sums.gpus_alloc, sums.gpus_idle]) {
                family.with(name).set(value as f64);
            }
        }
    }

    fn states(&self, partition: &str, sums: &NodeSums) {
        for (family, count) in self.nodes.iter().zip(sums.by_status) {
            family.with(&[partition, ""]).set(count as f64);
        }
    }

    pub fn queue(&self, queue: &Queue, partitions: &BTreeSet<&str>, settings: &Settings) {
        for (family, count) in self.jobs.iter().zip(queue.by_state) {
            family.set(count as f64);
        }
        set(&self.jobs_cores, [queue.cores_running, queue.cores_pending]);
        self.pending_dependency.set(queue.pending_dependency as f64);
        for (reason, count) in queue.pending_by_reason.iter().take(MOST_ROWS) {
            self.pending_by_reason.with(&[reason]).set(*count as f64);
        }
        // A partition that has none has 0, if it is known to be there.
        for (family, counts) in
            self.partition.jobs.iter().zip([&queue.partition_pending, &queue.partition_running])
        {
            let names: BTreeSet<&str> =
                counts.keys().map(String::as_str).chain(partitions.iter().copied()).collect();
            for name in names.into_iter().take(MOST_ROWS) {
                family.with(&[name, ""]).set(counts.get(name).copied().unwrap_or(0) as f64);
            }
        }
        let users = Queue::top(&queue.users, settings.top_users);
        owners(&self.users, &users);
        owners(&self.accounts, &Queue::top(&queue.accounts, settings.top_accounts));
        match settings.labels {
            Labels::Vpenso => {
                for (family, count) in self.queue.iter().zip(queue.by_state) {
                    family.with(&["", "", ""]).set(count as f64);
                }
            }
            Labels::Sckyzo => self.detailed(queue, &users),
        }
    }

    fn detailed(&self, queue: &Queue, top: &[(String, Owner)]) {
        let known: BTreeSet<&str> = top.iter().map(|(name, _)| name.as_str()).collect();
        // Users beyond the top are one, so several keys may come to the same series.
        let mut sums: BTreeMap<(usize, &str, &str, &str), (u64, u64)> = BTreeMap::new();
        for ((state, key), (jobs, cores)) in &queue.detailed {
            let user = if known.contains(key.user.as_str()) { key.user.as_str() } else { "other" };
            let sum = sums.entry((*state, user, key.partition.as_str(), key.reason.as_str())).or_default();
            sum.0 = sum.0.saturating_add(*jobs);
            sum.1 = sum.1.saturating_add(*cores);
        }
        for ((state, user, partition, reason), (jobs, cores)) in sums.into_iter().take(5 * MOST_ROWS) {
            if let (Some(queue), Some(core)) = (self.queue.get(state), self.cores.get(state)) {
                queue.with(&[user, partition, reason]).set(jobs as f64);
                core.with(&[user, partition, reason]).set(cores as f64);
            }
        }
    }

    pub fn partitions(&self, partitions: &[Partition]) {
        for partition in partitions.iter().take(MOST_ROWS) {
            self.partition
                .up
                .with(&[&partition.name])
                .set(f64::from(u8::from(partition.state.starts_with("UP"))));
        }
    }

    pub fn reservations(&self, reservations: &[Reservation]) {
        for r in reservations.iter().take(MOST_ROWS) {
            let (users, nodes, flags) = (cut(&r.users), cut(&r.nodes), cut(&r.flags));
            self.reservation.info.with(&[&r.name, &r.state, &users, &nodes, &r.partition, &flags]).set();
            let values = [
                (&self.reservation.start, r.start),
                (&self.reservation.end, r.end),
                (&self.reservation.nodes, r.node_count),
                (&self.reservation.cores, r.core_count),
            ];
            for (family, value) in values {
                if let Some(value) = value {
                    family.with(&[&r.name]).set(value);
                }
            }
        }
    }

    pub fn scheduler(&self, scheduler: &Scheduler, top_users: usize) {
        for (family, (_, _, value)) in self.scheduler.iter().zip(SCHEDULER) {
            if let Some(value) = value(scheduler) {
                family.set(value);
            }
        }
        rpcs(&self.rpc, &scheduler.by_operation, MOST_ROWS);
        rpcs(&self.user_rpc, &scheduler.by_user, top_users);
    }

    pub fn controllers(&self, controllers: &[Controller]) {
        for c in controllers.iter().take(16) {
            self.own.controller.with(&[&c.host, &c.mode]).set(f64::from(u8::from(c.up)));
        }
    }
}

fn set<const N: usize>(families: &[GaugeFamily; N], values: [u64; N]) {
    for (family, value) in families.iter().zip(values) {
        family.set(value as f64);
    }
}

fn owners(families: &[GaugeFamily<3>; 5], owners: &[(String, Owner)]) {
    for (name, o) in owners {
        let values = [o.pending, o.running, o.suspended, o.cpus_running, o.gpus_running];
        for (family, value) in families.iter().zip(values) {
            family.with(&[name, "", ""]).set(value as f64);
        }
    }
}

/// Those with the most calls.
fn rpcs(families: &[GaugeFamily<1>; 3], list: &[Rpc], most: usize) {
    let mut sorted: Vec<&Rpc> = list.iter().filter(|r| !r.name.is_empty()).collect();
    sorted.sort_by(|a, b| b.count.total_cmp(&a.count).then_with(|| a.name.cmp(&b.name)));
    for rpc in sorted.into_iter().take(most) {
        for (family, value) in families.iter().zip([rpc.count, rpc.average_time, rpc.total_time]) {
            family.with(&[&rpc.name]).set(value);
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MOST_TEXT).collect()
}

type Value = fn(&Scheduler) -> Option<f64>;

/// Gauges: all of them begin anew with the controller's statistics.
const SCHEDULER: [(&str, &str, Value); 17] = [
    ("threads", "Threads of the controller.", |s| s.threads),
    ("queue_size", "Messages that the controller has yet to send.", |s| s.queue_size),
    ("dbd_queue_size", "Messages for the accounting daemon that wait.", |s| s.dbd_queue_size),
    ("last_cycle", "Time of the last scheduling cycle, in microseconds.", |s| s.last_cycle),
    ("mean_cycle", "Mean time of a scheduling cycle, in microseconds.", |s| s.mean_cycle),
    ("cycle_per_minute", "Scheduling cycles a minute.", |s| s.cycle_per_minute),
    ("backfill_last_cycle", "Time of the last backfill cycle, in microseconds.", |s| s.backfill_last_cycle),
    ("backfill_mean_cycle", "Mean time of a backfill cycle, in microseconds.", |s| s.backfill_mean_cycle),
    ("backfill_depth_mean", "Mean depth of backfill.", |s| s.backfill_depth_mean),
    ("backfilled_jobs_since_start_total", "Jobs that backfill started since the controller's start.", |s| {
        s.backfilled_since_start
    }),
    (
        "backfilled_jobs_since_cycle_total",
        "Jobs that backfill started since the statistics' last reset.",
        |s| s.backfilled_since_cycle,
    ),
    ("backfilled_heterogeneous_total", "Parts of heterogeneous jobs that backfill started.", |s| {
        s.backfilled_heterogeneous
    }),
    ("jobs_submitted", "Jobs submitted since the statistics' last reset.", |s| s.jobs_submitted),
    ("jobs_started", "Jobs started since the statistics' last reset.", |s| s.jobs_started),
    ("jobs_completed", "Jobs completed since the statistics' last reset.", |s| s.jobs_completed),
    ("jobs_canceled", "Jobs canceled since the statistics' last reset.", |s| s.jobs_canceled),
    ("jobs_failed", "Jobs failed since the statistics' last reset.", |s| s.jobs_failed),
];

impl PerNode {
    fn new(d: &mut Describe) -> Self {
        let mut plain = |name: &str, help: &str| {
            d.gauge(&format!("slurm_node_{name}"), help).labels(&["node", "status", "partition"])
        };
        let plain = [
            plain("cpu_alloc", "Allocated CPUs of the node."),
            plain("cpu_idle", "Idle CPUs of the node."),
            plain("cpu_other", "CPUs of the node that are neither allocated nor to be had."),
            plain("cpu_total", "All CPUs of the node."),
            plain("mem_alloc", "Allocated memory of the node, in megabytes."),
            plain("mem_total", "Memory of the node, in megabytes."),
            plain("status", "1, with the node's status as sinfo has it."),
        ];
        let mut gres = |name: &str, help: &str| {
            d.gauge(&format!("slurm_node_gres_{name}"), help).labels(&[
                "node",
                "status",
                "partition",
                "gres_type",
            ])
        };
        Self {
            plain,
            gres: [
                gres("total", "Generic resources of the node by type (gpu:h100)."),
                gres("used", "Generic resources of the node that jobs hold, by type."),
            ],
            drain_reason: d
                .info("slurm_node_drain_reason_info", "Why the node is drained, down or failing.")
                .labels(&["node", "reason"]),
            drain_since: d
                .gauge(
                    "slurm_node_drain_since_timestamp_seconds",
                    "Since when, in seconds since the Unix epoch.",
                )
                .labels(&["node"]),
        }
    }

    fn set(&self, node: &Node, partition: &str) {
        let labels = [node.name.as_str(), node.status.word(), partition];
        let values = [
            Some(node.cpus_alloc),
            Some(node.cpus_idle()),
            Some(node.cpus_other()),
            Some(node.cpus),
            node.memory_alloc,
            node.memory,
            Some(1),
        ];
        for (family, value) in self.plain.iter().zip(values) {
            if let Some(value) = value {
                family.with(&labels).set(value as f64);
            }
        }
        let [name, status, partition] = labels;
        for (family, list) in self.gres.iter().zip([&node.gres, &node.gres_used]) {
            for gres in list.iter().take(32) {
                family.with(&[name, status, partition, &gres.kind]).set(gres.count as f64);
            }
        }
    }

    fn set_drain(&self, node: &Node) {
        if !node.status.is_out() {
            return;
        }
        if !node.reason.is_empty() {
            self.drain_reason.with(&[&node.name, &cut(&node.reason)]).set();
        }
        if let Some(since) = node.reason_since {
            self.drain_since.with(&[&node.name]).set(since);
        }
    }
}

impl PerPartition {
    fn new(d: &mut Describe) -> Self {
        let jobs = [
            ("pending", "Pending jobs of the partition; one that may start in several counts in each."),
            ("running", "Running jobs of the partition."),
        ];
        let jobs = jobs.map(|(state, help)| {
            d.gauge(&format!("slurm_partition_jobs_{state}"), help).labels(&["partition", "job"])
        });
        let mut one =
            |name: &str, help: &str| d.gauge(&format!("slurm_partition_{name}"), help).labels(&["partition"]);
        Self {
            cpus: [
                one("cpus_allocated", "Allocated CPUs of the partition."),
                one("cpus_idle", "Idle CPUs of the partition."),
                one("cpus_other", "CPUs of the partition that are neither allocated nor to be had."),
                one("cpus_total", "All CPUs of the partition."),
            ],
            gpus: [
                one("gpus_allocated", "Allocated GPUs of the partition."),
                one("gpus_idle", "GPUs of the partition that are free and to be had."),
            ],
            jobs,
            up: d
                .gauge("picket_slurm_partition_up", "Whether the partition takes and starts jobs.")
                .labels(&["partition"]),
        }
    }
}

impl PerReservation {
    fn new(d: &mut Describe) -> Self {
        let info = d.info("slurm_reservation_info", "A reservation.").labels(&[
            "reservation_name",
            "state",
            "users",
            "nodes",
            "partition",
            "flags",
        ]);
        let mut one = |name: &str, help: &str| {
            d.gauge(&format!("slurm_reservation_{name}"), help).labels(&["reservation_name"])
        };
        Self {
            info,
            start: one("start_time_seconds", "When the reservation begins, in seconds since the Unix epoch."),
            end: one("end_time_seconds", "When the reservation ends, in seconds since the Unix epoch."),
            nodes: one("node_count", "Nodes of the reservation."),
            cores: one("core_count", "Cores of the reservation."),
        }
    }
}

impl Own {
    fn new(d: &mut Describe) -> Self {
        Self {
            age: d
                .gauge("picket_slurm_data_age_seconds", "How old what is told is, by kind of dump.")
                .labels(&["kind"]),
            duration: d
                .gauge("picket_slurm_dump_duration_seconds", "How long the last dump took, by kind.")
                .labels(&["kind"]),
            dumps: d
                .counter("picket_slurm_dumps_total", "Dumps that Slurm was asked for, by kind.")
                .labels(&["kind"]),
            reader: d
                .info("picket_slurm_reader_info", "What the cluster is read with.")
                .labels(&["reader", "api"]),
            poller: d.gauge("picket_slurm_poller", "Whether this node polls the cluster."),
            controller: d
                .gauge("picket_slurm_controller_up", "Whether the controller answers.")
                .labels(&["host", "mode"]),
            hidden: d.gauge(
                "picket_slurm_nodes_without_series",
                "Nodes beyond max_nodes: counted in the sums alone.",
            ),
            health: d
                .gauge("picket_component_health", "Whether a component does what it should: 1 for its state.")
                .labels(&["component", "state"]),
        }
    }

    pub fn healthy(&self, state: &str) {
        for known in HEALTH {
            self.health.with(&["slurm", known]).set(f64::from(u8::from(known == state)));
        }
    }
}
