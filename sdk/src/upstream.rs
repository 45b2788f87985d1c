//! Servers that are read again and again: what state each is in, and where a redirect within it leads.
//!
//! Requests go out all at once, those of servers that answered last time first: what they said can be set before the
//! others are waited for. One that gave no answer in time is asked in every fourth round at last, so that it costs the
//! others little. A redirect is followed once, and within the same origin only: where else it leads, a secret of this server
//! has no business, and an address of a cloud's metadata neither.

use std::time::Duration;

use crate::http::{HttpError, Request, Response, send_many};
use crate::{Failure, exposition};

/// What a server does, by what came of the last request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Condition {
    /// It answers as it should.
    Up,
    /// No name, no route, nothing listens.
    Unreachable,
    /// It answers, with a refusal: a status that is no success, a redirect to elsewhere, no trust; or this node refuses
    /// to ask it.
    Refusing,
    /// It answers, and what it says can't be used.
    Malformed,
    /// No whole answer in time.
    Slow,
}

impl Condition {
    /// The words of all conditions, for a state set.
    pub const ALL: [&'static str; 5] = ["up", "unreachable", "refusing", "malformed", "slow"];

    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Unreachable => "unreachable",
            Self::Refusing => "refusing",
            Self::Malformed => "malformed",
            Self::Slow => "slow",
        }
    }

    /// Of a request that brought no answer.
    pub const fn of_error(error: &HttpError) -> Self {
        match error {
            HttpError::Unreachable(_) | HttpError::Other(_) => Self::Unreachable,
            HttpError::Denied(_) | HttpError::Invalid(_) | HttpError::Tls(_) => Self::Refusing,
            HttpError::TooLarge(_) | HttpError::Malformed(_) => Self::Malformed,
            HttpError::TimedOut(_) => Self::Slow,
        }
    }
}

/// Why a server gave nothing, and what that says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What it is in.
    pub condition: Condition,
    /// For `picket_source_errors_total` and the log.
    pub failure: Failure,
}

impl Trouble {
    /// An answer that can't be used.
    pub fn malformed(failure: Failure) -> Self {
        Self { condition: Condition::Malformed, failure }
    }
}

/// One address that is asked in every round.
#[derive(Debug, Clone)]
pub struct Upstream {
    url: String,
    /// Where the redirect led, if one did.
    moved: Option<String>,
    timeout: Duration,
    secret: Option<String>,
    accept: &'static str,
    troubled: bool,
    /// Times in a row that it was too slow, up to 3.
    slow: u32,
    /// Rounds to leave out.
    skip: u32,
}

impl Upstream {
    /// A page of metrics, asked for with [`exposition::ACCEPT`].
    pub fn page(url: impl Into<String>, timeout: Duration) -> Self {
        let url = url.into();
        Self {
            url,
            moved: None,
            timeout,
            secret: None,
            accept: exposition::ACCEPT,
            troubled: false,
            slow: 0,
            skip: 0,
        }
    }

    /// A JSON document.
    pub fn json(url: impl Into<String>, timeout: Duration) -> Self {
        Self { accept: "application/json", ..Self::page(url, timeout) }
    }

    /// With a granted secret.
    #[must_use]
    pub fn secret(mut self, name: Option<&str>) -> Self {
        self.secret = name.map(str::to_owned);
        self
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether it gave nothing when it was last asked.
    pub const fn troubled(&self) -> bool {
        self.troubled
    }

    fn request(&self) -> Request {
        let request = Request::get(self.moved.as_ref().unwrap_or(&self.url)).header("Accept", self.accept);
        let request = request.timeout(self.timeout);
        match &self.secret {
            Some(name) => request.secret(name.as_str()),
            None => request,
        }
    }

    /// Whether it is its turn.
    fn due(&mut self) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        true
    }

    fn judge(&mut self, answer: Result<Response, HttpError>) -> Result<Response, Trouble> {
        let judged = match answer {
            Ok(response) if (200..300).contains(&response.status) => Ok(response),
            Ok(response) => {
                let failure = match response.success() {
                    Err(failure) => failure,
                    Ok(_) => Failure::new("status", "no success"),
                };
                Err(Trouble { condition: Condition::Refusing, failure: self.named(failure) })
            }
            Err(error) => {
                let condition = Condition::of_error(&error);
                Err(Trouble { condition, failure: self.named(error.into()) })
            }
        };
        self.count(judged.as_ref().err().map(|trouble| trouble.condition));
        judged
    }

    fn named(&self, failure: Failure) -> Failure {
        Failure { message: format!("{}: {}", self.url, failure.message), ..failure }
    }

    /// What came of it: none, or the trouble.
    fn count(&mut self, trouble: Option<Condition>) {
        match trouble {
            None => {
                self.slow = 0;
                self.troubled = false;
            }
            Some(condition) => {
                self.troubled = true;
                self.moved = None;
                self.slow = if condition == Condition::Slow { (self.slow + 1).min(3) } else { 0 };
                self.skip = (1_u32 << self.slow.saturating_sub(1)) - 1;
            }
        }
    }

    /// Says that its answer could not be used: only the caller knows.
    pub fn unusable(&mut self) {
        self.count(Some(Condition::Malformed));
    }

    /// Where a redirect leads, if that is within the origin.
    fn redirect(&mut self, answer: &Result<Response, HttpError>) -> Option<Result<(), Trouble>> {
        let Ok(response) = answer else { return None };
        if !matches!(response.status, 301 | 302 | 303 | 307 | 308) {
            return None;
        }
        let to = response.header("location").unwrap_or_default();
        let from = self.moved.as_ref().unwrap_or(&self.url);
        Some(match same_origin(from, to) {
            Some(url) => {
                self.moved = Some(url);
                Ok(())
            }
            None => {
                let shown: String = to.chars().take(200).collect();
                let failure =
                    Failure::new("redirect", format!("it leads elsewhere, and is not followed: {shown:?}"));
                self.count(Some(Condition::Refusing));
                Err(Trouble { condition: Condition::Refusing, failure: self.named(failure) })
            }
        })
    }
}

/// Asks those of `upstreams` for which `wanted` says so and whose turn it is, all at once. None: not asked.
pub fn ask(
    upstreams: &mut [&mut Upstream],
    wanted: impl Fn(&Upstream) -> bool,
) -> Vec<Option<Result<Response, Trouble>>> {
    let mut results: Vec<Option<Result<Response, Trouble>>> = upstreams.iter().map(|_| None).collect();
    let mut asked: Vec<usize> = Vec::new();
    for (i, upstream) in upstreams.iter_mut().enumerate() {
        if wanted(upstream) && upstream.due() {
            asked.push(i);
        }
    }
    // The second round is for those that were redirected.
    for last in [false, true] {
        let requests: Vec<Request> =
            asked.iter().filter_map(|i| upstreams.get(*i)).map(|upstream| upstream.request()).collect();
        if requests.is_empty() {
            break;
        }
        let mut again = Vec::new();
        for (i, answer) in asked.iter().zip(send_many(&requests)) {
            let (Some(upstream), Some(result)) = (upstreams.get_mut(*i), results.get_mut(*i)) else {
                continue;
            };
            match upstream.redirect(&answer) {
                Some(Ok(())) if !last => again.push(*i),
                Some(Err(trouble)) => *result = Some(Err(trouble)),
                _ => *result = Some(upstream.judge(answer)),
            }
        }
        asked = again;
    }
    results
}

/// `to`, as a redirect of `from` names it, as a whole address, if both have the same scheme, host and port.
pub fn same_origin(from: &str, to: &str) -> Option<String> {
    let origin = origin(from)?;
    if to.is_empty() || to.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
        return None;
    }
    if to.starts_with("//") {
        return None;
    }
    if to.starts_with('/') {
        return Some(format!("{origin}{to}"));
    }
    let same = self::origin(to)?.eq_ignore_ascii_case(origin);
    same.then(|| to.to_owned())
}

/// Scheme, host and port of a URL: what stands before its path.
pub fn origin(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    if !matches!(scheme, "http" | "https") {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next().filter(|a| !a.is_empty() && !a.contains('@'))?;
    url.get(..scheme.len() + 3 + authority.len())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_within_the_origin() {
        let from = "http://127.0.0.1:4000/metrics";
        for (to, wanted) in [
            ("/metrics/", Some("http://127.0.0.1:4000/metrics/")),
            ("http://127.0.0.1:4000/metrics/", Some("http://127.0.0.1:4000/metrics/")),
            ("HTTP://127.0.0.1:4000/metrics/", None),
            ("http://127.0.0.1:4001/metrics/", None),
            ("https://127.0.0.1:4000/metrics/", None),
            ("http://169.254.169.254/latest/meta-data/", None),
            ("//169.254.169.254/latest/meta-data/", None),
            ("/\\169.254.169.254/", None),
            ("http://127.0.0.1:4000@169.254.169.254/", None),
            ("http://127.0.0.1:4000.evil.example/", None),
            ("file:///etc/passwd", None),
            ("metrics/", None),
            ("", None),
        ] {
            assert_eq!(same_origin(from, to).as_deref(), wanted, "{to}");
        }
        assert_eq!(origin("http://[::1]:80/x?y"), Some("http://[::1]:80"));
        assert_eq!(origin("http://h"), Some("http://h"));
        assert_eq!(origin("http:///x"), None);
    }

    #[test]
    fn one_that_is_slow_is_asked_less_often() {
        let mut upstream = Upstream::page("http://127.0.0.1:1/metrics", Duration::from_secs(1));
        let mut gaps = |condition: Option<Condition>| -> Vec<u32> {
            let mut gap = || {
                let mut gap = 0;
                while !upstream.due() {
                    gap += 1;
                }
                upstream.count(condition);
                gap
            };
            (0..6).map(|_| gap()).collect()
        };
        assert_eq!(gaps(Some(Condition::Slow)), [0, 0, 1, 3, 3, 3]);
        assert_eq!(gaps(Some(Condition::Unreachable)), [3, 0, 0, 0, 0, 0]);
        assert_eq!(gaps(None), [0; 6]);
    }
}
