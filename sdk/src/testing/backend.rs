//! What the SDK calls natively in place of the host's imports. Without a [`super::Host`] around, capabilities are
//! denied and what is pushed is dropped.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::world::World;
use crate::command::{CommandError, Output};
use crate::containers::{ContainersError, Listing, LogPage};
use crate::containers_control::{Asked, Change, ControlError};
use crate::event::Event;
use crate::files::{Entry, FileSystem, FilesError};
use crate::files_write::{End, FilesWriteError, Found, Rule, Search};
use crate::http::{HttpError, Request, Response};
use crate::kmsg::{KmsgError, Page};
use crate::log::Level;
use crate::logs::{self, Batch, LogsError, Selection};
use crate::model::{FamilyDef, SeriesDef, SinkError};
use crate::nvml::NvmlError;
use crate::store::StoreError;
use crate::system::{TimeZone, Uname};
use crate::systemd_control::{SystemdError, Unit, Verb};

pub(crate) struct Point {
    pub series: u32,
    pub value: f64,
}

pub(crate) struct TimedPoint {
    pub series: u32,
    pub value: f64,
    pub timestamp: u64,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<RefCell<World>>>> = const { RefCell::new(None) };
}

/// Runs `f` with this world as the host.
pub(crate) fn within<R>(world: &Rc<RefCell<World>>, f: impl FnOnce() -> R) -> R {
    /// Puts back what was there, also when a test's plugin panics.
    struct Restore(Option<Rc<RefCell<World>>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0.take());
        }
    }
    let _restore = Restore(CURRENT.replace(Some(world.clone())));
    f()
}

fn world<R>(f: impl FnOnce(&mut World) -> R) -> Option<R> {
    let current = CURRENT.with_borrow(Option::clone)?;
    let mut world = current.borrow_mut();
    Some(f(&mut world))
}

fn no_host() -> SinkError {
    SinkError::Other("no host: the plugin does not run under picket_sdk::testing::Host".to_owned())
}

pub(crate) fn declare(def: &FamilyDef) -> Result<u32, SinkError> {
    world(|w| w.sink.declare(def)).unwrap_or_else(|| Err(no_host()))
}

pub(crate) fn register(defs: Vec<SeriesDef>) -> Result<Vec<u32>, SinkError> {
    world(|w| w.sink.register(defs)).unwrap_or_else(|| Err(no_host()))
}

pub(crate) fn push(points: &[Point]) -> Result<(), SinkError> {
    let points = points.iter().map(|p| (p.series, p.value, None));
    world(|w| w.sink.push(points)).unwrap_or_else(|| Err(no_host()))
}

pub(crate) fn push_timed(points: &[TimedPoint]) -> Result<(), SinkError> {
    let points = points.iter().map(|p| (p.series, p.value, Some(p.timestamp)));
    world(|w| w.sink.push(points)).unwrap_or_else(|| Err(no_host()))
}

pub(crate) fn retire(series: &[u32]) -> Result<(), SinkError> {
    world(|w| w.sink.retire(series)).unwrap_or_else(|| Err(no_host()))
}

pub(crate) fn emit(event: Event) -> Result<(), SinkError> {
    world(|w| w.sink.events.push(event)).ok_or_else(no_host)
}

pub(crate) fn fail(reason: &str, message: &str) {
    world(|w| w.sink.failures.push((reason.to_owned(), message.to_owned())));
}

pub(crate) fn log(level: Level, message: &str) {
    world(|w| w.log.push((level, message.to_owned())));
}

pub(crate) fn now() -> u64 {
    world(|w| w.now().as_nanos()).map_or(0, |n| u64::try_from(n).unwrap_or(u64::MAX))
}

pub(crate) fn monotonic() -> u64 {
    world(|w| w.monotonic().as_nanos()).map_or(0, |n| u64::try_from(n).unwrap_or(u64::MAX))
}

pub(crate) fn random(len: u32) -> Vec<u8> {
    world(|w| w.random(len)).unwrap_or_else(|| vec![0; len.min(4096) as usize])
}

pub(crate) fn uname() -> Uname {
    world(|w| w.uname()).unwrap_or_default()
}

pub(crate) fn local_time_zone() -> TimeZone {
    world(|w| w.zone.clone()).unwrap_or(TimeZone { name: "UTC".to_owned(), offset_seconds: 0 })
}

pub(crate) fn store_get(key: &str) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(world(|w| w.store.get(key, w.now())).flatten())
}

const HELD: &str = "nothing may be changed in this call";

fn held() -> bool {
    world(|w| w.held).unwrap_or(false)
}

pub(crate) fn change_container(asked: &Asked) -> Result<Change, ControlError> {
    if held() {
        return Err(ControlError::Denied(HELD.to_owned()));
    }
    let now = world(|w| w.now()).unwrap_or_default();
    world(|w| w.engine.as_mut().map(|e| e.change(asked, now)))
        .flatten()
        .unwrap_or_else(|| Err(ControlError::Denied("no grant of containers-control".to_owned())))
}

pub(crate) fn systemd_show(unit: &str) -> Result<Unit, SystemdError> {
    world(|w| match &w.broken_units {
        Some(error @ SystemdError::Unavailable(_)) => Err(error.clone()),
        _ => w.units.get(unit).cloned().ok_or_else(|| SystemdError::NotFound(unit.to_owned())),
    })
    .unwrap_or_else(|| Err(SystemdError::Denied(unit.to_owned())))
}

pub(crate) fn systemd_change(unit: &str, verb: Verb) -> Result<(), SystemdError> {
    if held() {
        return Err(SystemdError::Denied(HELD.to_owned()));
    }
    world(|w| {
        if let Some(error) = &w.broken_units {
            return Err(error.clone());
        }
        let now = u64::try_from(w.now().as_micros()).unwrap_or(u64::MAX);
        let u = w.units.get_mut(unit).ok_or_else(|| SystemdError::NotFound(unit.to_owned()))?;
        u.changed = now;
        match verb {
            Verb::Restart | Verb::Start => {
                u.active = "active".to_owned();
                u.invocation = format!("{now:032x}");
            }
            Verb::Stop => u.active = "inactive".to_owned(),
            Verb::Reload => {}
        }
        w.unit_changes.push((unit.to_owned(), verb));
        Ok(())
    })
    .unwrap_or_else(|| Err(SystemdError::Denied(unit.to_owned())))
}

pub(crate) fn files_find(rule: &Rule) -> Result<Search, FilesWriteError> {
    let newest = world(|w| w.now()).unwrap_or_default().saturating_sub(Duration::from_secs(rule.older_than));
    let (first, last) = rule.pattern.split_once('*').unwrap_or((rule.pattern.as_str(), ""));
    let last = last.rsplit('*').next().unwrap_or_default();
    let mut files = world(|w| w.deletable.clone()).unwrap_or_default();
    files.retain(|f| {
        f.path.starts_with(first)
            && f.path.ends_with(last)
            && f.bytes >= rule.at_least
            && Duration::from_nanos(f.modified) <= newest
    });
    files.sort_by_key(|f| f.modified);
    let more = files.len() > rule.most as usize;
    files.truncate(rule.most as usize);
    Ok(Search { files, more })
}

pub(crate) fn files_put(
    bundle: &str,
    file: &str,
    content: &[u8],
    first: bool,
) -> Result<String, FilesWriteError> {
    if held() {
        return Err(FilesWriteError::Denied(HELD.to_owned()));
    }
    let path = format!("/bundles/{bundle}/{file}");
    world(|w| {
        let kept = w.bundles.entry(path.clone()).or_default();
        if first {
            kept.clear();
        }
        kept.extend_from_slice(content);
    });
    Ok(path)
}

pub(crate) fn files_delete(found: &Found) -> Result<End, FilesWriteError> {
    if held() {
        return Err(FilesWriteError::Denied(HELD.to_owned()));
    }
    world(|w| match w.deletable.iter().position(|f| f.path == found.path) {
        None => Ok(End::Gone),
        Some(at) if w.deletable.get(at) == Some(found) => {
            w.deletable.remove(at);
            Ok(End::Deleted)
        }
        Some(_) => Err(FilesWriteError::Changed(found.path.clone())),
    })
    .unwrap_or(Ok(End::Gone))
}

pub(crate) fn store_set(key: &str, value: &[u8], ttl: Option<u64>) -> Result<(), StoreError> {
    if held() {
        return Err(StoreError::Other(HELD.to_owned()));
    }
    world(|w| w.store.set(key, value, ttl, w.now())).unwrap_or(Ok(()))
}

pub(crate) fn store_delete(key: &str) -> Result<(), StoreError> {
    if held() {
        return Err(StoreError::Other(HELD.to_owned()));
    }
    world(|w| w.store.delete(key));
    Ok(())
}

pub(crate) fn store_keys(prefix: &str) -> Result<Vec<String>, StoreError> {
    Ok(world(|w| w.store.keys(prefix, w.now())).unwrap_or_default())
}

pub(crate) fn read(path: &str) -> Result<Vec<u8>, FilesError> {
    world(|w| w.read(path)).unwrap_or_else(|| Err(FilesError::Denied(path.to_owned())))
}

pub(crate) fn read_many(paths: &[&str]) -> Vec<Result<Vec<u8>, FilesError>> {
    paths.iter().map(|path| read(path)).collect()
}

pub(crate) fn list_directory(path: &str) -> Result<Vec<Entry>, FilesError> {
    world(|w| w.list(path)).unwrap_or_else(|| Err(FilesError::Denied(path.to_owned())))
}

pub(crate) fn read_link(path: &str) -> Result<String, FilesError> {
    world(|w| w.link(path)).unwrap_or_else(|| Err(FilesError::Denied(path.to_owned())))
}

pub(crate) fn modified(path: &str) -> Result<u64, FilesError> {
    world(|w| w.modified(path)).unwrap_or_else(|| Err(FilesError::Denied(path.to_owned())))
}

pub(crate) fn stat_file_system(path: &str) -> Result<FileSystem, FilesError> {
    world(|w| w.stat(path)).unwrap_or_else(|| Err(FilesError::Denied(path.to_owned())))
}

pub(crate) fn stat_file_systems(paths: &[&str]) -> Vec<Result<FileSystem, FilesError>> {
    paths.iter().map(|path| stat_file_system(path)).collect()
}

fn changes(request: &Request) -> bool {
    held() && !matches!(request.method.as_str(), "GET" | "HEAD" | "OPTIONS")
}

pub(crate) fn send(request: &Request) -> Result<Response, HttpError> {
    if changes(request) {
        return Err(HttpError::Denied(HELD.to_owned()));
    }
    // The world is free while the test's closure runs.
    match world(|w| w.http.clone()).flatten() {
        Some(answer) => (answer.borrow_mut())(request),
        None => Err(HttpError::Denied(request.url.clone())),
    }
}

pub(crate) fn send_many(requests: &[Request]) -> Vec<Result<Response, HttpError>> {
    requests.iter().map(send).collect()
}

pub(crate) fn nvml_snapshot(max_age: u32) -> Result<(u64, String), NvmlError> {
    let no_host = || NvmlError::NoDriver("the test's host has none".to_owned());
    // The world is free while the test's closure runs.
    let mut snapshots = world(|w| w.nvml.take()).flatten().ok_or_else(no_host)?;
    let given = snapshots(max_age);
    world(|w| w.nvml = Some(snapshots));
    let taken_ms = now() / 1_000_000;
    given.map(|document| (taken_ms, document.to_string()))
}

pub(crate) fn kmsg_read(after: Option<&str>, most: u32) -> Result<Page, KmsgError> {
    let no_host = || KmsgError::Unavailable("no host".to_owned());
    world(|w| w.kmsg.read(after, most)).unwrap_or_else(|| Err(no_host()))
}

pub(crate) fn logs_read(wanted: &Selection, most: u32) -> Result<logs::Page, LogsError> {
    world(|w| w.lines.read(wanted, most, w.now()))
        .unwrap_or_else(|| Err(LogsError::Other("no host".to_owned())))
}

pub(crate) fn logs_hold(chunk: u32, bytes: u32) -> Result<(), LogsError> {
    world(|w| w.lines.hold(chunk, bytes)).unwrap_or_else(|| Err(LogsError::Other("no host".to_owned())))
}

pub(crate) fn logs_emit(batches: Vec<Batch>) -> Result<(), LogsError> {
    world(|w| w.lines.emit(batches)).unwrap_or_else(|| Err(LogsError::Other("no host".to_owned())))
}

pub(crate) fn command_start(name: &str, slots: &[(&str, &str)]) -> Result<u32, CommandError> {
    if held() && !world(|w| w.commands.reads.contains(name)).unwrap_or(false) {
        return Err(CommandError::Denied(format!("{HELD}: {name} is not granted with reads = true")));
    }
    // The world is free while the test's closure runs.
    let answer = world(|w| w.commands.answer.clone()).flatten();
    let answer = answer.ok_or_else(|| CommandError::Denied(name.to_owned()))?;
    let output = (answer.borrow_mut())(name, slots)?;
    world(|w| w.commands.started(output)).unwrap_or_else(|| Err(CommandError::Denied(name.to_owned())))
}

pub(crate) fn command_read(run: u32, most: u32) -> Result<Vec<u8>, CommandError> {
    world(|w| w.commands.read(run, most)).unwrap_or_else(|| Err(CommandError::Other("no host".to_owned())))
}

pub(crate) fn command_end(run: u32) -> Result<Output, CommandError> {
    world(|w| w.commands.end(run)).unwrap_or_else(|| Err(CommandError::Other("no host".to_owned())))
}

pub(crate) fn unix_send(socket: &str, request: &Request) -> Result<Response, HttpError> {
    if changes(request) {
        return Err(HttpError::Denied(HELD.to_owned()));
    }
    match world(|w| w.unix_http.clone()).flatten() {
        Some(answer) => (answer.borrow_mut())(socket, request),
        None => Err(HttpError::Denied(socket.to_owned())),
    }
}

fn no_engine<T>() -> Result<T, ContainersError> {
    Err(ContainersError::Denied("the test's host has no engine".to_owned()))
}

pub(crate) fn containers_list(all: bool) -> Result<Listing, ContainersError> {
    world(|w| w.engine.as_ref().map(|e| e.list(all))).flatten().map_or_else(no_engine, Ok)
}

pub(crate) fn containers_inspect(ids: &[String]) -> Vec<Result<String, ContainersError>> {
    let one = |id: &String| world(|w| w.engine.as_ref().map(|e| e.inspect(id))).flatten();
    ids.iter().map(|id| one(id).unwrap_or_else(no_engine)).collect()
}

pub(crate) fn containers_stats(ids: &[String]) -> Vec<Result<String, ContainersError>> {
    let one = |id: &String| world(|w| w.engine.as_ref().map(|e| e.stats_of(id))).flatten();
    ids.iter().map(|id| one(id).unwrap_or_else(no_engine)).collect()
}

pub(crate) fn containers_logs(
    id: &str,
    since_ns: Option<u64>,
    tail: Option<u32>,
) -> Result<LogPage, ContainersError> {
    world(|w| w.engine.as_ref().map(|e| e.logs(id, since_ns, tail))).flatten().unwrap_or_else(no_engine)
}
