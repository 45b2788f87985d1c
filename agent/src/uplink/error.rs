//! Why there is no stream, told apart by what has to be done about it.

use std::time::Duration;

use picket_proto::v1;

use super::translate::TranslateError;
use crate::identity::{AddressError, ConnectError, IdentityError};

#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("no aggregator is configured: set `aggregator = \"HOST:PORT\"` in [uplink]")]
    NoAddress,
    #[error(transparent)]
    Connect(ConnectError),
    #[error("this is not a Picket aggregator: {what}")]
    NotPicket { what: String },
    #[error(
        "the aggregator does not accept this node's certificate: {message}. If the node should be there, enrol it again: `picket-agent enroll --token TOKEN`"
    )]
    NotAccepted { message: String },
    #[error("the aggregator is busy or shutting down: {message}")]
    Busy { message: String },
    #[error("the stream broke: {message}")]
    Broken { message: String },
    #[error("the aggregator did not say Welcome within {} s", .after.as_secs())]
    NoWelcome { after: Duration },
    #[error(
        "the aggregator ended the stream without a word: it was restarted or killed, or a proxy between cut it"
    )]
    Ended,
    #[error(
        "the aggregator has acknowledged nothing for {} s: its disk may be full or stuck, its own log says more", .after.as_secs()
    )]
    Stalled { after: Duration },
    #[error(
        "the aggregator wants the columns codec {wanted}, this agent writes {}: bring both to the same version",
        picket_proto::columns::CODEC
    )]
    Codec { wanted: u32 },
    #[error("the aggregator broke the protocol: {what}")]
    Protocol { what: String },
    #[error("a record of the spool cannot be sent and is left out: {0}")]
    Record(#[from] TranslateError),
    #[error(
        "this node is revoked{}: it may come back with a new token only, `picket-agent enroll --token TOKEN`", said(.message)
    )]
    Revoked { message: String },
    #[error("the aggregator says that this node's certificate has expired{}: if it is not renewed by now, enrol the node again, `picket-agent enroll --token TOKEN`", said(.message))]
    Expired { message: String },
    #[error("another agent connected with this node's identity{}: was the state folder copied to a second machine? Enrol each machine with a token of its own", said(.message))]
    Replaced { message: String },
    #[error("the aggregator shuts down{}", said(.message))]
    Shutdown { message: String },
    #[error("the aggregator ended the stream ({reason}){}", said(.message))]
    Goodbye { reason: String, message: String },
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}

/// A foreign text, bounded for logs.
fn bounded(text: &str) -> String {
    text.chars().take(500).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl UplinkError {
    pub(super) fn of_goodbye(goodbye: &v1::Goodbye) -> Self {
        let message = bounded(&goodbye.message);
        match goodbye.reason.as_str() {
            "revoked" => Self::Revoked { message },
            "expired" => Self::Expired { message },
            "replaced" => Self::Replaced { message },
            "shutdown" => Self::Shutdown { message },
            reason => Self::Goodbye { reason: bounded(reason), message },
        }
    }

    /// What a failed call says. `broken`: why the connection under it broke, if it did; `welcomed`: the other side has
    /// shown itself to be an aggregator.
    pub(super) fn of_status(status: &tonic::Status, broken: Option<ConnectError>, welcomed: bool) -> Self {
        use tonic::Code;
        let message = bounded(status.message());
        match (status.code(), broken) {
            (Code::Unauthenticated | Code::PermissionDenied, _) => Self::NotAccepted { message },
            (Code::Unimplemented | Code::NotFound, _) => Self::NotPicket {
                what: format!(
                    "it knows no uplink (is this the port of the aggregator's [uplink] section?): {message}"
                ),
            },
            (Code::ResourceExhausted, _) => Self::Busy { message },
            (_, Some(ConnectError::Broken { source, .. })) => Self::Broken { message: source.to_string() },
            (_, Some(error)) => Self::Connect(error),
            (Code::Unavailable, None) if std::error::Error::source(status).is_none() => {
                Self::Busy { message }
            }
            (Code::Internal | Code::Unknown, None) if !welcomed => Self::NotPicket { what: message },
            _ => Self::Broken { message: bounded(&crate::identity::chain(status)) },
        }
    }

    /// Nothing changes until somebody does something: attempts are rare.
    pub(super) fn needs_a_person(&self) -> bool {
        match self {
            Self::Connect(error) => error.needs_a_person(),
            Self::NotAccepted { .. }
            | Self::Revoked { .. }
            | Self::Expired { .. }
            | Self::Identity(_)
            | Self::Address(_)
            | Self::NoAddress
            | Self::Codec { .. } => true,
            _ => false,
        }
    }

    /// Another identity on disk may mend it.
    pub(super) fn is_about_identity(&self) -> bool {
        self.needs_a_person() || matches!(self, Self::Connect(_))
    }

    pub(super) fn wants_distance(&self) -> bool {
        matches!(self, Self::Replaced { .. } | Self::Goodbye { .. } | Self::Protocol { .. })
    }
}
