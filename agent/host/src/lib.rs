//! Loads, checks, links, limits and calls plugins. The only crate that names wasmtime.
//!
//! A plugin is never trusted: no guest is entered without a deadline, what it hands over is checked before anything else
//! sees it, and an instance that trapped or ran out of time is never entered again. What it may do to the node is
//! decided by [`picket_agent_services`], which this crate only relays to.

mod action;
mod ask;
mod bindings;
mod body;
mod call;
mod check;
mod code;
mod compiler;
mod component;
mod descriptors;
mod desk;
mod engine;
mod error;
mod fault;
mod former;
mod guest;
mod host;
mod imports;
mod instance;
mod limits;
mod lines;
mod local;
mod manifest;
mod memory;
mod plugin;
mod points;
mod readings;
mod settings;
mod sink;
mod source;
mod ticker;
#[doc(hidden)]
pub mod trial;
mod versions;
mod wall;
mod wasi;
mod words;
mod worker;

pub use action::{
    ActionApplied, ActionDefinition, ActionError, ActionInfo, ActionPlan, ActionPlugin, Declined, Step,
    Verdict,
};
pub use check::{Checked, MAX_COMPONENT_BYTES, check, check_action, manifest_of};
pub use descriptors::keep_from_children;
pub use engine::config;
pub use error::{CODES, Code, ControlError, Failure, Fault, Phase, PluginError};
pub use host::{Host, HostError, HostOptions};
pub use limits::{AskedLimits, Limits};
pub use lines::LogRecord;
pub use manifest::{Manifest, SECTION as MANIFEST_SECTION};
pub use memory::{Program, SETTLED_AFTER, one_heap};
pub use plugin::{CollectStats, Isolation, Plugin, PluginInfo, PluginSpec, PluginState};
pub use settings::schema_problems;
pub use sink::SampleSink;
pub use wall::{Part as WallPart, Standing, Wall, compiler as wall_compiler};
pub use worker::{
    REASONS as WORKER_REASONS, WorkerOptions, WorkerTotals, Workers, main as worker_main, probe,
};
