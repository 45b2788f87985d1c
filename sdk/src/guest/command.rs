use super::host::command;
use crate::command::{CommandError, Output};

pub(crate) fn command_start(name: &str, slots: &[(&str, &str)]) -> Result<u32, CommandError> {
    let slots = super::labels(slots.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect());
    command::start(name, &slots).map_err(error)
}

pub(crate) fn command_read(run: u32, most: u32) -> Result<Vec<u8>, CommandError> {
    command::read(run, most).map_err(error)
}

pub(crate) fn command_end(run: u32) -> Result<Output, CommandError> {
    let outcome = command::end(run).map_err(error)?;
    Ok(Output { status: outcome.status, stdout: Vec::new(), stderr: outcome.stderr })
}

fn error(error: command::CommandError) -> CommandError {
    use command::CommandError as E;
    match error {
        E::Denied(text) => CommandError::Denied(text),
        E::Invalid(text) => CommandError::Invalid(text),
        E::NotFound(text) => CommandError::NotFound(text),
        E::Refused(text) => CommandError::Refused(text),
        E::Busy(text) => CommandError::Busy(text),
        E::TimedOut(text) => CommandError::TimedOut(text),
        E::TooLarge(text) => CommandError::TooLarge(text),
        E::Other(text) => CommandError::Other(text),
    }
}
