//! The plugin under the SDK's test host: what it exports, and what an operator can change.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use picket_plugin_mock::Mock;
use picket_sdk::Controllable;
use picket_sdk::testing::Host;
use serde_json::json;

/// What every series has.
const SIMULATED: (&str, &str) = ("simulated", "true");

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
    let before = host.value("node_cpu_seconds_total", &[("cpu", "0"), ("mode", "user"), SIMULATED]).unwrap();
    host.collect().unwrap();
    let gpu = host.value("nvidia_gpu_utilization", &[("gpu_id", "0"), SIMULATED]).unwrap();
    assert!((gpu - 90.0).abs() < 12.0, "{gpu}");
    let after = host.value("node_cpu_seconds_total", &[("cpu", "0"), ("mode", "user"), SIMULATED]).unwrap();
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
        let labels = [("gpu_id", &*gpu.to_string()), SIMULATED];
        assert_eq!(host.value("nvidia_gpu_temperature_celsius", &labels), Some(87.0));
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

#[test]
fn every_series_says_that_it_is_simulated() {
    let mut host = host(json!({}));
    set(&mut host, json!({"scenario": "failure"}));
    host.advance(Duration::from_secs(15));
    host.collect().unwrap();
    let samples = host.samples();
    assert!(samples.len() > 200);
    for sample in samples {
        assert_eq!(sample.label("simulated"), Some("true"), "{}", sample.name);
    }
    for family in host.families() {
        assert!(family.label_names.iter().any(|l| l == "simulated"), "{}", family.name);
    }
    assert_eq!(host.failures(), []);
}

#[test]
fn partial_simulates_what_it_is_told_and_disabled_nothing() {
    let parts = [
        ("gpus", &["DCGM_", "nvidia_gpu_"] as &[_]),
        ("engines", &["vllm:", "picket_vllm_"]),
        ("models", &["llm_model_"]),
        ("containers", &["container_"]),
        ("host", &["node_"]),
    ];
    for (part, names) in parts {
        let mut host = host(json!({"mode": "partial", "simulate": [part]}));
        host.collect().unwrap();
        let samples = host.samples();
        assert!(!samples.is_empty(), "{part}");
        for name in names {
            assert!(samples.iter().any(|s| s.name.starts_with(name)), "{part}: no {name}");
        }
        for sample in samples {
            assert!(names.iter().any(|n| sample.name.starts_with(n)), "{part}: {}", sample.name);
        }
    }
    // The fault of a GPU that is not simulated is no event.
    let mut models = host(json!({"mode": "partial", "simulate": ["models"]}));
    set(&mut models, json!({"scenario": "failure"}));
    models.advance(Duration::from_secs(15));
    models.collect().unwrap();
    assert_eq!(models.take_events().len(), 0);

    let mut none = host(json!({"mode": "disabled"}));
    none.collect().unwrap();
    assert_eq!((none.samples().len(), none.registered()), (0, 0));
}

#[test]
fn modes_that_make_no_sense_are_refused() {
    for settings in [
        json!({"mode": "partial"}),
        json!({"mode": "partial", "simulate": []}),
        json!({"mode": "full", "simulate": ["gpus"]}),
        json!({"mode": "disabled", "simulate": ["gpus"]}),
        json!({"mode": "half"}),
        json!({"mode": "partial", "simulate": ["moon"]}),
    ] {
        assert_eq!(Host::<Mock>::new().configure(&settings).unwrap_err().reason, "settings", "{settings}");
    }
}
