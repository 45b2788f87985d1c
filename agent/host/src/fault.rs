//! From what ended a call to what a person reads.

use picket_proto::model::PluginId;
use wasmtime::Trap;

use crate::PluginError;
use crate::error::Phase;
use crate::error::codes;
use crate::guest::{OverMemory, OverTable, OverTime};
use crate::imports::NoGrant;
use crate::instance::Stopped;

/// The error for a call that did not end by itself.
pub(crate) fn stopped(plugin: &PluginId, phase: Phase, stopped: Stopped) -> PluginError {
    let error = |code, message: String| PluginError::new(plugin, phase, code, message);
    let trap = match stopped {
        Stopped::TimedOut(limit) => {
            let message =
                format!("it did not return within the {} ms that call_time allows", limit.as_millis());
            return error(&codes::CALL_TIME, message);
        }
        Stopped::Trapped(trap) => trap,
    };
    if let Some(over) = trap.downcast_ref::<OverTime>() {
        return error(&codes::GUEST_TIME, format!("it used {over}"));
    }
    if let Some(over) = trap.downcast_ref::<OverMemory>() {
        return error(&codes::MEMORY, over.to_string());
    }
    if let Some(over) = trap.downcast_ref::<OverTable>() {
        return error(&codes::RESOURCES, over.to_string());
    }
    if let Some(none) = trap.downcast_ref::<NoGrant>() {
        return error(&codes::HOST, none.to_string());
    }
    let text = chain(&trap);
    match trap.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => error(&codes::STACK, "its call stack is exhausted".to_owned()),
        Some(kind) => error(&codes::TRAP, format!("it trapped: {kind}")),
        // The engine keeps the types of these two to itself.
        None if text.contains("fuel allocated for hostcalls") => error(
            &codes::HOSTCALL,
            "it passed more data in one host call than hostcall_bytes allows".to_owned(),
        ),
        None if text.contains("resource limit exceeded") => error(&codes::RESOURCES, text),
        None => error(&codes::TRAP, format!("it broke the component model's rules: {text}")),
    }
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
    parts.join(": ").chars().take(1000).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
