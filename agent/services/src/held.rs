//! Effects that are held back: while an action plans, probes or describes itself, what it may only read still answers, and
//! what would change something is refused, whatever is granted.
//!
//! The word is the agent's ([`crate::grants::Admission::hold_effects`]), not the plugin's, and it is asked here, where
//! the effect would be had: nothing between the plugin and this door can forget it.

use crate::grants::{Compiled, Grant};
use crate::{Request, Response, command, containers_control, files_write, http, store, systemd_control};

/// The refusal, where this request is an effect and effects are held back.
pub(crate) fn refusal(grant: &Grant, request: &Request) -> Option<Response> {
    if !grant.holds_effects() {
        return None;
    }
    const WHY: &str =
        "nothing may be changed in this call: only within apply and revert has an action effects";
    let why = || WHY.to_owned();
    Some(match request {
        Request::Store(store::Request::Set { .. } | store::Request::Delete { .. }) => {
            Response::Store(Err(store::Error::Other(why())))
        }
        Request::Http(requests) if requests.iter().any(changes) => {
            Response::Http(requests.iter().map(|_| Err(http::Error::Denied(why()))).collect())
        }
        Request::UnixHttp(request) if changes(&request.request) => {
            Response::UnixHttp(Err(http::Error::Denied(why())))
        }
        Request::Command(command::Request::Start { command, .. }) => {
            let reads = match grant.scope() {
                Compiled::Command(commands) => commands.reads(command),
                _ => false,
            };
            if reads {
                return None;
            }
            Response::Command(Err(command::Error::Denied(format!(
                "{WHY}; a command that changes nothing is granted with reads = true"
            ))))
        }
        Request::ContainersControl(_) => {
            Response::ContainersControl(Err(containers_control::Error::Denied(why())))
        }
        Request::SystemdControl(systemd_control::Request::Change { .. }) => {
            Response::SystemdControl(Err(systemd_control::Error::Denied(why())))
        }
        Request::FilesWrite(files_write::Request::Delete { .. } | files_write::Request::Put(_)) => {
            Response::FilesWrite(Err(files_write::Error::Denied(why())))
        }
        Request::Store(store::Request::Get { .. } | store::Request::Keys { .. })
        | Request::Http(_)
        | Request::UnixHttp(_)
        | Request::Command(command::Request::Read { .. } | command::Request::End { .. })
        | Request::SystemdControl(systemd_control::Request::Show { .. })
        | Request::FilesWrite(files_write::Request::Find { .. })
        | Request::Files(_)
        | Request::System(_)
        | Request::Containers(_)
        | Request::Nvml(_)
        | Request::Kmsg(_)
        | Request::Logs(_) => return None,
    })
}

/// RFC 9110, 9.2.1: the methods that are safe.
fn changes(request: &http::Request) -> bool {
    !matches!(request.method.as_str(), "GET" | "HEAD" | "OPTIONS")
}
