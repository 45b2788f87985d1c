use picket_agent_services::grants::Capability;
use picket_agent_services::logs;

use super::{NoGrant, pairs, types};
use crate::ask::{AnswerTooLarge, Ask, Told};
use crate::bindings::picket::host::logs as wit;
use crate::guest::Guest;
use crate::points::Times;
use crate::readings::Refused;

impl wit::Host for Guest {
    async fn read(
        &mut self,
        wanted: wit::Selection,
        most_bytes: u32,
    ) -> wasmtime::Result<Result<wit::Page, wit::LogsError>> {
        let wanted =
            logs::Wanted { files: wanted.files, units: wanted.units, from_the_end: wanted.from_the_end };
        match self.door.ask(Ask::ReadLogs { wanted, most: most_bytes }).await? {
            Told::Logs(None) => {
                let page = wit::Page { chunks: Vec::new(), more: true, full: true, failures: Vec::new() };
                Ok(Ok(page))
            }
            Told::Logs(Some(answer)) => Ok(answer.map(Into::into).map_err(Into::into)),
            Told::TooLarge => Err(AnswerTooLarge.into()),
            _ => Err(NoGrant(Capability::Logs).into()),
        }
    }

    async fn hold(&mut self, chunk: u32, bytes: u32) -> wasmtime::Result<Result<(), wit::LogsError>> {
        Ok(self.ask_done(Ask::HoldLogs { chunk, bytes }).await?.map_err(Into::into))
    }

    async fn emit(&mut self, batches: Vec<wit::Batch>) -> wasmtime::Result<Result<(), wit::LogsError>> {
        let batches = batches.into_iter().map(|b| (pairs(b.labels), Times(b.timestamps), b.lines)).collect();
        Ok(self.ask_done(Ask::EmitLogs(batches)).await?.map_err(Into::into))
    }
}

impl From<logs::Page> for wit::Page {
    fn from(p: logs::Page) -> Self {
        let failure = |(reason, message)| wit::Failure { reason, message };
        Self {
            chunks: p.chunks.into_iter().map(Into::into).collect(),
            more: p.more,
            full: false,
            failures: p.failures.into_iter().map(failure).collect(),
        }
    }
}

impl From<logs::Chunk> for wit::Chunk {
    fn from(c: logs::Chunk) -> Self {
        Self {
            id: c.id,
            kind: match c.kind {
                logs::Kind::File => wit::SourceKind::File,
                logs::Kind::Journal => wit::SourceKind::Journal,
            },
            name: c.name,
            labels: c.labels.into_iter().map(|(name, value)| types::Label { name, value }).collect(),
            bytes: c.bytes,
            waited: c.waited,
            last: c.last,
            cut: c.cut,
        }
    }
}

impl From<logs::Error> for wit::LogsError {
    fn from(e: logs::Error) -> Self {
        match e {
            logs::Error::Denied(m) => Self::Denied(m),
            logs::Error::Invalid(m) => Self::Invalid(m),
            logs::Error::TimedOut(m) => Self::TimedOut(m),
            logs::Error::Other(m) => Self::Other(m),
        }
    }
}

impl From<Refused> for wit::LogsError {
    fn from(e: Refused) -> Self {
        match e {
            Refused::Quota { message, .. } => Self::Quota(message),
            Refused::Invalid(m) => Self::Invalid(m),
            Refused::UnknownId(id) => Self::Invalid(format!("there is no number {id}")),
            Refused::Other(m) => Self::Other(m),
        }
    }
}
