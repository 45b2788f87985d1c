//! `GET /api/v1/containers`: the servers of models, whether they are in containers or not.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Reading;

/// The series that the document is made of.
pub const CONTAINER_SERIES: [&str; 7] =
    [INFO, STATE, START, PHASE, LOADING, "DCGM_FI_DEV_FB_USED", "picket_gpu_process_memory_bytes"];
const INFO: &str = "picket_vllm_container_info";
const STATE: &str = "picket_vllm_engine_state";
const START: &str = "picket_vllm_start_time_seconds";
const PHASE: &str = "picket_vllm_loading_phase";
const LOADING: &str = "picket_vllm_loading_seconds";

/// A server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Container {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    pub container_name: String,
    /// Empty where no container engine knows of it.
    pub container_id: String,
    pub image: String,
    pub version: String,
    pub model_name: String,
    /// Every GPU of the node where the container has all of them.
    pub gpu_indices: Vec<u32>,
    pub gpu_uuids: Vec<String>,
    /// In 10^9 bytes: of its own processes where they are known, else of its whole GPUs.
    pub gpu_memory_used_gb: Option<f64>,
    /// `running`, `loading` or `error`.
    pub status: &'static str,
    /// `loading`, `running`, `stuck`, `down`; none where nothing tells of it.
    pub engine_state: Option<String>,
    pub loading_phase: Option<String>,
    pub loading_seconds: Option<f64>,
    pub uptime_seconds: Option<f64>,
    pub url: String,
}

/// A GPU of a node: its index, its UUID, and the memory that is used, in bytes.
struct Gpu<'a> {
    index: Option<u32>,
    uuid: &'a str,
    used: f64,
}

/// All servers of the readings, in order of node and name. `now` in seconds since the Unix epoch.
pub fn containers(readings: &[Reading], now: f64) -> Vec<Container> {
    let mut of_node: BTreeMap<Option<&str>, Vec<&Reading>> = BTreeMap::new();
    for reading in readings {
        of_node.entry(reading.node.as_deref()).or_default().push(reading);
    }
    let mut all = Vec::new();
    for readings in of_node.values() {
        let gpus = gpus(readings);
        let infos = readings.iter().filter(|r| r.name == INFO);
        let mut found: Vec<Container> = infos.map(|info| container(info, readings, &gpus, now)).collect();
        found.sort_by(|a, b| a.container_name.cmp(&b.container_name));
        all.append(&mut found);
    }
    all
}

fn gpus<'a>(readings: &[&'a Reading]) -> Vec<Gpu<'a>> {
    readings
        .iter()
        .filter(|r| r.name == "DCGM_FI_DEV_FB_USED")
        .map(|r| Gpu {
            // An instance of a divided GPU has the index of the whole.
            index: if r.label("GPU_I_ID").is_empty() { r.label("gpu").parse().ok() } else { None },
            uuid: r.label("UUID"),
            used: r.value * f64::from(1 << 20),
        })
        .collect()
}

fn container(info: &Reading, readings: &[&Reading], gpus: &[Gpu<'_>], now: f64) -> Container {
    let name = info.label("container");
    let own = |family: &'static str| {
        readings.iter().filter(move |r| r.name == family && r.label("container") == name)
    };
    let on = |family: &'static str, label: &str| {
        own(family).find(|r| r.value == 1.0).map(|r| r.label(label).to_owned())
    };
    let engine_state = on(STATE, "state");
    let status = match engine_state.as_deref() {
        Some("running") => "running",
        Some("loading") => "loading",
        _ => "error",
    };
    let gpu_uuids: Vec<String> = words(info.label("gpu_uuids")).map(str::to_owned).collect();
    let mut indices: BTreeSet<u32> = BTreeSet::new();
    for word in words(info.label("gpu_indices")) {
        if word == "all" {
            indices.extend(gpus.iter().filter_map(|g| g.index));
        }
        // `0:1`, an instance of GPU 0.
        indices.extend(word.split(':').next().and_then(|i| i.parse::<u32>().ok()));
    }
    let whole: Vec<&Gpu<'_>> = gpus
        .iter()
        .filter(|g| g.index.is_some_and(|i| indices.contains(&i)) || gpu_uuids.iter().any(|u| u == g.uuid))
        .collect();
    indices.extend(whole.iter().filter_map(|g| g.index));
    let id = info.label("container_id");
    let processes: Vec<f64> = readings
        .iter()
        .filter(|r| r.name == "picket_gpu_process_memory_bytes")
        .filter(|r| {
            let owner = r.label("container");
            !owner.is_empty() && (owner == name || owner == id || id.get(..12) == Some(owner))
        })
        .map(|r| r.value)
        .collect();
    let sum = |values: &[f64]| (!values.is_empty()).then(|| values.iter().sum::<f64>());
    let used = sum(&processes).or_else(|| sum(&whole.iter().map(|g| g.used).collect::<Vec<_>>()));
    let started = own(START).next().map(|r| r.value);
    Container {
        node: info.node.clone(),
        container_name: name.to_owned(),
        container_id: id.to_owned(),
        image: info.label("image").to_owned(),
        version: info.label("version").to_owned(),
        model_name: info.label("model").to_owned(),
        gpu_indices: indices.into_iter().collect(),
        gpu_uuids,
        gpu_memory_used_gb: used.map(|bytes| bytes / 1e9),
        status,
        uptime_seconds: started.filter(|_| status != "error").map(|s| (now - s).max(0.0)),
        loading_phase: on(PHASE, "phase"),
        loading_seconds: own(LOADING).next().map(|r| r.value),
        engine_state,
        url: info.label("url").to_owned(),
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').filter(|w| !w.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(node: Option<&str>, name: &str, labels: &[(&str, &str)], value: f64) -> Reading {
        let labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Reading { node: node.map(str::to_owned), name: name.to_owned(), labels, value }
    }

    #[test]
    fn the_document() {
        let node = Some("gpu-1");
        let id = "ab".repeat(32);
        let used = |gpu: &str, uuid: &str, mib: f64| {
            reading(node, "DCGM_FI_DEV_FB_USED", &[("gpu", gpu), ("UUID", uuid)], mib)
        };
        let state = |node: Option<&str>, name: &str, state: &str, value: f64| {
            reading(node, STATE, &[("container", name), ("state", state)], value)
        };
        let mut readings = vec![
            reading(
                node,
                INFO,
                &[
                    ("container", "llama"),
                    ("container_id", &id),
                    ("image", "vllm/vllm-openai:v0.12.0"),
                    ("version", "v0.12.0"),
                    ("model", "org/llama"),
                    ("gpu_indices", "0,1"),
                    ("url", "http://127.0.0.1:8000"),
                ],
                1.0,
            ),
            state(node, "llama", "running", 1.0),
            state(node, "llama", "stuck", 0.0),
            reading(node, START, &[("container", "llama")], 1000.0),
            used("0", "GPU-a", 1000.0),
            used("1", "GPU-b", 500.0),
            used("2", "GPU-c", 9000.0),
            // Another node's GPUs and servers are its own.
            reading(Some("gpu-2"), "DCGM_FI_DEV_FB_USED", &[("gpu", "0"), ("UUID", "GPU-z")], 7.0),
            reading(Some("gpu-2"), INFO, &[("container", "llama"), ("gpu_uuids", "GPU-z")], 1.0),
            state(Some("gpu-2"), "llama", "stuck", 1.0),
            reading(node, INFO, &[("container", "big"), ("gpu_indices", "all")], 1.0),
            state(node, "big", "loading", 1.0),
            reading(node, PHASE, &[("container", "big"), ("phase", "weights")], 1.0),
            reading(node, PHASE, &[("container", "big"), ("phase", "compile")], 0.0),
            reading(node, LOADING, &[("container", "big")], 42.0),
        ];
        let all = containers(&readings, 1060.0);
        let names: Vec<(Option<&str>, &str, &str)> =
            all.iter().map(|c| (c.node.as_deref(), c.container_name.as_str(), c.status)).collect();
        assert_eq!(
            names,
            [(node, "big", "loading"), (node, "llama", "running"), (Some("gpu-2"), "llama", "error")]
        );
        let [big, llama, other] = all.as_slice() else { panic!() };
        assert_eq!(llama.gpu_indices, [0, 1]);
        assert_eq!(llama.gpu_memory_used_gb, Some(1500.0 * 1_048_576.0 / 1e9));
        assert_eq!(llama.uptime_seconds, Some(60.0));
        assert_eq!(big.gpu_indices, [0, 1, 2]);
        assert_eq!((big.loading_phase.as_deref(), big.loading_seconds), (Some("weights"), Some(42.0)));
        assert_eq!((other.gpu_indices.as_slice(), other.engine_state.as_deref()), (&[0][..], Some("stuck")));
        let json = serde_json::to_value(llama).unwrap();
        for field in [
            "container_name",
            "container_id",
            "image",
            "version",
            "model_name",
            "gpu_indices",
            "gpu_memory_used_gb",
            "status",
            "uptime_seconds",
        ] {
            assert!(!json[field].is_null(), "{field}");
        }
        // What its processes use is nearer to the truth than what its GPUs do.
        readings.push(reading(
            node,
            "picket_gpu_process_memory_bytes",
            &[("container", &id), ("UUID", "GPU-a")],
            3e9,
        ));
        assert_eq!(containers(&readings, 0.0)[1].gpu_memory_used_gb, Some(3.0));
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        let all =
            containers(&[reading(None, INFO, &[("container", "x"), ("gpu_indices", "0:1,7")], 1.0)], 0.0);
        assert_eq!(all[0].gpu_indices, [0, 7]);
        assert_eq!((all[0].gpu_memory_used_gb, all[0].uptime_seconds, all[0].status), (None, None, "error"));
        assert!(serde_json::to_value(&all[0]).unwrap().get("node").is_none());
        assert_eq!(containers(&[], 0.0), []);
    }
}
