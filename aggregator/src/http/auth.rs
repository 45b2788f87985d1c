//! Who calls, and whether they may: a bearer token on every request, a role on every route.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::{ApiError, blocking};
use crate::actions::Asker;
use crate::identity::{Access, Role};
use crate::limiter::FailureLimiter;
use crate::transport::PeerInfo;

/// The token that a request came with.
#[derive(Debug, Clone)]
pub struct Caller {
    pub name: Arc<str>,
    pub role: Role,
}

impl Caller {
    /// For what is done in a caller's name.
    pub fn asker(&self) -> Asker<'_> {
        Asker { name: &self.name, role: self.role.as_str(), is_admin: self.role >= Role::Admin }
    }
}

/// What the check needs.
#[derive(Clone)]
pub struct Door {
    pub access: Arc<Access>,
    pub limiter: Arc<FailureLimiter>,
}

/// Lets a request through that has a good token, whatever its path: without one not even the paths are told.
pub async fn authenticate(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let text = bearer(request.headers());
    let address = request.extensions().get::<PeerInfo>().map(|peer| peer.address.ip());
    match identify(&door, text, address).await {
        Ok(caller) => {
            if let Some(peer) = request.extensions().get::<PeerInfo>()
                && !peer.trust()
            {
                return ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many connections")
                    .advice("close some, or raise http.max_connections")
                    .into_response();
            }
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// Lets a caller through that has at least this role.
pub async fn require(role: Role, request: Request, next: Next) -> Response {
    match request.extensions().get::<Caller>() {
        Some(caller) if caller.role >= role => next.run(request).await,
        Some(caller) => ApiError::new(
            StatusCode::FORBIDDEN,
            format!("the token {:?} has the role {}; this needs {role}", caller.name, caller.role),
        )
        .advice(format!("ask an admin for a token: picket token create --role {role} --name NAME"))
        .into_response(),
        None => unauthorized("no token").into_response(),
    }
}

/// What stands in the header: nothing, or a token, or something else (then the token is empty).
fn bearer(headers: &HeaderMap) -> Option<String> {
    let header = headers.get(header::AUTHORIZATION)?;
    let token =
        header.to_str().ok().and_then(|text| text.split_once(' ')).and_then(|(scheme, token)| {
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
        });
    Some(token.unwrap_or_default())
}

async fn identify(door: &Door, text: Option<String>, address: Option<IpAddr>) -> Result<Caller, ApiError> {
    let Some(text) = text else {
        return Err(unauthorized("this needs a token"));
    };
    let access = Arc::clone(&door.access);
    if let Some(token) = blocking(move || access.check(&text)).await? {
        return Ok(Caller { name: token.name.into(), role: token.role });
    }
    metrics::counter!("picket_aggregator_logins_refused_total").increment(1);
    match address.and_then(|address| door.limiter.failed(address)) {
        Some(wait) => {
            let seconds = wait.as_secs().max(1);
            let mut error = ApiError::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many requests with a bad token from this address",
            );
            error.retry_after_s = Some(seconds);
            Err(error.advice(format!("wait {seconds} s and use a good token")))
        }
        None => Err(unauthorized("the token is not valid: unknown, expired or revoked")),
    }
}

fn unauthorized(error: &str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, error)
        .advice("send `Authorization: Bearer TOKEN`; an admin makes one with `picket token create --role viewer --name NAME`")
}
