//! Units of systemd: how they are, and restart, reload, start and stop of the granted ones.
//!
//! It is `systemctl` that is asked, with arguments of ours: a verb of four, `--`, and a unit's whole name, which can be no
//! option, no path and no pattern. A name may be another's alias, so systemd is first asked which unit it is, and that
//! one has to be granted too; what is changed is it, by its own name.

mod scope;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ServiceLimits, command};
pub(crate) use scope::Rules;
pub use scope::{Scope, Verb};

/// What `systemctl show` may answer, in bytes.
const OUTPUT: u64 = 64 << 10;
/// How long it may take for that.
const SHOW_WITHIN: Duration = Duration::from_secs(5);
/// The longest unit name that systemd takes.
const MAX_NAME: usize = 255;
const PROPERTIES: &str = "--property=Id,LoadState,ActiveState,SubState,InvocationID,CanStart,CanStop,CanReload,\
                          StateChangeTimestampMonotonic,NRestarts,Description,Job";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Show { unit: String },
    Change { unit: String, verb: Verb },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Shown(Unit),
    /// systemd says that it is done.
    Changed,
}

/// A unit, in systemd's own words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its own name, where it was asked for by an alias.
    pub id: String,
    pub description: String,
    pub load: String,
    pub active: String,
    pub sub: String,
    /// Another one with each start.
    pub invocation: String,
    pub can_start: bool,
    pub can_stop: bool,
    pub can_reload: bool,
    /// When it last changed its state (a reload is such a change): microseconds of systemd's own clock.
    pub changed: u64,
    pub restarts: u64,
    /// A job of it is under way.
    pub job: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    #[error("not granted: {0}")]
    Denied(String),
    #[error("there is no unit {0}")]
    NotFound(String),
    #[error("not valid: {0}")]
    Invalid(String),
    /// systemd does not run here, or there is no `systemctl`.
    #[error("systemd cannot be asked: {0}")]
    Unavailable(String),
    /// Whether systemd acted is not known.
    #[error("systemd did not answer in time: {0}")]
    TimedOut(String),
    #[error("systemd refused: {0}")]
    Refused(String),
    #[error("{0}")]
    Other(String),
}

/// Shows a granted unit, or changes it where the verb is granted.
pub(crate) async fn call(rules: &Rules, limits: &ServiceLimits, request: Request) -> Result<Answer, Error> {
    match request {
        Request::Show { unit } => {
            check_name(&unit)?;
            let program = rules.program(&unit, None)?;
            let shown = show(program, &unit).await?;
            rules.program(&shown.id, None)?;
            if shown.load == "not-found" {
                return Err(Error::NotFound(unit));
            }
            Ok(Answer::Shown(shown))
        }
        Request::Change { unit, verb } => {
            check_name(&unit)?;
            let program = rules.program(&unit, Some(verb))?;
            let shown = show(program, &unit).await?;
            let program = rules.program(&shown.id, Some(verb))?;
            if shown.load == "not-found" {
                return Err(Error::NotFound(unit));
            }
            let arguments = ["--no-pager", "--no-ask-password", "--quiet", verb.word(), "--", &shown.id];
            run(program, &arguments, limits.control_time).await.map(|_| Answer::Changed)
        }
    }
}

async fn show(program: &str, unit: &str) -> Result<Unit, Error> {
    let output = run(program, &["--no-pager", "show", PROPERTIES, "--", unit], SHOW_WITHIN).await?;
    parse(&output)
        .ok_or_else(|| Error::Other(format!("systemctl show {unit}: its answer is not as expected")))
}

async fn run(program: &str, arguments: &[&str], limit: Duration) -> Result<String, Error> {
    let arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
    let (outcome, output) = command::fixed(program, arguments, limit, OUTPUT).await.map_err(|e| match e {
        command::Error::NotFound(why) => Error::Unavailable(format!("{why}: there is no such program")),
        command::Error::TimedOut(why) => Error::TimedOut(why),
        command::Error::Refused(why) => Error::Unavailable(why),
        e => Error::Other(e.to_string()),
    })?;
    if outcome.status == 0 {
        return Ok(String::from_utf8_lossy(&output).into_owned());
    }
    let text: String =
        outcome.stderr.trim().chars().take(500).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let unreachable = ["not been booted with systemd", "connect to bus", "connect to system scope bus"];
    if unreachable.iter().any(|words| text.contains(words)) {
        Err(Error::Unavailable(text))
    } else if text.contains("not found") || text.contains("not loaded") {
        Err(Error::NotFound(text))
    } else {
        Err(Error::Refused(format!("{text} (status {})", outcome.status)))
    }
}

fn parse(text: &str) -> Option<Unit> {
    let all: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let word = |key: &str| all.get(key).copied().unwrap_or_default().to_owned();
    let number = |key: &str| all.get(key).and_then(|n| n.parse().ok()).unwrap_or(0);
    let unit = Unit {
        id: word("Id"),
        description: word("Description"),
        load: word("LoadState"),
        active: word("ActiveState"),
        sub: word("SubState"),
        invocation: word("InvocationID"),
        can_start: word("CanStart") == "yes",
        can_stop: word("CanStop") == "yes",
        can_reload: word("CanReload") == "yes",
        changed: number("StateChangeTimestampMonotonic"),
        restarts: number("NRestarts"),
        job: number("Job") != 0,
    };
    (!unit.id.is_empty() && !unit.active.is_empty()).then_some(unit)
}

/// `name.type`, of what systemd lets a name be made of; with a letter or a digit first it can be no option.
fn check_name(unit: &str) -> Result<(), Error> {
    const TYPES: [&str; 7] = ["service", "socket", "timer", "target", "mount", "path", "slice"];
    let invalid = |why: &str| {
        let shown: String = unit.chars().take(80).collect();
        Err(Error::Invalid(format!("the unit {shown:?}: {why}")))
    };
    if unit.len() > MAX_NAME {
        return invalid("it is too long");
    }
    if !unit.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
        return invalid("a name begins with a letter, a digit or _");
    }
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'@' | b':' | b'\\');
    if !unit.bytes().all(inner) {
        return invalid("a name holds letters, digits and _ . - @ : \\ alone");
    }
    match unit.rsplit_once('.') {
        Some((name, kind)) if !name.is_empty() && TYPES.contains(&kind) => Ok(()),
        _ => invalid("the whole name is wanted, as in vllm.service"),
    }
}

#[cfg(test)]
mod tests;
