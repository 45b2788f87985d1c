//! Does what its setting `mode` says: it traps, or emits an event, or nothing more. It speaks the contract by itself.
//!
//! Before that it sets `test_hostile` to 1.

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
use picket::source::sink::{self, Point, SeriesDefinition, SinkError};
use picket::types::types::{Event, Family, Label, MetricType, Part, Severity, Subject};

thread_local! {
    static MODE: RefCell<String> = const { RefCell::new(String::new()) };
}

struct Hostile;

impl Guest for Hostile {
    fn describe() -> Description {
        let family = Family {
            name: "test_hostile".into(),
            type_: MetricType::Gauge,
            unit: String::new(),
            help: "A test.".into(),
            label_names: vec![],
        };
        Description { families: vec![family] }
    }

    fn configure(settings: String) -> Result<(), SourceError> {
        let settings: serde_json::Value = serde_json::from_str(&settings).unwrap_or_default();
        MODE.set(settings["mode"].as_str().unwrap_or_default().to_owned());
        Ok(())
    }

    fn collect() -> Result<(), SourceError> {
        MODE.with_borrow(|mode| act(mode))
            .map_err(|e| SourceError { reason: "refused".into(), message: format!("{e:?}") })
    }
}

fn act(mode: &str) -> Result<(), SinkError> {
    let labels = vec![Label { name: "mode".into(), value: mode.to_owned() }];
    let ids = sink::register(&[SeriesDefinition { family: 0, part: Part::Value, labels }])?;
    let points: Vec<_> = ids.into_iter().map(|series| Point { series, value: 1.0 }).collect();
    sink::push(&points)?;
    match mode {
        "trap" => trap(),
        "event" => sink::emit(&[event()])?,
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

fn event() -> Event {
    Event {
        kind: "test.event".into(),
        severity: Severity::Critical,
        subject: Subject { kind: "node".into(), id: String::new() },
        message: "A test.".into(),
        attributes: vec![],
        key: "test.event".into(),
        clear: false,
        timestamp: None,
    }
}

export!(Hostile);
