use picket_agent_services::grants::Capability;
use picket_agent_services::{Request, Response, nvml};

use super::NoGrant;
use crate::bindings::picket::host::nvml as wit;
use crate::guest::Guest;

impl wit::Host for Guest {
    async fn snapshot(&mut self, max_age: u32) -> wasmtime::Result<Result<wit::Reading, wit::NvmlError>> {
        let request = Request::Nvml(nvml::Request::Snapshot { max_age });
        match self.ask(Capability::Nvml, request).await? {
            Response::Nvml(answer) => Ok(answer
                .map(|a| wit::Reading { timestamp: a.timestamp, document: a.document })
                .map_err(Into::into)),
            _ => Err(NoGrant(Capability::Nvml).into()),
        }
    }
}

impl From<nvml::Error> for wit::NvmlError {
    fn from(e: nvml::Error) -> Self {
        match e {
            nvml::Error::NoDriver(m) => Self::NoDriver(m),
            nvml::Error::Hung(m) => Self::Hung(m),
            nvml::Error::Other(m) => Self::Other(m),
        }
    }
}
