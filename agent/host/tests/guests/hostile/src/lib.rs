//! Does each thing that a plugin must not, and a few that it may, chosen by its settings:
//! `{"mode":"loop","argument":"…"}`.

wit_bindgen::generate!({
    path: "../../../../../wit",
    world: "picket:source/controllable-source-plugin",
    generate_all,
});

use std::sync::Mutex;

use exports::picket::source::control::{ControlError, Guest as Control};
use exports::picket::source::source::{Description, Guest as Source, SourceError};
use picket::host::{clock, files, http, log, random, store, system};
use picket::source::sink::{self, Point, SeriesDefinition, SinkError, TimedPoint};
use picket::types::types::{Event, Family, Label, MetricType, Part, Severity, Subject};

static MODE: Mutex<(String, String)> = Mutex::new((String::new(), String::new()));
static COLLECTS: Mutex<u32> = Mutex::new(0);

struct Hostile;

impl Source for Hostile {
    fn describe() -> Description {
        Description {
            families: vec![
                family("hostile_value", MetricType::Gauge, &[]),
                family("hostile_by_name", MetricType::Gauge, &["name"]),
                family("hostile_seconds", MetricType::Histogram, &[]),
            ],
        }
    }

    fn configure(settings: String) -> Result<(), SourceError> {
        let mode = field(&settings, "mode");
        match mode.as_str() {
            "panic-configure" => panic!("in configure"),
            "refuse" => return Err(error("settings", "there is no mode refuse; use ok")),
            "loop-configure" => spin(),
            _ => {}
        }
        *MODE.lock().unwrap() = (mode, field(&settings, "argument"));
        Ok(())
    }

    fn collect() -> Result<(), SourceError> {
        let (mode, argument) = MODE.lock().unwrap().clone();
        let count = {
            let mut count = COLLECTS.lock().unwrap();
            *count += 1;
            *count
        };
        act(&mode, &argument, count)
    }
}

fn act(mode: &str, argument: &str, count: u32) -> Result<(), SourceError> {
    match mode {
        "" | "ok" => {
            let id = series(0, &[])?;
            push(&[(id, f64::from(count))])?;
        }
        "loop" => {
            let id = series(0, &[])?;
            push(&[(id, 1.0)])?;
            spin();
        }
        "loop-while" => {
            if files::read(argument).is_ok() {
                spin();
            }
            return act("ok", "", count);
        }
        "read" => {
            let text = files::read(argument).map_err(|e| error("read", &format!("{e:?}")))?;
            let id = series(0, &[])?;
            push(&[(id, text.len() as f64)])?;
        }
        "read-many" => {
            for _ in 0..100 {
                files::read(argument).map_err(|e| error("read", &format!("{e:?}")))?;
            }
        }
        "http" => {
            let request = http::Request {
                method: "GET".to_owned(),
                url: argument.to_owned(),
                headers: Vec::new(),
                body: Vec::new(),
                timeout: None,
                secret: None,
            };
            let answer = http::send(&request).map_err(|e| error("unreachable", &format!("{e:?}")))?;
            let id = series(0, &[])?;
            push(&[(id, f64::from(answer.status))])?;
        }
        "allocate" => {
            let mut held = Vec::new();
            for _ in 0..160 {
                held.push(vec![1u8; 64 << 20]);
            }
            log::write(&log::Level::Info, &format!("held {}", held.len()));
        }
        "leak" => {
            std::mem::forget(std::hint::black_box(vec![1u8; 1 << 20]));
            return act("ok", "", count);
        }
        "recurse" => log::write(&log::Level::Info, &format!("{}", recurse(1))),
        "trap" => core::arch::wasm32::unreachable(),
        "trap-after-push" => {
            let id = series(0, &[])?;
            push(&[(id, 7.0)])?;
            core::arch::wasm32::unreachable()
        }
        "million" => {
            let id = series(0, &[])?;
            for chunk in 0..1000u64 {
                let points: Vec<TimedPoint> = (0..1000)
                    .map(|i| TimedPoint { series: id, value: 1.0, timestamp: 1 + chunk * 1000 + i })
                    .collect();
                let _ = sink::push_timed(&points);
            }
        }
        "million-at-once" => {
            let id = series(0, &[])?;
            let points: Vec<Point> = (0..1_000_000).map(|_| Point { series: id, value: 1.0 }).collect();
            sink::push(&points).map_err(refused)?;
        }
        "million-series" => {
            for i in 0..1_000_000u32 {
                series(1, &[("name", &i.to_string())])?;
            }
        }
        "churn" => {
            for i in 0..1_000_000u32 {
                let id = series(1, &[("name", &i.to_string())])?;
                sink::retire(&[id]).map_err(refused)?;
            }
        }
        "nan" => {
            let (bad, infinite) = (series(0, &[])?, series(1, &[("name", "infinite")])?);
            push(&[(bad, f64::NAN), (infinite, f64::INFINITY)])?;
        }
        "bad-name" => {
            sink::declare(&[family("no metric name", MetricType::Gauge, &[])]).map_err(refused)?;
        }
        "bad-label" => {
            series(0, &[("no label", "x")])?;
        }
        "unlisted-label" => {
            series(1, &[("other", "x")])?;
        }
        "long-label" => {
            series(1, &[("name", &"x".repeat(1 << 20))])?;
        }
        "two-types" => {
            sink::declare(&[family("hostile_two", MetricType::Gauge, &[])]).map_err(refused)?;
            sink::declare(&[family("hostile_two", MetricType::Counter, &[])]).map_err(refused)?;
        }
        "line-names" => {
            sink::declare(&[family("hostile_seconds_count", MetricType::Counter, &[])]).map_err(refused)?;
        }
        "wrong-part" => {
            register(2, Part::Value, &[])?;
        }
        "other-part" => {
            register(0, Part::Other("exemplar".to_owned()), &[])?;
        }
        "twice" => {
            let (a, b) = (series(0, &[])?, series(0, &[])?);
            if a != b {
                return Err(error("registered", "the same series has two numbers"));
            }
            push(&[(a, 1.0), (b, 2.0)])?;
        }
        "unknown" => push(&[(999, 1.0)])?,
        "retired" => {
            let id = series(0, &[])?;
            push(&[(id, 1.0)])?;
            sink::retire(&[id]).map_err(refused)?;
            push(&[(id, 2.0)])?;
        }
        "future" => {
            let id = series(0, &[])?;
            sink::push_timed(&[TimedPoint { series: id, value: 1.0, timestamp: u64::MAX }])
                .map_err(refused)?;
        }
        "events" => {
            for i in 0..10_000 {
                sink::emit(&[event(&format!("test.event-{i}"))]).map_err(refused)?;
            }
        }
        "event" => sink::emit(&[event("test.event")]).map_err(refused)?,
        "reasons" => {
            for i in 0..10_000 {
                sink::fail(&format!("reason-{i}"), &"long ".repeat(1000));
            }
        }
        "log" => {
            for i in 0..100_000 {
                log::write(&log::Level::Error, &format!("line {i}\nagent: not the agent's"));
            }
        }
        "hostcall" => log::write(&log::Level::Info, &"x".repeat(16 << 20)),
        "error" => {
            let id = series(0, &[])?;
            push(&[(id, 3.0)])?;
            return Err(error("unreachable", "the source is away"));
        }
        "histogram" => {
            let bucket = register(2, Part::Bucket, &[("le", "+Inf")])?;
            let (sum, count) = (register(2, Part::Sum, &[])?, register(2, Part::Count, &[])?);
            push(&[(bucket, 3.0), (sum, 1.5), (count, 3.0)])?;
        }
        "services" => {
            let before = store::get("count").map_err(|e| error("store", &format!("{e:?}")))?;
            let count = before.map_or(0, |b| b.len()) + 1;
            store::set("count", &vec![0; count], None).map_err(|e| error("store", &format!("{e:?}")))?;
            let uname = system::uname();
            if uname.sysname != "Linux" || system::local_time_zone().name.is_empty() {
                return Err(error("system", &uname.sysname));
            }
            if clock::now() == 0 || clock::monotonic() == 0 || random::bytes(16).len() != 16 {
                return Err(error("always", "clock or random"));
            }
            let id = series(0, &[])?;
            push(&[(id, count as f64)])?;
        }
        other => return Err(error("settings", &format!("no mode {other}"))),
    }
    Ok(())
}

impl Control for Hostile {
    fn schema() -> String {
        r#"{"type":"object","properties":{"mode":{"type":"string"}}}"#.to_owned()
    }

    fn get() -> String {
        format!(r#"{{"mode":"{}"}}"#, MODE.lock().unwrap().0)
    }

    fn set(settings: String) -> Result<String, ControlError> {
        let mode = field(&settings, "mode");
        match mode.as_str() {
            "" => Err(ControlError::Refused(vec!["mode: a string".to_owned()])),
            "loop-control" => spin(),
            _ => {
                *MODE.lock().unwrap() = (mode, field(&settings, "argument"));
                Ok(Self::get())
            }
        }
    }
}

fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

/// On the engine's stack alone: nothing of it lies in linear memory, whose own bound would come first.
#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let now = clock::monotonic();
    if now == 0 { depth } else { recurse(depth + 1).rotate_left(7) ^ now }
}

fn family(name: &str, type_: MetricType, label_names: &[&str]) -> Family {
    Family {
        name: name.to_owned(),
        type_,
        unit: String::new(),
        help: "for a test".to_owned(),
        label_names: label_names.iter().map(|l| (*l).to_owned()).collect(),
    }
}

fn event(kind: &str) -> Event {
    Event {
        kind: kind.to_owned(),
        severity: Severity::Warning,
        subject: Subject { kind: "node".to_owned(), id: String::new() },
        message: "it happened".to_owned(),
        attributes: vec![Label { name: "code".to_owned(), value: "79".to_owned() }],
        key: "key".to_owned(),
        clear: false,
        timestamp: None,
    }
}

fn series(family: u32, labels: &[(&str, &str)]) -> Result<u32, SourceError> {
    register(family, Part::Value, labels)
}

fn register(family: u32, part: Part, labels: &[(&str, &str)]) -> Result<u32, SourceError> {
    let labels = labels
        .iter()
        .map(|(name, value)| Label { name: (*name).to_owned(), value: (*value).to_owned() })
        .collect();
    let ids = sink::register(&[SeriesDefinition { family, part, labels }]).map_err(refused)?;
    ids.first().copied().ok_or_else(|| error("registered", "nothing"))
}

fn push(points: &[(u32, f64)]) -> Result<(), SourceError> {
    let points: Vec<Point> = points.iter().map(|&(series, value)| Point { series, value }).collect();
    sink::push(&points).map_err(refused)
}

fn refused(e: SinkError) -> SourceError {
    error("sink", &format!("{e:?}"))
}

fn error(reason: &str, message: &str) -> SourceError {
    SourceError { reason: reason.to_owned(), message: message.to_owned() }
}

/// The text of a field of a flat JSON object.
fn field(json: &str, name: &str) -> String {
    let after = json.split(&format!("\"{name}\":\"")).nth(1).unwrap_or_default();
    after.split('"').next().unwrap_or_default().to_owned()
}

export!(Hostile);
