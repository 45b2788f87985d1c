//! The actions against the SDK's engine.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice)]

use std::time::Duration;

use picket_plugin_action_containers::Containers;
use picket_sdk::action::Verdict;
use picket_sdk::containers_control::{Asked, ControlError};
use picket_sdk::testing::ActionHost;
use serde_json::{Value, json};

fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn container(id: &str, name: &str, running: bool) -> Value {
    json!({
        "Id": id, "Name": format!("/{name}"), "Image": "sha256:1",
        "Config": { "Image": "vllm/vllm-openai:v1", "Labels": { "picket.actions": "true" } },
        "State": { "Running": running, "Status": if running { "running" } else { "exited" },
            "StartedAt": "2026-01-01T00:00:00Z", "FinishedAt": "0001-01-01T00:00:00Z" },
        "HostConfig": { "AutoRemove": name == "fleeting" },
    })
}

fn host() -> ActionHost<Containers> {
    let host = ActionHost::new();
    host.world().engine(|e| {
        e.container(container(&id('a'), "llama", true))
            .container(container(&id('b'), "idle", false))
            .container(container(&id('c'), "fleeting", true))
            // A name that is the beginning of another's id.
            .container(container(&id('d'), &"a".repeat(12), true));
    });
    host
}

fn changes(host: &ActionHost<Containers>) -> Vec<Asked> {
    let mut changes = Vec::new();
    host.world().engine(|e| changes = e.take_changes());
    changes
}

#[test]
fn a_restart_from_plan_to_probe() {
    let host = host();
    let plan = host.plan("restart", &json!({ "container": "llama", "grace_seconds": 3 })).unwrap();
    assert_eq!(plan.steps.len(), 1);
    let step = &plan.steps[0];
    assert_eq!(step.subject, ("container".to_owned(), id('a')));
    assert!(step.summary.contains("restart the container llama (aaaaaaaaaaaa)"), "{}", step.summary);
    assert!(changes(&host).is_empty(), "a plan changes nothing");
    // The same state, the same plan.
    assert_eq!(host.plan("restart", &json!({ "container": "llama", "grace_seconds": 3 })).unwrap(), plan);
    assert!(matches!(host.probe("restart", step), Verdict::NotDone(_)));

    host.world().advance(Duration::from_secs(5));
    let applied = host.apply("restart", step).unwrap();
    assert_eq!((applied.before.as_str(), applied.message.as_str()), ("running", "llama was restarted"));
    assert_eq!(changes(&host), [Asked::Restart { id: id('a'), grace: 3 }]);
    assert!(matches!(host.probe("restart", step), Verdict::Done(_)));
    assert_ne!(
        host.plan("restart", &json!({ "container": "llama", "grace_seconds": 3 })).unwrap(),
        plan,
        "what was agreed to is not agreed to twice"
    );
    assert!(host.revert("restart", step, &applied.before).is_err());
}

#[test]
fn a_stop_is_undone() {
    let host = host();
    let plan = host.plan("stop", &json!({ "container": id('a') })).unwrap();
    let step = &plan.steps[0];
    assert!(matches!(host.probe("stop", step), Verdict::NotDone(_)));
    let applied = host.apply("stop", step).unwrap();
    assert!(matches!(host.probe("stop", step), Verdict::Done(_)));
    assert!(host.plan("stop", &json!({ "container": "llama" })).unwrap().steps.is_empty());
    assert_eq!(host.revert("stop", step, &applied.before).unwrap(), "llama was started");
    assert_eq!(changes(&host), [Asked::Stop { id: id('a'), grace: 10 }, Asked::Start { id: id('a') }]);
}

#[test]
fn what_is_refused() {
    let host = host();
    for (name, parameters, reason) in [
        ("restart", json!({ "container": "nobody" }), "not-found"),
        ("restart", json!({ "container": "llam" }), "not-found"),
        ("restart", json!({ "container": "aaaaaaaaaaa" }), "not-found"),
        ("restart", json!({ "container": "aaaaaaaaaaaa" }), "parameters"),
        ("restart", json!({}), "parameters"),
        ("restart", json!({ "container": "llama", "force": true }), "parameters"),
        ("stop", json!({ "container": "fleeting" }), "precondition"),
        ("remove", json!({ "container": "llama" }), "parameters"),
    ] {
        let refused = host.plan(name, &parameters).unwrap_err();
        assert_eq!(refused.reason, reason, "{name} {parameters}: {refused}");
    }
    let idle = host.plan("stop", &json!({ "container": "idle" })).unwrap();
    assert!(idle.steps.is_empty() && idle.notes[0].contains("does not run"));
}

#[test]
fn an_engine_that_refuses_or_went() {
    let host = host();
    let plan = host.plan("restart", &json!({ "container": "llama" })).unwrap();
    host.world().engine(|e| {
        e.broken_control(Some(ControlError::TimedOut("30 s".to_owned())));
    });
    assert_eq!(host.apply("restart", &plan.steps[0]).unwrap_err().reason, "timed-out");
    host.world().engine(|e| {
        e.remove(&id('a'));
    });
    assert!(matches!(host.probe("restart", &plan.steps[0]), Verdict::CannotTell(_)));
}
