//! Compiles one plugin, once, with little memory and time, and ends. The agent starts it as a child process; the compiler is
//! never part of the agent itself.
//!
//! It looks at strangers' bytes, so it walls itself in before the first of them: the component comes open on standard input,
//! the compiled file goes to standard output, and there is nothing else that it could reach.

use std::io::{self, Read};
use std::process::ExitCode;

use clap::Parser;
use picket_agent_host::{WallPart, wall_compiler};
use rustix::process::{Resource, Rlimit, setrlimit};
use wasmtime::Engine;

/// Compiles a plugin for this machine: a component on standard input, what was compiled on standard output.
#[derive(Debug, Parser)]
#[command(name = "picket-compile", version)]
struct Arguments {
    /// The most address space, in bytes.
    #[arg(long, default_value_t = 2 << 30)]
    memory: u64,
    /// The most CPU time, in seconds.
    #[arg(long, default_value_t = 60)]
    cpu_seconds: u64,
    /// The user and group to become, where that is allowed.
    #[arg(long, requires = "gid")]
    uid: Option<u32>,
    #[arg(long, requires = "uid")]
    gid: Option<u32>,
    /// Parts of the wall without which nothing is compiled.
    #[arg(long)]
    require: Vec<String>,
}

/// The component is at fault.
const REFUSED: u8 = 2;
/// This machine is: a file, a limit.
const FAILED: u8 = 3;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(e) = bound(&arguments).map_err(|e| e.to_string()).and_then(|()| wall(&arguments)) {
        return failed(&format!("the wall could not be raised: {e}"));
    }
    let mut bytes = Vec::new();
    if let Err(e) = io::stdin().lock().read_to_end(&mut bytes) {
        return failed(&format!("the component cannot be read: {e}"));
    }
    let compiled =
        Engine::new(&picket_agent_host::config()).and_then(|engine| engine.precompile_component(&bytes));
    match compiled {
        Ok(compiled) => match write(&compiled) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => failed(&format!("the compiled file cannot be written: {e}")),
        },
        Err(e) => {
            eprintln!("{e:#}");
            ExitCode::from(REFUSED)
        }
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::from(FAILED)
}

/// Not by `Stdout`, which looks for ends of lines.
fn write(compiled: &[u8]) -> io::Result<()> {
    let output = io::stdout();
    let mut rest = compiled;
    while !rest.is_empty() {
        let count = rustix::io::write(&output, rest)?;
        rest = rest.get(count..).unwrap_or_default();
    }
    Ok(rustix::fs::fsync(&output)?)
}

/// Set by this process for itself, before it looks at the first foreign byte.
fn bound(arguments: &Arguments) -> io::Result<()> {
    let most = Some(arguments.cpu_seconds);
    Ok(setrlimit(Resource::Cpu, Rlimit { current: most, maximum: most })?)
}

fn wall(arguments: &Arguments) -> Result<(), String> {
    let known = |word: &String| WallPart::ALL.into_iter().find(|part| part.word() == word);
    let required: Option<Vec<WallPart>> = arguments.require.iter().map(known).collect();
    let required = required.ok_or("--require names a part that is not known")?;
    wall_compiler(arguments.memory, arguments.uid.zip(arguments.gid), &required)
}
