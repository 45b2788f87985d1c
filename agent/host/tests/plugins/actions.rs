//! Action plugins: effects where they may be had and nowhere else, a fresh instance for each command, and the same limits
//! as everybody.

use std::time::Duration;

use picket_agent_host::{ActionError, ActionPlugin, Limits, PluginError, PluginSpec, Step};
use picket_agent_services::grants::Scope;
use serde_json::json;

use crate::support::*;

fn grants() -> Vec<Scope> {
    serde_json::from_value(json!([
        { "capability": "store", "bytes": 1000 },
        { "capability": "files-write", "delete": ["/var/tmp/picket-test/*"] },
    ]))
    .unwrap()
}

fn deed(f: &Fixture) -> PluginSpec {
    let file = f.file("deed.wasm", &component("deed"));
    PluginSpec {
        grants: grants(),
        limits: Limits {
            guest_time: Duration::from_millis(200),
            call_time: Duration::from_secs(5),
            ..Limits::default()
        },
        ..spec("deed", file, json!({}))
    }
}

async fn load(f: &Fixture, spec: PluginSpec) -> Result<ActionPlugin, PluginError> {
    f.host.load_action(spec).await
}

fn step(arguments: &str) -> Step {
    Step {
        summary: "try it".to_owned(),
        subject_kind: "container".to_owned(),
        subject_id: "a".to_owned(),
        arguments: arguments.to_owned(),
    }
}

#[tokio::test]
async fn effects_are_had_in_apply_and_revert_alone() {
    let f = Fixture::new();
    let mut plugin = load(&f, deed(&f)).await.unwrap();
    let names: Vec<&str> = plugin.info().definitions.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names, ["try", "trap", "loop", "sprawl", "refuse"]);
    let held = "nothing may be changed in this call";
    for _ in 0..2 {
        let plan = plugin.plan("try", "{}").await.unwrap();
        assert!(plan.notes[0].contains(held) && plan.notes[1].contains(held), "{:?}", plan.notes);
        assert!(plan.notes[2].starts_with("store.get: "), "reading works: {:?}", plan.notes);
        let probed = format!("{:?}", plugin.probe("try", &step("{}")).await.unwrap());
        assert!(probed.contains("store.set: nothing may be changed"), "{probed}");
        let applied = plugin.apply("try", &step("{}")).await.unwrap();
        assert!(
            applied.message.starts_with("store.set: ok; files.delete: denied: /nowhere; store.get: there"),
            "{applied:?}"
        );
        let reverted = plugin.revert("try", &step("{}"), "was so").await.unwrap();
        assert!(reverted.starts_with("was so; store.set: ok"), "{reverted}");
    }
}

#[tokio::test]
async fn after_an_apply_that_traps_nothing_is_let_through() {
    let f = Fixture::new();
    let mut plugin = load(&f, deed(&f)).await.unwrap();
    let trapped = plugin.apply("try", &step("trap")).await.unwrap_err();
    assert!(matches!(&trapped, ActionError::Plugin(e) if e.code == "PKT-0060"), "{trapped}");
    // Given up midway.
    let _ = tokio::time::timeout(Duration::from_micros(1), plugin.apply("try", &step("{}"))).await;
    let plan = plugin.plan("try", "{}").await.unwrap();
    assert!(plan.notes[0].contains("nothing may be changed"), "{:?}", plan.notes);
}

#[tokio::test]
async fn limits_hold_in_each_call() {
    let f = Fixture::new();
    let mut plugin = load(&f, deed(&f)).await.unwrap();
    for (name, code) in [("trap", "PKT-0060"), ("loop", "PKT-0061"), ("sprawl", "PKT-0070")] {
        let failed = plugin.plan(name, "{}").await.unwrap_err();
        assert!(matches!(&failed, ActionError::Plugin(e) if e.code == code), "{name}: {failed}");
    }
    let declined = plugin.plan("refuse", "{}").await.unwrap_err();
    assert!(
        matches!(&declined, ActionError::Declined(no) if no.reason == "other" && no.message == "no never"),
        "{declined}"
    );
    // None of it costs the next command anything.
    plugin.plan("try", "{}").await.unwrap();
}

#[tokio::test]
async fn what_is_not_loaded() {
    let f = Fixture::new();
    let ungranted = load(&f, PluginSpec { grants: Vec::new(), ..deed(&f) }).await.unwrap_err();
    assert_eq!(ungranted.code, "PKT-0030", "{ungranted}");
    assert!(ungranted.to_string().contains("[[plugins.deed.grants]]"), "{ungranted}");
    let bad = load(&f, PluginSpec { settings: json!({ "a": "bad" }), ..deed(&f) }).await.unwrap_err();
    assert_eq!(bad.code, "PKT-0068", "{bad}");
    // A role that the operator did not give it.
    let as_source = f.refused(deed(&f)).await;
    assert_eq!(as_source.code, "PKT-0021", "{as_source}");
    assert!(as_source.to_string().contains("role = \"action\""), "{as_source}");
    let as_action = load(&f, f.hostile("ok")).await.unwrap_err();
    assert_eq!(as_action.code, "PKT-0021", "{as_action}");
}
