//! The simulated node: GPUs, model containers and the host under them. A pure function of the seed, the load and
//! the times at which it is asked, so that two runs with one seed agree.

use crate::scenario::{Load, Scenario};

const DAY: f64 = 86_400.0;
const HOUR: f64 = 3_600.0;
/// Of all samples, this share is an anomaly: three times the value.
const ANOMALY_SHARE: f64 = 0.02;
const ANOMALY_FACTOR: f64 = 3.0;
/// In scenario `failure` this GPU falls off the bus (XID 79).
pub const LOST_GPU: usize = 3;

/// What does not change while a node is simulated.
#[derive(Debug, Clone)]
pub struct Fleet {
    pub seed: u64,
    pub gpus: usize,
    pub gpu_memory_mib: f64,
    pub cpus: usize,
    pub memory_bytes: f64,
    pub models: Vec<Model>,
}

/// One model container.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    pub container: String,
    pub model: String,
    pub gpus: Vec<usize>,
    /// Requests a minute at multiplier 1.
    pub requests_per_minute: f64,
    /// Milliseconds for a request at 60 % GPU utilization.
    pub latency_ms: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Running,
    Stuck,
    Down,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gpu {
    /// Off the bus: nothing else of it can be read.
    pub lost: bool,
    pub utilization: f64,
    pub memory_used_mib: f64,
    pub temperature: f64,
    pub memory_temperature: f64,
    pub power_watts: f64,
    pub sm_clock_mhz: f64,
    pub memory_copy: f64,
    pub energy_millijoules: f64,
    pub nvlink_bytes: f64,
    pub ecc_single_bit: f64,
    pub thermal_violation_us: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    pub engine: Engine,
    pub requests_per_minute: f64,
    pub errors_per_minute: f64,
    pub tokens_in_per_minute: f64,
    pub tokens_out_per_minute: f64,
    pub latency_ms: f64,
    pub running: f64,
    pub waiting: f64,
    pub cache_usage: f64,
    pub memory_bytes: f64,
    // Counters since the simulation began.
    pub requests: f64,
    pub errors: f64,
    pub tokens_in: f64,
    pub tokens_out: f64,
    pub cpu_seconds: f64,
    /// Requests completed in this step, each taken as having lasted `latency_ms`.
    pub completed: u64,
}

/// The state after the last step.
pub struct Simulation {
    pub fleet: Fleet,
    pub load: Load,
    pub cpu_percent: f64,
    /// Seconds a CPU has been busy and idle.
    pub cpu_busy: Vec<f64>,
    pub cpu_idle: Vec<f64>,
    pub memory_available: f64,
    pub gpus: Vec<Gpu>,
    pub containers: Vec<Container>,
    last: Option<f64>,
}

impl Simulation {
    pub fn new(fleet: Fleet, load: Load) -> Self {
        let containers = fleet.models.iter().map(|_| Container::idle()).collect();
        Self {
            cpu_percent: 0.0,
            cpu_busy: vec![0.0; fleet.cpus],
            cpu_idle: vec![0.0; fleet.cpus],
            memory_available: fleet.memory_bytes,
            gpus: vec![Gpu::default(); fleet.gpus],
            containers,
            last: None,
            fleet,
            load,
        }
    }

    /// Moves on to `now`, seconds since the Unix epoch. Counters grow by what passed since the last step; a clock
    /// that went back adds nothing.
    pub fn step(&mut self, now: f64) {
        let passed = self.last.map_or(0.0, |last| (now - last).clamp(0.0, HOUR));
        self.last = Some(now);
        let base = self.load.scenario.base();
        let set = self.load.settings.clone();
        let anomalies = set.enable_anomalies.unwrap_or(true);
        let seed = self.fleet.seed;
        let wave = move |what: u64, base: f64| wave(seed, what, base, now, anomalies);

        self.cpu_percent = set.cpu_load.unwrap_or_else(|| wave(1, base.cpu)).clamp(0.0, 100.0);
        for (busy, idle) in self.cpu_busy.iter_mut().zip(&mut self.cpu_idle) {
            *busy += passed * self.cpu_percent / 100.0;
            *idle += passed * (1.0 - self.cpu_percent / 100.0);
        }
        self.memory_available = self.fleet.memory_bytes * (1.0 - (0.2 + self.cpu_percent / 250.0));

        let failure = self.load.scenario == Scenario::Failure;
        for (i, gpu) in self.gpus.iter_mut().enumerate() {
            gpu.lost = failure && i == LOST_GPU;
            let what = 100 + i as u64;
            let util = set.gpu_utilization.unwrap_or_else(|| wave(what, base.gpu)).clamp(0.0, 100.0);
            let total = self.fleet.gpu_memory_mib;
            let memory = set.gpu_memory_percent.unwrap_or(62.0 + util * 0.25 + 5.0 * noise(seed, what, 7.0));
            gpu.utilization = util;
            gpu.memory_used_mib = (total * memory.clamp(0.0, 100.0) / 100.0).round();
            gpu.temperature =
                set.gpu_temperature_celsius.unwrap_or_else(|| (40.0 + 0.4 * util).clamp(30.0, 85.0)).round();
            gpu.memory_temperature = gpu.temperature + 6.0;
            gpu.power_watts = set.gpu_power_watts.unwrap_or_else(|| (100.0 + 3.0 * util).clamp(50.0, 450.0));
            gpu.sm_clock_mhz = if util < 1.0 { 345.0 } else { (1980.0 - util * 2.0).round() };
            gpu.memory_copy = (util * 0.55).round();
            gpu.energy_millijoules += gpu.power_watts * passed * 1000.0;
            gpu.nvlink_bytes += util / 100.0 * 180e9 * passed;
            if failure || self.load.scenario == Scenario::Degraded {
                gpu.ecc_single_bit += (passed * unit(seed, what, now) / 20.0).round();
            }
            if gpu.temperature >= 83.0 {
                gpu.thermal_violation_us += passed * 1e6;
            }
        }

        let rate = set.error_rate.unwrap_or(base.error_rate) / 100.0;
        let times = set.request_multiplier.unwrap_or(match self.load.scenario {
            Scenario::Normal => 1.0,
            Scenario::HighLoad => 2.5,
            Scenario::Degraded => 1.2,
            Scenario::Failure => 0.6,
        });
        for (i, (c, model)) in self.containers.iter_mut().zip(&self.fleet.models).enumerate() {
            let what = 1000 + i as u64;
            c.engine = match (failure, i) {
                (true, 1) => Engine::Down,
                (true, 2) => Engine::Stuck,
                _ => Engine::Running,
            };
            let busy = model.gpus.iter().filter_map(|g| self.gpus.get(*g)).map(|g| g.utilization);
            let util = busy.sum::<f64>() / model.gpus.len().max(1) as f64;
            let works = c.engine == Engine::Running;
            c.requests_per_minute = if works { wave(what, model.requests_per_minute) * times } else { 0.0 };
            c.errors_per_minute = c.requests_per_minute * rate;
            c.tokens_in_per_minute = c.requests_per_minute * 420.0;
            c.tokens_out_per_minute = c.requests_per_minute * 260.0;
            c.latency_ms = model.latency_ms * (0.4 + util / 100.0);
            c.running = match c.engine {
                Engine::Running => (c.requests_per_minute / 60.0 * c.latency_ms / 1000.0).ceil(),
                Engine::Stuck => 4.0,
                Engine::Down => 0.0,
            };
            c.waiting =
                if c.engine == Engine::Stuck { 12.0 } else { (c.running * (util / 100.0).powi(4)).floor() };
            c.cache_usage = (c.running / 64.0 + util / 250.0).clamp(0.0, 1.0);
            c.memory_bytes = if c.engine == Engine::Down { 0.0 } else { 6e9 + 2e9 * model.gpus.len() as f64 };
            let before = c.requests.floor();
            let minutes = passed / 60.0;
            c.requests += c.requests_per_minute * minutes;
            c.errors += c.errors_per_minute * minutes;
            c.tokens_in += c.tokens_in_per_minute * minutes;
            c.tokens_out += c.tokens_out_per_minute * minutes;
            c.completed = (c.requests.floor() - before) as u64;
            if c.engine != Engine::Down {
                c.cpu_seconds += passed * (0.3 + util / 50.0);
            }
        }
    }
}

impl Container {
    fn idle() -> Self {
        Self {
            engine: Engine::Running,
            requests_per_minute: 0.0,
            errors_per_minute: 0.0,
            tokens_in_per_minute: 0.0,
            tokens_out_per_minute: 0.0,
            latency_ms: 0.0,
            running: 0.0,
            waiting: 0.0,
            cache_usage: 0.0,
            memory_bytes: 0.0,
            requests: 0.0,
            errors: 0.0,
            tokens_in: 0.0,
            tokens_out: 0.0,
            cpu_seconds: 0.0,
            completed: 0,
        }
    }
}

/// The five model containers of a node with eight GPUs.
pub fn default_models() -> Vec<Model> {
    [
        ("vllm-llama3-70b", "llama3-70b", &[0, 1][..], 40.0, 2400.0),
        ("vllm-mixtral", "mixtral", &[2, 3], 55.0, 1700.0),
        ("vllm-qwen2-72b", "qwen2-72b", &[4, 5], 35.0, 2500.0),
        ("vllm-llama3-8b", "llama3-8b", &[6], 120.0, 650.0),
        ("vllm-phi3-mini", "phi3-mini", &[7], 150.0, 420.0),
    ]
    .into_iter()
    .map(|(container, model, gpus, requests_per_minute, latency_ms)| Model {
        container: container.into(),
        model: model.into(),
        gpus: gpus.to_vec(),
        requests_per_minute,
        latency_ms,
    })
    .collect()
}

/// base + a daily sine + a hourly one of 0.3 of it + noise; now and then three times the value.
fn wave(seed: u64, what: u64, base: f64, now: f64, anomalies: bool) -> f64 {
    let swing = base * 0.08;
    let daily = swing * (std::f64::consts::TAU * now / DAY).sin();
    let hourly = 0.3 * swing * (std::f64::consts::TAU * now / HOUR).sin();
    let value = base + daily + hourly + base * 0.02 * noise(seed, what, now);
    let anomaly = anomalies && unit(seed, what ^ 0xa40, now) < ANOMALY_SHARE;
    if anomaly { value * ANOMALY_FACTOR } else { value }
}

/// −1 to 1.
fn noise(seed: u64, what: u64, now: f64) -> f64 {
    unit(seed, what, now) * 2.0 - 1.0
}

/// 0 to 1, by splitmix64 over seed, subject and second.
fn unit(seed: u64, what: u64, now: f64) -> f64 {
    let mut z = seed
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(what.wrapping_mul(0xd1b5_4a32_d192_ed03))
        .wrapping_add((now as u64).wrapping_mul(0x94d0_49bb_1331_11eb));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(seed: u64) -> Fleet {
        Fleet {
            seed,
            gpus: 8,
            gpu_memory_mib: 81_559.0,
            cpus: 4,
            memory_bytes: 1e12,
            models: default_models(),
        }
    }

    fn run(seed: u64, json: &str, steps: usize) -> (Simulation, Vec<f64>, Vec<f64>) {
        let mut s = Simulation::new(fleet(seed), Load::parse(json).unwrap());
        let (mut cpu, mut gpu) = (Vec::new(), Vec::new());
        for i in 0..steps {
            s.step(1_700_000_000.0 + i as f64 * 15.0);
            cpu.push(s.cpu_percent);
            gpu.extend(s.gpus.iter().map(|g| g.utilization));
        }
        (s, cpu, gpu)
    }

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len() as f64
    }

    /// A day in steps of 15 s: the means are the scenario's, the anomalies 2 %.
    #[test]
    fn scenarios_have_their_values() {
        for (name, cpu, gpu, errors) in
            [("normal", 30.0, 60.0, 0.1), ("high_load", 80.0, 90.0, 0.5), ("degraded", 50.0, 70.0, 5.0)]
        {
            let json = format!(r#"{{"scenario":"{name}","settings":{{"enable_anomalies":false}}}}"#);
            let (s, c, g) = run(1, &json, 5760);
            assert!((mean(&c) - cpu).abs() < 1.0, "{name} cpu {}", mean(&c));
            assert!((mean(&g) - gpu).abs() < 1.5, "{name} gpu {}", mean(&g));
            let total: f64 = s.containers.iter().map(|c| c.requests).sum();
            let failed: f64 = s.containers.iter().map(|c| c.errors).sum();
            assert!((failed / total * 100.0 - errors).abs() < 1e-6, "{name} errors");
        }
    }

    #[test]
    fn anomalies_are_two_percent_and_can_be_switched_off() {
        let (_, with, _) = run(1, r#"{"scenario":"normal"}"#, 5760);
        let share = with.iter().filter(|v| **v > 60.0).count() as f64 / with.len() as f64;
        assert!((0.01..0.03).contains(&share), "{share}");
        let (_, without, _) = run(1, r#"{"scenario":"normal","settings":{"enable_anomalies":false}}"#, 5760);
        assert!(without.iter().all(|v| *v < 60.0));
    }

    #[test]
    fn one_seed_one_fleet() {
        let json = r#"{"scenario":"normal"}"#;
        assert_eq!(run(1, json, 50).2, run(1, json, 50).2);
        assert_ne!(run(1, json, 50).2, run(2, json, 50).2);
    }

    #[test]
    fn what_is_set_is_exported_as_it_is() {
        let json = r#"{"scenario":"normal","settings":{"gpu_temperature_celsius":91,"cpu_load":55}}"#;
        let (s, cpu, _) = run(1, json, 200);
        assert!(cpu.iter().all(|v| *v == 55.0));
        assert!(s.gpus.iter().all(|g| g.temperature == 91.0));
    }

    #[test]
    fn failure_loses_a_gpu_and_two_engines() {
        let (s, ..) = run(1, r#"{"scenario":"failure"}"#, 3);
        assert!(s.gpus[LOST_GPU].lost);
        let engines: Vec<_> = s.containers.iter().map(|c| c.engine).collect();
        assert!(engines.contains(&Engine::Stuck) && engines.contains(&Engine::Down));
    }

    #[test]
    fn a_clock_that_goes_back_takes_nothing_away() {
        let mut s = Simulation::new(fleet(1), Load::default());
        s.step(1000.0);
        s.step(1060.0);
        let before = s.containers[0].requests;
        s.step(900.0);
        assert_eq!(s.containers[0].requests, before);
    }
}
