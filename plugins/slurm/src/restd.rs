//! slurmrestd, over TCP or a Unix socket.

use picket_sdk::http::{HttpError, Request, Response};
use picket_sdk::{Failure, http, unix_http};

use crate::settings::Settings;

/// Those that are asked for, newest first. Each Slurm serves a few of them.
const NEWEST: u32 = 46;
const OLDEST: u32 = 36;

#[derive(Debug, Clone)]
pub struct Restd {
    place: Place,
    pub version: String,
    secret: String,
    user: String,
}

#[derive(Debug, Clone)]
enum Place {
    Url(String),
    Socket(String),
}

impl Restd {
    /// The one that is configured, at the newest version that it answers to; none: none is configured.
    pub fn find(settings: &Settings) -> Option<Result<Self, Failure>> {
        let place = if !settings.restd_url.is_empty() {
            Place::Url(settings.restd_url.trim_end_matches('/').to_owned())
        } else if !settings.restd_socket.is_empty() {
            Place::Socket(settings.restd_socket.clone())
        } else {
            return None;
        };
        let mut found = Self {
            place,
            version: settings.restd_version.clone(),
            secret: settings.restd_secret.clone(),
            user: settings.restd_user.clone(),
        };
        if !found.version.is_empty() {
            return Some(Ok(found));
        }
        for number in (OLDEST..=NEWEST).rev() {
            found.version = format!("v0.0.{number}");
            match found.send("ping") {
                Ok(answer) if answer.status == 404 => {}
                // 22.05 says so of a path that it does not know.
                Ok(answer) if answer.status == 500 && says_unknown(&answer) => {}
                Ok(answer) if answer.status == 401 || answer.status == 403 => {
                    return Some(Err(refused(&answer)));
                }
                Ok(_) => return Some(Ok(found)),
                Err(error) => return Some(Err(error.into())),
            }
        }
        let why =
            format!("slurmrestd knows no version from v0.0.{OLDEST} to v0.0.{NEWEST}: set restd_version");
        Some(Err(Failure::new("version", why)))
    }

    fn send(&self, what: &str) -> Result<Response, HttpError> {
        let path = format!("/slurm/{}/{what}", self.version);
        let url = match &self.place {
            Place::Url(base) => format!("{base}{path}"),
            Place::Socket(_) => format!("http://localhost{path}"),
        };
        let mut request = Request::get(url).header("Accept", "application/json");
        if !self.user.is_empty() {
            request = request.header("X-SLURM-USER-NAME", self.user.clone());
        }
        if !self.secret.is_empty() {
            request = request.secret(self.secret.clone());
        }
        match &self.place {
            Place::Url(_) => http::send(&request),
            Place::Socket(socket) => unix_http::send(socket, &request),
        }
    }

    /// The body of an answer. One with an error in it is told by what parses it; one that is none by its status.
    pub fn get(&self, what: &str) -> Result<Vec<u8>, Failure> {
        let answer = self.send(what)?;
        match answer.status {
            200..300 => Ok(answer.body),
            401 | 403 => Err(refused(&answer)),
            status => {
                let said =
                    crate::json::items::<serde::de::IgnoredAny>(answer.body.as_slice(), "-", |_| {}).err();
                let said = said.filter(|f| f.reason == "slurm").map(|f| f.message).unwrap_or_default();
                Err(Failure::new("status", format!("slurmrestd answered {status} to {what}. {said}")))
            }
        }
    }
}

fn refused(answer: &Response) -> Failure {
    let why =
        "slurmrestd refuses the token: renew the secret (scontrol token), or set restd_secret and restd_user";
    Failure::new("denied", format!("{why} (status {})", answer.status))
}

fn says_unknown(answer: &Response) -> bool {
    let start: String = String::from_utf8_lossy(&answer.body).chars().take(500).collect();
    start.contains("Unable to find") || start.contains("Unable find") || start.contains("not found")
}
