//! The plugin under the SDK's test host: what it exports, and what an operator can change.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use picket_plugin_mock::Mock;
use picket_sdk::Controllable;
use picket_sdk::testing::Host;
use serde_json::json;

fn host(settings: serde_json::Value) -> Host<Mock> {
    let mut host = Host::<Mock>::new();
    host.configure(&settings).unwrap();
    host
}

fn count(host: &Host<Mock>, family: &str) -> usize {
    host.text().lines().filter(|l| l.starts_with(family) && !l.starts_with('#')).count()
}

fn set(host: &mut Host<Mock>, load: serde_json::Value) {
    host.plugin().set_control(load).unwrap();
}

#[test]
fn a_node_has_eight_gpus_and_five_containers() {
    let mut host = host(json!({"hostname": "gpu-01"}));
    host.collect().unwrap();
    for family in
        ["DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED", "nvidia_gpu_utilization", "DCGM_FI_DEV_XID_ERRORS"]
    {
        assert_eq!(count(&host, &format!("{family}{{")), 8, "{family}");
    }
    assert_eq!(count(&host, "vllm:num_requests_running{"), 5);
    assert_eq!(count(&host, "container_memory_usage_bytes{"), 5);
    assert_eq!(count(&host, "picket_vllm_engine_state{"), 20);
    assert!(host.text().contains(r#"hostname="gpu-01""#));
}

#[test]
fn high_load_is_seen_by_the_next_collect() {
    let mut host = host(json!({}));
    host.collect().unwrap();
    set(&mut host, json!({"scenario": "high_load", "settings": {"enable_anomalies": false}}));
    host.advance(Duration::from_secs(15));
    let before = host.value("node_cpu_seconds_total", &[("cpu", "0"), ("mode", "user")]).unwrap();
    host.collect().unwrap();
    let gpu = host.value("nvidia_gpu_utilization", &[("gpu_id", "0")]).unwrap();
    assert!((gpu - 90.0).abs() < 12.0, "{gpu}");
    let after = host.value("node_cpu_seconds_total", &[("cpu", "0"), ("mode", "user")]).unwrap();
    let busy = (after - before) / 15.0 * 100.0;
    assert!((busy - 80.0).abs() < 12.0, "{busy}");
}

#[test]
fn a_refused_change_changes_nothing() {
    let mut host = host(json!({}));
    set(&mut host, json!({"scenario": "degraded"}));
    for bad in
        [json!({"scenario": "fast"}), json!({"scenario": "normal", "settings": {"cpu_load": -1}}), json!(7)]
    {
        let refused = host.plugin().set_control(bad).unwrap_err();
        assert!(refused.0.iter().any(|l| l.contains("high_load")), "{refused}");
    }
    assert_eq!(host.plugin().control(), json!({"scenario": "degraded", "settings": {}}));
}

#[test]
fn a_temperature_above_85_is_exported() {
    let mut host = host(json!({}));
    set(&mut host, json!({"scenario": "normal", "settings": {"gpu_temperature_celsius": 87}}));
    host.collect().unwrap();
    for gpu in 0..8 {
        assert_eq!(host.value("nvidia_gpu_temperature_celsius", &[("gpu_id", &gpu.to_string())]), Some(87.0));
    }
}

#[test]
fn failure_is_an_event_that_ends() {
    let mut host = host(json!({}));
    host.collect().unwrap();
    assert!(host.take_events().is_empty());
    set(&mut host, json!({"scenario": "failure"}));
    host.collect().unwrap();
    host.collect().unwrap();
    let begun = host.take_events();
    assert_eq!(begun.len(), 1);
    assert_eq!(count(&host, "DCGM_FI_DEV_GPU_UTIL{"), 7);
    assert_eq!(count(&host, "DCGM_FI_DEV_XID_ERRORS{"), 8);
    assert_eq!(count(&host, "vllm:num_requests_running{"), 4);
    set(&mut host, json!({"scenario": "normal"}));
    host.collect().unwrap();
    assert_eq!(host.take_events().len(), 1);
    assert_eq!(count(&host, "DCGM_FI_DEV_GPU_UTIL{"), 8);
}

#[test]
fn one_seed_shows_one_fleet() {
    let page = |seed: u64| {
        let mut host = host(json!({"seed": seed}));
        for _ in 0..5 {
            host.advance(Duration::from_secs(15));
            host.collect().unwrap();
        }
        host.text()
    };
    assert_eq!(page(1), page(1));
    assert_ne!(page(1), page(2));
}

#[test]
fn settings_that_make_no_node_are_refused() {
    for bad in [
        json!({"gpus": 65}),
        json!({"cpus": 0}),
        json!({"gpus": 1, "models": [{"container": "a", "model": "b", "gpus": [1]}]}),
        json!({"load": {"scenario": "fast"}}),
        json!({"speed": 1}),
    ] {
        assert!(Host::<Mock>::new().configure(&bad).is_err(), "{bad}");
    }
    let mut small = host(json!({"gpus": 2}));
    small.collect().unwrap();
    assert_eq!(count(&small, "DCGM_FI_DEV_GPU_UTIL{"), 2);
    assert_eq!(count(&small, "vllm:num_requests_running{"), 1);
}
