//! What the hostile plugins are written with: the contract's bare bindings, because the SDK would not let them.
//!
//! A plugin is one file of `plugins/`: a type, what it does, and on top of the file what must happen to it.

/// The bindings, public so that each plugin can misuse them.
#[allow(clippy::all, missing_docs, unused)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package test:hostile@1.0.0; world hostile {
            import picket:source/sink@0.2.0;
            import picket:host/log@0.1.0;
            import picket:host/clock@0.1.0;
            import picket:host/random@0.1.0;
            import picket:host/store@0.1.0;
            import picket:host/files@0.1.0;
            import picket:host/http@0.1.0;
            export picket:source/source@0.2.0;
        }",
        world: "test:hostile/hostile@1.0.0",
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "hostile::bindings",
    });
}

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};

pub use bindings::exports::picket::source::source::{Description, Guest, SourceError};
pub use bindings::picket::host::{clock, files, http, log, random, store};
pub use bindings::picket::source::sink::{self, Point, SeriesDefinition, TimedPoint};
pub use bindings::picket::types::types::{Event, Family, Label, MetricType, Part, Severity, Subject};

/// A plugin that means no good. What it doesn't say, it does as a good one would.
pub trait Hostile {
    fn describe() -> Vec<Family> {
        vec![family("hostile_value", MetricType::Gauge)]
    }

    fn configure(_settings: &str) -> Result<(), String> {
        Ok(())
    }

    /// The text of an error becomes the plugin's own failure `refused`.
    fn collect() -> Result<(), String>;
}

/// Makes a plugin's allocator of what it does once it is armed: with the memory that the host asks it for, or with what it is
/// given back to free.
#[macro_export]
macro_rules! allocator {
    ($when:ident, $does:expr) => {
        #[global_allocator]
        static ALLOCATOR: $crate::Allocator = $crate::Allocator { when: $crate::When::$when, does: $does };
    };
}

/// When an [`Allocator`] misbehaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum When {
    Allocating,
    Freeing,
}

/// See [`allocator!`].
pub struct Allocator {
    pub when: When,
    /// What is given out instead; none: what the system gives.
    pub does: fn() -> Option<usize>,
}

/// From now on the allocator misbehaves, once where it allocates.
pub fn arm() {
    ARMED.store(true, Ordering::Relaxed);
}

static ARMED: AtomicBool = AtomicBool::new(false);

#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.when == When::Allocating
            && ARMED.swap(false, Ordering::Relaxed)
            && let Some(address) = (self.does)()
        {
            return address as *mut u8;
        }
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if self.when == When::Freeing && ARMED.load(Ordering::Relaxed) {
            (self.does)();
        }
        unsafe { System.dealloc(at, layout) }
    }
}

/// Makes a plugin of a [`Hostile`] type.
#[macro_export]
macro_rules! plugin {
    ($type:ty) => {
        type Component = $crate::Of<$type>;
        $crate::bindings::export!(Component with_types_in $crate::bindings);
    };
}

/// A [`Hostile`] type as the contract wants it.
pub struct Of<T>(PhantomData<T>);

impl<T: Hostile> Guest for Of<T> {
    fn describe() -> Description {
        Description { families: T::describe() }
    }

    fn configure(settings: String) -> Result<(), SourceError> {
        ARGUMENT.with_borrow_mut(|kept| *kept = text_of("argument", &settings));
        T::configure(&settings).map_err(failure)
    }

    fn collect() -> Result<(), SourceError> {
        T::collect().map_err(failure)
    }
}

thread_local! {
    static ARGUMENT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What the test passes as the setting `argument`: an address, a path.
pub fn argument() -> String {
    ARGUMENT.with_borrow(Clone::clone)
}

/// The text of a field of a flat JSON object without escapes.
fn text_of(field: &str, json: &str) -> String {
    let after = json.split(&format!("\"{field}\":\"")).nth(1).unwrap_or_default();
    after.split('"').next().unwrap_or_default().to_owned()
}

fn failure(message: String) -> SourceError {
    SourceError { reason: "refused".to_owned(), message }
}

pub fn family(name: &str, kind: MetricType) -> Family {
    Family {
        name: name.to_owned(),
        type_: kind,
        unit: String::new(),
        help: "A test.".to_owned(),
        label_names: Vec::new(),
    }
}

/// The number of a series of a family.
pub fn register(family: u32, labels: &[(&str, &str)]) -> Result<u32, String> {
    let labels = labels
        .iter()
        .map(|(name, value)| Label { name: (*name).to_owned(), value: (*value).to_owned() })
        .collect();
    let ids = sink::register(&[SeriesDefinition { family, part: Part::Value, labels }])
        .map_err(|e| format!("{e:?}"))?;
    ids.first().copied().ok_or_else(|| "no number".to_owned())
}

/// One value of the plugin's own family.
pub fn value(value: f64) -> Result<(), String> {
    let series = register(0, &[])?;
    push(&[(series, value)])
}

pub fn push(points: &[(u32, f64)]) -> Result<(), String> {
    let points: Vec<Point> = points.iter().map(|&(series, value)| Point { series, value }).collect();
    sink::push(&points).map_err(|e| format!("{e:?}"))
}

pub fn declare(family: Family) -> Result<u32, String> {
    let ids = sink::declare(&[family]).map_err(|e| format!("{e:?}"))?;
    ids.first().copied().ok_or_else(|| "no number".to_owned())
}

pub fn event(key: &str) -> Event {
    Event {
        kind: "test.hostile".to_owned(),
        severity: Severity::Info,
        subject: Subject { kind: "node".to_owned(), id: String::new() },
        message: "A test.".to_owned(),
        attributes: Vec::new(),
        key: key.to_owned(),
        clear: false,
        timestamp: None,
    }
}

/// For ever.
pub fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

/// `unreachable`, the instruction.
pub fn trap() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort();
}
