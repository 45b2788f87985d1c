//! The names of the commands that an operator grants; the manifest has the programs and arguments behind them.

use std::io::Read;

use picket_sdk::{Failure, command};

pub const PING: &str = "slurm-ping";
pub const NODES_JSON: &str = "slurm-nodes-json";
/// Before 23.02 `scontrol` has no JSON, but `sinfo` has nodes.
pub const NODES_JSON_OLD: &str = "slurm-nodes-json-old";
pub const JOBS_JSON: &str = "slurm-jobs-json";
pub const NODES: &str = "slurm-nodes";
pub const JOBS: &str = "slurm-jobs";
pub const PARTITIONS: &str = "slurm-partitions";
pub const RESERVATIONS: &str = "slurm-reservations";
pub const DIAG: &str = "slurm-diag";
pub const NODE_STATES: &str = "slurm-node-states";

/// Runs one and parses its output as it comes. What the command itself says of a failure comes before what the parser says.
pub fn read<T>(
    name: &str,
    parse: impl FnOnce(&mut command::Stream) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut stream = command::stream(name, &[])?;
    let parsed = parse(&mut stream);
    if let Some(failure) = stream.failure() {
        return Err(failure);
    }
    if parsed.is_ok() {
        // What comes after the end of the document: else the command would be killed while it ends.
        let mut rest = [0; 4096];
        while matches!(stream.read(&mut rest), Ok(n) if n > 0) {}
    }
    let output = stream.finish()?;
    // A negative status is our own doing: we stopped reading what could not be parsed.
    if output.status > 0 || parsed.is_ok() {
        output.success(name)?;
    }
    parsed
}

/// All of a small output, whatever the status; one that printed nothing failed.
pub fn text(name: &str, slots: &[(&str, &str)]) -> Result<String, Failure> {
    let output = command::run(name, slots)?;
    if output.stdout.is_empty() {
        output.success(name)?;
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// As [`text`], of one that must have succeeded.
pub fn sound(name: &str) -> Result<String, Failure> {
    let output = command::run(name, &[])?;
    Ok(String::from_utf8_lossy(output.success(name)?).into_owned())
}
