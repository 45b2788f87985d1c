//! Which GPUs a container has: by the engine's device requests, CDI names, device files, or the variable that NVIDIA's
//! container runtime reads.

use std::collections::BTreeSet;

use crate::inspect::Inspect;

/// The GPUs of one server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gpus {
    /// Every GPU of the node.
    pub all: bool,
    pub indices: BTreeSet<u32>,
    /// `GPU-…` and `MIG-…`.
    pub uuids: BTreeSet<String>,
    /// MIG devices by the GPU's index and their own: `0:1`.
    pub mig: BTreeSet<String>,
}

impl Gpus {
    pub fn of(container: &Inspect) -> Self {
        let mut gpus = Self::default();
        let requests = container.host_config.device_requests.iter();
        for request in requests.filter(|r| {
            matches!(r.driver.as_str(), "nvidia" | "cdi")
                || r.capabilities.iter().flatten().any(|c| c == "gpu" || c == "nvidia")
        }) {
            if request.device_ids.is_empty() {
                match u32::try_from(request.count) {
                    // Docker gives the first ones.
                    Ok(count) => gpus.indices.extend(0..count.min(1024)),
                    Err(_) => gpus.all = true,
                }
            }
            request.device_ids.iter().for_each(|id| gpus.add(id));
        }
        for device in &container.host_config.devices {
            gpus.device(&device.path_on_host);
        }
        if gpus == Self::default()
            && let Some(value) = container.config.env("NVIDIA_VISIBLE_DEVICES")
        {
            // CUDA's images say `all` whether or not the runtime that reads it is there.
            let runtime = container.host_config.runtime.contains("nvidia");
            if runtime || value != "all" {
                value.split(',').for_each(|word| gpus.add(word.trim()));
            }
        }
        if let Some(value) = container.config.env("CUDA_VISIBLE_DEVICES") {
            gpus.narrow(value);
        }
        gpus
    }

    /// From a setting: `0,1`, a UUID, `all`.
    pub fn parse(text: &str) -> Self {
        let mut gpus = Self::default();
        text.split(',').for_each(|word| gpus.add(word.trim()));
        gpus
    }

    fn device(&mut self, path: &str) {
        // Podman keeps the CDI name where Docker keeps a path.
        if let Some(rest) = path.strip_prefix("/dev/nvidia") {
            self.indices.extend(rest.parse::<u32>());
        } else if path.contains("/gpu=") {
            self.add(path);
        }
    }

    fn add(&mut self, word: &str) {
        let id = word.split_once("/gpu=").map_or(word, |(_, id)| id);
        if id == "all" {
            self.all = true;
        } else if let Ok(index) = id.parse() {
            self.indices.insert(index);
        } else if id.starts_with("GPU-") || id.starts_with("MIG-") {
            self.uuids.insert(id.to_owned());
        } else if let Some((gpu, device)) = id.split_once(':')
            && gpu.parse::<u32>().is_ok()
            && device.parse::<u32>().is_ok()
        {
            self.mig.insert(id.to_owned());
        }
        // `none`, `void`, an empty word: no GPU.
    }

    /// The process sees a part of them: CUDA counts the visible ones from 0.
    fn narrow(&mut self, value: &str) {
        let words: Vec<&str> = value.split(',').map(str::trim).filter(|w| !w.is_empty()).collect();
        let numbers: Option<Vec<usize>> = words.iter().map(|w| w.parse().ok()).collect();
        match numbers {
            Some(numbers) if !numbers.is_empty() => {
                if self.all {
                    self.all = false;
                    self.indices = numbers.iter().filter_map(|n| u32::try_from(*n).ok()).collect();
                } else if self.uuids.is_empty() && self.mig.is_empty() && !self.indices.is_empty() {
                    let visible: Vec<u32> = self.indices.iter().copied().collect();
                    self.indices = numbers.iter().filter_map(|n| visible.get(*n).copied()).collect();
                }
            }
            _ if !words.is_empty()
                && words.iter().all(|w| w.starts_with("GPU-") || w.starts_with("MIG-")) =>
            {
                *self = Self::parse(value);
            }
            _ => {}
        }
    }

    /// The label `gpu`, and `gpu_indices`: `0,1`, `all`, MIG devices as `0:1`.
    pub fn label(&self) -> String {
        if self.all {
            return "all".to_owned();
        }
        let indices = self.indices.iter().map(u32::to_string);
        indices.chain(self.mig.iter().cloned()).collect::<Vec<_>>().join(",")
    }

    pub fn uuid_label(&self) -> String {
        self.uuids.iter().cloned().collect::<Vec<_>>().join(",")
    }

    /// What names them at all: the indices, or else the UUIDs.
    pub fn any_label(&self) -> String {
        let label = self.label();
        if label.is_empty() { self.uuid_label() } else { label }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpus(json: &str) -> (String, String) {
        let gpus = Gpus::of(&serde_json::from_str(json).unwrap());
        (gpus.label(), gpus.uuid_label())
    }

    #[test]
    fn how_containers_get_gpus() {
        let request = |body: &str| format!(r#"{{"HostConfig":{{"DeviceRequests":[{body}]}}}}"#);
        let with_env = |runtime: &str, env: &str| {
            format!(r#"{{"HostConfig":{{"Runtime":"{runtime}"}},"Config":{{"Env":[{env}]}}}}"#)
        };
        for (json, indices, uuids) in [
            // `--gpus all`, as Docker 20.10 and later write it.
            (
                request(r#"{"Driver":"","Count":-1,"DeviceIDs":null,"Capabilities":[["gpu"]],"Options":{}}"#),
                "all",
                "",
            ),
            (request(r#"{"Driver":"","Count":2,"DeviceIDs":null,"Capabilities":[["gpu"]]}"#), "0,1", ""),
            (request(r#"{"Driver":"","Count":0,"DeviceIDs":["3","2"],"Capabilities":[["gpu"]]}"#), "2,3", ""),
            (
                request(r#"{"Driver":"nvidia","DeviceIDs":["GPU-8f3a","MIG-41b2"],"Capabilities":[["gpu"]]}"#),
                "",
                "GPU-8f3a,MIG-41b2",
            ),
            (request(r#"{"DeviceIDs":["0:1"],"Capabilities":[["gpu"]]}"#), "0:1", ""),
            (request(r#"{"Driver":"cdi","Count":0,"DeviceIDs":["nvidia.com/gpu=1","nvidia.com/gpu=GPU-aa"]}"#), "1", "GPU-aa"),
            (request(r#"{"Driver":"cdi","DeviceIDs":["nvidia.com/gpu=all"]}"#), "all", ""),
            (request(r#"{"Driver":"other","Count":-1,"Capabilities":[["tpu"]]}"#), "", ""),
            (r#"{"HostConfig":{"Devices":[{"PathOnHost":"/dev/nvidia4"},{"PathOnHost":"/dev/nvidiactl"}]}}"#.to_owned(), "4", ""),
            (r#"{"HostConfig":{"Devices":[{"PathOnHost":"nvidia.com/gpu=5"}]}}"#.to_owned(), "5", ""),
            (with_env("nvidia", r#""NVIDIA_VISIBLE_DEVICES=0,2""#), "0,2", ""),
            (with_env("nvidia", r#""NVIDIA_VISIBLE_DEVICES=all""#), "all", ""),
            // What CUDA's images say of themselves.
            (with_env("runc", r#""NVIDIA_VISIBLE_DEVICES=all""#), "", ""),
            (with_env("nvidia", r#""NVIDIA_VISIBLE_DEVICES=void""#), "", ""),
            (with_env("nvidia", r#""NVIDIA_VISIBLE_DEVICES=none""#), "", ""),
            (with_env("nvidia", r#""NVIDIA_VISIBLE_DEVICES=MIG-1,GPU-2""#), "", "GPU-2,MIG-1"),
            (with_env("nvidia", r#""NVIDIA_VISIBLE_DEVICES=4,5,6","CUDA_VISIBLE_DEVICES=1""#), "5", ""),
            (with_env("nvidia", r#""NVIDIA_VISIBLE_DEVICES=all","CUDA_VISIBLE_DEVICES=2,3""#), "2,3", ""),
            (with_env("nvidia", r#""NVIDIA_VISIBLE_DEVICES=all","CUDA_VISIBLE_DEVICES=GPU-9""#), "", "GPU-9"),
            ("{}".to_owned(), "", ""),
            (r#"{"HostConfig":{"DeviceRequests":null,"Devices":null},"Config":null}"#.to_owned(), "", ""),
        ] {
            assert_eq!(gpus(&json), (indices.to_owned(), uuids.to_owned()), "{json}");
        }
    }
}
