//! The actions against a Slurm of one node and one job that the test's closure plays.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::cell::RefCell;
use std::rc::Rc;

use picket_plugin_action_slurm::Slurm;
use picket_sdk::action::Verdict;
use picket_sdk::command::Output;
use picket_sdk::testing::ActionHost;
use serde_json::json;

#[derive(Default)]
struct Cluster {
    state: String,
    reason: String,
    job: String,
    restarts: u32,
    job_name: String,
    calls: Vec<String>,
}

fn host() -> (ActionHost<Slurm>, Rc<RefCell<Cluster>>) {
    let cluster = Rc::new(RefCell::new(Cluster {
        state: "IDLE".to_owned(),
        job: "RUNNING".to_owned(),
        job_name: "train".to_owned(),
        ..Cluster::default()
    }));
    let host = ActionHost::new().reads(&["slurm-show-node", "slurm-show-job"]);
    let played = cluster.clone();
    host.world().command(move |name, slots| {
        let mut c = played.borrow_mut();
        let slot = |key: &str| slots.iter().find(|(k, _)| *k == key).map(|(_, v)| (*v).to_owned()).unwrap_or_default();
        if !name.starts_with("slurm-show") {
            c.calls.push(name.to_owned());
        }
        let text = match name {
            "slurm-show-node" if slot("node") != "gpu1" => {
                return Ok(Output { status: 1, stdout: b"Node nope not found".to_vec(), stderr: String::new() });
            }
            "slurm-show-node" => {
                let reason =
                    if c.reason.is_empty() { String::new() } else { format!("Reason={} [root@2026-01-01T00:00:00]", c.reason) };
                format!("NodeName=gpu1 Arch=x86_64 CPUTot=2 OS=Linux 6.1 #1 SMP State={} ThreadsPerCore=1 {reason}\n", c.state)
            }
            "slurm-show-job" => format!(
                "JobId=7 JobName={} UserId=ann(1) JobState={} Reason=None Requeue=1 Restarts={} NodeList=gpu1\n",
                c.job_name, c.job, c.restarts
            ),
            "slurm-drain" => {
                c.state = "IDLE+DRAIN".to_owned();
                c.reason = slot("reason");
                String::new()
            }
            "slurm-resume" => {
                c.state = "IDLE".to_owned();
                c.reason.clear();
                String::new()
            }
            "slurm-requeue" => {
                c.restarts += 1;
                c.job = "PENDING".to_owned();
                String::new()
            }
            _ => {
                c.job = "CANCELLED".to_owned();
                String::new()
            }
        };
        Ok(Output { status: 0, stdout: text.into_bytes(), stderr: String::new() })
    });
    (host, cluster)
}

#[test]
fn a_node_is_drained_and_resumed() {
    let (host, cluster) = host();
    let wish = json!({ "node": "gpu1", "reason": "XID 79 on GPU 3" });
    let plan = host.plan("drain", &wish).unwrap();
    let step = &plan.steps[0];
    assert_eq!(step.summary, "drain gpu1, which is IDLE, for the reason \"XID 79 on GPU 3\"");
    assert!(matches!(host.probe("drain", step), Verdict::NotDone(_)));
    assert!(cluster.borrow().calls.is_empty(), "a plan changes nothing");
    let applied = host.apply("drain", step).unwrap();
    assert_eq!(applied.before, "IDLE");
    assert!(matches!(host.probe("drain", step), Verdict::Done(_)));
    assert!(host.plan("drain", &wish).unwrap().steps.is_empty());
    assert_eq!(host.revert("drain", step, &applied.before).unwrap(), "gpu1 has jobs again");
    assert!(host.plan("resume", &json!({ "node": "gpu1" })).unwrap().steps.is_empty());
    // Drained by another hand, for another reason: not ours to undo.
    cluster.borrow_mut().state = "IDLE+DRAIN".to_owned();
    cluster.borrow_mut().reason = "disk".to_owned();
    assert_eq!(host.revert("drain", step, "IDLE").unwrap_err().reason, "precondition");
    let resume = host.plan("resume", &json!({ "node": "gpu1" })).unwrap();
    host.apply("resume", &resume.steps[0]).unwrap();
    assert!(matches!(host.probe("resume", &resume.steps[0]), Verdict::Done(_)));
}

#[test]
fn a_job_is_requeued_and_cancelled() {
    let (host, cluster) = host();
    let plan = host.plan("requeue", &json!({ "job": 7 })).unwrap();
    assert!(plan.steps[0].summary.contains("requeue job 7 (train) of ann(1), which is RUNNING on gpu1"));
    host.apply("requeue", &plan.steps[0]).unwrap();
    assert!(matches!(host.probe("requeue", &plan.steps[0]), Verdict::Done(_)));
    assert!(host.plan("requeue", &json!({ "job": 7 })).unwrap().steps.is_empty(), "it waits already");
    let plan = host.plan("cancel", &json!({ "job": 7 })).unwrap();
    assert!(matches!(host.probe("cancel", &plan.steps[0]), Verdict::NotDone(_)));
    host.apply("cancel", &plan.steps[0]).unwrap();
    assert!(matches!(host.probe("cancel", &plan.steps[0]), Verdict::Done(_)));
    assert!(host.plan("cancel", &json!({ "job": 7 })).unwrap().steps.is_empty());
    assert_eq!(cluster.borrow().calls, ["slurm-requeue", "slurm-cancel"]);
}

#[test]
fn what_is_refused() {
    let (host, cluster) = host();
    for (name, wish, reason) in [
        ("drain", json!({ "node": "nope", "reason": "x" }), "not-found"),
        ("drain", json!({ "node": "gpu1", "reason": "x State=IDLE" }), "parameters"),
        ("drain", json!({ "node": "gpu1", "reason": "x", "force": true }), "parameters"),
        ("cancel", json!({ "job": "7" }), "parameters"),
        ("reboot", json!({ "node": "gpu1" }), "parameters"),
    ] {
        let refused = host.plan(name, &wish).unwrap_err();
        assert_eq!(refused.reason, reason, "{name} {wish}: {refused}");
    }
    // A name that says how the job is.
    cluster.borrow_mut().job_name = "x JobState=COMPLETED".to_owned();
    assert_eq!(host.plan("cancel", &json!({ "job": 7 })).unwrap_err().reason, "parse");
}
