//! Lines in the agent's log. Bounded in rate and size by the host.

use crate::sys;

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// Writes one line.
pub fn write(level: Level, message: &str) {
    sys::log(level, message);
}

/// At level debug.
pub fn debug(message: &str) {
    write(Level::Debug, message);
}

/// At level info.
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// At level warn.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

/// At level error.
pub fn error(message: &str) {
    write(Level::Error, message);
}
