use picket_agent_services::grants::Capability;
use picket_agent_services::{Request, Response, command};

use super::{NoGrant, pairs};
use crate::bindings::picket::host::command as wit;
use crate::bindings::picket::types::types;
use crate::guest::Guest;

impl Guest {
    async fn ask_command(
        &self,
        request: command::Request,
    ) -> wasmtime::Result<Result<command::Answer, wit::CommandError>> {
        match self.ask(Capability::Command, Request::Command(request)).await? {
            Response::Command(answer) => Ok(answer.map_err(Into::into)),
            _ => Err(NoGrant(Capability::Command).into()),
        }
    }
}

impl wit::Host for Guest {
    async fn start(
        &mut self,
        command: String,
        slots: Vec<types::Label>,
    ) -> wasmtime::Result<Result<u32, wit::CommandError>> {
        let request = command::Request::Start { command, slots: pairs(slots) };
        match self.ask_command(request).await? {
            Ok(command::Answer::Started(run)) => Ok(Ok(run)),
            Ok(_) => Err(NoGrant(Capability::Command).into()),
            Err(e) => Ok(Err(e)),
        }
    }

    async fn read(&mut self, run: u32, most: u32) -> wasmtime::Result<Result<Vec<u8>, wit::CommandError>> {
        match self.ask_command(command::Request::Read { run, most }).await? {
            Ok(command::Answer::Output(bytes)) => Ok(Ok(bytes)),
            Ok(_) => Err(NoGrant(Capability::Command).into()),
            Err(e) => Ok(Err(e)),
        }
    }

    async fn end(&mut self, run: u32) -> wasmtime::Result<Result<wit::Outcome, wit::CommandError>> {
        match self.ask_command(command::Request::End { run }).await? {
            Ok(command::Answer::Ended(o)) => Ok(Ok(wit::Outcome { status: o.status, stderr: o.stderr })),
            Ok(_) => Err(NoGrant(Capability::Command).into()),
            Err(e) => Ok(Err(e)),
        }
    }
}

impl From<command::Error> for wit::CommandError {
    fn from(e: command::Error) -> Self {
        match e {
            command::Error::Denied(m) => Self::Denied(m),
            command::Error::Invalid(m) => Self::Invalid(m),
            command::Error::NotFound(m) => Self::NotFound(m),
            command::Error::Refused(m) => Self::Refused(m),
            command::Error::Busy(m) => Self::Busy(m),
            command::Error::TimedOut(m) => Self::TimedOut(m),
            command::Error::TooLarge(m) => Self::TooLarge(m),
            command::Error::Other(m) => Self::Other(m),
        }
    }
}
