//! HTTP over Unix sockets.

mod scope;

use serde::{Deserialize, Serialize};

use crate::http;

pub use scope::{Scope, SocketRule};

/// The request's URL gives path and query; its host is what the server sees as `Host`. Errors and answers are
/// those of [`http`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub socket: String,
    pub request: http::Request,
}
