// Included by two crates, each with the bindings of the frozen `picket:source@0.1.0`.

use std::cell::Cell;

use exports::picket::source::control::{ControlError, Guest as Control};
use exports::picket::source::source::{Description, Guest, SourceError};
use picket::source::sink::{self, Point, SeriesDefinition, SinkError, TimedPoint};
use picket::types::types::{Event, Family, Label, MetricType, Part, Severity, Subject};

/// Far more than any test lets it have.
const MANY: u32 = 5_000;

thread_local! {
    static FACTOR: Cell<f64> = const { Cell::new(1.0) };
}

/// Calls each function of the sink, well and badly, and says what it was answered.
struct Former;

impl Guest for Former {
    fn describe() -> Description {
        Description { families: vec![family("former_value")] }
    }

    fn configure(settings: String) -> Result<(), SourceError> {
        if settings.contains("refuse") {
            return Err(SourceError { reason: "settings".to_owned(), message: "as it was told".to_owned() });
        }
        Ok(())
    }

    fn collect() -> Result<(), SourceError> {
        let failed = |e: SinkError| SourceError { reason: "sink".to_owned(), message: format!("{e:?}") };
        let declared = sink::declare(&[family("former_declared")]).map_err(failed)?;
        let ids = sink::register(&[series(0, "a"), series(0, "b"), series(declared[0], "c")]).map_err(failed)?;
        let value = FACTOR.get();
        sink::push(&[Point { series: ids[0], value }, Point { series: ids[1], value: 2.0 * value }])
            .map_err(failed)?;
        sink::push_timed(&[TimedPoint { series: ids[2], value, timestamp: 1_700_000_000_000 }])
            .map_err(failed)?;
        sink::retire(&[ids[2]]).map_err(failed)?;
        sink::emit(&[event()]).map_err(failed)?;

        let many: Vec<SeriesDefinition> = (0..MANY).map(|n| series(0, &n.to_string())).collect();
        match sink::register(&many) {
            Err(SinkError::Quota(text)) => sink::fail("former-quota", &text),
            other => sink::fail("former-unexpected", &format!("{other:?}")),
        }
        match sink::push(&[Point { series: MANY, value }]) {
            Err(SinkError::UnknownId(MANY)) => sink::fail("former-unknown", "as it should"),
            other => sink::fail("former-unexpected", &format!("{other:?}")),
        }
        match sink::declare(&[family("not a name")]) {
            Err(SinkError::Invalid(text)) => sink::fail("former-invalid", &text),
            other => sink::fail("former-unexpected", &format!("{other:?}")),
        }
        Ok(())
    }
}

impl Control for Former {
    fn schema() -> String {
        r#"{"type":"object"}"#.to_owned()
    }

    fn get() -> String {
        format!(r#"{{"factor":{}}}"#, FACTOR.get())
    }

    fn set(settings: String) -> Result<String, ControlError> {
        let text = settings.trim_matches(['{', '}', ' ']).trim_start_matches("\"factor\"");
        match text.trim_start_matches([':', ' ']).parse() {
            Ok(factor) => {
                FACTOR.set(factor);
                Ok(Self::get())
            }
            Err(_) => Err(ControlError::Refused(vec!["factor must be a number".to_owned()])),
        }
    }
}

fn family(name: &str) -> Family {
    Family {
        name: name.to_owned(),
        type_: MetricType::Gauge,
        unit: String::new(),
        help: "What a plugin of the version before pushes.".to_owned(),
        label_names: vec!["n".to_owned()],
    }
}

fn series(family: u32, n: &str) -> SeriesDefinition {
    let labels = vec![Label { name: "n".to_owned(), value: n.to_owned() }];
    SeriesDefinition { family, part: Part::Value, labels }
}

fn event() -> Event {
    Event {
        kind: "test.former".to_owned(),
        severity: Severity::Info,
        subject: Subject { kind: "node".to_owned(), id: String::new() },
        message: "from the version before".to_owned(),
        attributes: Vec::new(),
        key: String::new(),
        clear: false,
        timestamp: None,
    }
}

export!(Former);
