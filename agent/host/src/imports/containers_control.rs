use picket_agent_services::grants::Capability;
use picket_agent_services::{Request, Response, containers_control};

use super::NoGrant;
use crate::bindings::picket::host::containers_control as wit;
use crate::guest::Guest;

impl Guest {
    async fn change_container(
        &self,
        request: containers_control::Request,
    ) -> wasmtime::Result<Result<wit::Change, wit::ContainersControlError>> {
        match self.ask(Capability::ContainersControl, Request::ContainersControl(request)).await? {
            Response::ContainersControl(Ok(containers_control::Answer::Done)) => Ok(Ok(wit::Change::Done)),
            Response::ContainersControl(Ok(containers_control::Answer::Unchanged)) => {
                Ok(Ok(wit::Change::Unchanged))
            }
            Response::ContainersControl(Err(e)) => Ok(Err(e.into())),
            _ => Err(NoGrant(Capability::ContainersControl).into()),
        }
    }
}

impl wit::Host for Guest {
    async fn restart(
        &mut self,
        id: String,
        grace: u32,
    ) -> wasmtime::Result<Result<wit::Change, wit::ContainersControlError>> {
        self.change_container(containers_control::Request::Restart { id, grace }).await
    }

    async fn stop(
        &mut self,
        id: String,
        grace: u32,
    ) -> wasmtime::Result<Result<wit::Change, wit::ContainersControlError>> {
        self.change_container(containers_control::Request::Stop { id, grace }).await
    }

    async fn start(
        &mut self,
        id: String,
    ) -> wasmtime::Result<Result<wit::Change, wit::ContainersControlError>> {
        self.change_container(containers_control::Request::Start { id }).await
    }

    async fn kill(
        &mut self,
        id: String,
        signal: String,
    ) -> wasmtime::Result<Result<wit::Change, wit::ContainersControlError>> {
        self.change_container(containers_control::Request::Kill { id, signal }).await
    }
}

impl From<containers_control::Error> for wit::ContainersControlError {
    fn from(e: containers_control::Error) -> Self {
        use containers_control::Error as E;
        match e {
            E::Denied(m) => Self::Denied(m),
            E::NotFound(m) => Self::NotFound(m),
            E::Invalid(m) => Self::Invalid(m),
            E::Absent(m) => Self::Absent(m),
            E::Unreachable(m) => Self::Unreachable(m),
            E::TimedOut(m) => Self::TimedOut(m),
            E::Refused(m) => Self::Refused(m),
            E::Other(m) => Self::Other(m),
        }
    }
}
