//! Does what its setting `mode` says: refuses its settings, traps, or emits an event. It speaks the contract by itself.
//!
//! Before that it sets `test_hostile` to 1, so that a test sees whether that is kept.

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "package test:hostile@1.0.0; world hostile {
        import picket:source/sink@0.2.0;
        export picket:source/source@0.2.0;
    }",
    world: "test:hostile/hostile@1.0.0",
    generate_all,
});

use std::cell::RefCell;

use exports::picket::source::source::{Description, Guest, SourceError};
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
        misbehave(&mode).map_err(|e| failure("refused", &e))
    }
}

/// What the host refuses comes back as text, so that a test can read it.
fn misbehave(mode: &str) -> Result<(), String> {
    match mode {
        "trap" => trap(),
        "event" => sink::emit(&[event("test.event")]).map_err(|e| format!("{e:?}"))?,
        _ => {}
    }
    Ok(())
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
