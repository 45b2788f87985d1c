//! What crosses the border between what calls a plugin and what acts for it: owned, serializable data.

use serde::{Deserialize, Serialize};

use crate::{command, containers, files, http, kmsg, logs, nvml, store, system, unix_http};

/// One effect that a plugin asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    Store(store::Request),
    Files(files::Request),
    /// Sent all at once; a slow one delays the answer, not the others.
    Http(Vec<http::Request>),
    System(system::Request),
    Containers(containers::Request),
    UnixHttp(unix_http::Request),
    Nvml(nvml::Request),
    Kmsg(kmsg::Request),
    Logs(logs::Request),
    Command(command::Request),
}

/// The answer to the [`Request`] of the same name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Response {
    Store(Result<store::Answer, store::Error>),
    Files(Result<files::Answer, files::Error>),
    /// In the order of the requests.
    Http(Vec<Result<http::Answer, http::Error>>),
    System(system::Answer),
    Containers(Result<containers::Answer, containers::Error>),
    UnixHttp(Result<http::Answer, http::Error>),
    Nvml(Result<nvml::Answer, nvml::Error>),
    Kmsg(Result<kmsg::Answer, kmsg::Error>),
    Logs(Result<logs::Answer, logs::Error>),
    Command(Result<command::Answer, command::Error>),
    /// The grant is for another capability than the request: a fault of the caller, not of the plugin.
    Mismatch,
}
