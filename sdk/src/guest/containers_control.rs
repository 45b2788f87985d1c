use super::action::picket::host::containers_control as wit;
use crate::containers_control::{Asked, Change, ControlError};

pub(crate) fn change_container(asked: &Asked) -> Result<Change, ControlError> {
    let changed = match asked {
        Asked::Restart { id, grace } => wit::restart(id, *grace),
        Asked::Stop { id, grace } => wit::stop(id, *grace),
        Asked::Start { id } => wit::start(id),
        Asked::Kill { id, signal } => wit::kill(id, signal),
    };
    match changed {
        Ok(wit::Change::Unchanged) => Ok(Change::Unchanged),
        Ok(wit::Change::Done | wit::Change::Other(_)) => Ok(Change::Done),
        Err(e) => Err(error(e)),
    }
}

fn error(error: wit::ContainersControlError) -> ControlError {
    use wit::ContainersControlError as E;
    match error {
        E::Denied(text) => ControlError::Denied(text),
        E::NotFound(text) => ControlError::NotFound(text),
        E::Invalid(text) => ControlError::Invalid(text),
        E::Absent(text) => ControlError::Absent(text),
        E::Unreachable(text) => ControlError::Unreachable(text),
        E::TimedOut(text) => ControlError::TimedOut(text),
        E::Refused(text) => ControlError::Refused(text),
        E::Other(text) => ControlError::Other(text),
    }
}
