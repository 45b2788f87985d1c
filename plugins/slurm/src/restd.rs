//! slurmrestd, over TCP or a Unix socket.

use std::io::Read as _;
use std::time::Duration;

use picket_sdk::http::{HttpError, Request, Stream};
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
    timeout: Duration,
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
            timeout: Duration::from_secs(settings.restd_timeout_seconds),
        };
        if !found.version.is_empty() {
            return Some(Ok(found));
        }
        for number in (OLDEST..=NEWEST).rev() {
            found.version = format!("v0.0.{number}");
            match found.send("ping") {
                Ok(mut answer) => match answer.status() {
                    404 => {}
                    // 22.05 says so of a path that it does not know.
                    500 if says_unknown(&answer.said()) => {}
                    status @ (401 | 403) => return Some(Err(refused(status))),
                    _ => return Some(Ok(found)),
                },
                Err(error) => return Some(Err(error.into())),
            }
        }
        let why =
            format!("slurmrestd knows no version from v0.0.{OLDEST} to v0.0.{NEWEST}: set restd_version");
        Some(Err(Failure::new("version", why)))
    }

    fn send(&self, what: &str) -> Result<Stream, HttpError> {
        let path = format!("/slurm/{}/{what}", self.version);
        let url = match &self.place {
            Place::Url(base) => format!("{base}{path}"),
            Place::Socket(_) => format!("http://localhost{path}"),
        };
        let mut request = Request::get(url).header("Accept", "application/json").timeout(self.timeout);
        if !self.user.is_empty() {
            request = request.header("X-SLURM-USER-NAME", self.user.clone());
        }
        if !self.secret.is_empty() {
            request = request.secret(self.secret.clone());
        }
        match &self.place {
            Place::Url(_) => http::stream(&request),
            Place::Socket(socket) => unix_http::stream(socket, &request),
        }
    }

    /// Parses an answer as it comes, however long it is. One with an error in it is told by what parses it; one that is none by
    /// its status; one that breaks off by what broke it.
    pub fn read<T>(
        &self,
        what: &str,
        parse: impl FnOnce(&mut Stream) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut answer = self.send(what)?;
        match answer.status() {
            200..300 => {
                let parsed = parse(&mut answer);
                // What comes after the end of the document.
                let mut rest = [0; 4096];
                while parsed.is_ok() && matches!(answer.read(&mut rest), Ok(n) if n > 0) {}
                answer.failure().map_or(parsed, Err)
            }
            status @ (401 | 403) => Err(refused(status)),
            status => {
                let said = answer.said();
                let said = crate::json::items::<serde::de::IgnoredAny>(said.as_bytes(), "-", |_| {}).err();
                let said = said.filter(|f| f.reason == "slurm").map(|f| f.message).unwrap_or_default();
                Err(Failure::new("status", format!("slurmrestd answered {status} to {what}. {said}")))
            }
        }
    }
}

fn refused(status: u16) -> Failure {
    let why =
        "slurmrestd refuses the token: renew the secret (scontrol token), or set restd_secret and restd_user";
    Failure::new("denied", format!("{why} (status {status})"))
}

fn says_unknown(said: &str) -> bool {
    let start: String = said.chars().take(500).collect();
    start.contains("Unable to find") || start.contains("Unable find") || start.contains("not found")
}
