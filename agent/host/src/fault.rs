//! From what ended a call to what a person reads: what the engine says becomes a [`Stopped`], and that a [`PluginError`].

use picket_proto::model::PluginId;
use wasmtime::Trap;

use crate::PluginError;
use crate::ask::NoGrant;
use crate::call::Stopped;
use crate::error::Phase;
use crate::error::codes;
use crate::guest::{OverMemory, OverTable, OverTime};

/// The error for a call that did not end by itself. Its texts may be anybody's.
pub(crate) fn stopped(plugin: &PluginId, phase: Phase, stopped: Stopped) -> PluginError {
    let (code, message) = match stopped {
        Stopped::TimedOut(limit) => (
            &codes::CALL_TIME,
            format!("it did not return within the {} ms that call_time allows", limit.as_millis()),
        ),
        Stopped::OverTime(limit) => (&codes::GUEST_TIME, format!("it used {}", OverTime(limit))),
        Stopped::OverMemory { wanted, limit } => (&codes::MEMORY, over_memory(wanted, limit)),
        Stopped::Resources(text) => (&codes::RESOURCES, one_line(&text)),
        Stopped::Hostcall => {
            (&codes::HOSTCALL, "it passed more data in one host call than hostcall_bytes allows".to_owned())
        }
        Stopped::Stack => (&codes::STACK, "its call stack is exhausted".to_owned()),
        Stopped::Trapped(kind) => (&codes::TRAP, format!("it trapped: {}", one_line(&kind))),
        Stopped::Rules(text) => {
            (&codes::TRAP, format!("it broke the component model's rules: {}", one_line(&text)))
        }
        Stopped::NoGrant(text) => (&codes::HOST, one_line(&text)),
        Stopped::Lost(why) => (&codes::WORKER, one_line(&why)),
        Stopped::NoRoom(why) => (&codes::NO_WORKER, one_line(&why)),
    };
    PluginError::new(plugin, phase, code, message)
}

/// What the engine says of it.
pub(crate) fn cause(trap: &wasmtime::Error) -> Stopped {
    if let Some(over) = trap.downcast_ref::<OverTime>() {
        return Stopped::OverTime(over.0);
    }
    if let Some(over) = trap.downcast_ref::<OverMemory>() {
        return Stopped::OverMemory { wanted: over.wanted as u64, limit: over.limit as u64 };
    }
    if let Some(over) = trap.downcast_ref::<OverTable>() {
        return Stopped::Resources(over.to_string());
    }
    if let Some(none) = trap.downcast_ref::<NoGrant>() {
        return Stopped::NoGrant(none.to_string());
    }
    let text = chain(trap);
    match trap.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => Stopped::Stack,
        Some(kind) => Stopped::Trapped(kind.to_string()),
        // The engine keeps the types of these two to itself.
        None if text.contains("fuel allocated for hostcalls") => Stopped::Hostcall,
        None if text.contains("resource limit exceeded") => Stopped::Resources(text),
        None => Stopped::Rules(text),
    }
}

fn over_memory(wanted: u64, limit: u64) -> String {
    format!("it wanted {wanted} bytes of memory, {limit} are allowed")
}

fn one_line(text: &str) -> String {
    text.chars().take(1000).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The engine's error with its causes, on one line.
pub(crate) fn chain(error: &wasmtime::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !parts.iter().any(|p| p.contains(&text)) {
            parts.push(text);
        }
    }
    one_line(&parts.join(": "))
}
