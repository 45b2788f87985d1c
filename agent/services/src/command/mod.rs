//! Commands that the operator defined by name: the plugin fills typed slots, nothing else.
//!
//! There is no shell: a program, its arguments, an environment of the rule's own, standard input empty, the folder `/`, a
//! process group of its own. Output is passed on as the plugin reads it and never held, so a command may write much more
//! than a plugin may hold; a command whose output nobody reads waits in its pipe until its time is up.
//!
//! A plugin holds a few runs at most ([`ServiceLimits::command_runs`]). A run ends when its program ends, at its time limit,
//! when it wrote too much, when the plugin ends it, and with the call into the plugin that started it
//! ([`crate::Services::call_ended`]). Whichever comes first: the whole process group is killed, and the program waited for.
//! A program that leaves its process group is not followed: it is the operator's own choice of a program.

mod program;
mod run;
mod scope;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::ServiceLimits;
use run::Run;
pub(crate) use scope::Commands;
pub use scope::{CommandRule, Scope};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Start {
        /// The operator's name for it.
        command: String,
        slots: Vec<(String, String)>,
    },
    /// What it wrote to standard output, `most` bytes at most. Waits until there is something.
    Read { run: u32, most: u32 },
    /// Forgets the run: kills it, unless its output was read to the end; then waits for it.
    End { run: u32 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Started(u32),
    /// Empty at the end of the output.
    Output(#[serde(with = "crate::octets")] Vec<u8>),
    Ended(Outcome),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The exit status, or minus the signal that ended it.
    pub status: i32,
    /// At most 4 KiB, the end of it.
    pub stderr: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    #[error("not granted: {0}")]
    Denied(String),
    #[error("not valid: {0}")]
    Invalid(String),
    #[error("the program is not there: {0}")]
    NotFound(String),
    /// The program must not be run, or could not be.
    #[error("the program cannot be run: {0}")]
    Refused(String),
    #[error("too many commands at once: {0}")]
    Busy(String),
    #[error("the command did not end in time: {0}")]
    TimedOut(String),
    #[error("the command wrote too much: {0}")]
    TooLarge(String),
    #[error("{0}")]
    Other(String),
}

/// What a plugin has running.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    table: Mutex<Table>,
    /// Programs that were not waited for yet, forgotten runs' too.
    programs: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Table {
    last: u32,
    /// None: being started.
    live: BTreeMap<u32, Option<Arc<Run>>>,
}

impl Runs {
    /// Ends all: dropped, a run kills what it started.
    pub(crate) fn end_all(&self) {
        let ended = std::mem::take(&mut self.table().live);
        drop(ended);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a run that is about to start.
    fn reserve(&self, most: usize) -> Result<(u32, Permit), Error> {
        let mut table = self.table();
        let permit = Permit::take(&self.programs);
        if table.live.len() >= most || permit.taken() > most {
            return Err(Error::Busy(format!(
                "{most} are there already that were not ended, or that do not die"
            )));
        }
        table.last = table.last.wrapping_add(1);
        let number = table.last;
        table.live.insert(number, None);
        Ok((number, permit))
    }

    fn get(&self, number: u32) -> Result<Arc<Run>, Error> {
        self.table().live.get(&number).and_then(Clone::clone).ok_or_else(|| unknown(number))
    }

    fn remove(&self, number: u32) -> Option<Arc<Run>> {
        self.table().live.remove(&number).flatten()
    }
}

/// Counts a program until it was waited for.
#[derive(Debug)]
struct Permit(Arc<AtomicUsize>);

impl Permit {
    fn take(programs: &Arc<AtomicUsize>) -> Self {
        programs.fetch_add(1, Ordering::Relaxed);
        Self(programs.clone())
    }

    fn taken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn unknown(number: u32) -> Error {
    Error::Invalid(format!("there is no run {number}: it was ended, or is of an earlier call"))
}

impl Commands {
    /// See [`Runs::end_all`].
    pub(crate) fn end_all(&self) {
        self.runs.end_all();
    }
}

pub(crate) async fn call(
    commands: &Commands,
    limits: &ServiceLimits,
    request: Request,
) -> Result<Answer, Error> {
    match request {
        Request::Start { command, slots } => {
            let (rule, arguments) = commands.find(&command, &slots)?;
            let (number, permit) = commands.runs.reserve(limits.command_runs)?;
            // Given back whatever happens: also when the caller goes away while the program is started.
            let mut place = Place { runs: &commands.runs, number, taken: false };
            let run = run::start(&command, rule, arguments, permit).await?;
            place.take(run);
            Ok(Answer::Started(number))
        }
        Request::Read { run, most } => commands.runs.get(run)?.read(most).await.map(Answer::Output),
        Request::End { run: number } => {
            let run = commands.runs.remove(number).ok_or_else(|| unknown(number))?;
            run.end().await.map(Answer::Ended)
        }
    }
}

/// Runs a program of the host's own choice to its end, with the bounds of a rule: no shell, an empty environment but for
/// its language, its whole process group killed when its time is up.
pub(crate) async fn fixed(
    program: &str,
    arguments: Vec<String>,
    timeout: std::time::Duration,
    output_bytes: u64,
) -> Result<(Outcome, Vec<u8>), Error> {
    let rule = scope::Rule::fixed(program, timeout, output_bytes);
    let run = run::start(program, &rule, arguments, Permit::take(&Arc::default())).await?;
    let mut output = Vec::new();
    loop {
        let some = run.read(u32::MAX).await?;
        if some.is_empty() {
            break;
        }
        output.extend_from_slice(&some);
    }
    Ok((run.end().await?, output))
}

struct Place<'a> {
    runs: &'a Runs,
    number: u32,
    taken: bool,
}

impl Place<'_> {
    fn take(&mut self, run: Run) {
        // If all were ended meanwhile the place is gone, and the run with it.
        if let Some(place) = self.runs.table().live.get_mut(&self.number) {
            *place = Some(Arc::new(run));
        }
        self.taken = true;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.taken {
            self.runs.remove(self.number);
        }
    }
}

#[cfg(test)]
mod tests;
