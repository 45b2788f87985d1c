//! Commands that the operator defined by name. Grant: `command`.
//!
//! The operator wrote the program and its arguments; a plugin fills the slots in them. [`run`] gives all of a small output,
//! [`stream`] reads one that may be larger than the plugin's memory.
//!
//! ```no_run
//! use std::io::Read;
//! # fn main() -> Result<(), picket_sdk::Failure> {
//! let mut list = picket_sdk::command::stream("sinfo", &[("partition", "gpu")])?;
//! let nodes: picket_sdk::serde_json::Value = picket_sdk::serde_json::from_reader(list.by_ref())
//!     .map_err(|e| list.failure().unwrap_or_else(|| picket_sdk::Failure::new("parse", e.to_string())))?;
//! list.finish()?.success("sinfo")?;
//! # Ok(())
//! # }
//! ```

use std::io::Read;

use crate::http::Chunk;
use crate::{Failure, sys};

/// Asked for at once.
const CHUNK: u32 = 64 << 10;

/// Why a command gave nothing, or stopped giving.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// No granted command has this name.
    #[error("the command is not granted to this plugin: {0}")]
    Denied(String),
    /// A slot is missing, unknown or not of its type.
    #[error("the command cannot be filled in: {0}")]
    Invalid(String),
    /// There is no such program.
    #[error("the program is not there: {0}")]
    NotFound(String),
    /// The program must not be run, or could not be.
    #[error("the program cannot be run: {0}")]
    Refused(String),
    /// More at once than the node allows.
    #[error("too many commands at once: {0}")]
    Busy(String),
    /// Killed at its time limit.
    #[error("the command did not end in time: {0}")]
    TimedOut(String),
    /// Killed because it wrote more than it may.
    #[error("the command wrote too much: {0}")]
    TooLarge(String),
    /// A reason that this version of the SDK does not know.
    #[error("{0}")]
    Other(String),
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        let reason = match error {
            CommandError::Denied(_) => "denied",
            CommandError::Invalid(_) => "invalid",
            CommandError::NotFound(_) => "not-found",
            CommandError::Refused(_) => "refused",
            CommandError::Busy(_) => "busy",
            CommandError::TimedOut(_) => "timed-out",
            CommandError::TooLarge(_) => "too-large",
            CommandError::Other(_) => "command",
        };
        Self::new(reason, error.to_string())
    }
}

/// What a command left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// The exit status, or minus the signal that ended it.
    pub status: i32,
    /// What it wrote; empty for a stream.
    pub stdout: Vec<u8>,
    /// The end of what it wrote to standard error.
    pub stderr: String,
}

impl Output {
    /// The output, where the status is 0. `name` stands in the message.
    ///
    /// # Errors
    /// `status` otherwise.
    pub fn success(&self, name: &str) -> Result<&[u8], Failure> {
        if self.status == 0 {
            return Ok(&self.stdout);
        }
        let how = match self.status {
            s if s < 0 => format!("was ended by signal {}", s.unsigned_abs()),
            s => format!("ended with status {s}"),
        };
        let said: String = self.stderr.trim().chars().take(300).collect();
        Err(Failure::new("status", format!("{name} {how}: {said}")))
    }
}

/// Runs a command to its end, with what it writes. The output must fit the plugin's memory.
///
/// # Errors
/// Any [`CommandError`]. A status that is not 0 is an answer, not an error: see [`Output::success`].
pub fn run(name: &str, slots: &[(&str, &str)]) -> Result<Output, CommandError> {
    let mut stream = stream(name, slots)?;
    let mut stdout = Vec::new();
    if let Err(error) = stream.read_to_end(&mut stdout) {
        return Err(stream.error.take().unwrap_or_else(|| CommandError::Other(error.to_string())));
    }
    let output = stream.finish()?;
    Ok(Output { stdout, ..output })
}

/// Starts a command whose output is read as it comes. Dropped before [`Stream::finish`], it is killed.
///
/// # Errors
/// Any [`CommandError`].
pub fn stream(name: &str, slots: &[(&str, &str)]) -> Result<Stream, CommandError> {
    let run = sys::command_start(name, slots)?;
    Ok(Stream { run: Some(run), chunk: Chunk::default(), error: None })
}

/// The output of a command, read as it comes.
#[derive(Debug)]
pub struct Stream {
    run: Option<u32>,
    chunk: Chunk,
    error: Option<CommandError>,
}

impl Stream {
    /// How it ended. What was not read of its output is given up, and a command that was still writing is killed.
    ///
    /// # Errors
    /// [`CommandError::TimedOut`], or what reading failed with.
    pub fn finish(mut self) -> Result<Output, CommandError> {
        let ended = self.run.take().map(sys::command_end);
        match (self.error.take(), ended) {
            (Some(error), _) => Err(error),
            (None, Some(ended)) => ended,
            (None, None) => Err(CommandError::Other("the command was ended before".to_owned())),
        }
    }

    /// Why a read failed, if one did: a parser that reads this only says that its reader failed.
    pub fn failure(&self) -> Option<Failure> {
        self.error.clone().map(Failure::from)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.chunk.is_empty() {
            let Some(run) = self.run else { return Ok(0) };
            match sys::command_read(run, CHUNK) {
                Ok(chunk) => self.chunk = chunk.into(),
                Err(error) => {
                    let told = std::io::Error::other(error.to_string());
                    self.error = Some(error);
                    return Err(told);
                }
            }
        }
        Ok(self.chunk.give(buffer))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(run) = self.run.take() {
            let _ = sys::command_end(run);
        }
    }
}
