//! Plans, approvals and reports, without a node: what a node would answer is put in as a report.

use std::time::Duration;

use super::*;

fn options(clock: &Clock) -> Options {
    Options {
        bounds: Bounds { max_running: 2, per_hour: 10, max_nodes_percent: 100 },
        plan_ttl: Duration::from_secs(900),
        clock: clock.clone(),
    }
}

fn open(folder: &Path, clock: &Clock) -> Arc<Actions> {
    let audit = Arc::new(Audit::open(folder, clock.clone()).unwrap());
    Actions::open(folder, audit, options(clock)).unwrap()
}

fn node() -> NodeId {
    NodeId::new("gpu-1").unwrap()
}

fn record(id: &str, dangerous: bool) -> Record {
    Record {
        id: id.to_owned(),
        node: "gpu-1".to_owned(),
        plugin: "action-containers".to_owned(),
        action: "restart".to_owned(),
        parameters: "{}".to_owned(),
        digest: "d".repeat(64),
        dangerous,
        state: "planned".to_owned(),
        plan: "{\"steps\":[]}".to_owned(),
        steps: "[]".to_owned(),
        planned_ms: 1_000,
        planned_by: "olga".to_owned(),
        expires_ms: 901_000,
        ..Record::default()
    }
}

const OLGA: Asker<'static> = Asker { name: "olga", role: "operator", is_admin: false };
const ADA: Asker<'static> = Asker { name: "ada", role: "admin", is_admin: true };

fn events(actions: &Actions) -> Vec<String> {
    let page = actions.audit().page(0, 1000).unwrap();
    String::from_utf8(page)
        .unwrap()
        .lines()
        .map(|line| {
            let (_, json) = line.split_once(' ').unwrap();
            let entry: Value = serde_json::from_str(json).unwrap();
            format!("{} {}", entry["actor"].as_str().unwrap(), entry["event"].as_str().unwrap())
        })
        .collect()
}

async fn reason(actions: &Arc<Actions>, who: Asker<'_>, id: &str, digest: &str) -> String {
    match actions.apply(who, &node(), id, digest, None).await {
        Err(ActionError::Refused { reason, .. }) => reason,
        Err(other) => other.to_string(),
        Ok(record) => record.state,
    }
}

#[tokio::test]
async fn who_may_and_what_is_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(2_000);
    let actions = open(folder.path(), &clock);
    let digest = "d".repeat(64);
    actions.put(record("a1", true)).await.unwrap();
    actions.put(record("a2", false)).await.unwrap();
    assert!(reason(&actions, OLGA, "none", &digest).await.contains("no action none"));
    assert_eq!(reason(&actions, OLGA, "a1", "wrong").await, "digest");
    assert_eq!(reason(&actions, OLGA, "a1", &digest).await, "approval");
    let other = NodeId::new("gpu-2").unwrap();
    let elsewhere = actions.apply(ADA, &other, "a1", &digest, None).await.unwrap_err();
    assert!(elsewhere.to_string().contains("was planned on gpu-1"), "{elsewhere}");

    assert!(actions.approve(ADA, "a1", "wrong").await.is_err());
    actions.approve(ADA, "a1", &digest).await.unwrap();
    // No node is connected: it is told to nobody, and that is said.
    assert!(reason(&actions, OLGA, "a1", &digest).await.contains("not connected"));
    assert_eq!(actions.get("a1").await.unwrap().state, "refused");
    assert_eq!(reason(&actions, OLGA, "a1", &digest).await, "state", "a plan is good for one apply");

    clock.advance(Duration::from_secs(1000));
    assert_eq!(reason(&actions, OLGA, "a2", &digest).await, "expired");
    let told = events(&actions);
    for wanted in
        ["olga action.apply-refused", "ada action.approved", "olga action.applied", "olga action.refused"]
    {
        assert!(told.iter().any(|t| t == wanted), "{wanted} is not among {told:?}");
    }
    assert_eq!(actions.audit().state().problem, "");
}

#[tokio::test]
async fn all_can_be_stopped_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(2_000);
    let actions = open(folder.path(), &clock);
    actions.put(record("a1", false)).await.unwrap();
    actions.set_breaker(ADA, Some("a storm".to_owned())).await.unwrap();
    drop(actions);
    let actions = open(folder.path(), &clock);
    assert_eq!(actions.breaker().unwrap().unwrap()["reason"], "a storm");
    assert!(
        reason(&actions, ADA, "a1", &"d".repeat(64)).await.contains("all actions of the fleet are stopped")
    );
    actions.set_breaker(ADA, None).await.unwrap();
    assert!(reason(&actions, ADA, "a1", &"d".repeat(64)).await.contains("not connected"));
}

#[tokio::test]
async fn the_fleets_bounds_hold_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(10_000_000);
    let digest = "d".repeat(64);
    let begun = |id: String, state: &str| Record {
        state: state.to_owned(),
        applied_ms: Some(10_000_000),
        expires_ms: i64::MAX,
        ..record(&id, false)
    };
    let actions = open(folder.path(), &clock);
    for n in 0..2 {
        actions.put(begun(format!("r{n}"), "running")).await.unwrap();
    }
    actions.put(Record { expires_ms: i64::MAX, ..record("next", false) }).await.unwrap();
    drop(actions);
    let actions = open(folder.path(), &clock);
    assert!(reason(&actions, ADA, "next", &digest).await.contains("2 actions run on the fleet already"));
    // What a node says that it has ended runs no more; what was begun within the hour counts still.
    for n in 0..2 {
        actions.put(begun(format!("r{n}"), "cancelled")).await.unwrap();
    }
    for n in 2..10 {
        actions.put(begun(format!("r{n}"), "succeeded")).await.unwrap();
    }
    drop(actions);
    let actions = open(folder.path(), &clock);
    assert!(reason(&actions, ADA, "next", &digest).await.contains("10 actions were begun on the fleet"));
    clock.advance(Duration::from_secs(3601));
    assert!(reason(&actions, ADA, "next", &digest).await.contains("not connected"));
}

#[tokio::test]
async fn a_cancel_is_written_down_and_told_to_the_node_that_runs_it() {
    let folder = tempfile::tempdir().unwrap();
    let actions = open(folder.path(), &Clock::manual(2_000));
    actions.put(record("a1", false)).await.unwrap();
    let reason = |error| match error {
        ActionError::Refused { reason, .. } => reason,
        other => other.to_string(),
    };
    let never = actions.cancel(OLGA, &node(), "a1").await.unwrap_err();
    assert_eq!(reason(never), "state");
    let other = NodeId::new("gpu-2").unwrap();
    assert_eq!(reason(actions.cancel(OLGA, &other, "a1").await.unwrap_err()), "node");
    let running = Record { state: "running".to_owned(), applied_ms: Some(1), ..record("a1", false) };
    actions.put(running).await.unwrap();
    // Also while all is stopped: it stops more.
    actions.set_breaker(ADA, Some("a storm".to_owned())).await.unwrap();
    assert!(reason(actions.cancel(OLGA, &node(), "a1").await.unwrap_err()).contains("not connected"));
    let told = events(&actions);
    assert_eq!(told[1..], ["olga action.cancel", "olga action.cancel-refused"], "{told:?}");
    actions.reported(&node(), report(vec![execution("a1", "cancelled", 7)])).await.unwrap();
    assert_eq!(actions.get("a1").await.unwrap().state, "cancelled");
}

fn execution(id: &str, state: &str, revision: u64) -> v1::ActionExecution {
    v1::ActionExecution {
        execution: id.to_owned(),
        state: state.to_owned(),
        message: "m\u{1b}".to_owned(),
        steps: vec![v1::ActionStep { state: "done".to_owned(), message: "restarted".to_owned() }],
        accepted_ms: 1,
        ended_ms: i64::from(state == "succeeded"),
        revision,
    }
}

fn report(executions: Vec<v1::ActionExecution>) -> v1::ActionReport {
    v1::ActionReport { enabled: true, plugins: Vec::new(), executions }
}

#[tokio::test]
async fn reports_are_taken_in_their_order_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(2_000);
    let actions = open(folder.path(), &clock);
    let sent = |id| Record {
        state: "sent".to_owned(),
        applied_ms: Some(2_000),
        applied_by: Some("olga".to_owned()),
        ..record(id, false)
    };
    for id in ["a1", "a2", "a3"] {
        actions.put(sent(id)).await.unwrap();
    }
    // Only planned: no node can say that it was done.
    actions.put(record("a4", false)).await.unwrap();
    let all = |state, revision| {
        report(vec![
            execution("a1", state, revision),
            execution("a4", state, revision),
            execution("zz", state, 1),
        ])
    };
    actions.reported(&node(), all("running", 2)).await.unwrap();
    actions.reported(&node(), all("succeeded", 5)).await.unwrap();
    actions.reported(&node(), all("running", 3)).await.unwrap();
    actions.reported(&node(), all("succeeded", 5)).await.unwrap();
    let a1 = actions.get("a1").await.unwrap();
    assert_eq!((a1.state.as_str(), a1.revision, a1.message.as_str()), ("succeeded", 5, "m "));
    assert_eq!(a1.ended_ms, Some(2_000));
    assert_eq!(actions.get("a4").await.unwrap().state, "planned");
    // Another node's word of it counts for nothing, nor does a state that nobody knows.
    let other = NodeId::new("gpu-2").unwrap();
    actions.reported(&other, report(vec![execution("a2", "succeeded", 9)])).await.unwrap();
    actions.reported(&node(), report(vec![execution("a2", "perfect", 9)])).await.unwrap();
    assert_eq!(actions.get("a2").await.unwrap().state, "sent");
    // Sent a while ago, and the node knows nothing of it.
    clock.advance(Duration::from_secs(61));
    actions.reported(&node(), report(vec![execution("a3", "running", 1)])).await.unwrap();
    assert_eq!(actions.get("a2").await.unwrap().state, "lost");
    assert_eq!(actions.get("a3").await.unwrap().state, "running");
    let told = events(&actions);
    assert_eq!(told.iter().filter(|t| *t == "node:gpu-1 action.succeeded").count(), 1, "{told:?}");
}
