//! What the granted containers use, under cAdvisor's names: CPU time, memory, start; and restarts, which cAdvisor lacks.

use picket_sdk::{Collect, CounterFamily, Describe, Failure, GaugeFamily};
use serde::{Deserialize, Deserializer};

/// The families.
pub struct Resources {
    cpu: CounterFamily<4>,
    user: CounterFamily<3>,
    system: CounterFamily<3>,
    periods: CounterFamily<3>,
    throttled: CounterFamily<3>,
    throttled_time: CounterFamily<3>,
    usage: GaugeFamily<3>,
    working_set: GaugeFamily<3>,
    rss: GaugeFamily<3>,
    cache: GaugeFamily<3>,
    limit: GaugeFamily<3>,
    start: GaugeFamily<3>,
    last_seen: GaugeFamily<3>,
    restarts: CounterFamily<3>,
}

/// Who a series is of.
#[derive(Debug, Clone)]
pub struct Owner {
    /// As cAdvisor writes it for Docker.
    pub id: String,
    pub image: String,
    pub name: String,
}

impl Owner {
    fn labels(&self) -> [&str; 3] {
        [&self.id, &self.image, &self.name]
    }
}

const LABELS: [&str; 3] = ["id", "image", "name"];

impl Resources {
    pub fn new(d: &mut Describe) -> Self {
        let mut counter = |name: &str, help: &str| d.counter(name, help).labels(&LABELS);
        let user =
            counter("container_cpu_user_seconds_total", "Cumulative user cpu time consumed in seconds.");
        let system =
            counter("container_cpu_system_seconds_total", "Cumulative system cpu time consumed in seconds.");
        let periods =
            counter("container_cpu_cfs_periods_total", "Number of elapsed enforcement period intervals.");
        let throttled =
            counter("container_cpu_cfs_throttled_periods_total", "Number of throttled period intervals.");
        let throttled_time = counter(
            "container_cpu_cfs_throttled_seconds_total",
            "Total time duration the container has been throttled.",
        );
        let restarts = counter(
            "picket_container_restarts_total",
            "How many times the engine restarted the container by itself.",
        );
        let mut gauge = |name: &str, help: &str| d.gauge(name, help).labels(&LABELS);
        let usage = gauge(
            "container_memory_usage_bytes",
            "Current memory usage in bytes, including all memory regardless of when it was accessed",
        );
        let working_set = gauge("container_memory_working_set_bytes", "Current working set in bytes.");
        let rss = gauge("container_memory_rss", "Size of RSS in bytes.");
        let cache = gauge("container_memory_cache", "Number of bytes of page cache memory.");
        let limit = gauge("container_spec_memory_limit_bytes", "Memory limit for the container.");
        let start =
            gauge("container_start_time_seconds", "Start time of the container since unix epoch in seconds.");
        let last_seen = gauge("container_last_seen", "Last time a container was seen by the exporter");
        let cpu = d
            .counter("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.")
            .labels(&["cpu", "id", "image", "name"]);
        Self {
            cpu,
            user,
            system,
            periods,
            throttled,
            throttled_time,
            usage,
            working_set,
            rss,
            cache,
            limit,
            start,
            last_seen,
            restarts,
        }
    }

    /// What an inspection tells.
    pub fn inspected(&self, owner: &Owner, started: Option<f64>, restarts: u64, memory_limit: u64, now: f64) {
        let labels = owner.labels();
        if let Some(started) = started {
            self.start.with(&labels).set(started);
        }
        self.restarts.with(&labels).set_total(restarts as f64);
        self.limit.with(&labels).set(memory_limit as f64);
        self.last_seen.with(&labels).set(now.floor());
    }

    /// What the engine's reading tells.
    pub fn read(&self, owner: &Owner, json: &str, c: &mut Collect<'_>) {
        let stats: Stats = match serde_json::from_str(json) {
            Ok(stats) => stats,
            Err(e) => {
                let name = &owner.name;
                return c.failed(Failure::new("parse", format!("the engine's statistics of {name}: {e}")));
            }
        };
        let labels = owner.labels();
        let [id, image, name] = labels;
        let seconds = |ns: u64| ns as f64 / 1e9;
        let used = &stats.cpu_stats.cpu_usage;
        if let Some(total) = used.total_usage {
            self.cpu.with(&["total", id, image, name]).set_total(seconds(total));
        }
        if let Some(user) = used.usage_in_usermode {
            self.user.with(&labels).set_total(seconds(user));
        }
        if let Some(system) = used.usage_in_kernelmode {
            self.system.with(&labels).set_total(seconds(system));
        }
        let throttling = &stats.cpu_stats.throttling_data;
        // Without a quota nothing is ever enforced, and cAdvisor shows nothing.
        if let (Some(periods), Some(throttled), Some(time)) =
            (throttling.periods.filter(|p| *p > 0), throttling.throttled_periods, throttling.throttled_time)
        {
            self.periods.with(&labels).set_total(periods as f64);
            self.throttled.with(&labels).set_total(throttled as f64);
            self.throttled_time.with(&labels).set_total(seconds(time));
        }
        let memory = &stats.memory_stats;
        let Some(usage) = memory.usage else { return };
        self.usage.with(&labels).set(usage as f64);
        let parts = &memory.stats;
        // Control groups of version 1 count their children apart, under `total_`.
        let of_1_or_2 = |one: Option<u64>, two: Option<u64>| one.or(two);
        if let Some(inactive) = of_1_or_2(parts.total_inactive_file, parts.inactive_file) {
            self.working_set.with(&labels).set(usage.saturating_sub(inactive) as f64);
        }
        if let Some(rss) = of_1_or_2(parts.total_rss, parts.anon) {
            self.rss.with(&labels).set(rss as f64);
        }
        if let Some(cache) = of_1_or_2(parts.total_cache, parts.file) {
            self.cache.with(&labels).set(cache as f64);
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Stats {
    #[serde(deserialize_with = "null")]
    cpu_stats: CpuStats,
    #[serde(deserialize_with = "null")]
    memory_stats: MemoryStats,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CpuStats {
    #[serde(deserialize_with = "null")]
    cpu_usage: CpuUsage,
    #[serde(deserialize_with = "null")]
    throttling_data: Throttling,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CpuUsage {
    total_usage: Option<u64>,
    usage_in_usermode: Option<u64>,
    usage_in_kernelmode: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Throttling {
    periods: Option<u64>,
    throttled_periods: Option<u64>,
    throttled_time: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct MemoryStats {
    usage: Option<u64>,
    #[serde(deserialize_with = "null")]
    stats: MemoryParts,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct MemoryParts {
    total_inactive_file: Option<u64>,
    inactive_file: Option<u64>,
    total_rss: Option<u64>,
    anon: Option<u64>,
    total_cache: Option<u64>,
    file: Option<u64>,
}

fn null<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(d).map(Option::unwrap_or_default)
}
