//! `picket enroll`: the agent enrols itself, because the key is made on the node and stays there. This only finds it.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

const AGENT: &str = "picket-agent";

#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    #[error(
        "enrolling needs {AGENT}, which is neither beside this program nor in PATH; install the agent on this node"
    )]
    Missing,
    #[error("cannot run {}: {source}", program.display())]
    Run { program: PathBuf, source: io::Error },
}

/// Becomes `picket-agent enroll` with these arguments; returns only where that fails.
pub fn run(arguments: &[OsString]) -> EnrollError {
    let beside =
        std::env::current_exe().ok().map(|exe| exe.with_file_name(AGENT)).filter(|path| path.is_file());
    let program = beside.unwrap_or_else(|| PathBuf::from(AGENT));
    let Err(source) = become_program(&program, arguments);
    match source.kind() {
        io::ErrorKind::NotFound => EnrollError::Missing,
        _ => EnrollError::Run { program, source },
    }
}

fn become_program(program: &PathBuf, arguments: &[OsString]) -> Result<Infallible, io::Error> {
    Err(Command::new(program).arg("enroll").args(arguments).exec())
}
