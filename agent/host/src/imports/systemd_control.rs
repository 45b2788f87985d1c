use picket_agent_services::grants::Capability;
use picket_agent_services::{Request, Response, systemd_control};

use super::NoGrant;
use crate::bindings::picket::host::systemd_control as wit;
use crate::guest::Guest;

impl Guest {
    async fn ask_systemd(
        &mut self,
        request: systemd_control::Request,
    ) -> wasmtime::Result<Result<systemd_control::Answer, wit::SystemdError>> {
        match self.ask(Capability::SystemdControl, Request::SystemdControl(request)).await? {
            Response::SystemdControl(answer) => Ok(answer.map_err(Into::into)),
            _ => Err(NoGrant(Capability::SystemdControl).into()),
        }
    }
}

impl wit::Host for Guest {
    async fn show(&mut self, unit: String) -> wasmtime::Result<Result<wit::Unit, wit::SystemdError>> {
        match self.ask_systemd(systemd_control::Request::Show { unit }).await? {
            Ok(systemd_control::Answer::Shown(unit)) => Ok(Ok(unit.into())),
            Ok(_) => Err(NoGrant(Capability::SystemdControl).into()),
            Err(e) => Ok(Err(e)),
        }
    }

    async fn change(
        &mut self,
        unit: String,
        verb: wit::Verb,
    ) -> wasmtime::Result<Result<(), wit::SystemdError>> {
        let verb = match verb {
            wit::Verb::Restart => systemd_control::Verb::Restart,
            wit::Verb::Reload => systemd_control::Verb::Reload,
            wit::Verb::Start => systemd_control::Verb::Start,
            wit::Verb::Stop => systemd_control::Verb::Stop,
            wit::Verb::Other(word) => {
                let shown: String = word.chars().take(64).collect();
                let why = format!("this host does not know the verb {shown:?}");
                return Ok(Err(wit::SystemdError::Invalid(why)));
            }
        };
        Ok(self.ask_systemd(systemd_control::Request::Change { unit, verb }).await?.map(|_| ()))
    }
}

impl From<systemd_control::Unit> for wit::Unit {
    fn from(u: systemd_control::Unit) -> Self {
        Self {
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
        }
    }
}

impl From<systemd_control::Error> for wit::SystemdError {
    fn from(e: systemd_control::Error) -> Self {
        use systemd_control::Error as E;
        match e {
            E::Denied(m) => Self::Denied(m),
            E::NotFound(m) => Self::NotFound(m),
            E::Invalid(m) => Self::Invalid(m),
            E::Unavailable(m) => Self::Unavailable(m),
            E::TimedOut(m) => Self::TimedOut(m),
            E::Refused(m) => Self::Refused(m),
            E::Other(m) => Self::Other(m),
        }
    }
}
