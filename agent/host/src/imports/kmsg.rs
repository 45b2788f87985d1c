use picket_agent_services::grants::Capability;
use picket_agent_services::{Request, Response, kmsg};

use super::NoGrant;
use crate::bindings::picket::host::kmsg as wit;
use crate::guest::Guest;

impl wit::Host for Guest {
    async fn read(
        &mut self,
        after: Option<String>,
        most: u32,
    ) -> wasmtime::Result<Result<wit::Page, wit::KmsgError>> {
        let request = Request::Kmsg(kmsg::Request::Read { after, most });
        match self.ask(Capability::Kmsg, request).await? {
            Response::Kmsg(answer) => Ok(answer.map(Into::into).map_err(Into::into)),
            _ => Err(NoGrant(Capability::Kmsg).into()),
        }
    }
}

impl From<kmsg::Answer> for wit::Page {
    fn from(a: kmsg::Answer) -> Self {
        let message = |m: kmsg::Message| wit::Message {
            sequence: m.sequence,
            timestamp: m.timestamp,
            priority: m.priority,
            facility: m.facility,
            text: m.text,
        };
        Self {
            messages: a.messages.into_iter().map(message).collect(),
            cursor: a.cursor,
            lost: a.lost,
            more: a.more,
        }
    }
}

impl From<kmsg::Error> for wit::KmsgError {
    fn from(e: kmsg::Error) -> Self {
        match e {
            kmsg::Error::Invalid(m) => Self::Invalid(m),
            kmsg::Error::Unavailable(m) => Self::Unavailable(m),
            kmsg::Error::Other(m) => Self::Other(m),
        }
    }
}
