//! NVIDIA GPUs, through the real agent with its helper process: NVML is the fake library, the kernel's log a pipe that
//! stands in for the device. What is compared with a real GPU skips by name without one.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::exposition::{Exposition, Labels};
use e2e::{
    Agent, AgentBuilder, Aggregator, Api, Test, eventually, grants_of, quoted, repository, run, run_program,
    skip, target, which,
};
use serde_json::Value;

const HEALTHY: &str = include_str!("../fake-nvml/scenarios/8xh100.toml");
const MIG: &str = include_str!("../fake-nvml/scenarios/mig.toml");
const DIVIDED: &str = "GPU-6f3a1c00-0000-4000-8000-000000000001";

fn uuid(gpu: u32) -> String {
    format!("GPU-6f3a1c00-0000-4000-8000-00000000000{gpu}")
}

/// A node with GPUs that the test makes.
struct Node {
    scenario: PathBuf,
    kernel: Option<std::fs::File>,
    sequence: u64,
    sections: String,
}

impl Node {
    /// `settings` are lines of `[plugins.gpu.settings]`.
    fn new(test: &Test, scenario: &str, interval: &str, settings: &str) -> Result<Self> {
        let library = target().join("debug/libfake_nvml.so");
        ensure!(library.exists(), "{} is missing: cargo build -p fake-nvml", library.display());
        let file = test.folder().join("scenario.toml");
        std::fs::write(&file, scenario)?;
        let pipe = test.folder().join("kmsg");
        let made = Command::new("mkfifo").arg(&pipe).status().context("mkfifo")?;
        ensure!(made.success(), "mkfifo: {made}");
        let sections = format!(
            "[nvml]\nlibrary = {}\n[kmsg]\npath = {}\n[plugins.gpu]\nfile = \"gpu.wasm\"\ninterval = \"{interval}\"\n\
             [plugins.gpu.settings]\nhostname = \"gpu-01\"\n{settings}\n{}",
            quoted(&library),
            quoted(&pipe),
            grants_of("gpu")?
        );
        // Read and write, so that opening does not wait for the agent.
        let kernel = std::fs::File::options().read(true).write(true).open(&pipe)?;
        Ok(Self { scenario: file, kernel: Some(kernel), sequence: 0, sections })
    }

    fn agent<'a>(&self, builder: AgentBuilder<'a>) -> AgentBuilder<'a> {
        builder
            .section(self.sections.clone())
            .environment("FAKE_NVML_SCENARIO", &self.scenario.to_string_lossy())
    }

    async fn alone(&self, test: &Test) -> Result<Agent> {
        self.agent(AgentBuilder::new(test, "gpu-node")?).start().await
    }

    async fn under(&self, test: &Test, aggregator: &Aggregator) -> Result<Agent> {
        self.agent(aggregator.agent(test, "gpu-node")?).enrol_and_start(aggregator).await
    }

    /// The driver says this from now on.
    fn say(&self, scenario: &str) -> Result<()> {
        let new = self.scenario.with_extension("new");
        std::fs::write(&new, scenario)?;
        // Its counters go on since the first one was written: energy that falls is a GPU that was reset.
        let since = std::fs::metadata(&self.scenario)?.modified()?;
        std::fs::File::options().write(true).open(&new)?.set_modified(since)?;
        std::fs::rename(&new, &self.scenario).context("cannot replace the scenario")
    }

    /// The kernel logs a line.
    fn log(&mut self, text: &str) -> Result<()> {
        let uptime = std::fs::read_to_string("/proc/uptime")?;
        let seconds: f64 = uptime.split(' ').next().and_then(|w| w.parse().ok()).context("no uptime")?;
        self.sequence += 1;
        let record = format!("3,{},{},-;{text}\n", self.sequence, (seconds * 1e6) as u64);
        self.kernel.as_mut().context("no pipe")?.write_all(record.as_bytes())?;
        Ok(())
    }
}

/// Waits until the page has a family; gives the page.
async fn page_with(api: &Api, family: &str) -> Result<Exposition> {
    eventually(&format!("{family} is there"), || async {
        let page = api.metrics().await?;
        ensure!(!page.series(family).is_empty(), "{family} is not there");
        Ok(page)
    })
    .await
}

/// The values of a label among a family's series.
fn values(page: &Exposition, family: &str, label: &str) -> Vec<String> {
    let of = |labels: &Labels| labels.get(label).cloned().unwrap_or_default();
    let mut found: Vec<String> = page.series(family).iter().map(|(labels, _)| of(labels)).collect();
    found.sort_unstable();
    found
}

/// Which state is 1.
fn state(page: &Exposition, family: &str, component: &str) -> Option<String> {
    let on = page.series(family).iter().find(|(labels, value)| {
        *value == 1.0 && (component.is_empty() || labels.get("component").is_some_and(|c| c == component))
    });
    on.and_then(|(labels, _)| labels.get("state").cloned())
}

/// The events of a kind at the aggregator, as key, and whether they end it.
async fn events(aggregator: &Aggregator, kind: &str) -> Result<Vec<Value>> {
    let all = aggregator.api.json(&format!("/api/v1/events?kind={kind}&limit=100")).await?;
    let list = all.as_array().or_else(|| all["events"].as_array()).context("no list of events")?;
    Ok(list.clone())
}

#[test]
fn every_dcgm_family_with_its_labels_from_the_fake_driver() {
    run(async |test: &Test| {
        let node = Node::new(test, HEALTHY, "500ms", "")?;
        let agent = node.alone(test).await?;
        // Profiling counters compare two snapshots.
        let page = page_with(&agent.api, "DCGM_FI_PROF_SM_ACTIVE").await?;
        let uuid = uuid(3);
        let labels = [
            ("gpu", "3"),
            ("UUID", &*uuid),
            ("device", "nvidia3"),
            ("modelName", "NVIDIA H100 80GB HBM3"),
            ("Hostname", "gpu-01"),
            ("hostname", "gpu-01"),
        ];
        for (family, want) in [
            ("SM_CLOCK", 1755.0),
            ("MEM_CLOCK", 2619.0),
            ("MEMORY_TEMP", 72.0),
            ("GPU_TEMP", 61.0),
            ("POWER_USAGE", 612.345),
            ("GPU_UTIL", 93.0),
            ("MEM_COPY_UTIL", 41.0),
            ("ENC_UTIL", 0.0),
            ("DEC_UTIL", 0.0),
            ("XID_ERRORS", 0.0),
            ("FB_USED", 65536.0),
            ("FB_RESERVED", 635.0),
            ("UNCORRECTABLE_REMAPPED_ROWS", 0.0),
            ("CORRECTABLE_REMAPPED_ROWS", 0.0),
            ("ROW_REMAP_FAILURE", 0.0),
            ("ROW_REMAP_PENDING", 0.0),
            ("ECC_SBE_VOL_TOTAL", 0.0),
            ("ECC_DBE_VOL_TOTAL", 0.0),
            ("ECC_SBE_AGG_TOTAL", 2.0),
            ("ECC_DBE_AGG_TOTAL", 0.0),
            ("THERMAL_VIOLATION", 0.0),
            ("POWER_MGMT_LIMIT", 700.0),
            ("ENFORCED_POWER_LIMIT", 700.0),
            ("PCIE_REPLAY_COUNTER", 0.0),
            ("NVLINK_REPLAY_ERROR_COUNT_L17", 0.0),
        ] {
            let family = format!("DCGM_FI_DEV_{family}");
            let value = page.value(&family, &labels)?;
            ensure!(value == want, "{family} is {value}, not {want}");
            ensure!(page.series(&family).len() == 8, "{family}: {} GPUs", page.series(&family).len());
        }
        // Counters that grow.
        for family in
            ["TOTAL_ENERGY_CONSUMPTION", "POWER_VIOLATION", "NVLINK_BANDWIDTH_TOTAL", "NVLINK_BANDWIDTH_L0"]
        {
            let family = format!("DCGM_FI_DEV_{family}");
            let before = page.value(&family, &labels)?;
            eventually(&format!("{family} grows"), || async {
                let now = agent.api.metrics().await?.value(&family, &labels)?;
                ensure!(now > before, "{now} after {before}");
                Ok(())
            })
            .await?;
            ensure!(page.types.get(&family).is_some_and(|t| t == "counter"), "{family} is no counter");
        }
        for family in ["GR_ENGINE_ACTIVE", "SM_ACTIVE", "PIPE_TENSOR_ACTIVE", "DRAM_ACTIVE"] {
            let value = page.value(&format!("DCGM_FI_PROF_{family}"), &labels)?;
            ensure!((0.0..=1.0).contains(&value), "{family} is {value}");
        }
        for (family, want) in [
            ("nvidia_gpu_utilization", 93.0),
            ("nvidia_gpu_memory_used_bytes", 68_719_476_736.0),
            ("nvidia_gpu_memory_total_bytes", 85_520_809_984.0),
            ("nvidia_gpu_temperature_celsius", 61.0),
            ("nvidia_gpu_power_watts", 612.345),
        ] {
            let value = page.value(family, &[("gpu_id", "3")])?;
            ensure!(value == want, "{family} is {value}");
        }
        ensure!(page.value("picket_gpu_count", &[])? == 8.0);
        ensure!(state(&page, "picket_gpu_driver_state", "").as_deref() == Some("ok"));
        ensure!(
            state(&page, "picket_component_health", &format!("gpu/{uuid}")).as_deref() == Some("healthy")
        );
        page.value(
            "picket_gpu_driver_info",
            &[("driver_version", "550.54.15"), ("cuda_version", "12.4"), ("nvml_version", "12.550.54.15")],
        )?;
        // Nothing of it failed.
        let failed = agent.api.metrics().await?.sum("picket_source_errors_total", &[("plugin", "gpu")]);
        ensure!(failed == 0.0, "{failed} failures");
        Ok(())
    });
}

#[test]
fn mig_instances_are_devices_of_their_own_from_the_fake_driver() {
    run(async |test: &Test| {
        let agent = Node::new(test, MIG, "500ms", "")?.alone(test).await?;
        let page = page_with(&agent.api, "picket_gpu_mig_info").await?;
        let instances = values(&page, "picket_gpu_mig_info", "GPU_I_ID");
        ensure!(instances == ["2", "7", "8"], "{instances:?}");
        let labels = [
            ("gpu", "1"),
            ("UUID", DIVIDED),
            ("GPU_I_ID", "7"),
            ("GPU_I_PROFILE", "1g.10gb"),
            ("device", "nvidia1"),
        ];
        let used = page.value("DCGM_FI_DEV_FB_USED", &labels)?;
        ensure!(used == 3910.0, "{used}");
        // The divided GPU has no utilization of its own.
        let busy = values(&page, "DCGM_FI_DEV_GPU_UTIL", "gpu");
        ensure!(busy == ["0"], "{busy:?}");
        let process = [("UUID", DIVIDED), ("GPU_I_ID", "2"), ("pid", "5002")];
        let bytes = page.value("picket_gpu_process_memory_bytes", &process)?;
        ensure!(bytes == 30e9, "{bytes}");
        Ok(())
    });
}

#[test]
fn a_lost_gpu_hides_no_other_from_the_fake_driver() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let node = Node::new(test, HEALTHY, "500ms", "clear_after_seconds = 1")?;
        let agent = node.under(test, &aggregator).await?;
        page_with(&agent.api, "DCGM_FI_DEV_GPU_UTIL").await?;
        node.say(&format!("{HEALTHY}\n[[gpus]]\nindex = 6\nlost = true\n"))?;
        let page = eventually("seven GPUs are left", || async {
            let page = agent.api.metrics().await?;
            let gpus = values(&page, "DCGM_FI_DEV_GPU_UTIL", "gpu");
            ensure!(gpus == ["0", "1", "2", "3", "4", "5", "7"], "{gpus:?}");
            Ok(page)
        })
        .await?;
        let component = format!("gpu/{}", uuid(6));
        ensure!(state(&page, "picket_component_health", &component).as_deref() == Some("unhealthy"));
        ensure!(page.value("picket_gpu_count", &[])? == 7.0);
        ensure!(page.value("picket_gpu_expected_count", &[])? == 8.0);
        eventually("it is counted", || async {
            let page = agent.api.metrics().await?;
            let lost = page.sum("picket_source_errors_total", &[("plugin", "gpu"), ("reason", "gpu-lost")]);
            ensure!(lost > 0.0, "{lost}");
            Ok(())
        })
        .await?;
        eventually("the aggregator has the event", || async {
            let all = events(&aggregator, "gpu.health").await?;
            ensure!(all.iter().any(|e| e["key"] == component && e["clear"] == false), "{all:?}");
            Ok(())
        })
        .await?;
        // It is well again, and the event ends.
        node.say(HEALTHY)?;
        eventually("the event ends", || async {
            let all = events(&aggregator, "gpu.health").await?;
            ensure!(all.iter().any(|e| e["key"] == component && e["clear"] == true), "{all:?}");
            Ok(())
        })
        .await
    });
}

/// Where a GPU is on PCIe, as NVML writes it.
fn place_of(page: &Exposition, gpu: &str) -> Result<String> {
    let mut temperatures = page.series("DCGM_FI_DEV_GPU_TEMP").iter();
    let found = temperatures.find(|(labels, _)| labels.get("gpu").is_some_and(|g| g == gpu));
    found
        .and_then(|(labels, _)| labels.get("pci_bus_id").cloned())
        .with_context(|| format!("no place of GPU {gpu}"))
}

/// The interval is an hour: what the kernel logs wakes the plugin.
#[test]
fn an_xid_in_the_kernels_log_is_an_event_at_the_aggregator_in_under_a_second() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let mut node = Node::new(test, HEALTHY, "1h", "")?;
        let agent = node.under(test, &aggregator).await?;
        let page = page_with(&agent.api, "DCGM_FI_DEV_PCIE_LINK_GEN").await?;
        aggregator.connected("gpu-node", true).await?;
        let place = place_of(&page, "3")?;
        // The kernel writes the domain with four digits, and no function.
        let place = place.get(4..).unwrap_or_default().trim_end_matches(".0").to_lowercase();
        let mut slowest = Duration::ZERO;
        for (code, action) in [(79, "reboot"), (31, "restart-app"), (119, "reset-gpu")] {
            let begun = Instant::now();
            node.log(&format!("NVRM: Xid (PCI:{place}): {code}, pid=1, name=x, what the driver says"))?;
            let key = format!("{}/xid-{code}", uuid(3));
            let event = loop {
                let all = events(&aggregator, "gpu.xid").await?;
                if let Some(event) = all.into_iter().find(|e| e["key"] == key) {
                    break event;
                }
                ensure!(begun.elapsed() < Duration::from_secs(30), "no event of XID {code}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
            slowest = slowest.max(begun.elapsed());
            ensure!(event["attributes"]["action"] == action, "{event}");
            ensure!(event["subject_id"] == uuid(3), "{event}");
        }
        eprintln!("the slowest of three XIDs was at the aggregator after {} ms", slowest.as_millis());
        ensure!(slowest < Duration::from_secs(1), "{slowest:?}");
        let page = agent.api.metrics().await?;
        let last = page.value("DCGM_FI_DEV_XID_ERRORS", &[("gpu", "3")])?;
        ensure!(last == 119.0, "{last}");
        // The same again is the same event.
        node.log(&format!("NVRM: Xid (PCI:{place}): 119, what the driver says"))?;
        eventually("it is counted", || async {
            let page = agent.api.metrics().await?;
            let total = page.sum("picket_gpu_xid_errors_total", &[("xid", "119")]);
            ensure!(total == 2.0, "{total}");
            Ok(())
        })
        .await?;
        let all = events(&aggregator, "gpu.xid").await?;
        ensure!(all.len() == 3, "{all:?}");
        Ok(())
    });
}

/// Waits for the event of a key that begins or that ends it.
async fn told(aggregator: &Aggregator, kind: &str, key: &str, clear: bool) -> Result<Value> {
    eventually(&format!("{key} is told, its end {clear}"), || async {
        let all = events(aggregator, kind).await?;
        let found = all.iter().find(|e| e["key"] == key && e["clear"].as_bool().unwrap_or(false) == clear);
        found.cloned().with_context(|| format!("{all:?}"))
    })
    .await
}

/// A switch's error and an error of PCIe begin and end as one event each; a fatal one stays until the GPUs are reset.
#[test]
fn errors_of_switches_and_of_pcie_in_the_kernels_log_are_events_with_an_end() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let mut node = Node::new(test, HEALTHY, "200ms", "transient_after_seconds = 3")?;
        let agent = node.under(test, &aggregator).await?;
        let page = page_with(&agent.api, "DCGM_FI_DEV_PCIE_LINK_GEN").await?;
        aggregator.connected("gpu-node", true).await?;
        let place = place_of(&page, "3")?;
        let device = place.get(4..).unwrap_or_default().to_lowercase();

        node.log("nvidia-nvswitch0: SXid (PCI:0000:c2:00.0): 12028, Non-fatal, Link 32 egress non-posted PRIV error")?;
        node.log("nvidia-nvswitch1: SXid (PCI:0000:c3:00.0): 20034, Fatal, Link 28 LTSSM Fault Up")?;
        node.log(&format!("pcieport 0000:3a:01.0: AER: Correctable error message received from {device}"))?;
        let mild = told(&aggregator, "nvswitch.sxid", "nvswitch0/sxid-12028", false).await?;
        ensure!(mild["subject_id"] == "nvswitch0" && mild["attributes"]["link"] == "32", "{mild}");
        let fatal = told(&aggregator, "nvswitch.sxid", "nvswitch1/sxid-20034", false).await?;
        ensure!(fatal["severity"] == "critical" && fatal["attributes"]["link"] == "28", "{fatal}");
        let key = format!("{device}/aer-0");
        let aer = told(&aggregator, "pcie.aer", &key, false).await?;
        ensure!(aer["subject_kind"] == "pci" && aer["attributes"]["UUID"] == uuid(3), "{aer}");

        // Nothing more of them comes: they are over, and say so once.
        let over = told(&aggregator, "nvswitch.sxid", "nvswitch0/sxid-12028", true).await?;
        ensure!(over["attributes"]["reason"] == "quiet", "{over}");
        told(&aggregator, "pcie.aer", &key, true).await?;
        let page = agent.api.metrics().await?;
        for (family, label, value) in [
            ("picket_nvswitch_sxid_errors_total", "sxid", "12028"),
            ("picket_nvswitch_sxid_errors_total", "sxid", "20034"),
            ("picket_pcie_aer_errors_total", "severity", "corrected"),
        ] {
            let total = page.sum(family, &[(label, value)]);
            ensure!(total == 1.0, "{family} {value}: {total}");
        }
        let switches = events(&aggregator, "nvswitch.sxid").await?;
        ensure!(switches.len() == 3, "the fatal one goes on: {switches:?}");
        ensure!(events(&aggregator, "pcie.aer").await?.len() == 2);

        // It comes again: a new event, that ends again.
        node.log(&format!("pcieport 0000:3a:01.0: AER: Correctable error message received from {device}"))?;
        eventually("the second one has ended", || async {
            let all = events(&aggregator, "pcie.aer").await?;
            let ends = all.iter().filter(|e| e["clear"] == true).count();
            ensure!(all.len() == 4 && ends == 2, "{all:?}");
            Ok(())
        })
        .await
    });
}

#[test]
fn an_xid_that_nvml_tells_is_an_event_and_survives_a_restart_of_the_agent() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let node = Node::new(test, HEALTHY, "1h", "")?;
        let mut agent = node.under(test, &aggregator).await?;
        page_with(&agent.api, "DCGM_FI_DEV_GPU_TEMP").await?;
        let asks = "\n[[gpus]]\nindex = 3\nrecovery_action = 2\n[[events]]\nid = 1\ngpu = 3\nxid = 79\n";
        node.say(&format!("{HEALTHY}{asks}"))?;
        let key = format!("{}/xid-79", uuid(3));
        eventually("the event is there", || async {
            let all = events(&aggregator, "gpu.xid").await?;
            let event = all.iter().find(|e| e["key"] == key).with_context(|| format!("{all:?}"))?;
            ensure!(event["attributes"]["action"] == "reboot", "{event}");
            Ok(())
        })
        .await?;
        agent.restart(test).await?;
        let page = page_with(&agent.api, "DCGM_FI_DEV_XID_ERRORS").await?;
        ensure!(page.value("DCGM_FI_DEV_XID_ERRORS", &[("gpu", "3")])? == 79.0);
        let component = format!("gpu/{}", uuid(3));
        ensure!(state(&page, "picket_component_health", &component).as_deref() == Some("unhealthy"));
        Ok(())
    });
}

#[test]
fn no_driver_is_a_state_and_no_failure() {
    run(async |test: &Test| {
        let node = Node::new(test, HEALTHY, "300ms", "")?;
        // Without a scenario the library says that the driver is not loaded.
        let agent = AgentBuilder::new(test, "gpu-node")?.section(node.sections.clone()).start().await?;
        let page = page_with(&agent.api, "picket_gpu_driver_state").await?;
        ensure!(state(&page, "picket_gpu_driver_state", "").as_deref() == Some("no-driver"));
        ensure!(page.sum("picket_source_errors_total", &[("plugin", "gpu")]) == 0.0);
        agent.plugin_state("gpu", "running").await?;
        Ok(())
    });
}

#[test]
fn a_driver_that_hangs_is_a_state_an_event_and_over_when_it_answers() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let node = Node::new(test, HEALTHY, "300ms", "clear_after_seconds = 0")?;
        let agent = node.under(test, &aggregator).await?;
        page_with(&agent.api, "DCGM_FI_DEV_GPU_TEMP").await?;
        node.say(&format!(
            "{HEALTHY}\n[[faults]]\ncall = \"nvmlDeviceGetPowerUsage\"\ngpu = 4\nhang = true\n"
        ))?;
        let driver = |wanted: &'static str| {
            let api = agent.api.clone();
            async move {
                eventually(&format!("the driver is {wanted}"), || async {
                    let page = api.metrics().await?;
                    let now = state(&page, "picket_gpu_driver_state", "");
                    ensure!(now.as_deref() == Some(wanted), "{now:?}");
                    Ok(())
                })
                .await
            }
        };
        driver("hung").await?;
        eventually("the event is there", || async {
            let all = events(&aggregator, "gpu.health").await?;
            ensure!(all.iter().any(|e| e["key"] == "gpu-driver" && e["clear"] == false), "{all:?}");
            Ok(())
        })
        .await?;
        agent.plugin_state("gpu", "running").await?;
        node.say(HEALTHY)?;
        driver("ok").await?;
        eventually("the event ends", || async {
            let all = events(&aggregator, "gpu.health").await?;
            ensure!(all.iter().any(|e| e["key"] == "gpu-driver" && e["clear"] == true), "{all:?}");
            Ok(())
        })
        .await
    });
}

/// Helpers of this agent that are there and no zombies.
fn helpers(agent: u32) -> usize {
    let helper = |entry: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let (name, rest) = stat.rsplit_once(')')?;
        let mut rest = rest.split_whitespace();
        let (state, parent) = (rest.next()?, rest.next()?.parse::<u32>().ok()?);
        (name.ends_with("(picket-nvml") && parent == agent && state != "Z").then_some(())
    };
    std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(helper).count()
}

#[test]
fn a_driver_that_hangs_makes_no_other_plugin_late() {
    run(async |test: &Test| {
        let node = Node::new(test, HEALTHY, "300ms", "")?;
        let builder = node.agent(AgentBuilder::new(test, "gpu-node")?);
        let agent = builder.node("200ms")?.section("[log]\nlevel = \"info\"").start().await?;
        page_with(&agent.api, "DCGM_FI_DEV_GPU_TEMP").await?;
        // Every call, so that the thread that listens for events hangs too.
        node.say(&format!("{HEALTHY}\n[[faults]]\ncall = \"*\"\nhang = true\n"))?;
        eventually("the driver is hung", || async {
            let page = agent.api.metrics().await?;
            ensure!(state(&page, "picket_gpu_driver_state", "").as_deref() == Some("hung"));
            Ok(())
        })
        .await?;
        let collects = |line: &Value, key: &str| line["collects"][key].as_u64().context("no count");
        let (before, began) = (agent.plugin_state("node", "running").await?, Instant::now());
        while began.elapsed() < Duration::from_secs(8) {
            agent.api.text("/healthz").await?;
            ensure!(helpers(agent.daemon.pid()) <= 2, "helpers pile up");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let after = agent.plugin_state("node", "running").await?;
        let done = collects(&after, "ok")? - collects(&before, "ok")?;
        let due = began.elapsed().as_millis() as u64 / 200;
        // A machine that is busy may cost a tick.
        ensure!(done + 4 >= due, "{done} of {due} collects");
        let skipped = collects(&after, "skipped")? - collects(&before, "skipped")?;
        ensure!(skipped <= 3, "{skipped} skipped");
        agent.plugin_state("gpu", "running").await.map(drop)
    });
}

/// What `nvidia-smi` says of a GPU, by the element's path.
fn smi(xml: &str, gpu: usize, path: &[&str]) -> Option<String> {
    let mut at = xml.split("<gpu id=").nth(gpu + 1)?;
    for name in path {
        let (_, rest) = at.split_once(&format!("<{name}>"))?;
        at = rest.split_once(&format!("</{name}>"))?.0;
    }
    Some(at.trim().to_owned())
}

/// The number before its unit.
fn number(text: &str) -> Option<f64> {
    text.split(' ').next()?.parse().ok()
}

#[test]
fn nvidia_smi_agrees_with_every_value_in_the_same_second() {
    run(async |test: &Test| {
        let real = ["/dev/nvidiactl", "/dev/nvidia0"].iter().all(|d| Path::new(d).exists());
        if !real || which("nvidia-smi").is_none() {
            skip("needs a real NVIDIA GPU with its driver and nvidia-smi");
            return Ok(());
        }
        let section =
            format!("[plugins.gpu]\nfile = \"gpu.wasm\"\ninterval = \"200ms\"\n{}", grants_of("gpu")?);
        let agent = AgentBuilder::new(test, "gpu-node")?.section(section).start().await?;
        page_with(&agent.api, "DCGM_FI_DEV_GPU_TEMP").await?;
        // Values move: each must agree with one reading of nvidia-smi between two of ours, in a few tries.
        let mut last = Vec::new();
        for _ in 0..20 {
            let before = agent.api.metrics().await?;
            let xml = ask_smi().await?;
            tokio::time::sleep(Duration::from_millis(250)).await;
            let after = agent.api.metrics().await?;
            last = disagreements(&before, &xml, &after)?;
            if last.is_empty() {
                return Ok(());
            }
        }
        bail!("{}", last.join("\n"))
    });
}

async fn ask_smi() -> Result<String> {
    run_program(Path::new("nvidia-smi"), &["-q", "-x"]).await?.ok()
}

/// Where neither of our readings is what nvidia-smi says, nor do they lie on both sides of it.
fn disagreements(before: &Exposition, xml: &str, after: &Exposition) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let gpus = xml.matches("<gpu id=").count();
    ensure!(gpus > 0, "nvidia-smi shows no GPU");
    ensure!(before.series("DCGM_FI_DEV_GPU_TEMP").len() >= gpus, "not all {gpus} GPUs are there");
    for gpu in 0..gpus {
        let uuid = smi(xml, gpu, &["uuid"]).context("no UUID")?;
        let ours = |page: &Exposition, family: &str| {
            let whole = |labels: &Labels| {
                labels.get("UUID").is_some_and(|u| *u == uuid)
                    && labels.get("GPU_I_ID").is_none_or(String::is_empty)
            };
            page.series(family).iter().find(|(labels, _)| whole(labels)).map(|(_, value)| *value)
        };
        for (family, path, slack) in [
            ("GPU_TEMP", &["temperature", "gpu_temp"][..], 1.0),
            ("MEMORY_TEMP", &["temperature", "memory_temp"], 1.0),
            ("GPU_UTIL", &["utilization", "gpu_util"], 1.0),
            ("MEM_COPY_UTIL", &["utilization", "memory_util"], 1.0),
            ("ENC_UTIL", &["utilization", "encoder_util"], 1.0),
            ("DEC_UTIL", &["utilization", "decoder_util"], 1.0),
            ("FB_TOTAL", &["fb_memory_usage", "total"], 1.0),
            ("FB_USED", &["fb_memory_usage", "used"], 1.0),
            ("FB_FREE", &["fb_memory_usage", "free"], 1.0),
            ("FB_RESERVED", &["fb_memory_usage", "reserved"], 1.0),
            ("BAR1_TOTAL", &["bar1_memory_usage", "total"], 1.0),
            ("BAR1_USED", &["bar1_memory_usage", "used"], 1.0),
            ("SM_CLOCK", &["clocks", "sm_clock"], 0.0),
            ("MEM_CLOCK", &["clocks", "mem_clock"], 0.0),
            ("MAX_SM_CLOCK", &["max_clocks", "sm_clock"], 0.0),
            ("PCIE_LINK_GEN", &["pci", "current_link_gen"], 0.0),
            ("PCIE_MAX_LINK_GEN", &["pci", "max_link_gen"], 0.0),
            ("PCIE_REPLAY_COUNTER", &["pci", "replay_counter"], 0.0),
            ("ECC_DBE_VOL_TOTAL", &["ecc_errors", "volatile", "dram_uncorrectable"], 0.0),
            ("CORRECTABLE_REMAPPED_ROWS", &["remapped_rows", "remapped_row_corr"], 0.0),
            ("UNCORRECTABLE_REMAPPED_ROWS", &["remapped_rows", "remapped_row_unc"], 0.0),
        ] {
            let family = format!("DCGM_FI_DEV_{family}");
            // What nvidia-smi does not have we must not have either.
            let theirs = smi(xml, gpu, path).and_then(|text| number(&text));
            let (a, b) = (ours(before, &family), ours(after, &family));
            match (theirs, a.zip(b)) {
                (Some(value), Some((a, b))) if (a.min(b) - slack..=a.max(b) + slack).contains(&value) => {}
                (None, _) => {}
                (Some(value), found) => {
                    lines.push(format!("GPU {gpu}: {family} is {found:?}, nvidia-smi says {value}"));
                }
            }
        }
        let power = ["gpu_power_readings", "power_readings"].iter().find_map(|block| {
            ["instant_power_draw", "average_power_draw", "power_draw"]
                .iter()
                .find_map(|name| smi(xml, gpu, &[block, name]).and_then(|t| number(&t)))
        });
        let (a, b) = (ours(before, "DCGM_FI_DEV_POWER_USAGE"), ours(after, "DCGM_FI_DEV_POWER_USAGE"));
        if let (Some(watts), Some((a, b))) = (power, a.zip(b))
            && !(a.min(b) - 30.0..=a.max(b) + 30.0).contains(&watts)
        {
            lines.push(format!("GPU {gpu}: the power is {a} and {b} W, nvidia-smi says {watts}"));
        }
    }
    Ok(lines)
}

/// Every key of the shipped catalogue can be read by a site that copies a row.
#[test]
fn the_shipped_catalogue_of_xids_is_valid_toml_with_every_code() {
    let text = std::fs::read_to_string(repository().join("config/xid-catalogue.toml"));
    let catalogue: toml::Table = text
        .map_err(|e| e.to_string())
        .and_then(|t| t.parse().map_err(|e: toml::de::Error| e.to_string()))
        .unwrap_or_else(|e| panic!("{e}"));
    let rows = catalogue.get("xid").and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let codes: Vec<i64> =
        rows.iter().filter_map(|row| row.get("code").and_then(toml::Value::as_integer)).collect();
    assert!(codes.iter().copied().eq(1..=172), "{codes:?}");
    for key in ["sources", "nvlink5", "sxid-group"] {
        assert!(catalogue.contains_key(key), "{key}");
    }
}
