//! Compiles one plugin, once, with little memory and time, and ends. The agent starts it as a child process and maps
//! what it wrote; the compiler is never part of the agent itself.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use rustix::process::{Resource, Rlimit, setrlimit};
use wasmtime::Engine;

/// Compiles a plugin for this machine.
#[derive(Debug, Parser)]
#[command(name = "picket-compile", version)]
struct Arguments {
    /// The component (.wasm).
    input: PathBuf,
    /// Where the compiled file goes; what stands there is replaced.
    output: PathBuf,
    /// The most address space, in bytes.
    #[arg(long, default_value_t = 2 << 30)]
    memory: u64,
    /// The most CPU time, in seconds.
    #[arg(long, default_value_t = 60)]
    cpu_seconds: u64,
}

/// The component is at fault.
const REFUSED: u8 = 2;
/// This machine is: a file, a limit.
const FAILED: u8 = 3;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(e) = bound(&arguments) {
        eprintln!("the limits could not be set: {e}");
        return ExitCode::from(FAILED);
    }
    let bytes = match std::fs::read(&arguments.input) {
        Ok(bytes) => bytes,
        Err(e) => {
            eprintln!("{} cannot be read: {e}", arguments.input.display());
            return ExitCode::from(FAILED);
        }
    };
    let compiled =
        Engine::new(&picket_agent_host::config()).and_then(|engine| engine.precompile_component(&bytes));
    match compiled {
        Ok(compiled) => match write(&arguments.output, &compiled) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("{} cannot be written: {e}", arguments.output.display());
                ExitCode::from(FAILED)
            }
        },
        Err(e) => {
            eprintln!("{e:#}");
            ExitCode::from(REFUSED)
        }
    }
}

/// Set by this process for itself, before it looks at the first foreign byte.
fn bound(arguments: &Arguments) -> std::io::Result<()> {
    let limit = |most: u64| Rlimit { current: Some(most), maximum: Some(most) };
    setrlimit(Resource::As, limit(arguments.memory))?;
    setrlimit(Resource::Cpu, limit(arguments.cpu_seconds))?;
    setrlimit(Resource::Core, limit(0))?;
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
