//! Where log lines go: to the journal where systemd started the agent, else to standard error as text or JSON.

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::config::{Log, LogFormat, journal_stream};

/// Changes the level while the agent runs.
pub struct LogHandle(reload::Handle<EnvFilter, Registry>);

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("log.level {level:?} is no level: {error}")]
    Level { level: String, error: String },
    #[error("the log could not be set up: {0}")]
    Setup(String),
}

/// Once a process, before anything is logged.
pub fn init(config: &Log) -> Result<LogHandle, LogError> {
    let (filter, handle) = reload::Layer::new(filter(&config.level)?);
    let registry = tracing_subscriber::registry().with(filter);
    let set_up = if is_journal()
        && let Ok(journal) = tracing_journald::layer()
    {
        registry.with(journal).try_init()
    } else {
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        match config.format {
            LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
            LogFormat::Text => registry.with(lines.with_ansi(std::io::stderr().is_terminal())).try_init(),
        }
    };
    set_up.map_err(|error| LogError::Setup(error.to_string()))?;
    Ok(LogHandle(handle))
}

impl LogHandle {
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        self.0.reload(filter(level)?).map_err(|error| LogError::Setup(error.to_string()))
    }
}

fn filter(level: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(level)
        .map_err(|error| LogError::Level { level: level.to_owned(), error: error.to_string() })
}

/// Whether standard error is the stream that systemd said it made: a child with another one must not guess.
fn is_journal() -> bool {
    let Some(named) = journal_stream() else { return false };
    rustix::fs::fstat(std::io::stderr()).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == named)
}
