//! See [`crate::trial`].

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use picket_agent_services::always::Level;
use picket_agent_services::grants::admit;
use picket_agent_services::{Request, ServiceLimits, Services, ServicesOptions, files, logs};
use picket_proto::model::{Family, Labels, MetricType, Part, PluginId, Severity};
use picket_proto::v1;

use super::wire::{self, Ready, Report, VERSION};
use crate::ask::{Answers as _, Ask};
use crate::call::{Cost, Returned};
use crate::desk::{Desk, Setting};
use crate::limits::Limits;
use crate::points::{Ids, Points, TimedPoints, Times};
use crate::readings::{Asked, Declared, Happened};
use crate::sink::SampleSink;
use crate::wall::Wall;

fn encoded(number: u64, report: &Report) -> Vec<u8> {
    report.encode(number).unwrap_or_default()
}

pub(crate) fn ready() -> Vec<u8> {
    encoded(0, &Report::Ready(Ready { version: VERSION.to_owned(), wall: Wall::default() }))
}

pub(crate) fn loaded(seat: u64) -> Vec<u8> {
    encoded(seat, &Report::Loaded(Ok(())))
}

pub(crate) fn made(instance: u64) -> Vec<u8> {
    encoded(instance, &Report::Made(Ok(())))
}

pub(crate) fn ask(instance: u64) -> Vec<u8> {
    encoded(instance, &Report::Ask(Ask::Log(Level::Debug, "again".to_owned())))
}

pub(crate) fn done(instance: u64, describe: bool, cost: Cost) -> Vec<u8> {
    let returned = if describe { Returned::Described(Vec::new()) } else { Returned::Done(Ok(())) };
    encoded(instance, &Report::Done(Ok(returned), cost))
}

pub(crate) fn reports() -> Vec<(&'static str, Vec<u8>)> {
    let family = |name: &str| Declared {
        name: name.to_owned(),
        metric_type: MetricType::Histogram,
        unit: String::new(),
        help: "Help.".to_owned(),
        label_names: vec!["a".to_owned()],
    };
    let series =
        |value: &str| Asked { family: 0, part: Part::Sum, labels: vec![("a".to_owned(), value.to_owned())] };
    let event = Happened {
        kind: "gpu.xid".to_owned(),
        severity: Severity::Warning,
        subject: ("gpu".to_owned(), "GPU-1".to_owned()),
        message: "Fell off.".to_owned(),
        attributes: vec![("xid".to_owned(), "79".to_owned())],
        key: "xid".to_owned(),
        clear: false,
        timestamp: Some(1_700_000_000_000),
    };
    let done = || Report::Done(Ok(Returned::Done(Ok(()))), Cost::default());
    let asks = |asks: Vec<Ask>| asks.into_iter().map(Report::Ask).chain([done()]).collect::<Vec<_>>();
    let samples = asks(vec![
        Ask::Declare(vec![family("a_seconds"), family("b_seconds")]),
        Ask::Register(vec![series("x"), series("y")]),
        Ask::Push(Points(vec![(0, 1.0)])),
        Ask::PushTimed(TimedPoints(vec![(1, 2.0, 1_700_000_000_000)])),
        Ask::Retire(Ids(vec![0])),
    ]);
    let words = asks(vec![
        Ask::Emit(vec![event]),
        Ask::Fail { reason: "parse".to_owned(), message: "no".to_owned() },
        Ask::Log(Level::Warn, "a line".to_owned()),
        Ask::ReadLogs { wanted: logs::Wanted::default(), most: 100 },
        Ask::HoldLogs { chunk: 0, bytes: 1 },
        Ask::EmitLogs(vec![(vec![("a".to_owned(), "b".to_owned())], Times(vec![1]), vec!["c".to_owned()])]),
        Ask::Effect(Request::Files(files::Request::Read { path: "/proc/stat".to_owned() })),
    ]);
    let described = vec![Report::Done(Ok(Returned::Described(vec![family("c")])), Cost::default())];
    [("samples", samples), ("words", words), ("described", described)]
        .into_iter()
        .map(|(name, reports)| (name, reports.iter().flat_map(listed).collect()))
        .collect()
}

/// A frame without its number.
fn listed(report: &Report) -> Vec<u8> {
    let frame = encoded(0, report);
    match frame.split_first_chunk::<{ wire::HEAD }>() {
        Some((&[a, b, c, d, kind, ..], body)) => {
            [kind, a, b, c, d].into_iter().chain(body.iter().copied()).collect()
        }
        None => Vec::new(),
    }
}

/// What a plugin without grants is made with.
fn nobody() -> Setting {
    static SERVICES: OnceLock<Arc<Services>> = OnceLock::new();
    let services = SERVICES.get_or_init(|| {
        let options = ServicesOptions {
            state_dir: std::env::temp_dir().join(format!("picket-trial-{}", std::process::id())),
            extra_authorities: None,
            limits: ServiceLimits::default(),
            nvml: Default::default(),
            kmsg: Default::default(),
        };
        Arc::new(Services::new(options).unwrap_or_else(|e| panic!("no services: {e}")))
    });
    let plugin = PluginId::new("trial").unwrap_or_else(|e| panic!("no name: {e}"));
    let admission =
        admit(&plugin, None, &BTreeSet::new(), &[]).unwrap_or_else(|e| panic!("not admitted: {e}"));
    let limits = Limits { samples: 1000, series: 100, families: 50, events: 50, ..Limits::default() };
    Setting { plugin, limits, services: services.clone(), admission: Arc::new(admission) }
}

thread_local! {
    static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap_or_else(|e| panic!("no runtime: {e}"));
}

pub(crate) fn answered(bytes: &[u8]) {
    let setting = nobody();
    let mut desk = Desk::new(&setting, 1);
    let mut sink = Strict::default();
    let hostcall_bytes = 1 << 20;
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let _ended = desk.call();
            desk.begin_collect(1 << 20);
            let mut rest = bytes;
            while let Some((&[kind, a, b, c, d], tail)) = rest.split_first_chunk::<5>() {
                let length = u32::from_le_bytes([a, b, c, d]) as usize;
                let (body, tail) = tail.split_at(length.min(tail.len()));
                rest = tail;
                // As the link reads it; the kinds come in any order here.
                let Ok(report) = Report::decode(kind, body, wire::most(kind, hostcall_bytes)) else { return };
                match report {
                    Report::Ask(ask) => {
                        let _ = desk.answer(ask).await;
                    }
                    Report::Done(Ok(Returned::Described(families)), _) => {
                        let _ = desk.readings.describe(families);
                    }
                    Report::Done(..) => {
                        desk.readings.hand_over(&setting.plugin, &mut sink);
                        desk.begin_collect(1 << 20);
                    }
                    _ => {}
                }
            }
        });
    });
    desk.readings.hand_over(&setting.plugin, &mut sink);
}

/// A sink that believes what it was promised.
#[derive(Default)]
struct Strict {
    families: HashMap<u32, Family>,
    known: HashMap<u32, u32>,
}

impl SampleSink for Strict {
    fn begin(&mut self, _: u64) {
        self.families.clear();
        self.known.clear();
    }

    fn family(&mut self, id: u32, family: &Family) {
        assert!(self.families.insert(id, family.clone()).is_none(), "the family {id} comes twice");
        assert!(!family.help.chars().any(|c| c == '\n'), "a line break in {:?}", family.help);
    }

    fn series(&mut self, id: u32, family: u32, _: Part, labels: &Labels) -> Result<(), String> {
        assert!(self.families.contains_key(&family), "the series {id} is of no family");
        assert!(self.known.insert(id, family).is_none(), "the series {id} comes twice");
        assert!(labels.iter().all(|(name, value)| !name.is_empty() && !value.is_empty()), "{labels:?}");
        Ok(())
    }

    fn points(&mut self, points: &[(u32, f64)]) {
        for (id, value) in points {
            assert!(self.known.contains_key(id) && !value.is_nan(), "the point {id} {value}");
        }
    }

    fn timed_points(&mut self, points: &[(u32, f64, i64)]) {
        for (id, value, time) in points {
            assert!(
                self.known.contains_key(id) && !value.is_nan() && *time > 0,
                "the point {id} {value} {time}"
            );
        }
    }

    fn retire(&mut self, ids: &[u32]) {
        assert!(ids.iter().all(|id| self.known.contains_key(id)), "retired without having been there");
    }

    fn event(&mut self, event: v1::Event) {
        assert!(!event.message.chars().any(char::is_control), "{event:?}");
    }

    fn fail(&mut self, reason: &str, message: &str) {
        assert!(!reason.is_empty() && reason.len() <= 40 && !message.contains('\n'), "{reason}: {message}");
    }
}

/// See [`crate::trial::instantiated`].
#[cfg(feature = "compile")]
pub(crate) fn instantiated(bytes: &[u8]) {
    use std::io::Write as _;
    use std::time::Duration;

    use wasmtime::Engine;

    use crate::body::World;
    use crate::call::{Bounds, Call};
    use crate::code::Code;
    use crate::component::{Role, inspect};
    use crate::instance::{Instance, Linked};
    use crate::ticker::Ticker;

    static ENGINES: OnceLock<(Engine, Engine, Arc<Ticker>)> = OnceLock::new();
    let (compiler, runtime, ticker) = ENGINES.get_or_init(|| {
        let compiler = Engine::new(&crate::engine::config()).unwrap_or_else(|e| panic!("no compiler: {e}"));
        let runtime = crate::engine::runtime().unwrap_or_else(|e| panic!("no engine: {e}"));
        let ticker = Ticker::start(&runtime).unwrap_or_else(|e| panic!("no ticks: {e}"));
        (compiler, runtime, ticker)
    });
    let Ok(component) = inspect(bytes) else { return };
    let Ok(compiled) = compiler.precompile_component(bytes) else { return };
    let file = rustix::fs::memfd_create("compiled", rustix::fs::MemfdFlags::CLOEXEC);
    let mut file = std::fs::File::from(file.unwrap_or_else(|e| panic!("no file: {e}")));
    file.write_all(&compiled).unwrap_or_else(|e| panic!("not written: {e}"));
    let code = Code::new(runtime, &file, compiled.len() as u64)
        .unwrap_or_else(|e| panic!("just compiled, and it does not fit: {e:#}"));
    let capabilities: Vec<_> = component.capabilities.iter().copied().collect();
    let world = match component.role {
        Role::Source => World::Source { edition: component.edition, controllable: component.controllable },
        Role::Action => World::Action,
    };
    let Ok(linked) = Linked::new(runtime, ticker.clone(), code, &capabilities, world) else { return };
    let bounds = Bounds {
        memory: 8 << 20,
        guest_time: Duration::from_millis(100),
        call_time: Duration::from_millis(300),
        hostcall_bytes: 1 << 20,
    };
    let setting = nobody();
    let mut desk = Desk::new(&setting, 1);
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let made = Box::pin(Instance::new(&linked, &bounds, &mut desk)).await;
            let Ok(mut instance) = made else { return };
            let described = Box::pin(instance.enter(Call::Describe, &mut desk)).await;
            if let Ok(Returned::Described(families)) = described
                && desk.readings.describe(families).is_ok()
            {
                desk.begin_collect(0);
                let _ = Box::pin(instance.enter(Call::Collect, &mut desk)).await;
                desk.readings.hand_over(&setting.plugin, &mut Strict::default());
            }
        });
    });
}
