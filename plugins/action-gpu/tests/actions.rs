//! The actions against a driver that the test's closure plays.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::cell::RefCell;
use std::rc::Rc;

use picket_plugin_action_gpu::Gpus;
use picket_sdk::action::Verdict;
use picket_sdk::command::Output;
use picket_sdk::nvml::NvmlError;
use picket_sdk::testing::ActionHost;
use serde_json::{Value, json};

const GPU: &str = "GPU-1";

struct Driver {
    limit: u64,
    persistence: bool,
    processes: Value,
    unreadable: Value,
    calls: Vec<String>,
}

fn host() -> (ActionHost<Gpus>, Rc<RefCell<Driver>>) {
    let driver = Rc::new(RefCell::new(Driver {
        limit: 700_000,
        persistence: true,
        processes: json!([]),
        unreadable: json!({}),
        calls: Vec::new(),
    }));
    let host = ActionHost::new();
    let seen = driver.clone();
    host.world().nvml(move |_| {
        let d = seen.borrow();
        Ok(json!({ "devices": [
            { "kind": "gpu", "uuid": GPU, "index": 0, "name": "NVIDIA H100", "processes": d.processes, "unreadable": d.unreadable,
              "power_limit_milliwatts": d.limit, "power_limit_min_milliwatts": 200_000, "power_limit_max_milliwatts": 700_000,
              "persistence_mode": d.persistence, "clock_graphics_max_mhz": 1980 },
            { "kind": "mig", "uuid": "MIG-1", "parent_uuid": GPU, "processes": [] },
        ] }))
    });
    let played = driver.clone();
    host.world().command(move |name, slots| {
        let mut d = played.borrow_mut();
        let slot = |key: &str| {
            slots.iter().find(|(k, _)| *k == key).map(|(_, v)| (*v).to_owned()).unwrap_or_default()
        };
        assert_eq!(slot("gpu"), GPU);
        d.calls.push(name.to_owned());
        match name {
            "gpu-power-limit" => d.limit = slot("watts").parse::<u64>().unwrap() * 1000,
            "gpu-persistence" => d.persistence = slot("on") == "1",
            "gpu-reset" if d.persistence => {
                let stdout = b"GPU is in use by another client".to_vec();
                return Ok(Output { status: 255, stdout, stderr: String::new() });
            }
            _ => {}
        }
        Ok(Output::default())
    });
    (host, driver)
}

#[test]
fn a_power_limit_is_set_and_undone() {
    let (host, driver) = host();
    let plan = host.plan("power-limit", &json!({ "gpu": GPU, "watts": 400 })).unwrap();
    let step = &plan.steps[0];
    assert_eq!(step.summary, "set the power limit of GPU-1 (NVIDIA H100) from 700 W to 400 W");
    assert!(matches!(host.probe("power-limit", step), Verdict::NotDone(_)));
    assert!(driver.borrow().calls.is_empty());
    let applied = host.apply("power-limit", step).unwrap();
    assert!(matches!(host.probe("power-limit", step), Verdict::Done(_)));
    assert!(host.plan("power-limit", &json!({ "gpu": GPU, "watts": 400 })).unwrap().steps.is_empty());
    host.revert("power-limit", step, &applied.before).unwrap();
    assert_eq!(driver.borrow().limit, 700_000);
}

#[test]
fn a_reset_goes_by_its_preconditions() {
    let (host, driver) = host();
    let plan = host.plan("reset", &json!({ "gpu": GPU })).unwrap();
    assert_eq!(plan.steps.len(), 3, "persistence is switched off for it, and on again");
    for step in &plan.steps {
        host.apply("reset", step).unwrap();
    }
    assert_eq!(driver.borrow().calls, ["gpu-persistence", "gpu-reset", "gpu-persistence"]);
    assert!(driver.borrow().persistence);
    assert!(matches!(host.probe("reset", &plan.steps[1]), Verdict::CannotTell(_)));
    driver.borrow_mut().persistence = false;
    let plan = host.plan("reset", &json!({ "gpu": GPU })).unwrap();
    assert_eq!(plan.steps.len(), 1);
    // Somebody began to work on it between the plan and its apply.
    driver.borrow_mut().processes = json!([{ "pid": 4711 }]);
    assert_eq!(host.apply("reset", &plan.steps[0]).unwrap_err().reason, "precondition");
    let refused = host.plan("reset", &json!({ "gpu": GPU })).unwrap_err();
    assert!(refused.message.contains("4711"), "{refused}");
    driver.borrow_mut().processes = json!([]);
    driver.borrow_mut().unreadable = json!({ "processes": "no-permission" });
    assert_eq!(
        host.plan("reset", &json!({ "gpu": GPU })).unwrap_err().reason,
        "precondition",
        "not known is not none"
    );
}

#[test]
fn clocks_and_persistence() {
    let (host, driver) = host();
    let plan = host.plan("clocks", &json!({ "gpu": GPU, "least_mhz": 900, "most_mhz": 1200 })).unwrap();
    host.apply("clocks", &plan.steps[0]).unwrap();
    assert!(matches!(host.probe("clocks", &plan.steps[0]), Verdict::CannotTell(_)));
    host.revert("clocks", &plan.steps[0], "").unwrap();
    assert_eq!(driver.borrow().calls, ["gpu-clocks", "gpu-clocks-free"]);
    let plan = host.plan("persistence", &json!({ "gpu": GPU, "on": false })).unwrap();
    let applied = host.apply("persistence", &plan.steps[0]).unwrap();
    assert!(!driver.borrow().persistence);
    host.revert("persistence", &plan.steps[0], &applied.before).unwrap();
    assert!(driver.borrow().persistence);
}

#[test]
fn what_is_refused() {
    let (host, _driver) = host();
    for (name, wish, reason) in [
        ("power-limit", json!({ "gpu": GPU, "watts": 900 }), "parameters"),
        ("power-limit", json!({ "gpu": GPU }), "parameters"),
        ("power-limit", json!({ "gpu": "0", "watts": 400 }), "parameters"),
        ("power-limit", json!({ "gpu": "GPU-2", "watts": 400 }), "not-found"),
        ("clocks", json!({ "gpu": GPU, "least_mhz": 1200, "most_mhz": 900 }), "parameters"),
        ("clocks", json!({ "gpu": GPU, "least_mhz": 900, "most_mhz": 3000 }), "parameters"),
        ("melt", json!({ "gpu": GPU }), "parameters"),
    ] {
        let refused = host.plan(name, &wish).unwrap_err();
        assert_eq!(refused.reason, reason, "{name} {wish}: {refused}");
    }
    host.world().nvml(|_| Err(NvmlError::NoDriver("no library".to_owned())));
    assert_eq!(host.plan("reset", &json!({ "gpu": GPU })).unwrap_err().reason, "no-driver");
}
