//! Power limit, clocks, persistence and reset of NVIDIA GPUs.
//!
//! What is so the driver's library says (`nvml`), what is done nvidia-smi does: the library has no reset, and so each effect is
//! a command that the operator grants by its name. Without a driver nothing is even planned. A GPU is named by its UUID; a number
//! changes with the next start of the machine.

use std::time::Duration;

use picket_sdk::action::{Action, Applied, Definition, Parameters, Plan, Step, Verdict};
use picket_sdk::nvml::{self, Device, DeviceKind};
use picket_sdk::{Failure, NoSettings, command, serde_json};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// GPUs.
pub struct Gpus;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    gpu: String,
    watts: Option<u64>,
    least_mhz: Option<u32>,
    most_mhz: Option<u32>,
    on: Option<bool>,
}

/// One effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
enum Deed {
    PowerLimit { gpu: String, watts: u64, before_milliwatts: u64 },
    Clocks { gpu: String, least: u32, most: u32 },
    FreeClocks { gpu: String },
    Persistence { gpu: String, on: bool },
    Reset { gpu: String },
}

impl Action for Gpus {
    type Settings = NoSettings;

    fn describe() -> Vec<Definition> {
        let gpu: Value =
            json!({ "type": "string", "minLength": 5, "maxLength": 80, "description": "its UUID: GPU-…" });
        let schema = |mut properties: Value, mut required: Vec<&str>| {
            if let Some(map) = properties.as_object_mut() {
                map.insert("gpu".to_owned(), gpu.clone());
            }
            required.push("gpu");
            json!({ "type": "object", "additionalProperties": false, "required": required, "properties": properties })
        };
        let mhz = json!({ "type": "integer", "minimum": 1, "maximum": 10_000 });
        vec![
            Definition::new("power-limit", "Sets what a GPU may draw")
                .parameters(schema(
                    json!({ "watts": { "type": "integer", "minimum": 1, "maximum": 10_000 } }),
                    vec!["watts"],
                ))
                .disturbs(&["gpu"])
                .reversible(),
            Definition::new(
                "clocks",
                "Holds a GPU's clock within bounds; undone by letting the driver choose",
            )
            .parameters(schema(json!({ "least_mhz": mhz, "most_mhz": mhz }), vec!["least_mhz", "most_mhz"]))
            .disturbs(&["gpu"])
            .reversible(),
            Definition::new("persistence", "Keeps the driver loaded where no process uses the GPU, or not")
                .parameters(schema(json!({ "on": { "type": "boolean" } }), vec!["on"]))
                .disturbs(&["gpu"])
                .reversible(),
            Definition::new("reset", "Resets a GPU on which no process runs")
                .parameters(schema(json!({}), Vec::new()))
                .disturbs(&["gpu"]),
        ]
    }

    fn new(_: NoSettings) -> Result<Self, Failure> {
        Ok(Self)
    }

    fn plan(&mut self, name: &str, parameters: &Parameters) -> Result<Plan, Failure> {
        let wish: Wish = parameters.read()?;
        let (device, parts) = find(&wish.gpu)?;
        let gpu = device.uuid.clone();
        let called = format!("{gpu} ({})", device.name.as_deref().unwrap_or("no name"));
        let one = |summary: String, deed: Deed| Ok(Plan::of(vec![step(summary, &gpu, &deed)?]));
        match name {
            "power-limit" => {
                let watts = wish.watts.ok_or_else(|| Failure::new("parameters", "watts is missing"))?;
                let known = |value: Option<u64>, what: &str| {
                    value
                        .ok_or_else(|| Failure::new("precondition", format!("{called} does not tell {what}")))
                };
                let now = known(device.power_limit_milliwatts, "its power limit")?;
                let least = known(device.power_limit_min_milliwatts, "its least power limit")?;
                let most = known(device.power_limit_max_milliwatts, "its greatest power limit")?;
                let wanted = watts.saturating_mul(1000);
                if !(least..=most).contains(&wanted) {
                    return Err(Failure::new(
                        "parameters",
                        format!("{watts} W: {called} takes {} to {} W", least.div_ceil(1000), most / 1000),
                    ));
                }
                if now == wanted {
                    return Ok(Plan::nothing(format!("the power limit of {called} is {watts} W")));
                }
                let summary =
                    format!("set the power limit of {called} from {} W to {watts} W", watts_of(now));
                one(summary, Deed::PowerLimit { gpu: gpu.clone(), watts, before_milliwatts: now })
            }
            "clocks" => {
                let (Some(least), Some(most)) = (wish.least_mhz, wish.most_mhz) else {
                    return Err(Failure::new("parameters", "least_mhz and most_mhz are wanted"));
                };
                if least > most || device.clock_graphics_max_mhz.is_some_and(|max| most > max) {
                    let max = device
                        .clock_graphics_max_mhz
                        .map(|m| format!(", {m} MHz at most"))
                        .unwrap_or_default();
                    return Err(Failure::new(
                        "parameters",
                        format!("{least} to {most} MHz: not of {called}{max}"),
                    ));
                }
                one(
                    format!("hold the clock of {called} within {least} to {most} MHz"),
                    Deed::Clocks { gpu: gpu.clone(), least, most },
                )
            }
            "persistence" => {
                let on = wish.on.ok_or_else(|| Failure::new("parameters", "on is missing"))?;
                let word = if on { "on" } else { "off" };
                match device.persistence_mode {
                    Some(now) if now == on => {
                        Ok(Plan::nothing(format!("the persistence mode of {called} is {word}")))
                    }
                    Some(_) => one(
                        format!("switch the persistence mode of {called} {word}"),
                        Deed::Persistence { gpu: gpu.clone(), on },
                    ),
                    None => Err(Failure::new(
                        "precondition",
                        format!("{called} does not tell its persistence mode"),
                    )),
                }
            }
            "reset" => plan_reset(&device, &parts, &called),
            _ => Err(unknown(name)),
        }
    }

    fn apply(&mut self, name: &str, step: &Step) -> Result<Applied, Failure> {
        match step.arguments()? {
            Deed::PowerLimit { gpu, watts, before_milliwatts } => {
                run("gpu-power-limit", &[("gpu", &gpu), ("watts", &watts.to_string())])?;
                Ok(Applied::new(format!("the power limit of {gpu} is {watts} W"))
                    .before(before_milliwatts.to_string()))
            }
            Deed::Clocks { gpu, least, most } => {
                let (l, m) = (least.to_string(), most.to_string());
                run("gpu-clocks", &[("gpu", &gpu), ("least", &l), ("most", &m)])?;
                Ok(Applied::new(format!("the clock of {gpu} stays within {least} to {most} MHz")))
            }
            Deed::FreeClocks { gpu } => {
                run("gpu-clocks-free", &[("gpu", &gpu)])?;
                Ok(Applied::new(format!("the driver chooses the clock of {gpu}")))
            }
            Deed::Persistence { gpu, on } => {
                let before = find(&gpu)?.0.persistence_mode;
                run("gpu-persistence", &[("gpu", &gpu), ("on", if on { "1" } else { "0" })])?;
                let word = if on { "on" } else { "off" };
                Ok(Applied::new(format!("the persistence mode of {gpu} is {word}"))
                    .before(if before == Some(true) { "1" } else { "0" }))
            }
            Deed::Reset { gpu } if name == "reset" => {
                // Looked at once more: what came since the plan would be killed, or would make it fail half way.
                let (device, parts) = find(&gpu)?;
                check_idle(&device, &parts, &gpu)?;
                run("gpu-reset", &[("gpu", &gpu)])?;
                Ok(Applied::new(format!("{gpu} was reset")))
            }
            Deed::Reset { .. } => Err(unknown(name)),
        }
    }

    fn probe(&mut self, _: &str, step: &Step) -> Verdict {
        let deed: Deed = match step.arguments() {
            Ok(deed) => deed,
            Err(failure) => return Verdict::CannotTell(failure.message),
        };
        let gpu = match &deed {
            Deed::PowerLimit { gpu, .. }
            | Deed::Clocks { gpu, .. }
            | Deed::FreeClocks { gpu }
            | Deed::Persistence { gpu, .. }
            | Deed::Reset { gpu } => gpu.clone(),
        };
        let device = match find(&gpu) {
            Ok((device, _)) => device,
            Err(failure) => return Verdict::CannotTell(failure.message),
        };
        let told = |done: bool, seen: String| if done { Verdict::Done(seen) } else { Verdict::NotDone(seen) };
        match deed {
            Deed::PowerLimit { watts, .. } => match device.power_limit_milliwatts {
                Some(now) => {
                    told(now == watts.saturating_mul(1000), format!("its power limit is {} W", watts_of(now)))
                }
                None => Verdict::CannotTell("it does not tell its power limit".to_owned()),
            },
            Deed::Persistence { on, .. } => match device.persistence_mode {
                Some(now) => {
                    told(now == on, format!("its persistence mode is {}", if now { "on" } else { "off" }))
                }
                None => Verdict::CannotTell("it does not tell its persistence mode".to_owned()),
            },
            Deed::Clocks { .. } | Deed::FreeClocks { .. } => {
                Verdict::CannotTell("the driver does not tell which bounds hold".to_owned())
            }
            Deed::Reset { .. } => {
                Verdict::CannotTell("a reset leaves no mark that tells it from none".to_owned())
            }
        }
    }

    fn revert(&mut self, name: &str, step: &Step, before: &str) -> Result<String, Failure> {
        match step.arguments()? {
            Deed::PowerLimit { gpu, .. } => {
                let milliwatts: u64 =
                    before.parse().map_err(|_| Failure::new("other", "the limit before is not known"))?;
                let watts = milliwatts.div_ceil(1000).to_string();
                run("gpu-power-limit", &[("gpu", &gpu), ("watts", &watts)])?;
                Ok(format!("the power limit of {gpu} is {watts} W again"))
            }
            Deed::Clocks { gpu, .. } => {
                run("gpu-clocks-free", &[("gpu", &gpu)])?;
                Ok(format!("the driver chooses the clock of {gpu}"))
            }
            Deed::Persistence { gpu, .. } => {
                run("gpu-persistence", &[("gpu", &gpu), ("on", if before == "1" { "1" } else { "0" })])?;
                Ok(format!("the persistence mode of {gpu} is as it was"))
            }
            Deed::FreeClocks { .. } | Deed::Reset { .. } => {
                Err(Failure::new("irreversible", format!("{name} can't be undone")))
            }
        }
    }
}

/// Persistence keeps the driver on the device: it is switched off for the reset, and on again after it.
fn plan_reset(device: &Device, parts: &[Device], called: &str) -> Result<Plan, Failure> {
    let gpu = &device.uuid;
    check_idle(device, parts, called)?;
    let keeps = device.persistence_mode == Some(true);
    let mut steps = Vec::new();
    if keeps {
        let off = Deed::Persistence { gpu: gpu.clone(), on: false };
        steps.push(step(format!("switch the persistence mode of {called} off"), gpu, &off)?);
    }
    steps.push(step(
        format!("reset {called}, on which no process runs"),
        gpu,
        &Deed::Reset { gpu: gpu.clone() },
    )?);
    if keeps {
        let on = Deed::Persistence { gpu: gpu.clone(), on: true };
        steps.push(step(format!("switch the persistence mode of {called} on again"), gpu, &on)?);
    }
    let plan = Plan::of(steps);
    Ok(match &device.lost {
        Some(why) => {
            plan.note(format!("it is {why}; some GPUs come back by a new start of the machine alone"))
        }
        None => plan,
    })
}

fn check_idle(device: &Device, parts: &[Device], called: &str) -> Result<(), Failure> {
    let mut pids = Vec::new();
    for one in std::iter::once(device).chain(parts) {
        // A lost GPU can't tell, and nothing runs on it any more.
        if device.lost.is_none() && one.unreadable.contains_key("processes") {
            return Err(Failure::new(
                "precondition",
                format!("{called} does not tell which processes run on it"),
            ));
        }
        pids.extend(one.processes.iter().map(|p| p.pid.to_string()));
    }
    if pids.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = pids.iter().take(8).cloned().collect();
    Err(Failure::new(
        "precondition",
        format!("processes run on {called}: {}; end them first", shown.join(", ")),
    ))
}

/// The GPU and its MIG instances, fresh.
fn find(uuid: &str) -> Result<(Device, Vec<Device>), Failure> {
    if !uuid.starts_with("GPU-") {
        return Err(Failure::new(
            "parameters",
            format!("{uuid:?} is no GPU's UUID; `nvidia-smi -L` prints them"),
        ));
    }
    let snapshot = nvml::snapshot(Duration::ZERO)?;
    let parts: Vec<Device> = snapshot
        .devices
        .iter()
        .filter(|d| d.kind == DeviceKind::Mig && d.parent_uuid.as_deref() == Some(uuid))
        .cloned()
        .collect();
    let device = snapshot.devices.into_iter().find(|d| d.kind == DeviceKind::Gpu && d.uuid == uuid);
    let device = device
        .ok_or_else(|| Failure::new("not-found", format!("there is no GPU {uuid} among the granted ones")))?;
    Ok((device, parts))
}

fn step(summary: String, gpu: &str, deed: &Deed) -> Result<Step, Failure> {
    Step::new(summary, ("gpu", gpu), deed)
}

fn run(name: &str, slots: &[(&str, &str)]) -> Result<(), Failure> {
    let output = command::run(name, slots)?;
    if output.status == 0 {
        return Ok(());
    }
    // nvidia-smi says what went wrong on standard output.
    let said = format!("{} {}", String::from_utf8_lossy(&output.stdout).trim(), output.stderr.trim());
    let said: String = said.trim().chars().take(400).collect();
    Err(Failure::new("refused", format!("{name}: {said} (status {})", output.status)))
}

fn watts_of(milliwatts: u64) -> String {
    if milliwatts.is_multiple_of(1000) {
        (milliwatts / 1000).to_string()
    } else {
        format!("{}.{:03}", milliwatts / 1000, milliwatts % 1000)
    }
}

fn unknown(name: &str) -> Failure {
    Failure::new("parameters", format!("there is no action {name}"))
}

picket_sdk::export_action!(Gpus);
