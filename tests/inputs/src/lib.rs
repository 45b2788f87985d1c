//! What strangers can send, one function each: any bytes go in, and nothing may come of them but an answer. No panic, no
//! hang, no memory without bound.
//!
//! The functions are what `tests/fuzz` is driven with. The test here gives them their seeds and the crashes of former
//! days, so that they keep building and what was mended stays so.

#[cfg(feature = "daemons")]
mod daemons;
mod files;
mod plugins;
mod wire;

use std::path::{Path, PathBuf};

/// One kind of input.
pub struct Input {
    /// The name of the fuzz target, and of the seeds' folder.
    pub name: &'static str,
    pub run: fn(&[u8]),
}

/// All of them.
pub const INPUTS: &[Input] = &[
    Input { name: "manifest", run: files::manifest },
    Input { name: "signature", run: files::signature },
    Input { name: "nvml_scenario", run: files::nvml_scenario },
    Input { name: "spool", run: files::spool },
    Input { name: "nvml_frames", run: wire::nvml_frames },
    Input { name: "uplink", run: wire::uplink },
    Input { name: "columns", run: wire::columns },
    Input { name: "exposition", run: plugins::exposition },
    Input { name: "log_lines", run: plugins::log_lines },
    Input { name: "slurm", run: plugins::slurm },
    #[cfg(feature = "daemons")]
    Input { name: "component", run: daemons::component },
    #[cfg(feature = "daemons")]
    Input { name: "worker_frames", run: daemons::worker_frames },
    #[cfg(feature = "daemons")]
    Input { name: "agent_config", run: daemons::agent_config },
    #[cfg(feature = "daemons")]
    Input { name: "aggregator_config", run: daemons::aggregator_config },
    #[cfg(feature = "daemons")]
    Input { name: "logql", run: daemons::logql },
    #[cfg(feature = "daemons")]
    Input { name: "log_push", run: daemons::log_push },
];

/// Runs the one of this name.
///
/// # Panics
/// There is none, or the code under test has a fault.
pub fn run(name: &str, bytes: &[u8]) {
    let input = INPUTS.iter().find(|input| input.name == name);
    (input.unwrap_or_else(|| panic!("there is no input {name}")).run)(bytes);
}

/// Where an input's own seeds lie, and what crashed once.
pub fn seeds(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name)
}
