//! Does what its setting `mode` says, which is nothing good. It speaks the contract by itself, because the SDK would
//! not let it.
//!
//! Before it misbehaves it sets `test_hostile` to 1, so that a test sees whether that is kept.

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "package test:hostile@1.0.0; world hostile {
        import picket:source/sink@0.1.0;
        import picket:host/log@0.1.0;
        export picket:source/source@0.1.0;
    }",
    world: "test:hostile/hostile@1.0.0",
    generate_all,
});

use std::cell::RefCell;
use std::hint::black_box;

use exports::picket::source::source::{Description, Guest, SourceError};
use picket::host::log;
use picket::source::sink::{self, Point, SeriesDefinition};
use picket::types::types::{Event, Family, Label, MetricType, Part, Severity, Subject};

thread_local! {
    static MODE: RefCell<String> = const { RefCell::new(String::new()) };
}

struct Hostile;

impl Guest for Hostile {
    fn describe() -> Description {
        Description { families: vec![family("test_hostile", MetricType::Gauge)] }
    }

    fn configure(settings: String) -> Result<(), SourceError> {
        let settings: serde_json::Value = serde_json::from_str(&settings).unwrap_or_default();
        let mode = settings["mode"].as_str().unwrap_or_default().to_owned();
        if mode == "refuse" {
            return Err(SourceError { reason: "settings".into(), message: "I do not like them".into() });
        }
        MODE.set(mode);
        Ok(())
    }

    fn collect() -> Result<(), SourceError> {
        let mode = MODE.with_borrow(Clone::clone);
        let alive = register(0, &[("mode", &mode)]).map_err(|e| failure("register", &e))?;
        push(&[(alive, 1.0)]).map_err(|e| failure("push", &e))?;
        misbehave(&mode, alive).map_err(|e| failure("refused", &e))
    }
}

/// What the host refuses comes back as text, so that a test can read it.
fn misbehave(mode: &str, alive: u32) -> Result<(), String> {
    match mode {
        "loop" => {
            let mut number = 0_u64;
            loop {
                number = black_box(number).wrapping_add(1);
            }
        }
        "allocate" => {
            let mut all = Vec::new();
            for _ in 0..160 {
                all.push(black_box(vec![1_u8; 64 << 20]));
            }
            black_box(all);
        }
        "recurse" => {
            black_box(recurse(u64::MAX));
        }
        "trap" => trap(),
        "million" => {
            let mut ids = Vec::new();
            for chunk in 0..1000 {
                let names: Vec<String> = (0..1000).map(|n| format!("{chunk}-{n}")).collect();
                let series: Vec<_> = names.iter().map(|name| definition(0, &[("n", name)])).collect();
                ids.extend(sink::register(&series).map_err(|e| format!("{e:?}"))?);
            }
            let points: Vec<_> = ids.iter().map(|id| (*id, 1.0)).collect();
            push(&points)?;
        }
        "million-at-once" => {
            let points = vec![Point { series: alive, value: 1.0 }; 1_000_000];
            sink::push(&points).map_err(|e| format!("{e:?}"))?;
        }
        "nan" => {
            let id = register(0, &[("kind", "nan")])?;
            push(&[(id, f64::NAN)])?;
        }
        "bad-name" => {
            sink::declare(&[family("no metric name{", MetricType::Gauge)]).map_err(|e| format!("{e:?}"))?;
        }
        "bad-label" => {
            register(0, &[("no-label", "x")])?;
        }
        "long-label" => {
            register(0, &[("long", &"x".repeat(1 << 20))])?;
        }
        "type-clash" => {
            let both = [family("test_clash", MetricType::Gauge), family("test_clash", MetricType::Counter)];
            sink::declare(&both).map_err(|e| format!("{e:?}"))?;
        }
        "other-type" => {
            // The counter of another plugin, as a gauge.
            let ids =
                sink::declare(&[family("test_ticks", MetricType::Counter)]).map_err(|e| format!("{e:?}"))?;
            let id = register(ids[0], &[])?;
            push(&[(id, 1.0)])?;
        }
        "twice" => {
            let one = register(0, &[("twice", "yes")])?;
            let two = register(0, &[("twice", "yes")])?;
            push(&[(one, 1.0), (two, 2.0), (one, 3.0)])?;
        }
        "unknown-id" => push(&[(4_000_000_000, 1.0)])?,
        "log-flood" => {
            for n in 0..100_000 {
                log::write(&log::Level::Error, &format!("{n} {}", "y".repeat(2000)));
            }
        }
        "event-flood" => {
            for n in 0..10_000 {
                sink::emit(&[event(&format!("test.flood.{n}"))]).map_err(|e| format!("{e:?}"))?;
            }
        }
        "fail-flood" => {
            for n in 0..100_000 {
                sink::fail(&format!("reason-{n}"), &"z".repeat(5000));
            }
        }
        "event" => sink::emit(&[event("test.event")]).map_err(|e| format!("{e:?}"))?,
        _ => {}
    }
    Ok(())
}

#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let page = black_box([depth; 64]);
    if depth == 0 { 0 } else { recurse(black_box(depth - 1)).wrapping_add(page[7]) }
}

fn trap() {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort();
}

fn failure(reason: &str, message: &str) -> SourceError {
    SourceError { reason: reason.to_owned(), message: message.to_owned() }
}

fn family(name: &str, kind: MetricType) -> Family {
    Family {
        name: name.to_owned(),
        type_: kind,
        unit: String::new(),
        help: "A test.".into(),
        label_names: vec![],
    }
}

fn definition(family: u32, labels: &[(&str, &str)]) -> SeriesDefinition {
    let label = |(name, value): &(&str, &str)| Label { name: (*name).to_owned(), value: (*value).to_owned() };
    SeriesDefinition { family, part: Part::Value, labels: labels.iter().map(label).collect() }
}

fn register(family: u32, labels: &[(&str, &str)]) -> Result<u32, String> {
    let ids = sink::register(&[definition(family, labels)]).map_err(|e| format!("{e:?}"))?;
    ids.first().copied().ok_or_else(|| "no number".to_owned())
}

fn push(points: &[(u32, f64)]) -> Result<(), String> {
    let points: Vec<_> = points.iter().map(|&(series, value)| Point { series, value }).collect();
    sink::push(&points).map_err(|e| format!("{e:?}"))
}

fn event(kind: &str) -> Event {
    Event {
        kind: kind.to_owned(),
        severity: Severity::Critical,
        subject: Subject { kind: "node".into(), id: String::new() },
        message: "A test.".into(),
        attributes: vec![],
        key: kind.to_owned(),
        clear: false,
        timestamp: None,
    }
}

export!(Hostile);
