//! Request bodies and query strings, refused in the API's own form.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use picket_proto::model::NodeId;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// A JSON body; what it lacks is told in JSON too.
pub struct JsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(JsonRejection::MissingJsonContentType(_)) => {
                Err(ApiError::new(axum::http::StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body has to be JSON")
                    .advice("send `Content-Type: application/json`"))
            }
            Err(rejection) => Err(ApiError::new(rejection.status(), rejection.body_text())),
        }
    }
}

/// A query string as pairs, each taken by its name; a name that nobody took is refused.
pub struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map(|Query(pairs)| Self(pairs))
            .map_err(|rejection| ApiError::bad_request(rejection.body_text()))
    }
}

impl Params {
    /// All values of `name`.
    pub fn all(&mut self, name: &str) -> Vec<String> {
        let (taken, rest) = std::mem::take(&mut self.0).into_iter().partition(|(n, _)| n == name);
        self.0 = rest;
        let taken: Vec<(String, String)> = taken;
        taken.into_iter().map(|(_, value)| value).collect()
    }

    /// The one value of `name`.
    pub fn one(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        let mut values = self.all(name);
        match values.len() {
            0 | 1 => Ok(values.pop().filter(|value| !value.is_empty())),
            _ => Err(ApiError::bad_request(format!("{name} stands more than once in the query"))),
        }
    }

    /// The one value of `name`, parsed.
    pub fn parsed<T: std::str::FromStr>(&mut self, name: &str, wanted: &str) -> Result<Option<T>, ApiError> {
        self.one(name)?
            .map(|text| {
                text.parse().map_err(|_| ApiError::bad_request(format!("{name}={text:?} is not {wanted}")))
            })
            .transpose()
    }

    /// `limit`, between 1 and `max`.
    pub fn limit(&mut self, default: u32, max: u32) -> Result<u32, ApiError> {
        match self.parsed::<u32>("limit", "a number")? {
            None => Ok(default),
            Some(limit) if (1..=max).contains(&limit) => Ok(limit),
            Some(limit) => Err(ApiError::bad_request(format!("limit={limit}: 1 to {max} are allowed"))),
        }
    }

    /// Refuses what is left over.
    pub fn done(self) -> Result<(), ApiError> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(ApiError::bad_request(format!("unknown query parameter {name:?}"))),
        }
    }
}

/// A node's name out of a path.
pub fn node_id(name: &str) -> Result<NodeId, ApiError> {
    NodeId::new(name).map_err(|error| ApiError::bad_request(error.to_string()))
}
