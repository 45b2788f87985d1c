//! Slurm's JSON of every version, read as it comes.
//!
//! A dump is one object with one long list. The list's items are taken one by one and the rest is skipped, so a dump of any
//! length needs the memory of one item. What changed between versions is met by types that take all of it: a state is a word
//! or a list of words, a number is a number or `{set, infinite, number}`. A field that is not what it was is left out, not the
//! node with it.

mod shapes;

use std::fmt;
use std::io::{BufReader, Read};
use std::marker::PhantomData;

use picket_sdk::Failure;
use serde::de::{DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::model::{Controller, Gres, Job, Node, Partition, Reservation, Rpc, Scheduler};
use crate::model::{gpus, is_silent, job_state, status, tasks};
use shapes::{Number, OneOrMany, Text};

/// Read at once.
const BUFFER: usize = 64 << 10;

/// What a dump says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// `24.11.5`
    pub release: String,
    /// The list was there, however short.
    pub found: bool,
    /// The controller's own words, the first of them.
    pub error: String,
}

/// Reads a dump and gives each item of the list `key`.
pub fn items<T: DeserializeOwned>(from: impl Read, key: &str, each: impl FnMut(T)) -> Result<About, Failure> {
    let mut reader = serde_json::Deserializer::from_reader(BufReader::with_capacity(BUFFER, from));
    let about = reader
        .deserialize_map(Document { key, each, item: PhantomData })
        .map_err(|e| Failure::new("parse", format!("the answer is no JSON with a list {key:?}: {e}")))?;
    match (&about.error, about.found) {
        (error, _) if !error.is_empty() => Err(Failure::new("slurm", format!("Slurm says: {error}"))),
        (_, false) => Err(Failure::new("parse", format!("the answer has no list {key:?}"))),
        _ => Ok(about),
    }
}

struct Document<'a, T, F> {
    key: &'a str,
    each: F,
    item: PhantomData<T>,
}

impl<'de, T: DeserializeOwned, F: FnMut(T)> Visitor<'de> for Document<'_, T, F> {
    type Value = About;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<About, A::Error> {
        let mut about = About::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                key if key == self.key => {
                    map.next_value_seed(List { each: &mut self.each, item: PhantomData::<T> })?;
                    about.found = true;
                }
                "meta" => about.release = map.next_value::<Meta>()?.release(),
                "errors" => {
                    let errors = map.next_value::<OneOrMany<Complaint>>()?.0;
                    about.error = errors.first().map(Complaint::text).unwrap_or_default();
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(about)
    }
}

/// The list, or the one object that some answers have in its place.
struct List<'a, T, F> {
    each: &'a mut F,
    item: PhantomData<T>,
}

impl<'de, T: DeserializeOwned, F: FnMut(T)> DeserializeSeed<'de> for List<'_, T, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de, T: DeserializeOwned, F: FnMut(T)> Visitor<'de> for List<'_, T, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(item) = list.next_element::<T>()? {
            (self.each)(item);
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        (self.each)(T::deserialize(serde::de::value::MapAccessDeserializer::new(map))?);
        Ok(())
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Meta {
    #[serde(alias = "Slurm")]
    slurm: MetaSlurm,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct MetaSlurm {
    release: Text,
}

impl Meta {
    fn release(self) -> String {
        self.slurm.release.0.chars().take(32).collect()
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Complaint {
    description: Text,
    error: Text,
}

impl Complaint {
    fn text(&self) -> String {
        let parts: Vec<&str> = [self.description.0.as_str(), self.error.0.as_str()]
            .into_iter()
            .filter(|t| !t.is_empty())
            .collect();
        parts.join(": ").chars().take(300).collect()
    }
}

/// A node of `scontrol show nodes --json`, 22.05's `sinfo --json` and slurmrestd.
#[derive(Deserialize, Default)]
#[serde(default)]
struct RawNode {
    name: Text,
    state: Text,
    state_flags: Text,
    cpus: Number,
    effective_cpus: Number,
    alloc_cpus: Number,
    real_memory: Number,
    alloc_memory: Number,
    partitions: Text,
    gres: Text,
    gres_used: Text,
    reason: Text,
    reason_changed_at: Number,
    reason_set_by_user: Text,
}

impl From<RawNode> for Node {
    fn from(raw: RawNode) -> Self {
        let states = || raw.state.words().chain(raw.state_flags.words());
        // What `sinfo` counts with; older versions have only all of them.
        let cpus = Number(raw.effective_cpus.0.filter(|n| *n > 0.0).or(raw.cpus.0));
        Self {
            status: status(states()),
            silent: is_silent(states()),
            cpus: cpus.whole(),
            cpus_alloc: raw.alloc_cpus.whole(),
            memory: raw.real_memory.0.map(|n| n as u64),
            memory_alloc: raw.alloc_memory.0.map(|n| n as u64),
            partitions: raw.partitions.words().map(str::to_owned).collect(),
            gres: Gres::parse(&raw.gres.0),
            gres_used: Gres::parse(&raw.gres_used.0),
            reason: raw.reason.value(),
            reason_user: raw.reason_set_by_user.value(),
            reason_since: raw.reason_changed_at.time(),
            name: raw.name.0,
        }
    }
}

pub fn nodes(from: impl Read, mut each: impl FnMut(Node)) -> Result<About, Failure> {
    items(from, "nodes", |raw: RawNode| {
        let node = Node::from(raw);
        if !node.name.is_empty() {
            each(node);
        }
    })
}

/// A job of `squeue --json` and slurmrestd.
#[derive(Deserialize, Default)]
#[serde(default)]
struct RawJob {
    job_state: Text,
    partition: Text,
    user_name: Text,
    account: Text,
    state_reason: Text,
    cpus: Number,
    node_count: Number,
    array_task_string: Text,
    tres_alloc_str: Text,
    tres_per_node: Text,
    gres_detail: Text,
}

impl From<RawJob> for Job {
    fn from(raw: RawJob) -> Self {
        let nodes = raw.node_count.whole().max(1);
        Self {
            state: job_state(raw.job_state.words()),
            gpus: job_gpus(&raw.tres_alloc_str.0, &raw.gres_detail.0, &raw.tres_per_node.0, nodes),
            partition: raw.partition.0,
            user: raw.user_name.value(),
            account: raw.account.value(),
            reason: raw.state_reason.0,
            cpus: raw.cpus.whole(),
            tasks: tasks(&raw.array_task_string.0),
        }
    }
}

/// The best that is known of a job's GPUs: what is counted, else what is allocated by node, else what was asked for.
pub fn job_gpus(tres: &str, detail: &str, per_node: &str, nodes: u64) -> u64 {
    let counted = Gres::parse(tres);
    // `gres/gpu=8,gres/gpu:h100=8` says the same eight twice.
    let all = counted.iter().find(|g| g.kind == "gpu").map_or_else(|| gpus(&counted), |g| g.count);
    match (all, gpus(&Gres::parse(detail))) {
        (0, 0) => gpus(&Gres::parse(per_node)).saturating_mul(nodes),
        (0, detailed) => detailed,
        (all, _) => all,
    }
}

pub fn jobs(from: impl Read, mut each: impl FnMut(Job)) -> Result<About, Failure> {
    items(from, "jobs", |raw: RawJob| each(raw.into()))
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawPartition {
    name: Text,
    state: Text,
    partition: RawPartitionState,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawPartitionState {
    state: Text,
}

pub fn partitions(from: impl Read) -> Result<Vec<Partition>, Failure> {
    let mut all = Vec::new();
    items(from, "partitions", |raw: RawPartition| {
        let state = if raw.state.0.is_empty() { raw.partition.state.0 } else { raw.state.0 };
        all.push(Partition { name: raw.name.0, state: state.to_ascii_uppercase() });
    })?;
    Ok(all)
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawReservation {
    name: Text,
    users: Text,
    node_list: Text,
    partition: Text,
    flags: Text,
    start_time: Number,
    end_time: Number,
    node_count: Number,
    core_count: Number,
}

pub fn reservations(from: impl Read, now: f64) -> Result<Vec<Reservation>, Failure> {
    let mut all = Vec::new();
    items(from, "reservations", |raw: RawReservation| {
        let (start, end) = (raw.start_time.time(), raw.end_time.time());
        let active = start.is_some_and(|s| s <= now) && end.is_none_or(|e| now < e);
        all.push(Reservation {
            name: raw.name.0,
            state: if active { "ACTIVE" } else { "INACTIVE" }.to_owned(),
            users: raw.users.0,
            nodes: raw.node_list.0,
            partition: raw.partition.value(),
            flags: raw.flags.0,
            start,
            end,
            node_count: raw.node_count.0,
            core_count: raw.core_count.0,
        });
    })?;
    Ok(all)
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawPing {
    hostname: Text,
    /// The word, until 23.11.
    ping: Text,
    pinged: Text,
    mode: Text,
}

pub fn pings(from: impl Read) -> Result<Vec<Controller>, Failure> {
    let mut all = Vec::new();
    items(from, "pings", |raw: RawPing| {
        let word = if raw.pinged.0.is_empty() { raw.ping.0 } else { raw.pinged.0 };
        all.push(Controller { host: raw.hostname.0, mode: raw.mode.0, up: word.eq_ignore_ascii_case("UP") });
    })?;
    Ok(all)
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawDiag {
    server_thread_count: Number,
    agent_queue_size: Number,
    dbd_agent_queue_size: Number,
    schedule_cycle_last: Number,
    schedule_cycle_mean: Number,
    schedule_cycle_per_minute: Number,
    bf_cycle_last: Number,
    bf_cycle_mean: Number,
    bf_depth_mean: Number,
    bf_backfilled_jobs: Number,
    bf_last_backfilled_jobs: Number,
    bf_backfilled_het_jobs: Number,
    jobs_submitted: Number,
    jobs_started: Number,
    jobs_completed: Number,
    jobs_canceled: Number,
    jobs_failed: Number,
    rpcs_by_message_type: OneOrMany<RawRpc>,
    rpcs_by_user: OneOrMany<RawRpc>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawRpc {
    message_type: Text,
    user: Text,
    count: Number,
    average_time: Number,
    total_time: Number,
}

impl From<RawRpc> for Rpc {
    fn from(raw: RawRpc) -> Self {
        let or_zero = |n: Number| n.0.unwrap_or(0.0);
        Self {
            name: if raw.message_type.0.is_empty() { raw.user.0 } else { raw.message_type.0 },
            count: or_zero(raw.count),
            average_time: or_zero(raw.average_time),
            total_time: or_zero(raw.total_time),
        }
    }
}

pub fn diag(from: impl Read) -> Result<Scheduler, Failure> {
    let mut found = None;
    items(from, "statistics", |raw: RawDiag| {
        found = Some(Scheduler {
            threads: raw.server_thread_count.0,
            queue_size: raw.agent_queue_size.0,
            dbd_queue_size: raw.dbd_agent_queue_size.0,
            last_cycle: raw.schedule_cycle_last.0,
            mean_cycle: raw.schedule_cycle_mean.0,
            cycle_per_minute: raw.schedule_cycle_per_minute.0,
            backfill_last_cycle: raw.bf_cycle_last.0,
            backfill_mean_cycle: raw.bf_cycle_mean.0,
            backfill_depth_mean: raw.bf_depth_mean.0,
            backfilled_since_start: raw.bf_backfilled_jobs.0,
            backfilled_since_cycle: raw.bf_last_backfilled_jobs.0,
            backfilled_heterogeneous: raw.bf_backfilled_het_jobs.0,
            jobs_submitted: raw.jobs_submitted.0,
            jobs_started: raw.jobs_started.0,
            jobs_completed: raw.jobs_completed.0,
            jobs_canceled: raw.jobs_canceled.0,
            jobs_failed: raw.jobs_failed.0,
            by_operation: raw.rpcs_by_message_type.0.into_iter().map(Into::into).collect(),
            by_user: raw.rpcs_by_user.0.into_iter().map(Into::into).collect(),
        });
    })?;
    found.ok_or_else(|| Failure::new("parse", "the answer's statistics are empty"))
}
