//! The SDK in a guest: the contract's generated bindings, and their translation to the SDK's own types. Nothing of
//! this is public to plugins.

#[path = "guest/action.rs"]
mod action_guest;
#[path = "guest/command.rs"]
mod command;
#[path = "guest/containers.rs"]
mod containers;
#[path = "guest/containers_control.rs"]
mod containers_control;
#[path = "guest/files_write.rs"]
mod files_write;
#[path = "guest/kmsg.rs"]
mod kmsg;
#[path = "guest/logs.rs"]
mod logs;
#[path = "guest/nvml.rs"]
mod nvml;
#[path = "guest/systemd_control.rs"]
mod systemd_control;
#[path = "guest/unix_http.rs"]
mod unix_http;

use std::cell::RefCell;
use std::marker::PhantomData;

use crate::event::{Event, Severity};
use crate::files::{Entry, EntryKind, FileSystem, FilesError};
use crate::http::{HttpError, Request, Response};
use crate::log::Level;
use crate::model::{FamilyDef, MetricType, Part, SeriesDef, SinkError};
use crate::runner::ControlFailure;
pub use crate::runner::Runner;
use crate::store::StoreError;
use crate::system::{TimeZone, Uname};
use crate::{Controllable, Failure, Source};

#[allow(missing_docs, unsafe_code, clippy::all)]
pub mod source {
    wit_bindgen::generate!({
        path: "../wit",
        world: "picket:source/source-plugin@0.2.0",
        pub_export_macro: true,
        export_macro_name: "__export_source_world",
        default_bindings_module: "picket_sdk::__guest::source",
        generate_all,
    });
}

/// The export that a controllable source has beside the others.
#[allow(missing_docs, unsafe_code, clippy::all)]
pub mod control {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "package picket:sdk; world control-plugin { export picket:source/control@0.2.0; }",
        world: "picket:sdk/control-plugin",
        pub_export_macro: true,
        export_macro_name: "__export_control_world",
        default_bindings_module: "picket_sdk::__guest::control",
        generate_all,
    });
}

/// What an action exports and imports beside what a source does.
#[allow(missing_docs, unsafe_code, clippy::all)]
pub mod action {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "
            package picket:sdk-action;
            world action-exports {
                import picket:host/containers-control@0.1.0;
                import picket:host/systemd-control@0.1.0;
                import picket:host/files-write@0.1.0;
                export picket:action/action@0.1.0;
            }
        ",
        world: "picket:sdk-action/action-exports",
        pub_export_macro: true,
        export_macro_name: "__export_action_world",
        default_bindings_module: "picket_sdk::__guest::action",
        generate_all,
    });
}

pub use action::__export_action_world as __export_action;
pub use action_guest::{ActionComponent, ActionInstance, ActionSlot};
pub use control::__export_control_world as __export_control;
pub use source::__export_source_world as __export_source;

use source::exports::picket::source::source as exported;
use source::picket::host;
use source::picket::source::sink;
use source::picket::types::types as wit;

pub(crate) use command::{command_end, command_read, command_start};
pub(crate) use containers::{containers_inspect, containers_list, containers_logs, containers_stats};
pub(crate) use containers_control::change_container;
pub(crate) use files_write::{files_delete, files_find, files_put};
pub(crate) use kmsg::kmsg_read;
pub(crate) use logs::{logs_emit, logs_hold, logs_read};
pub(crate) use nvml::nvml_snapshot;
pub use sink::{Point, TimedPoint};
pub(crate) use systemd_control::{systemd_change, systemd_show};
pub(crate) use unix_http::unix_send;

/// Where a plugin crate keeps its one runner.
pub struct Slot<P>(RefCell<Option<Runner<P>>>);

impl<P: Source> Slot<P> {
    pub const fn new() -> Self {
        Self(RefCell::new(None))
    }

    pub fn with<R>(&self, f: impl FnOnce(&mut Runner<P>) -> R) -> R {
        f(self.0.borrow_mut().get_or_insert_with(Runner::new))
    }
}

/// A source that has its runner.
pub trait Instance: Source {
    fn with<R>(f: impl FnOnce(&mut Runner<Self>) -> R) -> R;
}

/// What the exports are implemented on.
pub struct Component<P>(PhantomData<P>);

impl<P: Instance> exported::Guest for Component<P> {
    fn describe() -> exported::Description {
        let families = P::with(|runner| runner.families());
        exported::Description { families: families.into_iter().map(family).collect() }
    }

    fn configure(settings: String) -> Result<(), exported::SourceError> {
        P::with(|runner| runner.configure(&settings)).map_err(source_error)
    }

    fn collect() -> Result<(), exported::SourceError> {
        P::with(Runner::collect).map_err(source_error)
    }
}

impl<P: Instance + Controllable> control::exports::picket::source::control::Guest for Component<P> {
    fn schema() -> String {
        P::schema().to_string()
    }

    fn get() -> String {
        P::with(|runner| runner.control()).unwrap_or_else(|_| "null".to_owned())
    }

    fn set(settings: String) -> Result<String, control::exports::picket::source::control::ControlError> {
        use control::exports::picket::source::control::ControlError;
        P::with(|runner| runner.set_control(&settings)).map_err(|failure| match failure {
            ControlFailure::Refused(refused) => ControlError::Refused(refused.0),
            ControlFailure::Other(message) => ControlError::Other(message),
        })
    }
}

fn source_error(failure: Failure) -> exported::SourceError {
    exported::SourceError { reason: failure.reason.into_owned(), message: failure.message }
}

fn family(def: FamilyDef) -> wit::Family {
    let type_ = match def.metric_type {
        MetricType::Gauge => wit::MetricType::Gauge,
        MetricType::Counter => wit::MetricType::Counter,
        MetricType::Histogram => wit::MetricType::Histogram,
        MetricType::Summary => wit::MetricType::Summary,
        MetricType::Info => wit::MetricType::Info,
        MetricType::StateSet => wit::MetricType::StateSet,
        MetricType::Unknown => wit::MetricType::Unknown,
    };
    wit::Family { name: def.name, type_, unit: def.unit, help: def.help, label_names: def.label_names }
}

fn labels(pairs: Vec<(String, String)>) -> Vec<wit::Label> {
    pairs.into_iter().map(|(name, value)| wit::Label { name, value }).collect()
}

fn pairs(labels: Vec<wit::Label>) -> Vec<(String, String)> {
    labels.into_iter().map(|label| (label.name, label.value)).collect()
}

fn sink_error(error: sink::SinkError) -> SinkError {
    match error {
        sink::SinkError::Quota(over) => SinkError::Quota { message: over.message, fits: over.fits },
        sink::SinkError::Invalid(text) => SinkError::Invalid(text),
        sink::SinkError::UnknownId(id) => SinkError::UnknownId(id),
        sink::SinkError::Other(text) => SinkError::Other(text),
    }
}

pub(crate) fn declare(def: &FamilyDef) -> Result<u32, SinkError> {
    let numbers = sink::declare(&[family(def.clone())]).map_err(sink_error)?;
    numbers.first().copied().ok_or_else(|| SinkError::Other("the host returned no number".to_owned()))
}

pub(crate) fn register(defs: Vec<SeriesDef>) -> Result<Vec<u32>, SinkError> {
    let part = |part| match part {
        Part::Value => wit::Part::Value,
        Part::Bucket => wit::Part::Bucket,
        Part::Sum => wit::Part::Sum,
        Part::Count => wit::Part::Count,
        Part::Quantile => wit::Part::Quantile,
    };
    let defs: Vec<sink::SeriesDefinition> = defs
        .into_iter()
        .map(|d| sink::SeriesDefinition { family: d.family, part: part(d.part), labels: labels(d.labels) })
        .collect();
    sink::register(&defs).map_err(sink_error)
}

pub(crate) fn push(points: &[Point]) -> Result<(), SinkError> {
    sink::push(points).map_err(sink_error)
}

pub(crate) fn push_timed(points: &[TimedPoint]) -> Result<(), SinkError> {
    sink::push_timed(points).map_err(sink_error)
}

pub(crate) fn retire(series: &[u32]) -> Result<(), SinkError> {
    sink::retire(series).map_err(sink_error)
}

pub(crate) fn emit(event: Event) -> Result<(), SinkError> {
    let severity = match event.severity {
        Severity::Info => wit::Severity::Info,
        Severity::Warning => wit::Severity::Warning,
        Severity::Critical => wit::Severity::Critical,
    };
    let (kind, id) = event.subject;
    let event = wit::Event {
        kind: event.kind,
        severity,
        subject: wit::Subject { kind, id },
        message: event.message,
        attributes: labels(event.attributes),
        key: event.key,
        clear: event.clear,
        timestamp: event.timestamp_ms,
    };
    sink::emit(&[event]).map_err(sink_error)
}

pub(crate) fn fail(reason: &str, message: &str) {
    sink::fail(reason, message);
}

pub(crate) fn log(level: Level, message: &str) {
    let level = match level {
        Level::Debug => host::log::Level::Debug,
        Level::Info => host::log::Level::Info,
        Level::Warn => host::log::Level::Warn,
        Level::Error => host::log::Level::Error,
    };
    host::log::write(&level, message);
}

pub(crate) fn now() -> u64 {
    host::clock::now()
}

pub(crate) fn monotonic() -> u64 {
    host::clock::monotonic()
}

pub(crate) fn random(len: u32) -> Vec<u8> {
    host::random::bytes(len)
}

pub(crate) fn uname() -> Uname {
    let u = host::system::uname();
    Uname {
        sysname: u.sysname,
        nodename: u.nodename,
        release: u.release,
        version: u.version,
        machine: u.machine,
        domainname: u.domainname,
    }
}

pub(crate) fn local_time_zone() -> TimeZone {
    let zone = host::system::local_time_zone();
    TimeZone { name: zone.name, offset_seconds: zone.offset_seconds }
}

fn store_error(error: host::store::StoreError) -> StoreError {
    match error {
        host::store::StoreError::Full(text) => StoreError::Full(text),
        host::store::StoreError::Other(text) => StoreError::Other(text),
    }
}

pub(crate) fn store_get(key: &str) -> Result<Option<Vec<u8>>, StoreError> {
    host::store::get(key).map_err(store_error)
}

pub(crate) fn store_set(key: &str, value: &[u8], ttl: Option<u64>) -> Result<(), StoreError> {
    host::store::set(key, value, ttl).map_err(store_error)
}

pub(crate) fn store_delete(key: &str) -> Result<(), StoreError> {
    host::store::delete(key).map_err(store_error)
}

pub(crate) fn store_keys(prefix: &str) -> Result<Vec<String>, StoreError> {
    host::store::keys(prefix).map_err(store_error)
}

fn files_error(error: host::files::FilesError) -> FilesError {
    use host::files::FilesError as E;
    match error {
        E::Denied(text) => FilesError::Denied(text),
        E::NotFound(text) => FilesError::NotFound(text),
        E::WrongKind(text) => FilesError::WrongKind(text),
        E::TooLarge(text) => FilesError::TooLarge(text),
        E::TimedOut(text) => FilesError::TimedOut(text),
        E::Io(text) => FilesError::Io(text),
        E::Other(text) => FilesError::Other(text),
    }
}

pub(crate) fn read(path: &str) -> Result<Vec<u8>, FilesError> {
    host::files::read(path).map_err(files_error)
}

pub(crate) fn read_many(paths: &[&str]) -> Vec<Result<Vec<u8>, FilesError>> {
    let answers = host::files::read_many(&owned(paths));
    answers.into_iter().map(|answer| answer.map_err(files_error)).collect()
}

fn owned(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

pub(crate) fn list_directory(path: &str) -> Result<Vec<Entry>, FilesError> {
    let kind = |kind| match kind {
        host::files::EntryKind::File => EntryKind::File,
        host::files::EntryKind::Directory => EntryKind::Directory,
        host::files::EntryKind::Link => EntryKind::Link,
        host::files::EntryKind::Other(_) => EntryKind::Other,
    };
    let entries = host::files::list_directory(path).map_err(files_error)?;
    Ok(entries.into_iter().map(|e| Entry { name: e.name, kind: kind(e.kind) }).collect())
}

pub(crate) fn read_link(path: &str) -> Result<String, FilesError> {
    host::files::read_link(path).map_err(files_error)
}

pub(crate) fn modified(path: &str) -> Result<u64, FilesError> {
    host::files::modified(path).map_err(files_error)
}

pub(crate) fn stat_file_system(path: &str) -> Result<FileSystem, FilesError> {
    host::files::stat_file_system(path).map(file_system).map_err(files_error)
}

pub(crate) fn stat_file_systems(paths: &[&str]) -> Vec<Result<FileSystem, FilesError>> {
    let answers = host::files::stat_file_systems(&owned(paths));
    answers.into_iter().map(|answer| answer.map(file_system).map_err(files_error)).collect()
}

fn file_system(s: host::files::FileSystem) -> FileSystem {
    FileSystem {
        size_bytes: s.size_bytes,
        free_bytes: s.free_bytes,
        available_bytes: s.available_bytes,
        files: s.files,
        files_free: s.files_free,
        read_only: s.read_only,
    }
}

fn request(request: &Request) -> host::http::Request {
    host::http::Request {
        method: request.method.clone(),
        url: request.url.clone(),
        headers: labels(request.headers.clone()),
        body: request.body.clone(),
        timeout: request.timeout_ms,
        secret: request.secret.clone(),
    }
}

fn response(result: Result<host::http::Response, host::http::HttpError>) -> Result<Response, HttpError> {
    use host::http::HttpError as E;
    match result {
        Ok(r) => Ok(Response { status: r.status, headers: pairs(r.headers), body: r.body }),
        Err(E::Denied(text)) => Err(HttpError::Denied(text)),
        Err(E::Invalid(text)) => Err(HttpError::Invalid(text)),
        Err(E::Unreachable(text)) => Err(HttpError::Unreachable(text)),
        Err(E::TimedOut(text)) => Err(HttpError::TimedOut(text)),
        Err(E::TooLarge(text)) => Err(HttpError::TooLarge(text)),
        Err(E::Malformed(text)) => Err(HttpError::Malformed(text)),
        Err(E::Tls(text)) => Err(HttpError::Tls(text)),
        Err(E::Other(text)) => Err(HttpError::Other(text)),
    }
}

pub(crate) fn send(wanted: &Request) -> Result<Response, HttpError> {
    response(host::http::send(&request(wanted)))
}

pub(crate) fn send_many(wanted: &[Request]) -> Vec<Result<Response, HttpError>> {
    let requests: Vec<_> = wanted.iter().map(request).collect();
    host::http::send_many(&requests).into_iter().map(response).collect()
}
