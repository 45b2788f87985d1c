use picket_agent_services::grants::Capability;
use picket_agent_services::{Request, Response, files_write};

use super::NoGrant;
use crate::bindings::picket::host::files_write as wit;
use crate::guest::Guest;

impl Guest {
    async fn ask_files_write(
        &mut self,
        request: files_write::Request,
    ) -> wasmtime::Result<Result<files_write::Answer, wit::FilesWriteError>> {
        match self.ask(Capability::FilesWrite, Request::FilesWrite(request)).await? {
            Response::FilesWrite(answer) => Ok(answer.map_err(Into::into)),
            _ => Err(NoGrant(Capability::FilesWrite).into()),
        }
    }
}

impl wit::Host for Guest {
    async fn find(&mut self, rule: wit::Rule) -> wasmtime::Result<Result<wit::Search, wit::FilesWriteError>> {
        let rule = files_write::Rule {
            pattern: rule.pattern,
            older_than: rule.older_than,
            at_least: rule.at_least,
            most: rule.most,
        };
        match self.ask_files_write(files_write::Request::Find { rule }).await? {
            Ok(files_write::Answer::Found { files, more }) => {
                let files = files.into_iter().map(|f| wit::Found {
                    path: f.path,
                    bytes: f.bytes,
                    modified: f.modified,
                    inode: f.inode,
                    device: f.device,
                });
                Ok(Ok(wit::Search { files: files.collect(), more }))
            }
            Ok(_) => Err(NoGrant(Capability::FilesWrite).into()),
            Err(e) => Ok(Err(e)),
        }
    }

    async fn put(
        &mut self,
        bundle: String,
        file: String,
        content: Vec<u8>,
        first: bool,
    ) -> wasmtime::Result<Result<String, wit::FilesWriteError>> {
        let put = files_write::Put { bundle, file, content, first };
        match self.ask_files_write(files_write::Request::Put(put)).await? {
            Ok(files_write::Answer::Put { path }) => Ok(Ok(path)),
            Ok(_) => Err(NoGrant(Capability::FilesWrite).into()),
            Err(e) => Ok(Err(e)),
        }
    }

    async fn delete(&mut self, file: wit::Found) -> wasmtime::Result<Result<wit::End, wit::FilesWriteError>> {
        let found = files_write::Found {
            modified: file.modified,
            path: file.path,
            bytes: file.bytes,
            inode: file.inode,
            device: file.device,
        };
        match self.ask_files_write(files_write::Request::Delete { found }).await? {
            Ok(files_write::Answer::Deleted) => Ok(Ok(wit::End::Deleted)),
            Ok(files_write::Answer::Gone) => Ok(Ok(wit::End::Gone)),
            Ok(_) => Err(NoGrant(Capability::FilesWrite).into()),
            Err(e) => Ok(Err(e)),
        }
    }
}

impl From<files_write::Error> for wit::FilesWriteError {
    fn from(e: files_write::Error) -> Self {
        use files_write::Error as E;
        match e {
            E::Denied(m) => Self::Denied(m),
            E::NotFound(m) => Self::NotFound(m),
            E::Invalid(m) => Self::Invalid(m),
            E::Changed(m) => Self::Changed(m),
            E::TooLarge(m) => Self::TooLarge(m),
            E::TimedOut(m) => Self::TimedOut(m),
            E::Io(m) => Self::Io(m),
        }
    }
}
