//! Loki's parameters: in the query string, or in the body of a POST. What is not known is ignored, as Loki does it.

use std::time::Duration;

use axum::extract::{FromRequest, Query, Request};
use axum::http::{Method, Uri, header};

use super::LokiError;
use crate::logs::logql::{self, ast::Selector};
use crate::logs::query::{Direction, Grid, MAX_LINES, StreamsQuery};

/// The longest form in a body.
const MAX_FORM: usize = 60 << 10;
const HOUR_NS: i64 = 3_600_000_000_000;
const DEFAULT_LIMIT: usize = 100;

/// All parameters of a request.
#[derive(Debug, Default)]
pub struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = LokiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, LokiError> {
        let mut pairs = read(request.uri())?;
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let form = kind.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
        if request.method() == Method::POST && form {
            let body = axum::body::to_bytes(request.into_body(), MAX_FORM).await.map_err(|_| {
                LokiError::bad(format!("the form is longer than {MAX_FORM} bytes, or broke off"))
            })?;
            // A form is written as a query string is.
            let uri =
                std::str::from_utf8(&body).ok().and_then(|text| format!("/?{text}").parse::<Uri>().ok());
            let uri = uri.ok_or_else(|| LokiError::bad("the form is not URL-encoded"))?;
            pairs.extend(read(&uri)?);
        }
        Ok(Self(pairs))
    }
}

fn read(uri: &Uri) -> Result<Vec<(String, String)>, LokiError> {
    Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map(|Query(pairs)| pairs)
        .map_err(|rejection| LokiError::bad(rejection.body_text()))
}

impl Params {
    /// Of a query string alone.
    pub fn of(uri: &Uri) -> Result<Self, LokiError> {
        read(uri).map(Self)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, value)| n == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn query(&self) -> Result<&str, LokiError> {
        self.get("query").ok_or_else(|| LokiError::bad("parse error : syntax error: unexpected $end"))
    }

    fn time(&self, name: &str) -> Result<Option<i64>, LokiError> {
        self.get(name)
            .map(|text| {
                time(text).ok_or_else(|| {
                    LokiError::bad(format!("could not parse '{name}' parameter: {text:?} is no time"))
                })
            })
            .transpose()
    }

    /// `time`, or now.
    pub fn at(&self, now_ns: i64) -> Result<i64, LokiError> {
        Ok(self.time("time")?.unwrap_or(now_ns))
    }

    /// `start` and `end`; by default the last hour, or `since` so long.
    pub fn range(&self, now_ns: i64) -> Result<(i64, i64), LokiError> {
        let end = self.time("end")?.unwrap_or(now_ns);
        let since = match self.get("since") {
            None => HOUR_NS,
            Some(text) => duration_ns(text).ok_or_else(|| {
                LokiError::bad(format!("could not parse 'since' parameter: {text:?} is no duration"))
            })?,
        };
        let start = self.time("start")?.unwrap_or(end.min(now_ns).saturating_sub(since));
        Ok((start, end))
    }

    /// [`Params::range`] that isn't empty.
    pub fn query_range(&self, now_ns: i64) -> Result<(i64, i64), LokiError> {
        let (start, end) = self.range(now_ns)?;
        if end <= start {
            return Err(LokiError::bad("end timestamp must not be before or equal to start time"));
        }
        Ok((start, end))
    }

    pub fn limit(&self) -> Result<usize, LokiError> {
        let Some(text) = self.get("limit") else { return Ok(DEFAULT_LIMIT) };
        match text.parse::<i64>() {
            Err(_) => {
                Err(LokiError::bad(format!("could not parse 'limit' parameter: {text:?} is no number")))
            }
            Ok(limit) if limit <= 0 => Err(LokiError::bad("limit must be a positive value")),
            Ok(limit) if limit as usize > MAX_LINES => Err(LokiError::bad(format!(
                "max entries limit per query exceeded, limit > max_entries_limit_per_query ({limit} > {MAX_LINES})"
            ))),
            Ok(limit) => Ok(limit as usize),
        }
    }

    pub fn direction(&self) -> Result<Direction, LokiError> {
        match self.get("direction").map(str::to_ascii_lowercase).as_deref() {
            None | Some("backward") => Ok(Direction::Backward),
            Some("forward") => Ok(Direction::Forward),
            Some(other) => Err(LokiError::bad(format!("invalid direction '{other}'"))),
        }
    }

    /// The steps of a range query; a 250th of the time where no step is given.
    pub fn grid(&self, start: i64, end: i64) -> Result<Grid, LokiError> {
        const SECOND: i64 = 1_000_000_000;
        let step = match self.get("step") {
            None => (end.saturating_sub(start) / (250 * SECOND)).max(1) * SECOND,
            Some(text) => step_ns(text).ok_or_else(|| {
                LokiError::bad(format!("could not parse 'step' parameter: {text:?} is no duration"))
            })?,
        };
        if step <= 0 {
            return Err(LokiError::bad(
                "zero or negative query resolution step widths are not accepted. Try a positive integer",
            ));
        }
        Ok(Grid::new(start, end, step)?)
    }

    /// Streams of the time, by `query` or by `match[]`.
    pub fn streams(&self, now_ns: i64) -> Result<StreamsQuery, LokiError> {
        let (from_ns, end) = self.range(now_ns)?;
        let texts = self.all("query").chain(self.all("match")).chain(self.all("match[]"));
        let selectors: Vec<Selector> = texts
            .filter(|text| !text.is_empty() && *text != "{}")
            .map(logql::parse_selector)
            .collect::<Result<_, _>>()?;
        Ok(StreamsQuery { selectors, from_ns, to_ns: end.saturating_add(1) })
    }

    /// `delay_for`: only checked, since lines are told in the order in which they come.
    pub fn check_delay(&self) -> Result<(), LokiError> {
        match self.get("delay_for").map(str::parse::<u64>) {
            None | Some(Ok(0..=5)) => Ok(()),
            Some(Ok(_)) => Err(LokiError::bad("delay_for can't be greater than 5")),
            Some(Err(_)) => Err(LokiError::bad("could not parse 'delay_for' parameter")),
        }
    }
}

/// Unix ns, Unix seconds (10 digits and fewer, or with a point), or RFC 3339.
fn time(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse::<i64>() {
        return if text.trim_start_matches('-').len() <= 10 {
            number.checked_mul(1_000_000_000)
        } else {
            Some(number)
        };
    }
    if let Ok(seconds) = text.parse::<f64>() {
        // Milliseconds: more than that a float doesn't hold.
        let ms = seconds * 1e3;
        return (ms.abs() < 9e12).then(|| ms.round() as i64 * 1_000_000);
    }
    let format = &time::format_description::well_known::Rfc3339;
    let parsed = time::OffsetDateTime::parse(text, format).ok()?;
    i64::try_from(parsed.unix_timestamp_nanos()).ok()
}

fn step_ns(text: &str) -> Option<i64> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds.abs() < 9e9 => Some((seconds * 1e9).round() as i64),
        Ok(_) => None,
        Err(_) => duration_ns(text),
    }
}

fn duration_ns(text: &str) -> Option<i64> {
    let duration: Duration = humantime::parse_duration(text).ok()?;
    i64::try_from(duration.as_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(list: &[(&str, &str)]) -> Params {
        Params(list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn times_are_read_as_loki_reads_them() {
        for (text, want) in [
            ("1700000000", Some(1_700_000_000_000_000_000)),
            ("1700000000000000001", Some(1_700_000_000_000_000_001)),
            ("1700000000.25", Some(1_700_000_000_250_000_000)),
            ("2023-11-14T22:13:20Z", Some(1_700_000_000_000_000_000)),
            ("2023-11-14T22:13:20.5+00:00", Some(1_700_000_000_500_000_000)),
            ("yesterday", None),
            ("1e300", None),
        ] {
            assert_eq!(time(text), want, "{text}");
        }
    }

    #[test]
    fn defaults_and_refusals() {
        let now = 1_700_000_000_000_000_000;
        assert_eq!(params(&[]).query_range(now).unwrap(), (now - HOUR_NS, now));
        assert_eq!(params(&[("since", "5m")]).query_range(now).unwrap(), (now - 300_000_000_000, now));
        assert!(params(&[("start", "2"), ("end", "1")]).query_range(now).is_err());
        assert_eq!(params(&[]).limit().unwrap(), 100);
        assert_eq!(
            params(&[("limit", "6000")]).limit().unwrap_err().text,
            "max entries limit per query exceeded, limit > max_entries_limit_per_query (6000 > 5000)"
        );
        assert!(params(&[("limit", "0")]).limit().is_err());
        assert!(params(&[("direction", "SIDEWAYS")]).direction().is_err());
        assert_eq!(params(&[("direction", "FORWARD")]).direction().unwrap(), Direction::Forward);
        let grid = params(&[]).grid(0, 250 * 60 * 1_000_000_000).unwrap();
        assert_eq!((grid.step_ns, grid.count), (60_000_000_000, 251));
        assert_eq!(params(&[("step", "1m")]).grid(0, 1).unwrap().step_ns, 60_000_000_000);
        assert_eq!(params(&[("step", "0.5")]).grid(0, 1).unwrap().step_ns, 500_000_000);
        assert!(params(&[("step", "0")]).grid(0, 1).is_err());
        assert!(params(&[("step", "1ms")]).grid(0, 3_600_000_000_000).is_err(), "too many steps");
    }
}
