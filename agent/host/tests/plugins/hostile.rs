//! What the host withstands: each misdeed is stopped within its limit, named, and harms no other plugin.

use std::time::{Duration, Instant};

use picket_agent_host::{Fault, Limits, Phase, PluginSpec, PluginState};
use serde_json::json;

use crate::support::*;

/// One collect in the mode; its error's code, and what the sink got.
async fn misdeed(f: &Fixture, mode: &str) -> (Result<(), String>, Kept, PluginState) {
    let mut plugin = f.load(f.hostile(mode)).await;
    let mut sink = Kept::default();
    let result = plugin.collect(&mut sink).await;
    if let Err(e) = &result {
        let text = e.to_string();
        assert!(text.contains("plugin hostile") && text.contains("collect"), "{text}");
        assert!(!e.digest.is_empty() && e.phase == Phase::Collect, "{text}");
    }
    (result.map(|_| ()).map_err(|e| e.code.to_owned()), sink, plugin.state())
}

#[tokio::test]
async fn misdeeds_that_end_the_instance() {
    let f = Fixture::new();
    for (mode, code, fault) in [
        ("loop", "PKT-0061", Fault::Limit),
        ("allocate", "PKT-0063", Fault::Limit),
        ("recurse", "PKT-0064", Fault::Plugin),
        ("trap", "PKT-0060", Fault::Plugin),
        ("trap-after-push", "PKT-0060", Fault::Plugin),
        ("hostcall", "PKT-0065", Fault::Limit),
        ("million-at-once", "PKT-0065", Fault::Limit),
    ] {
        let mut plugin = f.load(f.hostile(mode)).await;
        let mut sink = Kept::default();
        let start = Instant::now();
        let e = plugin.collect(&mut sink).await.expect_err(mode);
        assert!(start.elapsed() < Duration::from_secs(4), "{mode} took {:?}", start.elapsed());
        assert_eq!((e.code, e.fault, e.phase), (code, fault, Phase::Collect), "{mode}: {e}");
        assert!(matches!(plugin.state(), PluginState::BackingOff { .. }), "{mode}");
        // What was pushed before is kept.
        let expected = match mode {
            "loop" => Some(1.0),
            "trap-after-push" => Some(7.0),
            _ => None,
        };
        assert_eq!(sink.value("hostile_value{}"), expected, "{mode}");
    }
}

#[tokio::test]
async fn misdeeds_that_are_refused_and_counted() {
    let f = Fixture::new();
    // Mode, whether the guest saw an error (its own PKT-0069 then), the reason counted, points that came through.
    for (mode, error, reason, points) in [
        ("nan", false, "nan", 1),
        ("bad-name", true, "invalid", 0),
        ("bad-label", true, "invalid", 0),
        ("unlisted-label", true, "invalid", 0),
        ("long-label", true, "invalid", 0),
        ("two-types", true, "invalid", 0),
        ("line-names", true, "invalid", 0),
        ("wrong-part", true, "invalid", 0),
        ("other-part", true, "invalid", 0),
        ("twice", true, "duplicate", 1),
        ("unknown", true, "unknown-id", 0),
        ("retired", true, "unknown-id", 1),
        ("future", true, "timestamp", 0),
        ("million-series", true, "quota", 0),
        ("churn", true, "quota", 0),
        ("events", true, "quota", 0),
        ("error", true, "unreachable", 1),
    ] {
        let (result, sink, state) = misdeed(&f, mode).await;
        assert_eq!(result, if error { Err("PKT-0069".to_owned()) } else { Ok(()) }, "{mode}");
        assert!(sink.reasons().contains(&reason), "{mode}: {:?}", sink.failures);
        assert_eq!(sink.values.len(), points, "{mode}: {:?}", sink.values);
        assert_eq!(state, PluginState::Running, "{mode}");
    }
}

#[tokio::test]
async fn a_million_samples_are_cut_at_the_limit() {
    let f = Fixture::new();
    let mut plugin = f
        .load(PluginSpec {
            limits: Limits { guest_time: Duration::from_secs(5), ..limits() },
            ..f.hostile("million")
        })
        .await;
    let mut sink = Kept::default();
    plugin.collect(&mut sink).await.unwrap();
    assert_eq!(sink.timed, 5_000);
    assert_eq!(sink.reasons(), ["quota"]);
}

#[tokio::test]
async fn infinity_is_a_value() {
    let f = Fixture::new();
    let (_, sink, _) = misdeed(&f, "nan").await;
    assert_eq!(sink.value("hostile_by_name{name=infinite}"), Some(f64::INFINITY));
}

#[tokio::test]
async fn floods_are_bounded() {
    let f = Fixture::new();
    let (result, sink, _) = misdeed(&f, "reasons").await;
    assert!(result.is_ok() || result == Err("PKT-0061".to_owned()), "{result:?}");
    assert!(sink.failures.len() <= 33, "{}", sink.failures.len());
    assert!(sink.failures.iter().all(|(_, m)| m.len() < 2_000));
    let (result, ..) = misdeed(&f, "log").await;
    assert!(result.is_ok() || result == Err("PKT-0061".to_owned()), "{result:?}");
    let (_, sink, _) = misdeed(&f, "events").await;
    assert_eq!(sink.events.len(), limits().events as usize);
}

#[tokio::test]
async fn waiting_in_a_host_call_is_bounded_too() {
    let f = Fixture::new();
    // A listener that never answers: the kernel accepts for it.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut grants = everything();
    grants.extend(
        serde_json::from_value::<Vec<_>>(
            json!([{ "capability": "http", "urls": [{ "host": "127.0.0.1", "port": port }] }]),
        )
        .unwrap(),
    );
    let limits = Limits { call_time: Duration::from_millis(300), ..limits() };
    let spec = PluginSpec { grants, limits, ..f.hostile_with("http", &format!("http://127.0.0.1:{port}/")) };
    let mut plugin = f.load(spec).await;
    let start = Instant::now();
    let e = plugin.collect(&mut Kept::default()).await.unwrap_err();
    assert_eq!((e.code, e.fault), ("PKT-0062", Fault::Limit), "{e}");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    // A FIFO is not waited for at all.
    let fifo = f.path("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut plugin = f.load(f.hostile_with("read", fifo.to_str().unwrap())).await;
    let e = plugin.collect(&mut Kept::default()).await.unwrap_err();
    assert_eq!(e.code, "PKT-0069", "{e}");
    assert!(e.message.contains("FIFO"), "{e}");
}

/// On one thread, the hardest case: the looping plugin gives way at each tick.
#[tokio::test(flavor = "current_thread")]
async fn no_other_plugin_is_late() {
    let f = Fixture::new();
    let long = Limits { guest_time: Duration::from_secs(1), call_time: Duration::from_secs(60), ..limits() };
    let mut looping = f.load(PluginSpec { limits: long, ..f.hostile("loop") }).await;
    let mut good = f.load(f.hostile("ok")).await;
    let others = async {
        let mut latest = Duration::ZERO;
        let mut sink = Kept::default();
        for i in 1..=20u32 {
            let start = Instant::now();
            good.collect(&mut sink).await.unwrap();
            assert_eq!(sink.value("hostile_value{}"), Some(f64::from(i)));
            latest = latest.max(start.elapsed());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        latest
    };
    let mut sink = Kept::default();
    let (ended, latest) = tokio::join!(looping.collect(&mut sink), others);
    assert_eq!(ended.unwrap_err().code, "PKT-0061");
    assert!(latest < Duration::from_millis(500), "another plugin's collect took {latest:?}");
}

#[tokio::test]
async fn memory_is_bounded() {
    let f = Fixture::new();
    let mut plugin = f.load(f.hostile("leak")).await;
    let (mut collects, mut sink) = (0, Kept::default());
    let e = loop {
        match plugin.collect(&mut sink).await {
            Ok(stats) => assert!(stats.memory <= limits().memory),
            Err(e) => break e,
        }
        collects += 1;
        assert!(collects < 100, "it leaked 100 MiB");
    };
    assert_eq!(e.code, "PKT-0063", "{e}");
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = resident();
    for _ in 0..3 {
        let mut plugin = f.load(f.hostile("allocate")).await;
        assert_eq!(plugin.collect(&mut Kept::default()).await.unwrap_err().code, "PKT-0063");
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more");
}

#[tokio::test]
async fn misdeeds_before_the_first_collect() {
    let f = Fixture::new();
    for (mode, code) in
        [("panic-configure", "PKT-0060"), ("loop-configure", "PKT-0061"), ("refuse", "PKT-0068")]
    {
        let e = f.refused(f.hostile(mode)).await;
        assert_eq!((e.code, e.phase), (code, Phase::Configure), "{e}");
    }
    let early = f.file("early.wasm", &component("early"));
    let e = f.refused(spec("early", early, json!({}))).await;
    assert_eq!((e.code, e.phase, e.fault), ("PKT-0060", Phase::Describe, Fault::Plugin), "{e}");
    let e = f.refused(PluginSpec { settings: json!([1]), ..f.hostile("ok") }).await;
    assert_eq!(e.code, "PKT-0068", "{e}");
    let small = Limits { memory: 64 << 10, ..limits() };
    let e = f.refused(PluginSpec { limits: small, ..f.hostile("ok") }).await;
    assert_eq!((e.code, e.phase), ("PKT-0063", Phase::Instantiate), "{e}");
    let few = Limits { families: 1, ..limits() };
    let e = f.refused(PluginSpec { limits: few, ..f.hostile("ok") }).await;
    assert_eq!((e.code, e.phase), ("PKT-0067", Phase::Describe), "{e}");
}
