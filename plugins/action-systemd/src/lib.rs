//! Restarts and reloads units of systemd.
//!
//! A plan notes by which start the unit runs and when its state last changed: by these a probe sees whether a restart or a
//! reload took place, and a unit that was restarted by another hand meanwhile has another plan.

use picket_sdk::action::{Action, Applied, Definition, Parameters, Plan, Step, Verdict};
use picket_sdk::systemd_control::{self as systemd, Unit, Verb};
use picket_sdk::{Failure, NoSettings, serde_json};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Units.
pub struct Units;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    unit: String,
}

/// What a step is about.
#[derive(Debug, Serialize, Deserialize)]
struct Target {
    unit: String,
    active: String,
    /// By which start it runs.
    invocation: String,
    changed: u64,
}

impl Action for Units {
    type Settings = NoSettings;

    fn describe() -> Vec<Definition> {
        let parameters = json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["unit"],
            "properties": { "unit": { "type": "string", "minLength": 3, "maxLength": 255,
                "description": "its whole name: vllm.service" } }
        });
        vec![
            Definition::new("restart", "Stops a unit and starts it again")
                .parameters(parameters.clone())
                .disturbs(&["service", "process"]),
            Definition::new("reload", "Has a unit read its configuration again")
                .parameters(parameters)
                .disturbs(&["service"]),
        ]
    }

    fn new(_: NoSettings) -> Result<Self, Failure> {
        Ok(Self)
    }

    fn plan(&mut self, name: &str, parameters: &Parameters) -> Result<Plan, Failure> {
        let wish: Wish = parameters.read()?;
        let unit = systemd::show(&wish.unit)?;
        let refuse = |why: String| Err(Failure::new("precondition", why));
        if unit.load != "loaded" {
            return refuse(format!("{} is {}: it can't be {name}ed", unit.id, unit.load));
        }
        if unit.job {
            return refuse(format!("a job of {} is under way; wait for its end", unit.id));
        }
        let summary = match name {
            "restart" if !unit.can_start => return refuse(format!("{} may not be started by hand", unit.id)),
            "restart" if unit.active == "active" => format!("restart {}, which runs ({})", unit.id, unit.sub),
            "restart" => format!("start {}, which is {} ({})", unit.id, unit.active, unit.sub),
            "reload" if unit.active != "active" => {
                return refuse(format!(
                    "{} is {}: only what runs reads its configuration again",
                    unit.id, unit.active
                ));
            }
            "reload" if !unit.can_reload => return refuse(format!("{} has no reload", unit.id)),
            "reload" => format!("have {} read its configuration again", unit.id),
            _ => return Err(unknown(name)),
        };
        let mut plan = Plan::of(vec![Step::new(summary, ("unit", &unit.id), &target(&unit))?]);
        if unit.restarts > 0 {
            plan = plan.note(format!("systemd has restarted it {} times by itself", unit.restarts));
        }
        Ok(plan)
    }

    fn apply(&mut self, name: &str, step: &Step) -> Result<Applied, Failure> {
        let before: Target = step.arguments()?;
        let (verb, done) = match name {
            "restart" => (Verb::Restart, "was restarted"),
            "reload" => (Verb::Reload, "read its configuration again"),
            _ => return Err(unknown(name)),
        };
        systemd::change(&before.unit, verb)?;
        Ok(Applied::new(format!("{} {done}", before.unit)).before(before.active))
    }

    fn probe(&mut self, name: &str, step: &Step) -> Verdict {
        let before: Target = match step.arguments() {
            Ok(before) => before,
            Err(failure) => return Verdict::CannotTell(failure.message),
        };
        let now = match systemd::show(&before.unit) {
            Ok(now) => now,
            Err(error) => return Verdict::CannotTell(error.to_string()),
        };
        let seen = format!("{} is {} ({})", now.id, now.active, now.sub);
        match name {
            "restart" if now.invocation != before.invocation && now.active == "active" => {
                Verdict::Done(format!("{seen}, by another start than before"))
            }
            "restart" => Verdict::NotDone(seen),
            // A reload changes the state for a moment; so do a restart and a failure, which are no reload.
            "reload" if now.invocation != before.invocation => {
                Verdict::CannotTell(format!("{seen}, by another start than before"))
            }
            "reload" if now.changed != before.changed => {
                Verdict::Done(format!("{seen}, and its state changed"))
            }
            "reload" => Verdict::NotDone(seen),
            _ => Verdict::CannotTell(format!("there is no action {name}")),
        }
    }
}

fn target(unit: &Unit) -> Target {
    Target {
        unit: unit.id.clone(),
        active: unit.active.clone(),
        invocation: unit.invocation.clone(),
        changed: unit.changed,
    }
}

fn unknown(name: &str) -> Failure {
    Failure::new("parameters", format!("there is no action {name}"))
}

picket_sdk::export_action!(Units);
