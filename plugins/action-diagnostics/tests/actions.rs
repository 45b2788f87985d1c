//! Bundles against the SDK's host.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use picket_plugin_action_diagnostics::Diagnostics;
use picket_sdk::command::{CommandError, Output};
use picket_sdk::http::Response;
use picket_sdk::testing::ActionHost;
use serde_json::json;

fn host() -> ActionHost<Diagnostics> {
    let host = ActionHost::new();
    host.world().command(|name, _| match name {
        "diag-dmesg" => Ok(Output { status: 0, stdout: vec![b'k'; 600_000], stderr: String::new() }),
        "diag-journal" => Ok(Output { status: 1, stdout: b"half".to_vec(), stderr: "no journal".to_owned() }),
        "diag-nvidia-bug-report" => {
            Ok(Output { status: 0, stdout: b"running...".to_vec(), stderr: String::new() })
        }
        other => Err(CommandError::NotFound(other.to_owned())),
    });
    host.world().file("/var/lib/picket-agent/bundles/nvidia-bug-report.gz", "report");
    host.world().http(|request| {
        assert!(request.url().starts_with("http://127.0.0.1:9460/"));
        Ok(Response { status: 503, headers: Vec::new(), body: b"{\"ready\":false}".to_vec() })
    });
    host
}

#[test]
fn a_bundle_has_what_can_be_had() {
    let host = host();
    let plan = host.plan("collect", &json!({ "name": "xid79" })).unwrap();
    assert_eq!(plan.steps.len(), 6);
    assert!(host.bundles().is_empty(), "a plan changes nothing");
    let told: Vec<String> = plan.steps.iter().map(|s| host.apply("collect", s).unwrap().message).collect();
    assert!(told[1].contains("then it broke off") && told[1].contains("no journal"), "{told:?}");
    assert!(told[2].contains("nvidia-smi.txt is left out"), "{told:?}");
    let bundle = host.bundles();
    assert_eq!(bundle["/bundles/xid79/dmesg.txt"].len(), 600_000);
    assert_eq!(bundle["/bundles/xid79/nvidia-bug-report.log.gz"], b"report");
    assert_eq!(bundle["/bundles/xid79/readyz.json"], b"{\"ready\":false}");
    assert_eq!(bundle.len(), 5);
    // Again: the same, not twice as much.
    host.apply("collect", &plan.steps[0]).unwrap();
    assert_eq!(host.bundles()["/bundles/xid79/dmesg.txt"].len(), 600_000);
}

#[test]
fn what_is_refused() {
    for name in ["", "../x", "a b", "-x", "a/b"] {
        assert!(host().plan("collect", &json!({ "name": name })).is_err(), "{name:?}");
    }
    assert!(host().plan("send", &json!({ "name": "x" })).is_err());
    let empty = host().settings(&json!({ "parts": [{ "file": "x" }] }));
    assert_eq!(empty.plan("collect", &json!({ "name": "x" })).unwrap_err().reason, "settings");
}
