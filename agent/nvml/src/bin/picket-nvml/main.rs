//! `picket-nvml`: asks the NVIDIA driver on the agent's behalf, see the library's header for why it is a process.
//!
//! Three threads. The first one reads the agent's questions and ends the process when the agent has gone, when the
//! driver isn't there, or when a call takes longer than `--timeout-ms`; it never calls the library. The second one
//! does, for snapshots, the third one for events. There is no runtime in it: it sits in memory on every GPU node.

mod code;
mod events;
mod ffi;
mod gpu;
mod links;
mod profiling;
mod read;
mod sheet;
mod watch;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use picket_agent_nvml::{Ask, Tell};

use code::Code;
use ffi::{Library, Session};
use read::Reader;
use watch::Watch;

/// The driver's own name for it, found where the system keeps its libraries.
const LIBRARY: &str = "libnvidia-ml.so.1";
const USAGE: &str = "usage: picket-nvml [--library FILE] [--timeout-ms N]: \
                     started by picket-agent, which speaks to it over standard input and output";

struct Arguments {
    library: PathBuf,
    timeout: Duration,
}

/// What the threads share.
#[derive(Default)]
struct Shared {
    watch: Watch,
    library: OnceLock<Library>,
    uuids: Mutex<BTreeMap<u32, String>>,
}

fn main() -> ExitCode {
    let arguments = match arguments(std::env::args_os().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("picket-nvml {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("picket-nvml: {wrong}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("picket-nvml: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments(mut words: impl Iterator<Item = OsString>) -> Result<Option<Arguments>, String> {
    let mut found = Arguments { library: LIBRARY.into(), timeout: Duration::from_secs(2) };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{} needs a value", word.display()));
        match word.to_str() {
            Some("--version") => return Ok(None),
            Some("--library") => found.library = value()?.into(),
            Some("--timeout-ms") => {
                let value = value()?;
                let number = value.to_str().and_then(|text| text.parse().ok()).filter(|n| *n > 0);
                let number = number.ok_or_else(|| format!("{} is no number above 0", value.display()))?;
                found.timeout = Duration::from_millis(number);
            }
            _ => return Err(format!("{} is not known", word.display())),
        }
    }
    Ok(Some(found))
}

fn serve(arguments: Arguments) -> io::Result<()> {
    let shared = Arc::new(Shared::default());
    // Not `std::io::Stdout`, which would cut frames at newlines.
    let output = Arc::new(Mutex::new(File::from(io::stdout().as_fd().try_clone_to_owned()?)));
    let (asks, asked) = sync_channel::<Ask>(1);
    let (answers, answered) = sync_channel::<Tell>(1);
    {
        let (shared, output) = (shared.clone(), output.clone());
        let library = arguments.library.clone();
        std::thread::Builder::new()
            .name("reader".to_owned())
            .spawn(move || read_all(&shared, &library, &asked, &answers, &output))?;
    }
    let mut input = io::stdin().lock();
    while let Some(ask) = next(&mut input)? {
        if asks.send(ask).is_err() {
            return Err(io::Error::other("the reading thread ended"));
        }
        let answer = wait(&shared, &answered, arguments.timeout)?;
        let last = !matches!(answer, Tell::Snapshot { .. });
        tell(&output, &answer)?;
        if last {
            break;
        }
    }
    Ok(())
}

/// The next question; none where the agent has gone.
fn next(input: &mut impl Read) -> io::Result<Option<Ask>> {
    let mut head = [0; 4];
    match input.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = picket_agent_nvml::length(head).map_err(io::Error::other)?;
    let mut frame = vec![0; length];
    input.read_exact(&mut frame)?;
    Ask::decode(&frame).map(Some).map_err(io::Error::other)
}

fn tell(output: &Mutex<File>, what: &Tell) -> io::Result<()> {
    output.lock().unwrap_or_else(PoisonError::into_inner).write_all(&what.encode())
}

/// The answer, or that there will be none.
fn wait(shared: &Shared, answered: &Receiver<Tell>, limit: Duration) -> io::Result<Tell> {
    loop {
        match answered.recv_timeout(limit / 4) {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Timeout) => {
                if let Some(call) = shared.watch.overdue(limit) {
                    let uuids = shared.uuids.lock().unwrap_or_else(PoisonError::into_inner);
                    return Ok(Tell::Hung {
                        call: call.name.to_owned(),
                        device: call.device.map(|n| Reader::label(&uuids, n)).unwrap_or_default(),
                        for_ms: u64::try_from(call.elapsed().as_millis()).unwrap_or(u64::MAX),
                    });
                }
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(io::Error::other("the reading thread ended"));
            }
        }
    }
}

/// The second thread.
fn read_all(
    shared: &Arc<Shared>,
    library: &std::path::Path,
    asked: &Receiver<Ask>,
    answers: &SyncSender<Tell>,
    output: &Arc<Mutex<File>>,
) {
    let mut reader: Option<Reader<'_>> = None;
    while let Ok(Ask::Snapshot) = asked.recv() {
        if reader.is_none() {
            match open(shared, library) {
                Ok(session) => {
                    reader = Some(Reader::new(session));
                    listen(shared, output);
                }
                Err(tell) => {
                    let _ = answers.send(tell);
                    return;
                }
            }
        }
        let Some(reader) = &mut reader else { return };
        let answer = reader.snapshot().unwrap_or_else(|failed| Tell::Failed(failed.to_string()));
        *shared.uuids.lock().unwrap_or_else(PoisonError::into_inner) = reader.uuids();
        if answers.send(answer).is_err() {
            return;
        }
    }
}

fn open<'l>(shared: &'l Shared, path: &std::path::Path) -> Result<Session<'l>, Tell> {
    let library = match shared.library.get() {
        Some(library) => library,
        None => {
            let opened = Library::open(path).map_err(|error| Tell::NoDriver(error.to_string()))?;
            shared.library.get_or_init(|| opened)
        }
    };
    let session = Session::new(library, &shared.watch, |watch| &watch.reader);
    session.init().map_err(|code| match code {
        Code::DRIVER_NOT_LOADED | Code::LIBRARY_NOT_FOUND => Tell::NoDriver(format!(
            "the library {} is there, the driver is not (nvmlInit: {})",
            path.display(),
            code.word()
        )),
        Code::LIB_RM_VERSION_MISMATCH => Tell::Failed(
            "the library and the loaded driver are of different versions: the driver was updated; reboot, \
             or reload its modules"
                .to_owned(),
        ),
        Code::NO_PERMISSION => {
            Tell::Failed("nvmlInit: no-permission; the agent's user may not open /dev/nvidiactl".to_owned())
        }
        Code::FUNCTION_NOT_FOUND => {
            Tell::Failed(format!("{} is not NVIDIA's library: it has no nvmlInit_v2", path.display()))
        }
        code => Tell::Failed(format!("nvmlInit: {}", code.word())),
    })?;
    Ok(session)
}

/// Starts the third thread. Without it the rest goes on.
fn listen(shared: &Arc<Shared>, output: &Arc<Mutex<File>>) {
    let (threads, out) = (shared.clone(), output.clone());
    let started = std::thread::Builder::new().name("events".to_owned()).spawn(move || {
        if let Some(library) = threads.library.get() {
            let session = Session::new(library, &threads.watch, |watch| &watch.events);
            // Fails where the agent has gone; the first thread sees that too.
            let _ = events::listen(session, |what| tell(&out, what));
        }
    });
    if let Err(error) = started {
        let _ = tell(output, &Tell::NoEvents(format!("the thread that listens was not started: {error}")));
    }
}
