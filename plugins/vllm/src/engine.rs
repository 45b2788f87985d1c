//! Whether a server is loading, running, stuck or down: a state machine over what one look at it shows.
//!
//! What counts is work, not the server's own word: **stuck** is an engine that has requests and moved no token and no
//! iteration counter for the set time, whatever `/health` says. Each engine of a server (data parallel) is judged for
//! itself, so that one that hangs is not hidden by others.

use std::collections::BTreeMap;
use std::time::Duration;

/// The label `state` of `picket_vllm_engine_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Loading,
    Running,
    Stuck,
    Down,
}

pub const STATES: [&str; 4] = ["loading", "running", "stuck", "down"];

impl State {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Running => "running",
            Self::Stuck => "stuck",
            Self::Down => "down",
        }
    }
}

/// What a page says of the work of each of a server's engines.
pub type Activity = BTreeMap<String, Work>;

/// One engine's.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Work {
    /// Requests that run or wait.
    pub requests: f64,
    /// The counters that move with each token and iteration, added up.
    pub moved: f64,
}

/// One look at a server.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    pub process: Process,
    pub page: Page<'a>,
    /// Of `/health`: good, bad; none where it gave no answer.
    pub healthy: Option<bool>,
    /// Its log says that it was ready, or that it will not be.
    pub was_ready: bool,
    pub failed: bool,
    /// How long its process runs.
    pub age: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// Its container runs.
    Runs,
    /// Its container is there and does not run.
    Ended,
    /// No engine knows of it.
    Unknown,
}

#[derive(Debug, Clone, Copy)]
pub enum Page<'a> {
    Activity(&'a Activity),
    /// Something answered, but not with a page.
    Useless,
    /// Too slow.
    Slow,
    /// Nothing listens.
    Nothing,
    /// It may not be asked, or nobody knows where.
    Unasked,
}

/// What the settings say.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub stuck_after: Duration,
    pub loading_limit: Duration,
}

fn loads(look: &Look<'_>, limits: Limits) -> bool {
    look.process == Process::Runs && !look.failed && look.age < limits.loading_limit
}

/// A server that can't be asked is known by its log alone.
fn by_log(look: &Look<'_>, limits: Limits) -> Option<State> {
    match look.process {
        Process::Runs if look.was_ready => Some(State::Running),
        Process::Runs if loads(look, limits) => Some(State::Loading),
        Process::Runs => Some(State::Down),
        _ => None,
    }
}

/// What is remembered of a server between two looks.
#[derive(Debug, Default)]
pub struct Watch {
    /// It answered once in this life.
    up: bool,
    last: Option<(State, Duration)>,
    work: BTreeMap<String, Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    work: Work,
    /// When a counter moved last, or there was nothing to do.
    at: Duration,
    /// That was seen, not taken for granted as of a first look.
    sure: bool,
}

impl Watch {
    /// Each of its engines was seen to work, or to have nothing to do.
    pub fn is_sure(&self) -> bool {
        self.work.values().all(|seen| seen.sure)
    }

    /// A new process: nothing of the old one counts.
    pub fn restarted(&mut self) {
        *self = Self::default();
    }

    /// The state at `now`, a time of a clock that never goes back; none where nothing tells of it.
    pub fn look(&mut self, look: &Look<'_>, now: Duration, limits: Limits) -> Option<State> {
        if look.process == Process::Ended {
            self.restarted();
            return Some(State::Down);
        }
        if let Page::Unasked = look.page {
            return by_log(look, limits);
        }
        let state = self.judge(look, now, limits);
        if !matches!(look.page, Page::Slow | Page::Useless) || self.last.is_none() {
            self.last = Some((state, now));
        }
        Some(state)
    }

    fn judge(&mut self, look: &Look<'_>, now: Duration, limits: Limits) -> State {
        if let Page::Activity(activity) = look.page {
            self.up = true;
            return if self.stuck(activity, now, limits) {
                State::Stuck
            } else if look.healthy == Some(false) {
                State::Down
            } else {
                State::Running
            };
        }
        // Its page is of no use, but the server answers for itself.
        if look.healthy == Some(true) {
            self.up = true;
            return State::Running;
        }
        self.up |= look.was_ready;
        if self.up {
            return match (look.page, self.last) {
                // One slow answer is no verdict.
                _ if look.healthy == Some(false) => State::Down,
                (Page::Slow | Page::Useless, Some((last, at)))
                    if now.saturating_sub(at) < limits.stuck_after =>
                {
                    last
                }
                (Page::Slow, _) if self.work.values().any(|s| s.work.requests > 0.0) => State::Stuck,
                _ => State::Down,
            };
        }
        if loads(look, limits) { State::Loading } else { State::Down }
    }

    fn stuck(&mut self, activity: &Activity, now: Duration, limits: Limits) -> bool {
        self.work.retain(|engine, _| activity.contains_key(engine));
        let mut stuck = false;
        for (engine, work) in activity {
            let seen = self.work.entry(engine.clone()).or_insert(Seen { work: *work, at: now, sure: false });
            // Also where a counter went back: the engine began anew.
            if work.requests <= 0.0 || seen.work.moved != work.moved || seen.work.requests <= 0.0 {
                seen.at = now;
                seen.sure |= work.requests <= 0.0 || seen.work.moved != work.moved;
            }
            seen.work = *work;
            stuck |= now.saturating_sub(seen.at) >= limits.stuck_after;
        }
        stuck
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits =
        Limits { stuck_after: Duration::from_secs(30), loading_limit: Duration::from_secs(600) };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn look(page: Page<'_>) -> Look<'_> {
        Look { process: Process::Runs, page, healthy: None, was_ready: false, failed: false, age: at(10) }
    }

    fn work(requests: f64, moved: f64) -> Activity {
        Activity::from([("0".to_owned(), Work { requests, moved })])
    }

    #[test]
    fn a_server_with_work_that_does_not_move() {
        let mut watch = Watch::default();
        let (idle, busy, moved) = (work(0.0, 5.0), work(2.0, 5.0), work(2.0, 6.0));
        let mut see = |page: &Activity, now: u64, healthy: bool| {
            watch
                .look(&Look { healthy: Some(healthy), ..look(Page::Activity(page)) }, at(now), LIMITS)
                .unwrap()
        };
        assert_eq!(see(&idle, 0, true), State::Running);
        // Hours without requests are no hang, and the first request does not inherit them.
        assert_eq!(see(&idle, 7200, true), State::Running);
        assert_eq!(see(&busy, 7210, true), State::Running);
        assert_eq!(see(&busy, 7239, true), State::Running);
        assert_eq!(see(&busy, 7240, true), State::Stuck, "although /health is good");
        assert_eq!(see(&busy, 7300, false), State::Stuck, "and although it is bad");
        assert_eq!(see(&moved, 7310, true), State::Running);
        assert_eq!(see(&moved, 7345, true), State::Stuck);
        assert_eq!(see(&work(1.0, 0.0), 7350, true), State::Running, "a counter that went back moved");
        assert_eq!(see(&work(1.0, 0.0), 7385, true), State::Stuck);
        assert_eq!(see(&idle, 7390, true), State::Running, "its requests were aborted");
        assert_eq!(see(&idle, 7395, false), State::Down, "it works no more and says so");
    }

    #[test]
    fn one_of_two_engines_hangs() {
        let mut watch = Watch::default();
        let both = |moved: f64| {
            Activity::from([
                ("0".to_owned(), Work { requests: 1.0, moved }),
                ("1".to_owned(), Work { requests: 1.0, moved: 7.0 }),
            ])
        };
        assert_eq!(watch.look(&look(Page::Activity(&both(1.0))), at(0), LIMITS), Some(State::Running));
        assert_eq!(watch.look(&look(Page::Activity(&both(2.0))), at(30), LIMITS), Some(State::Stuck));
    }

    #[test]
    fn loading_is_not_down() {
        let mut watch = Watch::default();
        assert_eq!(watch.look(&look(Page::Nothing), at(0), LIMITS), Some(State::Loading));
        assert_eq!(watch.look(&look(Page::Slow), at(5), LIMITS), Some(State::Loading));
        assert_eq!(
            watch.look(&Look { failed: true, ..look(Page::Nothing) }, at(6), LIMITS),
            Some(State::Down)
        );
        assert_eq!(
            watch.look(&Look { age: at(600), ..look(Page::Nothing) }, at(7), LIMITS),
            Some(State::Down)
        );
        let unknown = Look { process: Process::Unknown, ..look(Page::Nothing) };
        assert_eq!(watch.look(&unknown, at(8), LIMITS), Some(State::Down));
        let idle = work(0.0, 0.0);
        assert_eq!(watch.look(&look(Page::Activity(&idle)), at(9), LIMITS), Some(State::Running));
        assert_eq!(watch.look(&look(Page::Nothing), at(10), LIMITS), Some(State::Down), "it was up");
        let ended = Look { process: Process::Ended, ..look(Page::Nothing) };
        assert_eq!(watch.look(&ended, at(11), LIMITS), Some(State::Down));
        assert_eq!(watch.look(&look(Page::Nothing), at(12), LIMITS), Some(State::Loading), "a new process");
        let ready = Look { was_ready: true, ..look(Page::Nothing) };
        assert_eq!(watch.look(&ready, at(13), LIMITS), Some(State::Down), "its log says that it was up");
    }

    #[test]
    fn slow_answers() {
        let (idle, busy) = (work(0.0, 1.0), work(1.0, 1.0));
        let mut watch = Watch::default();
        watch.look(&look(Page::Activity(&idle)), at(0), LIMITS);
        assert_eq!(watch.look(&look(Page::Slow), at(10), LIMITS), Some(State::Running));
        assert_eq!(watch.look(&look(Page::Slow), at(29), LIMITS), Some(State::Running));
        assert_eq!(watch.look(&look(Page::Slow), at(30), LIMITS), Some(State::Down));
        watch.look(&look(Page::Activity(&busy)), at(40), LIMITS);
        assert_eq!(watch.look(&look(Page::Slow), at(71), LIMITS), Some(State::Stuck));
        // What can't be asked is known by its log, and a server without one not at all.
        let unasked = look(Page::Unasked);
        assert_eq!(Watch::default().look(&unasked, at(0), LIMITS), Some(State::Loading));
        assert_eq!(
            Watch::default().look(&Look { was_ready: true, ..unasked }, at(0), LIMITS),
            Some(State::Running)
        );
        assert_eq!(
            Watch::default().look(&Look { process: Process::Unknown, ..unasked }, at(0), LIMITS),
            None
        );
        // A page that can't be read, of a server that says that it is well.
        let odd = Look { healthy: Some(true), ..look(Page::Useless) };
        assert_eq!(watch.look(&odd, at(80), LIMITS), Some(State::Running));
    }

    proptest! {
        /// A server whose counters move between any two looks is never stuck; one whose don't is, in time.
        #[test]
        fn movement_decides(gaps in prop::collection::vec(1_u64..200, 1..30), moves: bool) {
            let mut watch = Watch::default();
            let (mut now, mut moved) = (0, 0.0);
            watch.look(&look(Page::Activity(&work(1.0, moved))), at(now), LIMITS);
            for gap in gaps {
                now += gap;
                moved += f64::from(u8::from(moves));
                let state = watch.look(&look(Page::Activity(&work(1.0, moved))), at(now), LIMITS).unwrap();
                let expected = if !moves && now >= 30 { State::Stuck } else { State::Running };
                prop_assert_eq!(state, expected);
            }
        }
    }
}
