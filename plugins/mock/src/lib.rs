//! `mock`: a simulated GPU node under the names that real ones use, for demos, tests and dashboards without hardware.
//!
//! What moves is in [`simulation`], what an operator may change in [`scenario`], how it is exported in `families`.

mod families;
pub mod scenario;
pub mod simulation;

use families::Families;
use picket_sdk::{Collect, Controllable, Describe, Event, Failure, Refused, Severity, Source, clock};
use scenario::Load;
use serde::Deserialize;
use simulation::{Fleet, LOST_GPU, Model, Simulation, default_models};

/// How much of the node is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// All of it.
    Full,
    /// The parts that `simulate` names; other plugins read the rest.
    Partial,
    /// Nothing: the plugin is there and exports no series.
    Disabled,
}

/// What can be simulated by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// `DCGM_FI_DEV_*` and `nvidia_gpu_*`, with the events of GPUs.
    Gpus,
    /// `vllm:*` and `picket_vllm_engine_state`.
    Engines,
    /// `llm_model_*`.
    Models,
    /// `container_*`.
    Containers,
    /// `node_*`.
    Host,
}

/// `[plugins.mock.settings]`
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    pub mode: Mode,
    /// The parts of the mode `partial`.
    pub simulate: Vec<Part>,
    /// Two nodes with one seed show the same values.
    pub seed: u64,
    /// The value of the labels `Hostname` and `hostname`.
    pub hostname: String,
    pub gpus: usize,
    pub gpu_model: String,
    pub gpu_memory_mib: f64,
    pub cpus: usize,
    /// Whether the host's own families (`node_*`) are simulated too.
    pub host: bool,
    /// None: the five of a node with eight GPUs.
    pub models: Option<Vec<ModelSettings>>,
    /// The load at the start.
    pub load: Option<serde_json::Value>,
}

impl Settings {
    /// Whether a part is simulated.
    pub(crate) fn simulates(&self, part: Part) -> bool {
        match self.mode {
            Mode::Full => part != Part::Host || self.host,
            Mode::Partial => self.simulate.contains(&part),
            Mode::Disabled => false,
        }
    }
}

/// One model container of the settings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSettings {
    pub container: String,
    pub model: String,
    #[serde(default)]
    pub gpus: Vec<usize>,
    #[serde(default = "default_rate")]
    pub requests_per_minute: f64,
    #[serde(default = "default_latency")]
    pub latency_ms: f64,
}

fn default_rate() -> f64 {
    60.0
}

fn default_latency() -> f64 {
    1000.0
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Full,
            simulate: Vec::new(),
            seed: 1,
            hostname: "mock".into(),
            gpus: 8,
            gpu_model: "NVIDIA H100 80GB HBM3".into(),
            gpu_memory_mib: 81_559.0,
            cpus: 32,
            host: true,
            models: None,
            load: None,
        }
    }
}

/// The plugin.
pub struct Mock {
    families: Families,
    settings: Settings,
    simulation: Simulation,
    gpu_lost: bool,
}

impl Source for Mock {
    type Settings = Settings;

    fn describe(d: &mut Describe) -> Self {
        // Whoever looks at a series can tell that nothing real is behind it.
        d.label_all("simulated", "true");
        let settings = Settings::default();
        let simulation = Simulation::new(fleet(&settings), Load::default());
        Self { families: Families::declare(d), simulation, settings, gpu_lost: false }
    }

    fn configure(&mut self, settings: Settings) -> Result<(), Failure> {
        let refuse = |what: String| Err(Failure::new("settings", what));
        if settings.gpus > 64 || settings.cpus > 1024 || settings.cpus == 0 {
            return refuse(format!(
                "gpus is {} (0 to 64 are allowed), cpus is {} (1 to 1024 are allowed)",
                settings.gpus, settings.cpus
            ));
        }
        match (settings.mode, settings.simulate.is_empty()) {
            (Mode::Partial, true) => {
                return refuse(
                    "the mode partial wants `simulate`: gpus, engines, models, containers, host".to_owned(),
                );
            }
            (Mode::Full | Mode::Disabled, false) => {
                return refuse("`simulate` belongs to the mode partial".to_owned());
            }
            _ => {}
        }
        let models = settings.models.as_deref().unwrap_or_default();
        if models.len() > 64 {
            return refuse(format!("{} models are set, 64 are allowed", models.len()));
        }
        for model in models {
            if let Some(gpu) = model.gpus.iter().find(|g| **g >= settings.gpus) {
                return refuse(format!(
                    "model {:?} wants GPU {gpu}, there are {}",
                    model.container, settings.gpus
                ));
            }
        }
        let load = match &settings.load {
            Some(value) => Load::parse(&value.to_string())
                .map_err(|lines| Failure::new("settings", format!("load: {}", lines.join("; "))))?,
            None => Load::default(),
        };
        self.simulation = Simulation::new(fleet(&settings), load);
        self.settings = settings;
        Ok(())
    }

    fn collect(&mut self, collect: &mut Collect<'_>) -> Result<(), Failure> {
        self.simulation.step(clock::now().as_secs_f64());
        self.families.export(&self.simulation, &self.settings);
        self.report_lost_gpu(collect);
        Ok(())
    }
}

impl Mock {
    /// The GPU that falls off the bus in `failure` is an event, and its return the end of it.
    fn report_lost_gpu(&mut self, collect: &mut Collect<'_>) {
        if !self.settings.simulates(Part::Gpus) {
            return;
        }
        let lost = self.simulation.gpus.get(LOST_GPU).is_some_and(|g| g.lost);
        if lost == self.gpu_lost {
            return;
        }
        self.gpu_lost = lost;
        let uuid = families::uuid(self.settings.seed, LOST_GPU);
        let key = format!("xid/{uuid}");
        collect.emit(if lost {
            let message = format!("GPU {LOST_GPU} has fallen off the bus (XID 79, simulated)");
            Event::new("gpu.xid", Severity::Critical, message)
                .about("gpu", uuid)
                .attribute("xid", "79")
                .attribute("action", "reboot")
                .attribute("simulated", "true")
                .key(key)
        } else {
            Event::ended("gpu.xid", key, format!("GPU {LOST_GPU} is back (simulated)")).about("gpu", uuid)
        });
    }
}

impl Controllable for Mock {
    type Control = serde_json::Value;

    fn schema() -> serde_json::Value {
        Load::schema()
    }

    fn control(&self) -> serde_json::Value {
        self.simulation.load.to_json()
    }

    fn set_control(&mut self, control: serde_json::Value) -> Result<(), Refused> {
        self.simulation.load = Load::parse(&control.to_string()).map_err(Refused)?;
        Ok(())
    }
}

fn fleet(settings: &Settings) -> Fleet {
    let models = match &settings.models {
        Some(list) => list
            .iter()
            .map(|m| Model {
                container: m.container.clone(),
                model: m.model.clone(),
                gpus: m.gpus.clone(),
                requests_per_minute: m.requests_per_minute,
                latency_ms: m.latency_ms,
            })
            .collect(),
        None => default_models().into_iter().filter(|m| m.gpus.iter().all(|g| *g < settings.gpus)).collect(),
    };
    Fleet {
        seed: settings.seed,
        gpus: settings.gpus,
        gpu_memory_mib: settings.gpu_memory_mib,
        cpus: settings.cpus,
        memory_bytes: 1024.0 * 1024.0 * 1024.0 * 1024.0,
        models,
    }
}

picket_sdk::export_controllable!(Mock);
