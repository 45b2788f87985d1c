//! What crosses the border between what calls a plugin and what acts for it: owned, serializable data.

use serde::{Deserialize, Serialize};

use crate::grants::Capability;
use crate::{
    command, containers, containers_control, files, files_write, http, kmsg, logs, nvml, store, system,
    systemd_control, unix_http,
};

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
    ContainersControl(containers_control::Request),
    SystemdControl(systemd_control::Request),
    FilesWrite(files_write::Request),
}

impl Request {
    /// The capability whose grant covers it.
    pub const fn capability(&self) -> Capability {
        match self {
            Self::Store(_) => Capability::Store,
            Self::Files(_) => Capability::Files,
            Self::Http(_) => Capability::Http,
            Self::System(_) => Capability::System,
            Self::Containers(_) => Capability::Containers,
            Self::UnixHttp(_) => Capability::UnixHttp,
            Self::Nvml(_) => Capability::Nvml,
            Self::Kmsg(_) => Capability::Kmsg,
            Self::Logs(_) => Capability::Logs,
            Self::Command(_) => Capability::Command,
            Self::ContainersControl(_) => Capability::ContainersControl,
            Self::SystemdControl(_) => Capability::SystemdControl,
            Self::FilesWrite(_) => Capability::FilesWrite,
        }
    }
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
    ContainersControl(Result<containers_control::Answer, containers_control::Error>),
    SystemdControl(Result<systemd_control::Answer, systemd_control::Error>),
    FilesWrite(Result<files_write::Answer, files_write::Error>),
    /// The grant is for another capability than the request: a fault of the caller, not of the plugin.
    Mismatch,
}
