use picket_agent_services::grants::Capability;
use picket_agent_services::{Request, Response, containers};

use super::NoGrant;
use crate::bindings::picket::host::containers as wit;
use crate::guest::Guest;

impl Guest {
    async fn ask_containers(
        &self,
        request: containers::Request,
    ) -> wasmtime::Result<Result<containers::Answer, wit::ContainersError>> {
        match self.ask(Capability::Containers, Request::Containers(request)).await? {
            Response::Containers(answer) => Ok(answer.map_err(Into::into)),
            _ => Err(NoGrant(Capability::Containers).into()),
        }
    }

    async fn objects(
        &self,
        request: containers::Request,
    ) -> wasmtime::Result<Vec<Result<String, wit::ContainersError>>> {
        match self.ask_containers(request).await? {
            Ok(containers::Answer::Objects(list)) => {
                Ok(list.into_iter().map(|one| one.map_err(Into::into)).collect())
            }
            _ => Err(NoGrant(Capability::Containers).into()),
        }
    }
}

impl wit::Host for Guest {
    async fn list(&mut self, all: bool) -> wasmtime::Result<Result<wit::Listing, wit::ContainersError>> {
        match self.ask_containers(containers::Request::List { all }).await? {
            Ok(containers::Answer::List { containers, sockets }) => {
                let sockets = sockets
                    .into_iter()
                    .map(|s| wit::SocketState { path: s.path, error: s.error.map(Into::into) })
                    .collect();
                Ok(Ok(wit::Listing { containers, sockets }))
            }
            Ok(_) => Err(NoGrant(Capability::Containers).into()),
            Err(e) => Ok(Err(e)),
        }
    }

    async fn inspect(
        &mut self,
        ids: Vec<String>,
    ) -> wasmtime::Result<Vec<Result<String, wit::ContainersError>>> {
        self.objects(containers::Request::Inspect { ids }).await
    }

    async fn stats(
        &mut self,
        ids: Vec<String>,
    ) -> wasmtime::Result<Vec<Result<String, wit::ContainersError>>> {
        self.objects(containers::Request::Stats { ids }).await
    }

    async fn logs(
        &mut self,
        id: String,
        since: Option<u64>,
        tail: Option<u32>,
    ) -> wasmtime::Result<Result<wit::LogPage, wit::ContainersError>> {
        match self.ask_containers(containers::Request::Logs { id, since, tail }).await? {
            Ok(containers::Answer::Logs(page)) => {
                let lines = page
                    .lines
                    .into_iter()
                    .map(|l| wit::LogLine { stderr: l.stderr, timestamp: l.timestamp, text: l.text })
                    .collect();
                Ok(Ok(wit::LogPage { lines, more: page.more }))
            }
            Ok(_) => Err(NoGrant(Capability::Containers).into()),
            Err(e) => Ok(Err(e)),
        }
    }
}

impl From<containers::Error> for wit::ContainersError {
    fn from(e: containers::Error) -> Self {
        match e {
            containers::Error::Denied(m) => Self::Denied(m),
            containers::Error::NotFound(m) => Self::NotFound(m),
            containers::Error::Absent(m) => Self::Absent(m),
            containers::Error::Unreachable(m) => Self::Unreachable(m),
            containers::Error::TimedOut(m) => Self::TimedOut(m),
            containers::Error::TooLarge(m) => Self::TooLarge(m),
            containers::Error::Malformed(m) => Self::Malformed(m),
            containers::Error::Refused(m) => Self::Refused(m),
            containers::Error::Other(m) => Self::Other(m),
        }
    }
}
