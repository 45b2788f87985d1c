//! A plugin's life: warm instances, restarts, quarantine, recycling, settings, control.

use std::time::{Duration, Instant};

use picket_agent_host::{ControlError, Limits, PluginSpec, PluginState};
use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn an_instance_stays_warm() {
    let f = Fixture::new();
    let mut plugin = f.load(f.hostile("ok")).await;
    assert_eq!(plugin.info().families.len(), 3);
    assert_eq!(plugin.info().name, "hostile");
    let mut sink = Kept::default();
    for i in 1..=3 {
        let stats = plugin.collect(&mut sink).await.unwrap();
        assert_eq!((stats.points, stats.series), (1, 1));
        assert_eq!(sink.value("hostile_value{}"), Some(f64::from(i)));
    }
    assert_eq!(sink.generations.len(), 1);
    assert_eq!(sink.failures, []);
}

#[tokio::test]
async fn recycled_after_so_many_collects() {
    let f = Fixture::new();
    let limits = Limits { recycle_after: 2, ..limits() };
    let mut plugin = f.load(PluginSpec { limits, ..f.hostile("ok") }).await;
    let mut sink = Kept::default();
    let mut values = Vec::new();
    for _ in 0..5 {
        plugin.collect(&mut sink).await.unwrap();
        values.push(sink.value("hostile_value{}").unwrap());
    }
    assert_eq!(values, [1.0, 2.0, 1.0, 2.0, 1.0]);
    assert_eq!(sink.generations.len(), 3);
    assert!(sink.generations.is_sorted());
    assert_eq!(plugin.state(), PluginState::Running);
}

async fn until_it_may_start(plugin: &picket_agent_host::Plugin) {
    if let PluginState::BackingOff { until, .. } = plugin.state() {
        tokio::time::sleep_until(until).await;
    }
}

#[tokio::test]
async fn it_recovers_when_the_cause_is_gone() {
    let f = Fixture::new();
    let flag = f.file("flag", b"");
    let mut plugin = f.load(f.hostile_with("loop-while", flag.to_str().unwrap())).await;
    let mut sink = Kept::default();
    assert_eq!(plugin.collect(&mut sink).await.unwrap_err().code, "PKT-0061");
    // Not entered while it waits.
    let start = Instant::now();
    let e = plugin.collect(&mut sink).await.unwrap_err();
    assert_eq!(e.code, "PKT-0080", "{e}");
    assert!(start.elapsed() < Duration::from_millis(40));
    std::fs::remove_file(&flag).unwrap();
    until_it_may_start(&plugin).await;
    plugin.collect(&mut sink).await.unwrap();
    assert_eq!(plugin.state(), PluginState::Running);
    assert_eq!(sink.generations.len(), 2);
}

#[tokio::test]
async fn quarantined_after_its_restarts_and_released() {
    let f = Fixture::new();
    let limits = Limits { restarts: 2, back_off: Duration::from_millis(5), ..limits() };
    let mut plugin = f.load(PluginSpec { limits, ..f.hostile("trap") }).await;
    let mut sink = Kept::default();
    for failure in 1..=3 {
        until_it_may_start(&plugin).await;
        let e = plugin.collect(&mut sink).await.unwrap_err();
        assert_eq!(e.code, "PKT-0060", "failure {failure}: {e}");
    }
    let PluginState::Quarantined { reason } = plugin.state() else { panic!("{:?}", plugin.state()) };
    assert!(reason.contains("PKT-0060") && reason.contains("collect"), "{reason}");
    let e = plugin.collect(&mut sink).await.unwrap_err();
    assert_eq!(e.code, "PKT-0081", "{e}");
    assert!(e.message.contains("trapped"), "{e}");
    // Bad settings do not end it, good ones do.
    assert_eq!(plugin.set_settings(json!({ "mode": "refuse" })).await.unwrap_err().code, "PKT-0068");
    assert!(matches!(plugin.state(), PluginState::Quarantined { .. }));
    plugin.set_settings(json!({ "mode": "ok" })).await.unwrap();
    assert_eq!(plugin.state(), PluginState::Running);
    plugin.collect(&mut sink).await.unwrap();
}

#[tokio::test]
async fn healthy_time_gives_the_restarts_back() {
    let f = Fixture::new();
    let limits = Limits {
        restarts: 1,
        back_off: Duration::from_millis(1),
        healthy_after: Duration::from_millis(50),
        ..limits()
    };
    let mut plugin = f.load(PluginSpec { limits, ..f.hostile("trap") }).await;
    for _ in 0..4 {
        until_it_may_start(&plugin).await;
        assert_eq!(plugin.collect(&mut Kept::default()).await.unwrap_err().code, "PKT-0060");
        assert!(matches!(plugin.state(), PluginState::BackingOff { .. }));
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_ends_the_instance_alone() {
    let f = Fixture::new();
    let mut plugin = f.load(f.hostile("loop")).await;
    let mut sink = Kept::default();
    let cut = tokio::time::timeout(Duration::from_millis(30), plugin.collect(&mut sink)).await;
    assert!(cut.is_err());
    assert_eq!(plugin.state(), PluginState::Running);
    plugin.set_settings(json!({ "mode": "ok" })).await.unwrap();
    plugin.collect(&mut sink).await.unwrap();
}

#[tokio::test]
async fn control() {
    let f = Fixture::new();
    let mut plugin = f.load(f.hostile("ok")).await;
    assert!(plugin.info().controllable);
    assert!(plugin.control_schema().await.unwrap().contains("object"));
    assert_eq!(plugin.control_get().await.unwrap(), r#"{"mode":"ok"}"#);
    let refused = plugin.control_set("{}").await.unwrap_err();
    assert!(matches!(refused, ControlError::Refused(lines) if lines == ["mode: a string"]));
    assert_eq!(plugin.control_set(r#"{"mode":"event"}"#).await.unwrap(), r#"{"mode":"event"}"#);
    let mut sink = Kept::default();
    plugin.collect(&mut sink).await.unwrap();
    assert_eq!(sink.events.len(), 1);
    let event = &sink.events[0];
    assert_eq!((event.plugin.as_str(), event.kind.as_str()), ("hostile", "test.event"));
    assert!(event.timestamp_ms > 0);
    let stopped = plugin.control_set(r#"{"mode":"loop-control"}"#).await.unwrap_err();
    assert!(matches!(stopped, ControlError::Plugin(e) if e.code == "PKT-0061"));
    let early = f.file("stranger.wasm", &component("stranger"));
    assert_eq!(f.refused(spec("s", early, json!({}))).await.code, "PKT-0021");
}

#[tokio::test]
async fn the_collectors_refusal() {
    let f = Fixture::new();
    let mut plugin = f.load(f.hostile("ok")).await;
    let mut sink = Kept { refuse: Some("hostile_value"), ..Kept::default() };
    for _ in 0..2 {
        let stats = plugin.collect(&mut sink).await.unwrap();
        assert_eq!(stats.points, 0);
    }
    assert_eq!(sink.reasons(), ["refused"]);
    assert!(sink.values.is_empty());
}

#[tokio::test]
async fn histograms_and_services() {
    let f = Fixture::new();
    let mut sink = Kept::default();
    f.load(f.hostile("histogram")).await.collect(&mut sink).await.unwrap();
    let names: Vec<&str> = sink.values.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["hostile_seconds_bucket{le=+Inf}", "hostile_seconds_count{}", "hostile_seconds_sum{}"]
    );
    // The store outlives the instance.
    for i in 1..=2 {
        let mut sink = Kept::default();
        f.load(f.hostile("services")).await.collect(&mut sink).await.unwrap();
        assert_eq!(sink.value("hostile_value{}"), Some(f64::from(i)));
    }
}

#[tokio::test]
async fn two_plugins_of_one_file_are_compiled_once() {
    let f = Fixture::new();
    let (a, b) = tokio::join!(f.host.load(f.hostile("ok")), f.host.load(f.hostile("ok")));
    let (mut a, mut b) = (a.unwrap(), b.unwrap());
    a.collect(&mut Kept::default()).await.unwrap();
    b.collect(&mut Kept::default()).await.unwrap();
    assert_eq!(std::fs::read_dir(f.path("cache")).unwrap().count(), 1);
}

/// What a read costs through all layers: told, not judged, for machines differ.
#[tokio::test]
async fn reads_are_lean() {
    let f = Fixture::new();
    let mut plugin = f.load(f.hostile_with("read-many", "/proc/loadavg")).await;
    let mut least = Duration::MAX;
    for _ in 0..20 {
        least = least.min(plugin.collect(&mut Kept::default()).await.unwrap().guest_time);
    }
    println!("100 reads of /proc/loadavg: {least:?}");
    assert!(least < Duration::from_millis(50), "{least:?}");
}
