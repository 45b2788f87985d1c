use picket_agent_services::grants::Capability;
use picket_agent_services::{Request, Response, unix_http};

use super::NoGrant;
use crate::bindings::picket::host::unix_http as wit;
use crate::guest::Guest;

impl wit::Host for Guest {
    async fn send(
        &mut self,
        socket: String,
        request: wit::Request,
    ) -> wasmtime::Result<Result<wit::Response, wit::HttpError>> {
        let request = Request::UnixHttp(unix_http::Request { socket, request: request.into() });
        match self.ask(Capability::UnixHttp, request).await? {
            Response::UnixHttp(answer) => Ok(answer.map(Into::into).map_err(Into::into)),
            _ => Err(NoGrant(Capability::UnixHttp).into()),
        }
    }
}
