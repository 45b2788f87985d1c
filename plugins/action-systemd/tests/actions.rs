//! The actions against the SDK's units.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use picket_plugin_action_systemd::Units;
use picket_sdk::action::Verdict;
use picket_sdk::systemd_control::{SystemdError, Unit, Verb};
use picket_sdk::testing::ActionHost;
use serde_json::json;

fn unit(id: &str, active: &str) -> Unit {
    Unit {
        id: id.to_owned(),
        load: "loaded".to_owned(),
        active: active.to_owned(),
        sub: "running".to_owned(),
        invocation: "1".to_owned(),
        can_start: true,
        can_stop: true,
        can_reload: id == "web.service",
        changed: 5,
        ..Unit::default()
    }
}

fn host() -> ActionHost<Units> {
    let host = ActionHost::new();
    host.unit(unit("web.service", "active"));
    host.unit(unit("vllm.service", "failed"));
    host.unit(Unit { load: "masked".to_owned(), ..unit("masked.service", "inactive") });
    host.unit(Unit { job: true, ..unit("busy.service", "activating") });
    host
}

#[test]
fn restart_and_reload() {
    let host = host();
    for (name, verb, summary) in [
        ("restart", Verb::Restart, "restart web.service, which runs"),
        ("reload", Verb::Reload, "have web.service read its configuration again"),
    ] {
        let plan = host.plan(name, &json!({ "unit": "web.service" })).unwrap();
        let step = &plan.steps[0];
        assert!(step.summary.starts_with(summary), "{}", step.summary);
        assert!(matches!(host.probe(name, step), Verdict::NotDone(_)));
        assert!(host.take_unit_changes().is_empty());
        host.apply(name, step).unwrap();
        assert_eq!(host.take_unit_changes(), [("web.service".to_owned(), verb)]);
        assert!(matches!(host.probe(name, step), Verdict::Done(_)), "{name}");
        assert!(host.revert(name, step, "active").is_err());
        host.world().advance(std::time::Duration::from_secs(1));
    }
    let plan = host.plan("restart", &json!({ "unit": "vllm.service" })).unwrap();
    assert!(plan.steps[0].summary.starts_with("start vllm.service, which is failed"));
}

#[test]
fn what_is_refused() {
    let host = host();
    for (name, unit, reason) in [
        ("restart", "none.service", "not-found"),
        ("restart", "masked.service", "precondition"),
        ("restart", "busy.service", "precondition"),
        ("reload", "vllm.service", "precondition"),
        ("mask", "web.service", "parameters"),
    ] {
        let refused = host.plan(name, &json!({ "unit": unit })).unwrap_err();
        assert_eq!(refused.reason, reason, "{name} {unit}: {refused}");
    }
    assert_eq!(host.plan("restart", &json!({})).unwrap_err().reason, "parameters");
    host.broken_units(Some(SystemdError::Unavailable("no bus".to_owned())));
    assert_eq!(host.plan("restart", &json!({ "unit": "web.service" })).unwrap_err().reason, "unavailable");
}

#[test]
fn a_restart_that_was_cut_off() {
    let host = host();
    let plan = host.plan("restart", &json!({ "unit": "web.service" })).unwrap();
    host.broken_units(Some(SystemdError::TimedOut("30 s".to_owned())));
    assert_eq!(host.apply("restart", &plan.steps[0]).unwrap_err().reason, "timed-out");
    assert!(matches!(host.probe("restart", &plan.steps[0]), Verdict::NotDone(_)));
    // By another start, and not running any more: it was restarted and failed.
    host.unit(Unit { invocation: "2".to_owned(), ..unit("web.service", "failed") });
    assert!(matches!(host.probe("restart", &plan.steps[0]), Verdict::NotDone(_)));
    host.unit(Unit { invocation: "2".to_owned(), ..unit("web.service", "active") });
    assert!(matches!(host.probe("restart", &plan.steps[0]), Verdict::Done(_)));
    let reload = host.plan("reload", &json!({ "unit": "web.service" })).unwrap();
    host.unit(Unit { invocation: "3".to_owned(), ..unit("web.service", "active") });
    assert!(matches!(host.probe("reload", &reload.steps[0]), Verdict::CannotTell(_)));
}
