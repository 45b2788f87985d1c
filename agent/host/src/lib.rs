//! Loads, checks, links, limits and calls plugins. The only crate that names wasmtime.
//!
//! A plugin is never trusted: no guest is entered without a deadline, what it hands over is checked before anything else
//! sees it, and an instance that trapped or ran out of time is never entered again. What it may do to the node is
//! decided by [`picket_agent_services`], which this crate only relays to.

mod bindings;
mod check;
mod compiler;
mod component;
mod descriptors;
mod engine;
mod error;
mod fault;
mod guest;
mod host;
mod imports;
mod instance;
mod limits;
mod lines;
mod manifest;
mod plugin;
mod readings;
mod settings;
mod sink;

pub use check::{Checked, MAX_COMPONENT_BYTES, check, manifest_of};
pub use descriptors::keep_from_children;
pub use engine::config;
pub use error::{CODES, Code, ControlError, Failure, Fault, Phase, PluginError};
pub use host::{Host, HostError, HostOptions};
pub use limits::{AskedLimits, Limits};
pub use lines::LogRecord;
pub use manifest::{Manifest, SECTION as MANIFEST_SECTION};
pub use plugin::{CollectStats, Plugin, PluginInfo, PluginSpec, PluginState};
pub use sink::SampleSink;
