use super::host::unix_http;
use crate::http::{HttpError, Request, Response};

pub(crate) fn unix_send(socket: &str, wanted: &Request) -> Result<Response, HttpError> {
    super::response(unix_http::send(socket, &super::request(wanted)))
}
