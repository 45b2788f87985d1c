//! The functions of WASI that answer, by name, and the word for "no" of those that don't.

use picket_agent_services::always::{Level, MAX_RANDOM, monotonic_ns, now_ns, random};
use wasmtime::StoreContextMut;
use wasmtime::component::types::{ComponentFunc, Type};
use wasmtime::component::{ResourceDynamic, Val};

use crate::guest::Guest;

pub(super) const POLLABLE: u32 = 1;
const INPUT: u32 = 2;
const OUTPUT: u32 = 3;
const ERROR: u32 = 4;
const NETWORK: u32 = 5;
/// Of these no handle is ever made.
const RESOURCES: [&str; 8] = [
    "descriptor",
    "directory-entry-stream",
    "tcp-socket",
    "udp-socket",
    "incoming-datagram-stream",
    "outgoing-datagram-stream",
    "resolve-address-stream",
    "terminal-input",
];

const STDOUT: u32 = 1;
const STDERR: u32 = 2;
/// What a stream takes at once.
const STREAM_BYTES: u64 = 4096;
/// What an interface may call its refusal, the best word first.
const REFUSALS: [&str; 6] =
    ["access-denied", "access", "not-permitted", "not-supported", "unsupported", "closed"];

/// A number for each resource that WASI 0.2 defines; their names are unlike.
pub(super) fn kind(resource: &str) -> u32 {
    match resource {
        "pollable" => POLLABLE,
        "input-stream" => INPUT,
        "output-stream" => OUTPUT,
        "error" => ERROR,
        "network" => NETWORK,
        other => RESOURCES
            .iter()
            .position(|name| *name == other)
            .and_then(|nth| u32::try_from(nth).ok())
            .map_or(u32::MAX, |nth| 100 + nth),
    }
}

/// A function that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    EmptyList,
    None,
    Exit,
    Stream(u32, u32),
    Network,
    Monotonic,
    WallClock,
    WallResolution,
    Nanosecond,
    Subscribe { relative: bool },
    SubscribeStream,
    Poll,
    Ready,
    Block,
    Closed,
    Room,
    Write,
    Done,
    RandomBytes,
    Random,
    Seed,
    ErrorText,
}

/// What is to be done to answer.
pub(super) enum Answer {
    Value(Val),
    Line { level: Level, lines: Vec<String>, then: Val },
    Wait { until: u64, then: Option<Val> },
    Poll(Vec<u64>),
}

/// The plugin is at fault.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("it ended itself (wasi:cli/exit)")]
    Exit,
    #[error("it wanted {0} random bytes at once, {MAX_RANDOM} are allowed")]
    Random(u64),
    #[error("it polled nothing at all")]
    PollsNothing,
    #[error("an argument is not of the type that WASI gives it")]
    Type,
}

impl Given {
    pub(super) fn of(interface: &str, function: &str) -> Option<Self> {
        Some(match (interface, function) {
            ("wasi:cli/environment", "get-environment" | "get-arguments")
            | ("wasi:filesystem/preopens", "get-directories") => Self::EmptyList,
            ("wasi:cli/environment", "initial-cwd")
            | ("wasi:cli/terminal-stdin", "get-terminal-stdin")
            | ("wasi:cli/terminal-stdout", "get-terminal-stdout")
            | ("wasi:cli/terminal-stderr", "get-terminal-stderr")
            | ("wasi:filesystem/types", "filesystem-error-code")
            | ("wasi:sockets/network", "network-error-code") => Self::None,
            ("wasi:cli/exit", _) => Self::Exit,
            ("wasi:cli/stdin", "get-stdin") => Self::Stream(INPUT, 0),
            ("wasi:cli/stdout", "get-stdout") => Self::Stream(OUTPUT, STDOUT),
            ("wasi:cli/stderr", "get-stderr") => Self::Stream(OUTPUT, STDERR),
            ("wasi:sockets/instance-network", "instance-network") => Self::Network,
            ("wasi:clocks/monotonic-clock", "now") => Self::Monotonic,
            ("wasi:clocks/monotonic-clock", "resolution") => Self::Nanosecond,
            ("wasi:clocks/monotonic-clock", "subscribe-instant") => Self::Subscribe { relative: false },
            ("wasi:clocks/monotonic-clock", "subscribe-duration") => Self::Subscribe { relative: true },
            ("wasi:clocks/wall-clock", "now") => Self::WallClock,
            ("wasi:clocks/wall-clock", "resolution") => Self::WallResolution,
            ("wasi:io/error", "[method]error.to-debug-string") => Self::ErrorText,
            ("wasi:io/poll", "poll") => Self::Poll,
            ("wasi:io/poll", "[method]pollable.ready") => Self::Ready,
            ("wasi:io/poll", "[method]pollable.block") => Self::Block,
            ("wasi:io/streams", method) => return Self::of_stream(method),
            ("wasi:random/random", "get-random-bytes")
            | ("wasi:random/insecure", "get-insecure-random-bytes") => Self::RandomBytes,
            ("wasi:random/random", "get-random-u64")
            | ("wasi:random/insecure", "get-insecure-random-u64") => Self::Random,
            ("wasi:random/insecure-seed", _) => Self::Seed,
            _ => return None,
        })
    }

    fn of_stream(method: &str) -> Option<Self> {
        let (_, method) = method.strip_prefix("[method]")?.split_once('.')?;
        Some(match method {
            "subscribe" => Self::SubscribeStream,
            "read" | "blocking-read" | "skip" | "blocking-skip" | "splice" | "blocking-splice" => {
                Self::Closed
            }
            "check-write" => Self::Room,
            "write" | "blocking-write-and-flush" => Self::Write,
            "flush" | "blocking-flush" | "write-zeroes" | "blocking-write-zeroes-and-flush" => Self::Done,
            _ => return None,
        })
    }

    pub(super) fn answer(
        self,
        store: &mut StoreContextMut<'_, Guest>,
        params: &[Val],
    ) -> wasmtime::Result<Answer> {
        Ok(Answer::Value(match self {
            Self::EmptyList => Val::List(Vec::new()),
            Self::None => Val::Option(None),
            Self::Exit => return Err(Fault::Exit.into()),
            Self::Stream(kind, rep) => handle(store, kind, rep)?,
            Self::Network => handle(store, NETWORK, 0)?,
            Self::Monotonic => Val::U64(monotonic_ns()),
            Self::Nanosecond => Val::U64(1),
            Self::WallClock => date_time(now_ns()),
            Self::WallResolution => date_time(1),
            Self::Subscribe { relative } => {
                let Some(Val::U64(time)) = params.first() else { return Err(Fault::Type.into()) };
                let at = if relative { monotonic_ns().saturating_add(*time) } else { *time };
                let rep = store.data_mut().wasi.pollable(at)?;
                handle(store, POLLABLE, rep)?
            }
            // What is closed and what takes everything is always ready.
            Self::SubscribeStream => {
                let rep = store.data_mut().wasi.pollable(0)?;
                handle(store, POLLABLE, rep)?
            }
            Self::Poll => {
                let Some(Val::List(list)) = params.first() else { return Err(Fault::Type.into()) };
                if list.is_empty() {
                    return Err(Fault::PollsNothing.into());
                }
                let at: wasmtime::Result<Vec<u64>> = list.iter().map(|v| when(store, Some(v))).collect();
                return Ok(Answer::Poll(at?));
            }
            Self::Ready => Val::Bool(when(store, params.first())? <= monotonic_ns()),
            Self::Block => return Ok(Answer::Wait { until: when(store, params.first())?, then: None }),
            Self::Closed => Val::Result(Err(Some(Box::new(Val::Variant("closed".to_owned(), None))))),
            Self::Room => Val::Result(Ok(Some(Box::new(Val::U64(STREAM_BYTES))))),
            Self::Write => {
                let (Some(stream), Some(Val::List(bytes))) = (params.first(), params.get(1)) else {
                    return Err(Fault::Type.into());
                };
                let error = rep(store, Some(stream))? == STDERR;
                let bytes: Vec<u8> =
                    bytes.iter().filter_map(|v| if let Val::U8(b) = v { Some(*b) } else { None }).collect();
                let lines = store.data_mut().wasi.write(error, &bytes);
                let level = if error { Level::Warn } else { Level::Info };
                return Ok(Answer::Line { level, lines, then: Val::Result(Ok(None)) });
            }
            Self::Done => Val::Result(Ok(None)),
            Self::RandomBytes => {
                let Some(Val::U64(len)) = params.first() else { return Err(Fault::Type.into()) };
                let len = u32::try_from(*len).ok().filter(|len| *len as usize <= MAX_RANDOM);
                let len = len.ok_or(Fault::Random(match params.first() {
                    Some(Val::U64(len)) => *len,
                    _ => 0,
                }))?;
                Val::List(random(len).into_iter().map(Val::U8).collect())
            }
            Self::Random => Val::U64(number()),
            Self::Seed => Val::Tuple(vec![Val::U64(number()), Val::U64(number())]),
            Self::ErrorText => Val::String("there is nothing behind this stream".to_owned()),
        }))
    }
}

/// What a function that gives nothing answers; none: it has no word for it.
pub(super) fn denied(ty: &ComponentFunc) -> Option<Val> {
    let Some(Type::Result(result)) = ty.results().next() else { return None };
    let refusal = |names: &[&str]| REFUSALS.iter().find(|word| names.contains(word)).map(|w| (*w).to_owned());
    let error = match result.err()? {
        Type::Enum(words) => Val::Enum(refusal(&words.names().collect::<Vec<_>>())?),
        Type::Variant(variant) => {
            let empty: Vec<&str> =
                variant.cases().filter(|case| case.ty.is_none()).map(|case| case.name).collect();
            Val::Variant(refusal(&empty)?, None)
        }
        _ => return None,
    };
    Some(Val::Result(Err(Some(Box::new(error)))))
}

fn handle(store: &mut StoreContextMut<'_, Guest>, kind: u32, rep: u32) -> wasmtime::Result<Val> {
    Ok(Val::Resource(ResourceDynamic::new_own(rep, kind).try_into_resource_any(store)?))
}

fn rep(store: &mut StoreContextMut<'_, Guest>, value: Option<&Val>) -> wasmtime::Result<u32> {
    let Some(Val::Resource(any)) = value else { return Err(Fault::Type.into()) };
    Ok(ResourceDynamic::try_from_resource_any(*any, store)?.rep())
}

fn when(store: &mut StoreContextMut<'_, Guest>, value: Option<&Val>) -> wasmtime::Result<u64> {
    let rep = rep(store, value)?;
    Ok(store.data().wasi.when(rep))
}

fn date_time(ns: u64) -> Val {
    let nanoseconds = u32::try_from(ns % 1_000_000_000).unwrap_or(0);
    Val::Record(vec![
        ("seconds".to_owned(), Val::U64(ns / 1_000_000_000)),
        ("nanoseconds".to_owned(), Val::U32(nanoseconds)),
    ])
}

fn number() -> u64 {
    random(8).into_iter().fold(0, |number, byte| number << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn resources_have_numbers_of_their_own() {
        let named = ["pollable", "input-stream", "output-stream", "error", "network", "terminal-output"];
        let all: BTreeSet<u32> = named.iter().chain(&RESOURCES).map(|name| kind(name)).collect();
        assert_eq!(all.len(), named.len() + RESOURCES.len());
    }

    #[test]
    fn nothing_of_files_or_sockets_is_given() {
        for (interface, function) in [
            ("wasi:filesystem/types", "[method]descriptor.open-at"),
            ("wasi:filesystem/types", "[method]descriptor.read"),
            ("wasi:sockets/tcp-create-socket", "create-tcp-socket"),
            ("wasi:sockets/udp-create-socket", "create-udp-socket"),
            ("wasi:sockets/ip-name-lookup", "resolve-addresses"),
            ("wasi:sockets/tcp", "[method]tcp-socket.start-connect"),
        ] {
            assert_eq!(Given::of(interface, function), None, "{interface} {function}");
        }
    }
}
