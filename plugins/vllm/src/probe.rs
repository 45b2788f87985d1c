//! What is asked of a server, and what an answer is worth.

use picket_sdk::Failure;
use picket_sdk::http::{HttpError, Request, Response};
use serde::Deserialize;

/// The label `state` of `picket_vllm_endpoint_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Ok,
    /// Nothing answers.
    Unreachable,
    /// A status that is no success, or a redirection.
    Refusing,
    /// No page of metrics, or one that is too long.
    Malformed,
    /// Not in time.
    Slow,
    /// The agent's grant does not allow the address.
    Denied,
    /// The container has no address that can be reached.
    NoAddress,
}

pub const ANSWERS: [&str; 7] = ["ok", "unreachable", "refusing", "malformed", "slow", "denied", "no-address"];

impl Answer {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unreachable => "unreachable",
            Self::Refusing => "refusing",
            Self::Malformed => "malformed",
            Self::Slow => "slow",
            Self::Denied => "denied",
            Self::NoAddress => "no-address",
        }
    }
}

/// A body, or what is wrong with the answer.
pub fn body<'a>(
    url: &str,
    result: &'a Result<Response, HttpError>,
) -> Result<&'a Response, (Answer, Failure)> {
    let response = match result {
        Ok(response) => response,
        Err(error) => {
            let answer = match error {
                HttpError::TimedOut(_) => Answer::Slow,
                HttpError::Denied(_) | HttpError::Invalid(_) => Answer::Denied,
                HttpError::TooLarge(_) | HttpError::Malformed(_) => Answer::Malformed,
                _ => Answer::Unreachable,
            };
            return Err((answer, Failure::from(error.clone())));
        }
    };
    if (300..400).contains(&response.status) {
        let to: String = response.header("location").unwrap_or("nowhere").chars().take(200).collect();
        let message = format!("{url} redirects to {to}, which is not followed: set the address that answers");
        return Err((Answer::Refusing, Failure::new("redirect", message)));
    }
    if let Err(failure) = response.success() {
        return Err((Answer::Refusing, Failure::new(failure.reason, format!("{url}: {}", failure.message))));
    }
    let html = response.header("content-type").is_some_and(|t| t.trim_start().starts_with("text/html"));
    if html {
        let failure = Failure::new("malformed", format!("{url}: the answer is a web page"));
        return Err((Answer::Malformed, failure));
    }
    Ok(response)
}

/// The requests of one look, with whose they are.
#[derive(Default)]
pub struct Round {
    pub requests: Vec<Request>,
    pub of: Vec<(String, Question)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    Models,
    Version,
    Health,
    Metrics,
}

impl Round {
    pub fn ask(&mut self, server: &str, question: Question, request: Request) {
        self.requests.push(request);
        self.of.push((server.to_owned(), question));
    }
}

/// `/v1/models`
#[derive(Debug, Deserialize)]
pub struct Models {
    pub data: Vec<Model>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Model {
    pub id: String,
    #[serde(default)]
    pub root: Option<String>,
    /// An adapter's base model.
    #[serde(default)]
    pub parent: Option<String>,
    #[serde(default)]
    pub max_model_len: Option<u64>,
}

/// `/version`
#[derive(Debug, Deserialize)]
pub struct Version {
    pub version: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let response = |status: u16, kind: &str| {
            let headers =
                vec![("Content-Type".to_owned(), kind.to_owned()), ("Location".to_owned(), "/x".to_owned())];
            Ok(Response { status, headers, body: b"x".to_vec() })
        };
        for (result, expected, reason) in [
            (response(500, "text/plain"), Answer::Refusing, "status"),
            (response(404, "text/plain"), Answer::Refusing, "status"),
            (response(307, "text/plain"), Answer::Refusing, "redirect"),
            (response(200, "text/html; charset=utf-8"), Answer::Malformed, "malformed"),
            (Err(HttpError::TimedOut(String::new())), Answer::Slow, "timed-out"),
            (Err(HttpError::Unreachable(String::new())), Answer::Unreachable, "unreachable"),
            (Err(HttpError::TooLarge(String::new())), Answer::Malformed, "too-large"),
            (Err(HttpError::Malformed(String::new())), Answer::Malformed, "malformed"),
            (Err(HttpError::Denied(String::new())), Answer::Denied, "denied"),
        ] {
            let (answer, failure) = body("u", &result).unwrap_err();
            assert_eq!((answer, failure.reason.as_ref()), (expected, reason), "{result:?}");
        }
        assert!(body("u", &response(200, "text/plain")).is_ok());
        let models: Models = serde_json::from_str(include_str!("../tests/fixtures/v1_models.json")).unwrap();
        assert_eq!((models.data[0].id.as_str(), models.data[0].max_model_len), ("tiny-llama", Some(512)));
        let version: Version = serde_json::from_str(include_str!("../tests/fixtures/version.json")).unwrap();
        assert_eq!(version.version, "0.32.0");
    }
}
