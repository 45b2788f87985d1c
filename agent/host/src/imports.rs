//! The host's side of the contract's imports: conversion of types and nothing else. Every effect lies in
//! [`picket_agent_services`] behind a grant.

mod command;
mod containers;
mod containers_control;
mod files_write;
mod kmsg;
mod logs;
mod nvml;
mod systemd_control;
mod unix_http;

use picket_agent_services::grants::Capability;
use picket_agent_services::{Request, Response, always, files, http, store, system};
use picket_proto::model::{MetricType, Part, Severity};

pub(crate) use crate::ask::NoGrant;
use crate::ask::{AnswerTooLarge, Ask, Mismatch, Told};
use crate::bindings::picket::host as wit;
use crate::bindings::picket::source::sink;
use crate::bindings::picket::types::types;
use crate::guest::Guest;
use crate::points::{Ids, Points, TimedPoints};
use crate::readings::{Asked, Declared, Happened, Refused};

impl Guest {
    /// An effect on the node, which is done where the grants are.
    async fn ask(&self, capability: Capability, request: Request) -> wasmtime::Result<Response> {
        match self.door.ask(Ask::Effect(request)).await? {
            Told::Effect(response) => Ok(response),
            Told::TooLarge => Err(AnswerTooLarge.into()),
            _ => Err(NoGrant(capability).into()),
        }
    }

    async fn ask_numbers(&self, ask: Ask) -> wasmtime::Result<Result<Vec<u32>, sink::SinkError>> {
        match self.door.ask(ask).await? {
            Told::Numbers(answer) => Ok(answer.map_err(Into::into)),
            _ => Err(Mismatch("sink").into()),
        }
    }

    async fn ask_done(&self, ask: Ask) -> wasmtime::Result<Result<(), Refused>> {
        match self.door.ask(ask).await? {
            Told::Done(answer) => Ok(answer),
            _ => Err(Mismatch("sink").into()),
        }
    }

    async fn ask_files(
        &self,
        request: files::Request,
    ) -> wasmtime::Result<Result<files::Answer, wit::files::FilesError>> {
        match self.ask(Capability::Files, Request::Files(request)).await? {
            Response::Files(answer) => Ok(answer.map_err(Into::into)),
            _ => Err(NoGrant(Capability::Files).into()),
        }
    }

    async fn ask_store(
        &self,
        request: store::Request,
    ) -> wasmtime::Result<Result<store::Answer, wit::store::StoreError>> {
        match self.ask(Capability::Store, Request::Store(request)).await? {
            Response::Store(answer) => Ok(answer.map_err(Into::into)),
            _ => Err(NoGrant(Capability::Store).into()),
        }
    }
}

impl types::Host for Guest {}

impl sink::Host for Guest {
    async fn declare(
        &mut self,
        families: Vec<types::Family>,
    ) -> wasmtime::Result<Result<Vec<u32>, sink::SinkError>> {
        self.ask_numbers(Ask::Declare(families.into_iter().map(Into::into).collect())).await
    }

    async fn register(
        &mut self,
        series: Vec<sink::SeriesDefinition>,
    ) -> wasmtime::Result<Result<Vec<u32>, sink::SinkError>> {
        let mut list = Vec::with_capacity(series.len());
        for definition in series {
            match part(definition.part) {
                Ok(part) => {
                    let labels = pairs(definition.labels);
                    list.push(Asked { family: definition.family, part, labels });
                }
                Err(why) => return self.ask_numbers(Ask::Unfit(why)).await,
            }
        }
        self.ask_numbers(Ask::Register(list)).await
    }

    async fn push(&mut self, points: Vec<sink::Point>) -> wasmtime::Result<Result<(), sink::SinkError>> {
        let points = Points(points.into_iter().map(|p| (p.series, p.value)).collect());
        Ok(self.ask_done(Ask::Push(points)).await?.map_err(Into::into))
    }

    async fn push_timed(
        &mut self,
        points: Vec<sink::TimedPoint>,
    ) -> wasmtime::Result<Result<(), sink::SinkError>> {
        let points = TimedPoints(points.into_iter().map(|p| (p.series, p.value, p.timestamp)).collect());
        Ok(self.ask_done(Ask::PushTimed(points)).await?.map_err(Into::into))
    }

    async fn retire(&mut self, series: Vec<u32>) -> wasmtime::Result<Result<(), sink::SinkError>> {
        Ok(self.ask_done(Ask::Retire(Ids(series))).await?.map_err(Into::into))
    }

    async fn emit(&mut self, events: Vec<types::Event>) -> wasmtime::Result<Result<(), sink::SinkError>> {
        let events = events.into_iter().map(Into::into).collect();
        Ok(self.ask_done(Ask::Emit(events)).await?.map_err(Into::into))
    }

    async fn fail(&mut self, reason: String, message: String) -> wasmtime::Result<()> {
        // Nothing of it can be refused.
        self.ask_done(Ask::Fail { reason, message }).await.map(drop)
    }
}

impl wit::log::Host for Guest {
    async fn write(&mut self, level: wit::log::Level, message: String) -> wasmtime::Result<()> {
        let level = match level {
            wit::log::Level::Debug => always::Level::Debug,
            wit::log::Level::Info | wit::log::Level::Other(_) => always::Level::Info,
            wit::log::Level::Warn => always::Level::Warn,
            wit::log::Level::Error => always::Level::Error,
        };
        self.ask_done(Ask::Log(level, message)).await.map(drop)
    }
}

impl wit::clock::Host for Guest {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(always::now_ns())
    }

    fn monotonic(&mut self) -> wasmtime::Result<u64> {
        Ok(always::monotonic_ns())
    }
}

impl wit::random::Host for Guest {
    fn bytes(&mut self, len: u32) -> wasmtime::Result<Vec<u8>> {
        Ok(always::random(len))
    }
}

impl wit::system::Host for Guest {
    async fn uname(&mut self) -> wasmtime::Result<wit::system::UnameInfo> {
        match self.ask(Capability::System, Request::System(system::Request::Uname)).await? {
            Response::System(system::Answer::Uname(u)) => Ok(wit::system::UnameInfo {
                sysname: u.sysname,
                nodename: u.nodename,
                release: u.release,
                version: u.version,
                machine: u.machine,
                domainname: u.domainname,
            }),
            _ => Err(NoGrant(Capability::System).into()),
        }
    }

    async fn local_time_zone(&mut self) -> wasmtime::Result<wit::system::TimeZone> {
        match self.ask(Capability::System, Request::System(system::Request::LocalTimeZone)).await? {
            Response::System(system::Answer::TimeZone(z)) => {
                Ok(wit::system::TimeZone { name: z.name, offset_seconds: z.offset_seconds })
            }
            _ => Err(NoGrant(Capability::System).into()),
        }
    }
}

impl wit::store::Host for Guest {
    async fn get(
        &mut self,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, wit::store::StoreError>> {
        match self.ask_store(store::Request::Get { key }).await? {
            Ok(store::Answer::Value(value)) => Ok(Ok(value.map(|value| value.0))),
            Ok(_) => Err(NoGrant(Capability::Store).into()),
            Err(e) => Ok(Err(e)),
        }
    }

    async fn set(
        &mut self,
        key: String,
        value: Vec<u8>,
        ttl: Option<u64>,
    ) -> wasmtime::Result<Result<(), wit::store::StoreError>> {
        Ok(self.ask_store(store::Request::Set { key, value, ttl }).await?.map(|_| ()))
    }

    async fn delete(&mut self, key: String) -> wasmtime::Result<Result<(), wit::store::StoreError>> {
        Ok(self.ask_store(store::Request::Delete { key }).await?.map(|_| ()))
    }

    async fn keys(
        &mut self,
        prefix: String,
    ) -> wasmtime::Result<Result<Vec<String>, wit::store::StoreError>> {
        match self.ask_store(store::Request::Keys { prefix }).await? {
            Ok(store::Answer::Keys(keys)) => Ok(Ok(keys)),
            Ok(_) => Err(NoGrant(Capability::Store).into()),
            Err(e) => Ok(Err(e)),
        }
    }
}

impl wit::files::Host for Guest {
    async fn read(&mut self, path: String) -> wasmtime::Result<Result<Vec<u8>, wit::files::FilesError>> {
        match self.ask_files(files::Request::Read { path }).await? {
            Ok(files::Answer::Bytes(bytes)) => Ok(Ok(bytes)),
            Ok(_) => Err(NoGrant(Capability::Files).into()),
            Err(e) => Ok(Err(e)),
        }
    }

    async fn read_many(
        &mut self,
        paths: Vec<String>,
    ) -> wasmtime::Result<Vec<Result<Vec<u8>, wit::files::FilesError>>> {
        match self.ask_files(files::Request::ReadMany { paths }).await? {
            Ok(files::Answer::Many(answers)) => {
                Ok(answers.into_iter().map(|a| a.map(|bytes| bytes.0).map_err(Into::into)).collect())
            }
            _ => Err(NoGrant(Capability::Files).into()),
        }
    }

    async fn list_directory(
        &mut self,
        path: String,
    ) -> wasmtime::Result<Result<Vec<wit::files::Entry>, wit::files::FilesError>> {
        match self.ask_files(files::Request::ListDirectory { path }).await? {
            Ok(files::Answer::Entries(entries)) => Ok(Ok(entries.into_iter().map(Into::into).collect())),
            Ok(_) => Err(NoGrant(Capability::Files).into()),
            Err(e) => Ok(Err(e)),
        }
    }

    async fn read_link(&mut self, path: String) -> wasmtime::Result<Result<String, wit::files::FilesError>> {
        match self.ask_files(files::Request::ReadLink { path }).await? {
            Ok(files::Answer::Target(target)) => Ok(Ok(target)),
            Ok(_) => Err(NoGrant(Capability::Files).into()),
            Err(e) => Ok(Err(e)),
        }
    }

    async fn modified(&mut self, path: String) -> wasmtime::Result<Result<u64, wit::files::FilesError>> {
        match self.ask_files(files::Request::Modified { path }).await? {
            Ok(files::Answer::Modified(time)) => Ok(Ok(time)),
            Ok(_) => Err(NoGrant(Capability::Files).into()),
            Err(e) => Ok(Err(e)),
        }
    }

    async fn stat_file_system(
        &mut self,
        path: String,
    ) -> wasmtime::Result<Result<wit::files::FileSystem, wit::files::FilesError>> {
        let mut answers = wit::files::Host::stat_file_systems(self, vec![path]).await?;
        answers.pop().ok_or_else(|| NoGrant(Capability::Files).into())
    }

    async fn stat_file_systems(
        &mut self,
        paths: Vec<String>,
    ) -> wasmtime::Result<Vec<Result<wit::files::FileSystem, wit::files::FilesError>>> {
        match self.ask_files(files::Request::StatFileSystems { paths }).await? {
            Ok(files::Answer::FileSystems(answers)) => {
                Ok(answers.into_iter().map(|a| a.map(Into::into).map_err(Into::into)).collect())
            }
            _ => Err(NoGrant(Capability::Files).into()),
        }
    }
}

impl wit::http::Host for Guest {
    async fn send(
        &mut self,
        request: wit::http::Request,
    ) -> wasmtime::Result<Result<wit::http::Response, wit::http::HttpError>> {
        let mut answers = wit::http::Host::send_many(self, vec![request]).await?;
        answers.pop().ok_or_else(|| NoGrant(Capability::Http).into())
    }

    async fn send_many(
        &mut self,
        requests: Vec<wit::http::Request>,
    ) -> wasmtime::Result<Vec<Result<wit::http::Response, wit::http::HttpError>>> {
        let requests = requests.into_iter().map(Into::into).collect();
        match self.ask(Capability::Http, Request::Http(requests)).await? {
            Response::Http(answers) => {
                Ok(answers.into_iter().map(|a| a.map(Into::into).map_err(Into::into)).collect())
            }
            _ => Err(NoGrant(Capability::Http).into()),
        }
    }
}

fn pairs(labels: Vec<types::Label>) -> Vec<(String, String)> {
    labels.into_iter().map(|l| (l.name, l.value)).collect()
}

fn part(part: types::Part) -> Result<Part, String> {
    Ok(match part {
        types::Part::Value => Part::Value,
        types::Part::Bucket => Part::Bucket,
        types::Part::Sum => Part::Sum,
        types::Part::Count => Part::Count,
        types::Part::Quantile => Part::Quantile,
        types::Part::Other(word) => {
            let shown: String = word.chars().take(64).collect();
            return Err(format!("this host does not know the part {shown:?}"));
        }
    })
}

impl From<types::Family> for Declared {
    fn from(f: types::Family) -> Self {
        let metric_type = match f.type_ {
            types::MetricType::Gauge => MetricType::Gauge,
            types::MetricType::Counter => MetricType::Counter,
            types::MetricType::Histogram => MetricType::Histogram,
            types::MetricType::Summary => MetricType::Summary,
            types::MetricType::Info => MetricType::Info,
            types::MetricType::StateSet => MetricType::StateSet,
            types::MetricType::Unknown | types::MetricType::Other(_) => MetricType::Unknown,
        };
        Self { name: f.name, metric_type, unit: f.unit, help: f.help, label_names: f.label_names }
    }
}

impl From<types::Event> for Happened {
    fn from(e: types::Event) -> Self {
        Self {
            kind: e.kind,
            severity: match e.severity {
                types::Severity::Info | types::Severity::Other(_) => Severity::Info,
                types::Severity::Warning => Severity::Warning,
                types::Severity::Critical => Severity::Critical,
            },
            subject: (e.subject.kind, e.subject.id),
            message: e.message,
            attributes: pairs(e.attributes),
            key: e.key,
            clear: e.clear,
            timestamp: e.timestamp,
        }
    }
}

impl From<Refused> for sink::SinkError {
    fn from(e: Refused) -> Self {
        match e {
            Refused::Quota { message, fits } => Self::Quota(sink::Over { message, fits }),
            Refused::Invalid(m) => Self::Invalid(m),
            Refused::UnknownId(id) => Self::UnknownId(id),
            Refused::Other(m) => Self::Other(m),
        }
    }
}

impl From<files::Error> for wit::files::FilesError {
    fn from(e: files::Error) -> Self {
        match e {
            files::Error::Denied(m) => Self::Denied(m),
            files::Error::NotFound(m) => Self::NotFound(m),
            files::Error::WrongKind(m) => Self::WrongKind(m),
            files::Error::TooLarge(m) => Self::TooLarge(m),
            files::Error::TimedOut(m) => Self::TimedOut(m),
            files::Error::Io(m) => Self::Io(m),
        }
    }
}

impl From<files::FileSystem> for wit::files::FileSystem {
    fn from(s: files::FileSystem) -> Self {
        Self {
            size_bytes: s.size_bytes,
            free_bytes: s.free_bytes,
            available_bytes: s.available_bytes,
            files: s.files,
            files_free: s.files_free,
            read_only: s.read_only,
        }
    }
}

impl From<files::Entry> for wit::files::Entry {
    fn from(e: files::Entry) -> Self {
        let kind = match e.kind {
            files::EntryKind::File => wit::files::EntryKind::File,
            files::EntryKind::Directory => wit::files::EntryKind::Directory,
            files::EntryKind::Link => wit::files::EntryKind::Link,
            files::EntryKind::Other => wit::files::EntryKind::Other(String::new()),
        };
        Self { name: e.name, kind }
    }
}

impl From<store::Error> for wit::store::StoreError {
    fn from(e: store::Error) -> Self {
        match e {
            store::Error::Full(m) => Self::Full(m),
            store::Error::Other(m) => Self::Other(m),
        }
    }
}

impl From<wit::http::Request> for http::Request {
    fn from(r: wit::http::Request) -> Self {
        Self {
            method: r.method,
            url: r.url,
            headers: pairs(r.headers),
            body: r.body,
            timeout: r.timeout,
            secret: r.secret,
        }
    }
}

impl From<http::Answer> for wit::http::Response {
    fn from(a: http::Answer) -> Self {
        let headers = a.headers.into_iter().map(|(name, value)| types::Label { name, value }).collect();
        Self { status: a.status, headers, body: a.body }
    }
}

impl From<http::Error> for wit::http::HttpError {
    fn from(e: http::Error) -> Self {
        match e {
            http::Error::Denied(m) => Self::Denied(m),
            http::Error::Invalid(m) => Self::Invalid(m),
            http::Error::Unreachable(m) => Self::Unreachable(m),
            http::Error::TimedOut(m) => Self::TimedOut(m),
            http::Error::TooLarge(m) => Self::TooLarge(m),
            http::Error::Malformed(m) => Self::Malformed(m),
            http::Error::Tls(m) => Self::Tls(m),
        }
    }
}
