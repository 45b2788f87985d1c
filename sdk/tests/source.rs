//! What a source sets is what the host gets, with as little crossing the border as can be.
#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used)] // what fails here fails the test

use std::collections::BTreeMap;
use std::time::Duration;

use picket_sdk::serde_json::json;
use picket_sdk::testing::Host;
use picket_sdk::{
    Collect, Controllable, CounterFamily, Describe, Event, Failure, FamilyDefinition, GaugeFamily,
    HistogramFamily, InfoFamily, KeptGauge, MetricType, Part, Refused, Severity, Source, StateSetFamily,
    UnknownFamily,
};

/// A source that does what the test says.
struct Scripted {
    plain: GaugeFamily,
    gauge: GaugeFamily<2>,
    total: CounterFamily<1>,
    counted: CounterFamily,
    latency: HistogramFamily<1>,
    info: InfoFamily<1>,
    state: StateSetFamily<1>,
    other: UnknownFamily,
    kept: Option<KeptGauge>,
    step: Step,
    limit: u32,
}

type Step = Box<dyn FnMut(&mut Scripted, &mut Collect<'_>) -> Result<(), Failure>>;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    limit: u32,
}

impl Source for Scripted {
    type Settings = Settings;

    fn describe(d: &mut Describe) -> Self {
        Self {
            plain: d.gauge("plain", "No labels."),
            gauge: d.gauge("temperature_celsius", "Two labels.").unit("celsius").labels(&["gpu", "place"]),
            total: d.counter("reads_total", "Of the source.").labels(&["device"]),
            counted: d.counter("tries_total", "Of the plugin."),
            latency: d
                .histogram("latency_seconds", "Of the plugin.", &[0.1, 1.0])
                .unit("seconds")
                .labels(&["path"]),
            info: d.info("build_info", "Facts.").labels(&["version"]),
            state: d
                .state_set("engine_state", "A state.", "state", &["loading", "running"])
                .labels(&["engine"]),
            other: d.unknown("odd", "No type."),
            kept: None,
            step: Box::new(|_, _| Ok(())),
            limit: 0,
        }
    }

    fn configure(&mut self, settings: Settings) -> Result<(), Failure> {
        if settings.limit > 10 {
            return Err(Failure::new("settings", "limit is at most 10"));
        }
        self.limit = settings.limit;
        Ok(())
    }

    fn collect(&mut self, c: &mut Collect<'_>) -> Result<(), Failure> {
        let mut step = std::mem::replace(&mut self.step, Box::new(|_, _| Ok(())));
        let done = step(self, c);
        self.step = step;
        done
    }
}

impl Controllable for Scripted {
    type Control = BTreeMap<String, u32>;

    fn schema() -> picket_sdk::serde_json::Value {
        json!({ "type": "object" })
    }

    fn control(&self) -> Self::Control {
        [("limit".to_owned(), self.limit)].into()
    }

    fn set_control(&mut self, control: Self::Control) -> Result<(), Refused> {
        let limit = control.get("limit").copied().unwrap_or(0);
        if limit > 10 {
            return Err(Refused(vec!["limit is at most 10".to_owned()]));
        }
        self.limit = limit;
        Ok(())
    }
}

fn host() -> Host<Scripted> {
    Host::new()
}

fn step(
    host: &mut Host<Scripted>,
    f: impl FnMut(&mut Scripted, &mut Collect<'_>) -> Result<(), Failure> + 'static,
) {
    host.plugin().step = Box::new(f);
    host.collect().unwrap();
}

#[test]
fn every_kind_of_family() {
    let mut h = host();
    step(&mut h, |s, _| {
        s.plain.set(1.5);
        s.gauge.with(&["0", "board"]).set(40.0);
        s.gauge.with(&["0", "memory"]).set(50.0);
        s.total.with(&["sda"]).set_total(7.0);
        s.counted.inc();
        s.latency.with(&["/"]).observe(0.1);
        s.latency.with(&["/"]).observe(0.5);
        s.latency.with(&["/"]).observe(7.0);
        s.latency.with(&["/"]).observe(f64::NAN);
        s.info.with(&["1.2"]).set();
        s.state.with(&["a"]).set("running");
        s.other.set(-1.0);
        Ok(())
    });
    assert_eq!(h.failures(), []);
    assert_eq!(
        h.text(),
        "\
# HELP build_info Facts.
# TYPE build_info gauge
build_info{version=\"1.2\"} 1
# HELP engine_state A state.
# TYPE engine_state gauge
engine_state{engine=\"a\",state=\"loading\"} 0
engine_state{engine=\"a\",state=\"running\"} 1
# HELP latency_seconds Of the plugin.
# TYPE latency_seconds histogram
latency_seconds_bucket{le=\"+Inf\",path=\"/\"} 3
latency_seconds_bucket{le=\"0.1\",path=\"/\"} 1
latency_seconds_bucket{le=\"1.0\",path=\"/\"} 2
latency_seconds_sum{path=\"/\"} 7.6
latency_seconds_count{path=\"/\"} 3
# HELP odd No type.
# TYPE odd untyped
odd -1
# HELP plain No labels.
# TYPE plain gauge
plain 1.5
# HELP reads_total Of the source.
# TYPE reads_total counter
reads_total{device=\"sda\"} 7
# HELP temperature_celsius Two labels.
# TYPE temperature_celsius gauge
temperature_celsius{gpu=\"0\",place=\"board\"} 40
temperature_celsius{gpu=\"0\",place=\"memory\"} 50
# HELP tries_total Of the plugin.
# TYPE tries_total counter
tries_total 1
"
    );
}

#[test]
fn the_page_and_the_description_agree() {
    let families = host().families();
    let state = families.iter().find(|f| f.name == "engine_state").unwrap();
    assert_eq!(state.label_names, ["engine", "state"]);
    let temperature = families.iter().find(|f| f.name == "temperature_celsius").unwrap();
    assert_eq!((temperature.unit.as_str(), temperature.metric_type), ("celsius", MetricType::Gauge));
}

#[test]
fn a_series_that_is_no_longer_set_is_retired_and_may_come_back() {
    let mut h = host();
    for (round, (set, registered)) in
        [(true, 2), (true, 2), (false, 1), (false, 1), (true, 2)].into_iter().enumerate()
    {
        step(&mut h, move |s, _| {
            s.plain.set(1.0);
            if set {
                s.gauge.with(&["0", "x"]).set(2.0);
            }
            Ok(())
        });
        assert_eq!((round, h.registered()), (round, registered));
        let value = h.value("temperature_celsius", &[("gpu", "0"), ("place", "x")]);
        assert_eq!(value, set.then_some(2.0));
    }
    assert_eq!(h.failures(), []);
}

#[test]
fn what_the_plugin_counts_stays_until_it_is_removed() {
    let mut h = host();
    step(&mut h, |s, _| {
        s.counted.inc_by(2.0);
        s.counted.inc_by(-1.0);
        s.counted.inc_by(f64::NAN);
        Ok(())
    });
    step(&mut h, |_, _| Ok(()));
    assert_eq!(h.value("tries_total", &[]), Some(2.0));
    step(&mut h, |s, _| {
        s.counted.with(&[]).remove();
        Ok(())
    });
    assert_eq!((h.value("tries_total", &[]), h.registered()), (None, 0));
    step(&mut h, |s, _| {
        s.counted.inc();
        Ok(())
    });
    assert_eq!(h.value("tries_total", &[]), Some(1.0));
    assert_eq!(h.failures(), []);
}

#[test]
fn a_kept_handle_outlives_its_series() {
    let mut h = host();
    step(&mut h, |s, _| {
        s.kept = Some(s.gauge.with(&["0", "kept"]).keep());
        s.kept.as_ref().unwrap().set(1.0);
        Ok(())
    });
    step(&mut h, |_, _| Ok(()));
    assert_eq!(h.registered(), 0);
    // Its place is not given to another in the meantime.
    step(&mut h, |s, _| {
        s.gauge.with(&["0", "other"]).set(5.0);
        s.kept.as_ref().unwrap().set(6.0);
        Ok(())
    });
    assert_eq!(h.value("temperature_celsius", &[("gpu", "0"), ("place", "kept")]), Some(6.0));
    assert_eq!(h.value("temperature_celsius", &[("gpu", "0"), ("place", "other")]), Some(5.0));
    step(&mut h, |s, _| {
        s.kept = None;
        Ok(())
    });
    assert_eq!((h.registered(), h.failures()), (0, vec![]));
}

#[test]
fn a_fresh_instance_begins_anew() {
    let mut h = host();
    let set = |s: &mut Scripted, _: &mut Collect<'_>| {
        s.gauge.with(&["0", "x"]).set(2.0);
        Ok(())
    };
    step(&mut h, set);
    let mut h = h.restarted();
    step(&mut h, set);
    assert_eq!((h.registered(), h.samples().len(), h.failures()), (1, 1, vec![]));
}

#[test]
fn what_the_host_refuses_is_left_out_and_said_once() {
    let mut h = host();
    h.series_quota(1000);
    step(&mut h, |s, _| {
        s.plain.set(1.0);
        for i in 0..2000 {
            s.total.with(&[&i.to_string()]).set_total(1.0);
        }
        Ok(())
    });
    assert_eq!((h.samples().len(), h.registered()), (1000, 1000));
    let failures = h.failures();
    let [(reason, message)] = failures.as_slice() else { panic!("{failures:?}") };
    assert_eq!(reason, "refused");
    assert!(message.starts_with("1001 series"), "{message}");
}

#[test]
fn a_value_set_twice_counts_once() {
    let mut h = host();
    step(&mut h, |s, _| {
        s.plain.set(1.0);
        s.plain.set(2.0);
        Ok(())
    });
    assert_eq!((h.value("plain", &[]), h.failures()), (Some(2.0), vec![]));
    // After so many others it has been pushed.
    step(&mut h, |s, _| {
        s.plain.set(1.0);
        for i in 0..3000 {
            s.total.with(&[&i.to_string()]).set_total(1.0);
        }
        s.plain.set(2.0);
        Ok(())
    });
    assert_eq!(h.value("plain", &[]), Some(1.0));
    assert_eq!(h.failures().first().map(|(reason, _)| reason.clone()), Some("duplicate".to_owned()));
}

#[test]
fn values_with_their_own_times() {
    let mut h = host();
    step(&mut h, |s, _| {
        s.gauge.with(&["0", "x"]).set_at(1.0, 1000);
        s.gauge.with(&["0", "x"]).set_at(2.0, 2000);
        Ok(())
    });
    let times: Vec<_> = h.samples().iter().map(|s| (s.value, s.time_ms)).collect();
    assert_eq!(times, [(1.0, Some(1000)), (2.0, Some(2000))]);
    assert_eq!(h.failures(), []);
}

#[test]
fn a_page_passed_through() {
    let mut h = host();
    let page = |_: &mut Scripted, c: &mut Collect<'_>| {
        let family = FamilyDefinition {
            name: "vllm:latency_seconds",
            metric_type: MetricType::Histogram,
            unit: "",
            help: "As it came.",
        };
        let family = c.family(&family)?;
        family.set(Part::Bucket, &[("model", "m"), ("le", "1.0")], 3.0);
        family.set(Part::Bucket, &[("model", "m"), ("le", "+Inf")], 4.0);
        family.set(Part::Sum, &[("model", "m")], 2.5);
        family.set(Part::Count, &[("model", "m")], 4.0);
        Ok(())
    };
    for _ in 0..3 {
        step(&mut h, page);
        assert_eq!(h.failures(), []);
        assert_eq!((h.samples().len(), h.registered()), (4, 4));
    }
    assert_eq!(h.value("vllm:latency_seconds_bucket", &[("model", "m"), ("le", "+Inf")]), Some(4.0));

    h.plugin().step = Box::new(|_, c| {
        let family = FamilyDefinition {
            name: "vllm:latency_seconds",
            metric_type: MetricType::Gauge,
            unit: "",
            help: "",
        };
        c.family(&family).map(|_| ())
    });
    assert_eq!(h.collect().unwrap_err().reason, "family");
}

#[test]
fn misuse_is_a_failure_and_no_value() {
    let mut h = host();
    step(&mut h, |s, _| {
        s.state.with(&["a"]).set("asleep");
        s.latency.with(&["/"]).set_totals(&[1.0], 1.0, 1.0);
        Ok(())
    });
    let reasons: Vec<String> = h.failures().into_iter().map(|(reason, _)| reason).collect();
    assert_eq!((reasons, h.samples().len()), (vec!["state".to_owned(), "buckets".to_owned()], 0));
}

#[test]
fn buckets_of_the_source() {
    let mut h = host();
    step(&mut h, |s, _| {
        s.latency.with(&["/"]).set_totals(&[1.0, 5.0], 2.5, 6.0);
        Ok(())
    });
    let values: Vec<(String, f64)> = h.samples().iter().map(|s| (s.exposed_name(), s.value)).collect();
    let name = |n: &str| format!("latency_seconds_{n}");
    assert_eq!(
        values,
        [
            (name("bucket"), 6.0),
            (name("bucket"), 1.0),
            (name("bucket"), 5.0),
            (name("sum"), 2.5),
            (name("count"), 6.0)
        ]
    );
}

#[test]
fn events_settings_and_control() {
    let mut h = host();
    step(&mut h, |_, c| {
        let event = Event::new("gpu.xid", Severity::Critical, "XID 79");
        c.emit(event.about("gpu", "GPU-1").attribute("xid", "79").key("gpu-1-79").at(5));
        c.emit(Event::ended("gpu.xid", "gpu-1-79", "reset"));
        Ok(())
    });
    assert_eq!(h.take_events().len(), 2);

    h.configure(&json!({ "limit": 3 })).unwrap();
    assert_eq!(h.control(), json!({ "limit": 3 }));
    assert_eq!(h.configure(&json!({ "limmit": 3 })).unwrap_err().reason, "settings");
    assert_eq!(h.configure(&json!({ "limit": 11 })).unwrap_err().message, "limit is at most 10");
    assert_eq!(h.set_control(&json!({ "limit": 4 })), Ok(json!({ "limit": 4 })));
    assert!(h.set_control(&json!({ "limit": 40 })).is_err());
    assert!(h.set_control(&json!("x")).is_err());
    assert_eq!(h.control(), json!({ "limit": 4 }));
}

#[test]
fn an_error_keeps_what_was_set_before() {
    let mut h = host();
    h.plugin().step = Box::new(|s, _| {
        s.plain.set(1.0);
        Err(Failure::new("unreachable", "gone"))
    });
    assert_eq!(h.collect().unwrap_err().reason, "unreachable");
    assert_eq!(h.value("plain", &[]), Some(1.0));
}

#[test]
fn capabilities_of_the_test_host() {
    use picket_sdk::{clock, files, http, random, store};
    let mut h = host();
    h.file("/proc/a", "text")
        .link("/proc/l", "a")
        .broken_file("/proc/b", files::FilesError::Denied("/proc/b".into()));
    h.http(|request| {
        assert_eq!(request.url(), "http://x/");
        Ok(http::Response { status: 503, body: b"busy".to_vec(), ..Default::default() })
    });
    h.store_bytes(10);
    step(&mut h, |_, _| {
        assert_eq!(files::read("/proc/a").unwrap(), b"text");
        assert_eq!(files::read_link("/proc/l").unwrap(), "a");
        assert_eq!(Failure::from(files::read("/proc/b").unwrap_err()).reason, "denied");
        assert_eq!(Failure::from(files::read("/proc/c").unwrap_err()).reason, "not-found");
        assert_eq!(files::list_directory("/proc").unwrap().len(), 3);
        let answer = http::send(&http::Request::get("http://x/")).unwrap();
        assert_eq!(answer.success().unwrap_err().message, "the server answered 503: busy");
        store::set("k", b"12345", Some(Duration::from_millis(1500))).unwrap();
        assert!(matches!(store::set("l", b"12345", None), Err(store::StoreError::Full(_))));
        assert_eq!(store::keys("").unwrap(), ["k"]);
        assert_eq!(random::bytes(5).len(), 5);
        assert_eq!(clock::now_ms(), 1_767_225_600_000);
        Ok(())
    });
    h.advance(Duration::from_secs(2));
    step(&mut h, |_, _| {
        assert_eq!(store::get("k").unwrap(), None);
        Ok(())
    });
}

mod sequences {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Op {
        Set(u8, u8, f64),
        Count(u8),
        Remove(u8),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0..40u8, 0..3u8, -5.0..5.0f64).prop_map(|(a, b, v)| Op::Set(a, b, v)),
            2 => (0..10u8).prop_map(Op::Count),
            1 => (0..10u8).prop_map(Op::Remove),
        ]
    }

    proptest! {
        /// Whatever is set, counted, kept and left out: the host has exactly what a plain map would have.
        #[test]
        fn equal_a_plain_map(rounds in prop::collection::vec(prop::collection::vec(op(), 0..60), 1..8), quiet in 1..4u32) {
            let mut h = host();
            let mut counted: BTreeMap<String, f64> = BTreeMap::new();
            for ops in rounds.into_iter().flat_map(|ops| std::iter::once(ops).chain((1..quiet).map(|_| vec![]))) {
                let mut set: BTreeMap<(String, String), f64> = BTreeMap::new();
                for op in &ops {
                    match op {
                        Op::Set(a, b, v) => { set.insert((a.to_string(), b.to_string()), *v); }
                        Op::Count(n) => *counted.entry(format!("c{n}")).or_default() += 1.0,
                        Op::Remove(n) => { counted.remove(&format!("c{n}")); }
                    }
                }
                step(&mut h, move |s, _| {
                    for op in &ops {
                        match op {
                            Op::Set(a, b, v) => s.gauge.with(&[&a.to_string(), &b.to_string()]).set(*v),
                            Op::Count(n) => s.total.with(&[&format!("c{n}")]).inc(),
                            Op::Remove(n) => s.total.with(&[&format!("c{n}")]).remove(),
                        }
                    }
                    Ok(())
                });
                prop_assert_eq!(h.failures(), vec![]);
                prop_assert_eq!(h.registered(), set.len() + counted.len());
                let samples = h.samples();
                prop_assert_eq!(samples.len(), set.len() + counted.len());
                for ((gpu, place), value) in &set {
                    prop_assert_eq!(h.value("temperature_celsius", &[("gpu", gpu), ("place", place)]), Some(*value));
                }
                for (device, value) in &counted {
                    prop_assert_eq!(h.value("reads_total", &[("device", device)]), Some(*value));
                }
            }
        }
    }
}
