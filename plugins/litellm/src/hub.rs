//! The Hugging Face hub's API, asked once a day about each model.
//!
//! What it said is kept in the plugin's store for a week and asked for anew after a day, that a model is not there or is
//! closed as well as what a model is: so a restart asks nothing, and a hub that can't be reached costs nothing that was
//! known. It is asked at the end of a collect, a few models at a time, within an hourly budget; after a failure not for a
//! while that doubles; after a 429 not before the hub said. Budget and ban are kept too.

mod answer;

use std::collections::BTreeMap;
use std::time::Duration;

use picket_sdk::http::{HttpError, Request, Response, send_many};
use picket_sdk::upstream::{Condition, same_origin};
use picket_sdk::{Collect, Failure, clock, store};
use serde::{Deserialize, Serialize};

pub use answer::{Access, Facts, Size};

use crate::export::Exports;
use crate::settings::HubSettings;

const DAY: u64 = 86_400;
/// Kept on disk, should the hub not be reached for that long.
const KEPT: Duration = Duration::from_secs(7 * DAY);
/// Models that are asked for in one collect, of two requests each.
const AT_ONCE: usize = 4;
/// The wait after a failure doubles from the first to the second.
const WAITS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// How long a 429 without a time is obeyed, in seconds.
const UNSAID: u64 = 300;

/// The words of `picket_model_hub_state`.
pub const STATES: [&str; 9] =
    ["idle", "ok", "off", "unreachable", "refusing", "malformed", "slow", "rate-limited", "over-budget"];

/// What the hub said of a model, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    /// Seconds since the Unix epoch.
    fetched: u64,
    access: Access,
    facts: Facts,
}

/// How much may still be asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Gate {
    /// When the hour began, in seconds since the Unix epoch, and what was asked in it.
    hour: u64,
    used: u32,
    /// Nothing is asked before.
    closed_until: u64,
}

/// What is known of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    pub access: Access,
    pub facts: Facts,
    pub age_seconds: f64,
}

/// See the module.
pub struct Hub {
    settings: HubSettings,
    records: BTreeMap<String, Record>,
    gate: Option<Gate>,
    state: &'static str,
    retry_at: Duration,
    wait: Duration,
    now: u64,
}

/// Why a round ended early.
enum Halt {
    /// 429, with the seconds to wait.
    Limited(u64),
    Failed(Condition, Failure),
}

impl Hub {
    pub fn new(settings: HubSettings) -> Self {
        Self {
            state: if settings.enabled { "idle" } else { "off" },
            settings,
            records: BTreeMap::new(),
            gate: None,
            retry_at: Duration::ZERO,
            wait: WAITS.0,
            now: 0,
        }
    }

    /// What is known of a model; nothing, if the hub was not asked yet.
    pub fn get(&self, id: &str) -> Option<Known> {
        let record = self.records.get(id)?;
        Some(Known {
            access: record.access,
            facts: record.facts.clone(),
            age_seconds: self.now.saturating_sub(record.fetched) as f64,
        })
    }

    pub fn export_state(&self, exports: &Exports) {
        exports.hub_state.set(self.state);
        if let Some(gate) = self.gate.filter(|_| self.settings.enabled) {
            exports.hub_budget.set(f64::from(self.settings.requests_per_hour.saturating_sub(gate.used)));
        }
    }

    /// Asks for what of `wanted` is not known or a day old.
    pub fn refresh(&mut self, collect: &mut Collect<'_>, wanted: &[String]) {
        if !self.settings.enabled {
            return;
        }
        self.now = clock::now().as_secs();
        let mut gate = self.open(collect);
        self.recall(collect, wanted);
        if self.now.saturating_sub(gate.hour) >= 3600 || gate.hour > self.now {
            gate = Gate { hour: self.now, used: 0, ..gate };
        }
        let due: Vec<String> = wanted.iter().filter(|id| self.is_due(id)).take(AT_ONCE).cloned().collect();
        let left = self.settings.requests_per_hour.saturating_sub(gate.used) / 2;
        if due.is_empty() {
            if matches!(self.state, "over-budget" | "rate-limited") {
                self.state = "ok";
            }
        } else if gate.closed_until > self.now && gate.closed_until - self.now <= DAY {
            self.state = "rate-limited";
        } else if clock::monotonic() >= self.retry_at {
            if left == 0 {
                self.state = "over-budget";
            } else {
                let due = due.get(..due.len().min(left as usize)).unwrap_or_default();
                self.ask(collect, due, &mut gate);
            }
        }
        if self.gate != Some(gate) {
            self.gate = Some(gate);
            keep(collect, "gate", &gate, None);
        }
    }

    /// The gate, as it was left.
    fn open(&mut self, collect: &mut Collect<'_>) -> Gate {
        if let Some(gate) = self.gate {
            return gate;
        }
        let gate = recall(collect, "gate").unwrap_or_default();
        self.gate = Some(gate);
        gate
    }

    /// Gets from the store what is wanted, and forgets what is not.
    fn recall(&mut self, collect: &mut Collect<'_>, wanted: &[String]) {
        self.records.retain(|id, record| {
            wanted.contains(id) && self.now.saturating_sub(record.fetched) <= KEPT.as_secs()
        });
        for id in wanted {
            if !self.records.contains_key(id)
                && let Some(record) = recall(collect, &key(id))
            {
                self.records.insert(id.clone(), record);
            }
        }
    }

    fn is_due(&self, id: &str) -> bool {
        // A record from the future is of a clock that was wrong.
        self.records.get(id).is_none_or(|r| {
            self.now.saturating_sub(r.fetched) >= DAY || r.fetched > self.now.saturating_add(60)
        })
    }

    fn ask(&mut self, collect: &mut Collect<'_>, due: &[String], gate: &mut Gate) {
        let base = self.settings.url.trim_end_matches('/');
        let urls: Vec<String> = due
            .iter()
            .flat_map(|id| [format!("{base}/api/models/{id}"), format!("{base}/api/models/{id}/tree/main")])
            .collect();
        gate.used = gate.used.saturating_add(u32::try_from(urls.len()).unwrap_or(u32::MAX));
        let mut answers = self.send(&urls, gate).into_iter();
        self.state = "ok";
        let mut limited = None;
        let mut failed = None;
        for id in due {
            let (Some(info), Some(tree)) = (answers.next(), answers.next()) else { break };
            match self.read(info, tree) {
                Ok(record) => {
                    keep(collect, &key(id), &record, Some(KEPT));
                    self.records.insert(id.clone(), record);
                }
                Err(Halt::Limited(seconds)) => limited = limited.max(Some(seconds)),
                Err(Halt::Failed(condition, failure)) => {
                    failed.get_or_insert((
                        condition,
                        Failure { message: format!("{id}: {}", failure.message), ..failure },
                    ));
                }
            }
        }
        if let Some(seconds) = limited {
            gate.closed_until = self.now + seconds;
            self.state = "rate-limited";
            let message = format!("the hub wants no request for {seconds} s");
            collect.fail("rate-limited", &message);
        } else if let Some((condition, failure)) = failed {
            self.state = condition.as_str();
            self.retry_at = clock::monotonic() + self.wait;
            self.wait = (self.wait * 2).min(WAITS.1);
            collect.failed(failure);
        } else {
            self.wait = WAITS.0;
        }
    }

    /// Sends all of them; a model that has another name by now is asked for under that.
    fn send(&self, urls: &[String], gate: &mut Gate) -> Vec<Result<Response, HttpError>> {
        let request = |url: &str| {
            let request = Request::get(url)
                .header("Accept", "application/json")
                .header("User-Agent", "picket")
                .timeout(Duration::from_millis(self.settings.timeout_ms));
            match &self.settings.secret {
                Some(name) => request.secret(name.as_str()),
                None => request,
            }
        };
        let requests: Vec<Request> = urls.iter().map(|url| request(url)).collect();
        let mut answers = send_many(&requests);
        let moved: Vec<(usize, String)> = answers
            .iter()
            .zip(urls)
            .enumerate()
            .filter_map(|(i, (answer, url))| {
                let answer = answer.as_ref().ok().filter(|a| matches!(a.status, 301 | 302 | 307 | 308))?;
                Some((i, same_origin(url, answer.header("location")?)?))
            })
            .collect();
        if !moved.is_empty() {
            gate.used = gate.used.saturating_add(u32::try_from(moved.len()).unwrap_or(u32::MAX));
            let requests: Vec<Request> = moved.iter().map(|(_, url)| request(url)).collect();
            for ((i, _), answer) in moved.iter().zip(send_many(&requests)) {
                if let Some(place) = answers.get_mut(*i) {
                    *place = answer;
                }
            }
        }
        answers
    }

    fn read(
        &self,
        info: Result<Response, HttpError>,
        tree: Result<Response, HttpError>,
    ) -> Result<Record, Halt> {
        let info = info.map_err(|error| Halt::Failed(Condition::of_error(&error), error.into()))?;
        let closed = |access| Ok(Record { fetched: self.now, access, facts: Facts::default() });
        match info.status {
            200 => {}
            // Without a token the hub tells no private model from one that is not there.
            401 => return closed(Access::Restricted),
            403 => return closed(Access::Gated),
            404 | 410 => return closed(Access::Absent),
            429 => return Err(Halt::Limited(self.retry_after(&info))),
            _ => {
                let failure = info
                    .success()
                    .err()
                    .unwrap_or_else(|| Failure::new("status", format!("the hub answered {}", info.status)));
                return Err(Halt::Failed(Condition::Refusing, failure));
            }
        }
        let tree = match tree {
            Ok(tree) if tree.status == 429 => return Err(Halt::Limited(self.retry_after(&tree))),
            // A listing that goes on on another page is not all of it.
            Ok(tree) if tree.status == 200 && tree.header("link").is_none() => Some(tree.body),
            _ => None,
        };
        let (access, facts) =
            answer::read(&info.body, tree.as_deref()).map_err(|f| Halt::Failed(Condition::Malformed, f))?;
        Ok(Record { fetched: self.now, access, facts })
    }

    /// Seconds that a 429 asks for, as a number or as a date; a default where it says nothing.
    fn retry_after(&self, response: &Response) -> u64 {
        let said = response.header("retry-after").map(str::trim).and_then(|text| match text.parse() {
            Ok(seconds) => Some(seconds),
            Err(_) => http_date(text).map(|at| at.saturating_sub(self.now)),
        });
        said.unwrap_or(UNSAID).clamp(1, DAY)
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` in seconds since the Unix epoch.
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_once(", ")?.1.split([' ', ':']);
    let mut number = || words.next()?.parse::<u64>().ok();
    let day = number().filter(|d| (1..=31).contains(d))?;
    let month = words.next().and_then(|m| MONTHS.iter().position(|name| *name == m))? as u64 + 1;
    let mut number = || words.next()?.parse::<u64>().ok();
    let year = number().filter(|y| (1970..=9999).contains(y))?;
    let (hour, minute, second) = (number()?, number()?, number()?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days of a calendar whose year begins in March.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    days.checked_sub(719_468).map(|days| days * DAY + hour * 3600 + minute * 60 + second)
}

fn key(id: &str) -> String {
    format!("model/{id}")
}

fn keep(collect: &mut Collect<'_>, key: &str, value: &impl Serialize, ttl: Option<Duration>) {
    if let Ok(text) = serde_json::to_vec(value)
        && let Err(error) = store::set(key, &text, ttl)
    {
        collect.failed(error);
    }
}

fn recall<T: serde::de::DeserializeOwned>(collect: &mut Collect<'_>, key: &str) -> Option<T> {
    match store::get(key) {
        // One that an older version wrote otherwise is as good as none.
        Ok(value) => value.and_then(|text| serde_json::from_slice(&text).ok()),
        Err(error) => {
            collect.failed(error);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::http_date;

    #[test]
    fn dates() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(http_date("Thu, 29 Feb 2024 23:59:59 GMT"), Some(1_709_251_199));
        for bad in
            ["", "soon", "Sun, 99 Nov 1994 08:49:37 GMT", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov 94"]
        {
            assert_eq!(http_date(bad), None, "{bad}");
        }
    }
}
