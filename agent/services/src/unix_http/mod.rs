//! HTTP over granted Unix sockets: the requests of [`http`] over another kind of connection.
//!
//! The socket is named by the path that the grant has, letter for letter; how it is opened, [`crate::socket`] says.

mod scope;

use picket_proto::model::PluginId;
use serde::{Deserialize, Serialize};

use crate::http::parts::{Asked, Parts};
use crate::http::{self, wire};
use crate::{ServiceLimits, socket};

pub(crate) use scope::Rules;
pub use scope::{Scope, SocketRule};

/// The request's URL gives path and query; its host is what the server sees as `Host`. Errors and answers are
/// those of [`http`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub socket: String,
    pub request: http::Request,
}

pub(crate) async fn send(
    plugin: &PluginId,
    rules: &Rules,
    parts: &Parts,
    limits: &ServiceLimits,
    request: Request,
) -> Result<http::Answer, http::Error> {
    let Request { socket, request } = request;
    let parsed = http::parse(&request)?;
    if parsed.scheme != "http" {
        return Err(http::Error::Invalid("over a Unix socket only http:// is spoken".to_owned()));
    }
    let secret = request.secret.as_deref();
    let rule =
        rules.find(&socket, &parsed.path, parsed.method.as_str(), secret).map_err(http::Error::Denied)?;
    let secret = request.secret.as_ref().and(rule.secret.as_ref());
    let mut headers = http::headers(&request.headers, secret)?;
    let part = Asked::of(&request);
    let limit = http::timeout(&request, part.as_ref(), limits.http_time);
    let from = format!("{socket} {}", parsed.target);
    let connect = async {
        if let Some(secret) = secret {
            let (name, value) = http::read_secret(secret).await?;
            headers.insert(name, value);
        }
        let stream = socket::connect(&socket).await?;
        Ok::<_, http::Error>((stream, parsed.outgoing(headers, request.body)))
    };
    let most = limits.http_body_bytes;
    let work = async {
        let Some(part) = part else {
            let (stream, outgoing) = connect.await?;
            return wire::speak(stream, &socket, outgoing, wire::Most::Bytes(most))
                .await
                .map(|(answer, _)| answer);
        };
        let open = async {
            let (stream, outgoing) = connect.await?;
            wire::open(stream, &socket, outgoing, wire::Patience::SHORT).await
        };
        parts.answer(plugin, &from, &part, most, open).await
    };
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        Err(http::Error::TimedOut(format!("{socket}: no whole answer within {} ms", limit.as_millis())))
    })
}

impl From<socket::Error> for http::Error {
    fn from(e: socket::Error) -> Self {
        match e {
            socket::Error::Refused { .. } => Self::Denied(e.to_string()),
            socket::Error::Absent(_) | socket::Error::Unreachable { .. } => Self::Unreachable(e.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
