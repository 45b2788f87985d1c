//! HTTP/1.1 over granted Unix sockets, with the requests and answers of [`crate::http`]. Grant: `unix-http`.

use crate::http::{HttpError, Request, Response, Stream};
use crate::sys;

/// Sends a request to the server that listens on `socket`, a path as the grant writes it. The request's URL gives path
/// and query (`http://localhost/slurm/v0.0.40/ping`); its host is what the server sees as `Host`.
///
/// # Errors
/// Any [`HttpError`]; [`HttpError::Unreachable`] too where there is no such socket.
pub fn send(socket: &str, request: &Request) -> Result<Response, HttpError> {
    sys::unix_send(socket, request)
}

/// As [`crate::http::stream`], over a socket.
///
/// # Errors
/// Any [`HttpError`].
pub fn stream(socket: &str, request: &Request) -> Result<Stream, HttpError> {
    let socket = socket.to_owned();
    Stream::begin(request, move |request| send(&socket, request))
}
