//! From what the API says to rows of the table. Pure: times come in.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::Serialize;
use serde_json::Value;

use crate::output::{NONE, ago, plain, short};

pub const HEADER: [&str; 10] =
    ["NODE", "STATE", "AGE", "CPU %", "LOAD", "MEM %", "GPUS", "GPU % / °C", "SERIES", "SAMPLES/S"];
/// The columns that are numbers.
pub const RIGHT: [usize; 8] = [2, 3, 4, 5, 6, 7, 8, 9];

/// Rates are taken over this time.
const WINDOW_MS: i64 = 60_000;

/// One look at the fleet.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub now_ms: i64,
    pub truncated: bool,
    nodes: BTreeMap<String, Node>,
}

#[derive(Debug, Default)]
struct Node {
    state: String,
    last_seen_ms: Option<i64>,
    connected_since_ms: Option<i64>,
    series: u64,
    samples: u64,
    /// Idle seconds and their time, a CPU each.
    idle: HashMap<String, (f64, i64)>,
    load: Option<f64>,
    memory_total: Option<f64>,
    memory_available: Option<f64>,
    gpu_util: Vec<f64>,
    gpu_temperature: Vec<f64>,
}

/// What of earlier looks is needed for rates.
#[derive(Debug, Default)]
pub struct History {
    nodes: HashMap<String, Past>,
}

#[derive(Debug, Default)]
struct Past {
    /// When, and how many samples it had sent.
    samples: VecDeque<(i64, u64)>,
    idle: HashMap<String, (f64, i64)>,
    cpu: Option<f64>,
}

/// A line of the table. What is not known is `None`, never a made-up zero.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub node: String,
    pub state: String,
    /// Since the last batch.
    pub age_ms: Option<i64>,
    pub cpu_percent: Option<f64>,
    pub load: Option<f64>,
    pub memory_percent: Option<f64>,
    pub gpus: usize,
    pub gpu_percent: Option<f64>,
    pub gpu_celsius: Option<f64>,
    pub series: u64,
    pub samples_per_second: Option<f64>,
}

impl Snapshot {
    /// Reads the answers of `/api/v1/nodes` and `/api/v1/series`.
    pub fn new(now_ms: i64, nodes: &[Value], series: &Value) -> Self {
        let mut snapshot = Self { now_ms, truncated: series["truncated"] == true, nodes: BTreeMap::new() };
        for node in nodes {
            let name = plain(node["node"].as_str().unwrap_or_default());
            snapshot.nodes.insert(
                name,
                Node {
                    state: plain(node["state"].as_str().unwrap_or_default()),
                    last_seen_ms: node["last_batch_ms"].as_i64(),
                    connected_since_ms: node["connected_since_ms"].as_i64(),
                    series: node["series"].as_u64().unwrap_or_default(),
                    samples: node["samples_total"].as_u64().unwrap_or_default(),
                    ..Node::default()
                },
            );
        }
        for series in series["series"].as_array().into_iter().flatten() {
            let node = series["node"].as_str().and_then(|name| snapshot.nodes.get_mut(name));
            if let (Some(node), Some(value)) = (node, series["value"].as_f64()) {
                node.take(series, value);
            }
        }
        snapshot
    }
}

impl Node {
    fn take(&mut self, series: &Value, value: f64) {
        let label = |name: &str| series["labels"][name].as_str().unwrap_or_default().to_owned();
        match series["name"].as_str().unwrap_or_default() {
            "node_cpu_seconds_total" => {
                let at = series["timestamp_ms"].as_i64().unwrap_or_default();
                self.idle.insert(label("cpu"), (value, at));
            }
            "node_load1" => self.load = Some(value),
            "node_memory_MemTotal_bytes" => self.memory_total = Some(value),
            "node_memory_MemAvailable_bytes" => self.memory_available = Some(value),
            "DCGM_FI_DEV_GPU_UTIL" => self.gpu_util.push(value),
            "DCGM_FI_DEV_GPU_TEMP" => self.gpu_temperature.push(value),
            _ => {}
        }
    }
}

impl History {
    /// The rows of this look, with rates against the earlier ones; forgets nodes that are gone.
    pub fn update(&mut self, snapshot: &Snapshot) -> Vec<Row> {
        self.nodes.retain(|name, _| snapshot.nodes.contains_key(name));
        snapshot
            .nodes
            .iter()
            .map(|(name, node)| self.nodes.entry(name.clone()).or_default().row(name, node, snapshot.now_ms))
            .collect()
    }
}

impl Past {
    fn row(&mut self, name: &str, node: &Node, now_ms: i64) -> Row {
        let samples_per_second = self.samples(node, now_ms);
        let cpu_percent = self.cpu(node);
        Row {
            node: name.to_owned(),
            state: node.state.clone(),
            age_ms: node.last_seen_ms.map(|seen| (now_ms - seen).max(0)),
            cpu_percent,
            load: node.load,
            memory_percent: match (node.memory_total, node.memory_available) {
                (Some(total), Some(available)) if total > 0.0 => Some((1.0 - available / total) * 100.0),
                _ => None,
            },
            gpus: node.gpu_util.len().max(node.gpu_temperature.len()),
            gpu_percent: mean(&node.gpu_util),
            gpu_celsius: mean(&node.gpu_temperature),
            series: node.series,
            samples_per_second,
        }
    }

    /// Over the window; before there are two looks a window apart, over the time since the node connected.
    fn samples(&mut self, node: &Node, now_ms: i64) -> Option<f64> {
        if self.samples.back().is_some_and(|(_, count)| *count > node.samples) {
            // The aggregator began anew.
            self.samples.clear();
        }
        self.samples.push_back((now_ms, node.samples));
        while self.samples.get(1).is_some_and(|(at, _)| now_ms - at >= WINDOW_MS) {
            self.samples.pop_front();
        }
        let (begun, count) = *self.samples.front()?;
        let (since, base) = match node.connected_since_ms {
            Some(connected) if now_ms - begun < WINDOW_MS / 2 => (connected, 0),
            _ => (begun, count),
        };
        let seconds = (now_ms - since) as f64 / 1000.0;
        (seconds >= 1.0).then(|| node.samples.saturating_sub(base) as f64 / seconds)
    }

    /// Busy share of all CPUs between the two newest collections.
    fn cpu(&mut self, node: &Node) -> Option<f64> {
        let mut shares = Vec::new();
        for (cpu, (idle, at)) in &node.idle {
            if let Some((before, then)) = self.idle.get(cpu)
                && at > then
                && idle >= before
            {
                let seconds = (at - then) as f64 / 1000.0;
                shares.push((1.0 - (idle - before) / seconds).clamp(0.0, 1.0) * 100.0);
            }
        }
        if shares.is_empty() {
            // No new collection since: the last result stands, for as long as there are values at all.
            if node.idle.is_empty() {
                self.cpu = None;
            }
            if self.idle.is_empty() {
                self.idle.clone_from(&node.idle);
            }
        } else {
            self.cpu = mean(&shares);
            self.idle.clone_from(&node.idle);
        }
        self.cpu
    }
}

impl Row {
    /// As text, in the order of [`HEADER`].
    pub fn cells(&self) -> Vec<String> {
        let rounded = |value: Option<f64>| value.map_or_else(|| NONE.to_owned(), |v| format!("{v:.0}"));
        let gpu = match (self.gpu_percent, self.gpu_celsius) {
            (None, None) => NONE.to_owned(),
            (percent, celsius) => format!("{} / {}", rounded(percent), rounded(celsius)),
        };
        vec![
            self.node.clone(),
            self.state.clone(),
            self.age_ms.map_or_else(|| NONE.to_owned(), ago),
            rounded(self.cpu_percent),
            self.load.map_or_else(|| NONE.to_owned(), |load| format!("{load:.2}")),
            rounded(self.memory_percent),
            if self.gpus == 0 { NONE.to_owned() } else { self.gpus.to_string() },
            gpu,
            self.series.to_string(),
            self.samples_per_second.map_or_else(|| NONE.to_owned(), short),
        ]
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn look(now_ms: i64, samples: u64, idle: f64, at: i64) -> Snapshot {
        let nodes = [
            json!({"node": "a", "state": "up", "last_batch_ms": now_ms - 3000, "series": 5, "samples_total": samples,
                   "connected_since_ms": 1_000_000}),
            json!({"node": "b", "state": "never"}),
        ];
        let cpu = |cpu: &str| json!({"node": "a", "name": "node_cpu_seconds_total", "labels": {"cpu": cpu, "mode": "idle"}, "value": idle, "timestamp_ms": at});
        let value = |name: &str, value: f64| json!({"node": "a", "name": name, "labels": {}, "value": value, "timestamp_ms": at});
        let series = json!({"series": [
            cpu("0"), cpu("1"), value("node_load1", 1.5),
            value("node_memory_MemTotal_bytes", 100.0), value("node_memory_MemAvailable_bytes", 25.0),
            value("DCGM_FI_DEV_GPU_UTIL", 50.0), value("DCGM_FI_DEV_GPU_UTIL", 70.0), value("DCGM_FI_DEV_GPU_TEMP", 66.0),
            {"node": "a", "name": "node_load1", "labels": {}, "value": "NaN"}, {"node": "zz", "value": 1.0}, 7,
        ], "truncated": false});
        Snapshot::new(now_ms, &nodes, &series)
    }

    #[test]
    fn rows() {
        let mut history = History::default();
        let first = history.update(&look(1_010_000, 1000, 100.0, 1_005_000));
        assert_eq!(first.len(), 2);
        let a = &first[0];
        assert_eq!((a.gpus, a.gpu_percent, a.gpu_celsius), (2, Some(60.0), Some(66.0)));
        assert_eq!((a.memory_percent, a.load, a.age_ms), (Some(75.0), Some(1.5), Some(3000)));
        assert_eq!(a.cpu_percent, None, "one look has no rate");
        assert_eq!(a.samples_per_second, Some(100.0), "since it connected");
        assert_eq!(first[1].cells()[2..], ["–", "–", "–", "–", "–", "–", "0", "–"]);

        // Ten seconds later both CPUs were idle for four: busy 60 %.
        let second = history.update(&look(1_020_000, 2000, 104.0, 1_015_000));
        assert!((second[0].cpu_percent.unwrap() - 60.0).abs() < 1e-9);
        // No new collection: the last result stands.
        let third = history.update(&look(1_022_000, 2000, 104.0, 1_015_000));
        assert_eq!(third[0].cpu_percent, second[0].cpu_percent);
    }

    #[test]
    fn rates_move_with_the_window_and_survive_a_restart() {
        let mut history = History::default();
        let mut last = None;
        for i in 0..100 {
            last = history
                .update(&look(2_000_000 + i * 2000, 1000 + i as u64 * 200, 1.0, 1))
                .remove(0)
                .samples_per_second;
        }
        assert!((last.unwrap() - 100.0).abs() < 1e-9);
        let again = history.update(&look(2_400_000, 10, 1.0, 1)).remove(0).samples_per_second;
        assert!(again.unwrap() >= 0.0);
    }
}
