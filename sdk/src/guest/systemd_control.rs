use super::action::picket::host::systemd_control as wit;
use crate::systemd_control::{SystemdError, Unit, Verb};

pub(crate) fn systemd_show(unit: &str) -> Result<Unit, SystemdError> {
    let u = wit::show(unit).map_err(error)?;
    Ok(Unit {
        id: u.id,
        description: u.description,
        load: u.load,
        active: u.active,
        sub: u.sub,
        invocation: u.invocation,
        can_start: u.can_start,
        can_stop: u.can_stop,
        can_reload: u.can_reload,
        changed: u.changed,
        restarts: u.restarts,
        job: u.job,
    })
}

pub(crate) fn systemd_change(unit: &str, verb: Verb) -> Result<(), SystemdError> {
    let verb = match verb {
        Verb::Restart => wit::Verb::Restart,
        Verb::Reload => wit::Verb::Reload,
        Verb::Start => wit::Verb::Start,
        Verb::Stop => wit::Verb::Stop,
    };
    wit::change(unit, &verb).map_err(error)
}

fn error(error: wit::SystemdError) -> SystemdError {
    use wit::SystemdError as E;
    match error {
        E::Denied(text) => SystemdError::Denied(text),
        E::NotFound(text) => SystemdError::NotFound(text),
        E::Invalid(text) => SystemdError::Invalid(text),
        E::Unavailable(text) => SystemdError::Unavailable(text),
        E::TimedOut(text) => SystemdError::TimedOut(text),
        E::Refused(text) => SystemdError::Refused(text),
        E::Other(text) => SystemdError::Other(text),
    }
}
