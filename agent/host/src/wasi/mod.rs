//! What stands behind the imports of WASI 0.2 that the runtimes of other languages bring along (Python's, QuickJS', the C
//! library's): nothing of the node.
//!
//! No file, no socket, no argument, no environment: a directory has no preopen to begin at, a socket is denied. What works
//! is what every plugin has anyway: the clock, random bytes, waiting for a time, and standard output, whose lines go to
//! the plugin's log with its limits. So a component that imports this is admitted like any other and gets no grant by it.
//!
//! Nothing of `wasmtime-wasi` is linked. The functions are made from what the component imports, by a table of names:
//! what is not in the table answers with the interface's own word for "denied" where it has one, and stops the plugin
//! where it has none. All of it happens where the plugin runs; nothing here can reach the node.

mod state;
mod table;

use std::sync::Arc;

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, ResourceType, Val};
use wasmtime::{Engine, StoreContextMut};

use crate::guest::Guest;

pub(crate) use state::Wasi;
use table::{Answer, Given, kind};

/// The interfaces of `wasi:cli/imports` and of what it includes, each with its package.
const INTERFACES: [&str; 28] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
    "wasi:clocks/timezone",
];

/// Whether an import is one of those that are answered here.
pub(crate) fn is_known(import: &str) -> bool {
    interface(import).is_some()
}

/// `wasi:io/poll` of `wasi:io/poll@0.2.6`.
fn interface(import: &str) -> Option<&str> {
    let (name, version) = import.split_once('@')?;
    let patch = version.strip_prefix("0.2.")?;
    let plain = !patch.is_empty() && patch.len() < 10 && patch.bytes().all(|b| b.is_ascii_digit());
    (plain && INTERFACES.contains(&name)).then_some(name)
}

/// Links what of WASI the component imports.
pub(crate) fn link(linker: &mut Linker<Guest>, component: &Component) -> wasmtime::Result<()> {
    let engine: Engine = linker.engine().clone();
    for (import, item) in component.component_type().imports(&engine) {
        let (Some(name), ComponentItem::ComponentInstance(instance)) = (interface(import), item.ty) else {
            continue;
        };
        let mut linked = linker.instance(import)?;
        for (item_name, item) in instance.exports(&engine) {
            match item.ty {
                ComponentItem::Resource(_) => {
                    let kind = kind(item_name);
                    linked.resource(item_name, ResourceType::host_dynamic(kind), move |mut store, rep| {
                        store.data_mut().wasi.drop_handle(kind, rep);
                        Ok(())
                    })?;
                }
                ComponentItem::ComponentFunc(ty) => {
                    let given = Given::of(name, item_name);
                    let denied = table::denied(&ty);
                    let called: Arc<str> = format!("{name}#{item_name}").into();
                    linked.func_new_async(item_name, move |store, _, params, results| {
                        Box::new(call(store, given, denied.clone(), called.clone(), params, results))
                    })?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

async fn call<'a>(
    mut store: StoreContextMut<'a, Guest>,
    given: Option<Given>,
    denied: Option<Val>,
    called: Arc<str>,
    params: &'a [Val],
    results: &'a mut [Val],
) -> wasmtime::Result<()> {
    let answer = match given {
        None => match denied {
            Some(denied) => Answer::Value(denied),
            None => return Err(Nothing(called).into()),
        },
        Some(given) => given.answer(&mut store, params)?,
    };
    let value = match answer {
        Answer::Value(value) => Some(value),
        Answer::Line { level, lines, then } => {
            for line in lines {
                store.data().door.ask(crate::ask::Ask::Log(level, line)).await?;
            }
            Some(then)
        }
        Answer::Wait { until, then } => {
            state::wait(until).await;
            then
        }
        Answer::Poll(polled) => {
            state::wait(state::earliest(&polled)).await;
            Some(state::ready(&polled))
        }
    };
    match (results.first_mut(), value) {
        (Some(place), Some(value)) => {
            *place = value;
            Ok(())
        }
        (None, None) => Ok(()),
        _ => Err(Nothing(called).into()),
    }
}

/// The plugin called something that gives nothing here, and that has no way to say so.
#[derive(Debug, thiserror::Error)]
#[error("it called {0}, which gives a plugin nothing; the interfaces picket:host/* are what it has instead")]
struct Nothing(Arc<str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for known in ["wasi:io/poll@0.2.0", "wasi:cli/environment@0.2.12", "wasi:sockets/tcp@0.2.6"] {
            assert!(is_known(known), "{known}");
        }
        for other in [
            "wasi:io/poll",
            "wasi:io/poll@0.3.0",
            "wasi:io/poll@0.2.",
            "wasi:io/poll@0.2.0-rc",
            "wasi:http/outgoing-handler@0.2.0",
            "picket:host/files@0.1.0",
        ] {
            assert!(!is_known(other), "{other}");
        }
    }
}
