//! Clean-ups against the SDK's files.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use picket_plugin_action_files::Files;
use picket_sdk::action::Verdict;
use picket_sdk::files_write::Found;
use picket_sdk::testing::ActionHost;
use serde_json::json;

/// 2026-01-01T00:00:00Z, where the SDK's clock stands.
const NOW: u64 = 1_767_225_600;

fn file(path: &str, bytes: u64, hours: u64) -> Found {
    let modified = (NOW - hours * 3600) * 1_000_000_000;
    Found { path: path.to_owned(), bytes, modified, inode: 1, device: 1 }
}

fn host() -> ActionHost<Files> {
    let host = ActionHost::new();
    host.deletable(file("/var/tmp/cores/a.core", 2048, 50));
    host.deletable(file("/var/tmp/cores/b.core", 10, 30));
    host.deletable(file("/var/tmp/cores/young.core", 10, 1));
    host.deletable(file("/var/tmp/cores/notes.txt", 10, 50));
    host
}

#[test]
fn from_rule_to_probe() {
    let host = host();
    let wish = json!({ "pattern": "/var/tmp/cores/*.core", "older_than_hours": 24 });
    let plan = host.plan("clean-up", &wish).unwrap();
    assert_eq!(plan.steps.len(), 1);
    assert_eq!(plan.notes, ["2 files, 2.0 KiB"]);
    let step = &plan.steps[0];
    assert!(step.summary.contains("a.core") && !step.summary.contains("young"), "{}", step.summary);
    assert!(matches!(host.probe("clean-up", step), Verdict::NotDone(_)));
    assert_eq!(host.left().len(), 4);
    let applied = host.apply("clean-up", step).unwrap();
    assert_eq!(applied.message, "2 of 2 files deleted, 2.0 KiB freed");
    assert_eq!(host.left(), ["/var/tmp/cores/young.core", "/var/tmp/cores/notes.txt"]);
    assert!(matches!(host.probe("clean-up", step), Verdict::Done(_)));
    // Again is no harm.
    assert!(host.apply("clean-up", step).unwrap().message.starts_with("0 of 2"));
    assert!(host.plan("clean-up", &wish).unwrap().steps.is_empty());
}

#[test]
fn many_files_are_several_steps() {
    let host = ActionHost::<Files>::new();
    for n in 0..120 {
        host.deletable(file(&format!("/var/tmp/cores/{n:03}.core"), 1, 50));
    }
    let plan = host.plan("clean-up", &json!({ "pattern": "/var/tmp/cores/*", "most": 110 })).unwrap();
    assert_eq!(plan.steps.len(), 3);
    assert_eq!(plan.notes, ["110 files, 110 B", "there are more that fit; these are the oldest"]);
}

#[test]
fn what_is_refused() {
    let host = host();
    for (name, wish) in [
        ("clean-up", json!({})),
        ("clean-up", json!({ "pattern": "/x", "force": true })),
        ("wipe", json!({ "pattern": "/var/tmp/cores/*" })),
    ] {
        assert_eq!(host.plan(name, &wish).unwrap_err().reason, "parameters", "{name} {wish}");
    }
}
