//! A node with GPUs as its snapshot tells it, and the plugin that sees it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, dead_code)] // a test helper: what fails here fails the test

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use picket_plugin_gpu::Gpu;
use picket_sdk::nvml::NvmlError;
use picket_sdk::serde_json::{self, Value, json};
use picket_sdk::testing::Host;

/// Of the GPU with this number.
pub fn uuid(index: u32) -> String {
    format!("GPU-{index:08x}-0000-4000-8000-000000000000")
}

/// A node with so many GPUs.
pub fn node(gpus: u32) -> Value {
    json!({
        "driver_version": "550.54.15",
        "cuda_version": "12.4",
        "nvml_version": "12.550.54.15",
        "devices": (0..gpus).map(gpu).collect::<Vec<_>>(),
        "events": [],
        "events_life": "life-1",
        "unreadable": {},
    })
}

/// An H100 of which all can be read.
pub fn gpu(index: u32) -> Value {
    let mut device: Value = serde_json::from_str(include_str!("../fixtures/h100.json")).unwrap();
    device["uuid"] = json!(uuid(index));
    device["index"] = json!(index);
    device["minor"] = json!(index);
    device["pci_bus_id"] = json!(format!("00000000:{:02X}:00.0", 0x18 + index));
    device["utilization_gpu_percent"] = json!(90 + index);
    device["temperature_gpu_celsius"] = json!(60 + index);
    device["energy_millijoules"] = json!(9_000_000_000u64 + u64::from(index));
    device
}

/// An instance of a divided GPU, with a process of its own on number 7.
pub fn mig(parent: u32, instance: u32, profile: &str) -> Value {
    let processes = if instance == 7 {
        json!([{"pid": 50, "kind": "compute", "used_memory_bytes": 1_048_576, "gpu_instance_id": 7, "compute_instance_id": 0}])
    } else {
        json!([])
    };
    json!({
        "kind": "mig", "uuid": format!("MIG-{parent}-{instance}"), "index": instance - 7, "parent_uuid": uuid(parent),
        "gpu_instance_id": instance, "compute_instance_id": 0, "mig_profile": profile,
        "name": format!("NVIDIA H100 80GB HBM3 MIG {profile}"),
        "memory_total_bytes": 9856u64 << 20, "memory_used_bytes": 12u64 << 20, "memory_free_bytes": 9844u64 << 20,
        "processes": processes,
        "unreadable": {"power_usage_milliwatts": "not-supported"},
    })
}

/// The plugin, and what it sees.
pub struct World {
    pub host: Host<Gpu>,
    /// What the next snapshot says.
    pub document: Value,
    /// Or why there is none.
    pub answer: Result<(), NvmlError>,
    said: Rc<RefCell<Result<Value, NvmlError>>>,
    settings: Value,
}

impl World {
    pub fn new(document: Value) -> Self {
        let mut host = Host::<Gpu>::new();
        host.file("/proc/sys/kernel/random/boot_id", "boot-1\n");
        host.store_bytes(262_144);
        let said = Rc::new(RefCell::new(Ok(document.clone())));
        let mut world =
            Self { host, document, answer: Ok(()), said, settings: json!({"hostname": "gpu-01"}) };
        world.attach();
        world
    }

    fn attach(&mut self) {
        let said = self.said.clone();
        self.host.nvml(move |_| said.borrow().clone());
        self.host.configure(&self.settings.clone()).unwrap();
    }

    pub fn configure(&mut self, settings: Value) {
        self.settings = settings;
        self.host.configure(&self.settings.clone()).unwrap();
    }

    /// As after a restart of the agent.
    #[must_use]
    pub fn restarted(self) -> Self {
        let Self { host, document, answer, said, settings } = self;
        let mut world = Self { host: host.restarted(), document, answer, said, settings };
        world.attach();
        world
    }

    pub fn collect(&mut self) {
        *self.said.borrow_mut() = self.answer.clone().map(|()| self.document.clone());
        self.host.collect().unwrap();
    }

    /// A collect so many seconds later.
    pub fn tick(&mut self, seconds: u64) {
        self.host.advance(Duration::from_secs(seconds));
        self.collect();
    }

    /// The values of a label of a family's series, in order.
    pub fn series(&self, name: &str, label: &str) -> Vec<String> {
        let samples = self.host.samples();
        let of = samples.iter().filter(|s| s.name == name);
        let mut values: Vec<String> = of.map(|s| s.label(label).unwrap_or_default().to_owned()).collect();
        values.sort_unstable();
        values
    }

    /// The states that a state set is in.
    pub fn state(&self, name: &str, labels: &[(&str, &str)]) -> Vec<String> {
        let samples = self.host.samples();
        let matching = |s: &&picket_sdk::testing::Sample| {
            s.name == name && s.value == 1.0 && labels.iter().all(|(n, v)| s.label(n) == Some(*v))
        };
        let state = |s: &picket_sdk::testing::Sample| s.label("state").unwrap_or_default().to_owned();
        samples.iter().filter(matching).map(state).collect()
    }

    /// Of a GPU.
    pub fn health(&self, index: u32) -> String {
        let component = format!("gpu/{}", uuid(index));
        self.state("picket_component_health", &[("component", &component)]).join(",")
    }

    /// The events since the last call, as kind and key, those that end one marked.
    pub fn events(&mut self) -> Vec<String> {
        let events = self.host.take_events();
        let text = |e: &picket_sdk::Event| {
            let view = e.view();
            format!("{}{} {}", if view.clear { "end " } else { "" }, view.kind, view.key)
        };
        events.iter().map(text).collect()
    }
}
