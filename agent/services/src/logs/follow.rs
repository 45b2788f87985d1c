//! One container's output, by its engine's API: for a container whose engine keeps no file that can be read.
//!
//! The connection stays open, and what is not taken waits with the engine. Each message comes as Docker's JSON files have
//! it, so that whoever reads those reads these.
//!
//! Where it goes on after a break is told by the last message that was taken: its time, and its checksum, since times are
//! not quite in order (an output has two writers) and two messages may have one time. The engine is asked from a little before
//! that time on, and all up to that message is left out. If it does not come, the engine has thrown it away meanwhile: that
//! is counted, and what is later than it is taken.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinHandle;

use super::queue::{Entry, Queue};
use crate::containers::output::{self, Described};
use crate::containers::{Error, Message, Permit};

/// Batches between the connection and a reading.
const AHEAD_READ: usize = 1;
/// What is taken of them beforehand, in bytes.
const AHEAD: usize = 256 << 10;
/// How much earlier than the last message the engine is asked for.
const OVERLAP: Duration = Duration::from_secs(5);
/// What is later than the last message is kept while that is looked for, so many bytes of it.
const MAX_KEPT: usize = 128 << 10;
/// An engine that has sent something and is silent for so long has sent what it has; one that has sent nothing may still look.
const SILENT: Duration = Duration::from_secs(2);
const SLOW: Duration = Duration::from_secs(20);
/// A clock that is so much earlier than a message was set back.
const SET_BACK: u64 = 60_000_000_000;
/// Messages among which one may have its like.
const RECENT: usize = 64;
/// Between two connections.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Follow {
    pub id: String,
    socket: String,
    tty: bool,
    pub labels: Vec<(String, String)>,
    /// Its states are `since NANOSECONDS` or `after TIME CHECKSUM COUNT`.
    pub queue: Queue,
    running: Option<Running>,
    again: Option<Instant>,
    /// The output came to its end, and the container has not run since.
    ended: bool,
    search: Option<Search>,
    /// The last messages that were taken: which of them are the same.
    recent: VecDeque<Mark>,
    /// Times that something was lost, by reason, since the last look.
    pub lost: Vec<&'static str>,
}

#[derive(Debug)]
struct Running {
    messages: Receiver<Vec<Message>>,
    /// Gives the error that ended it.
    task: JoinHandle<Result<(), Error>>,
    heard: Instant,
    /// Something came.
    spoke: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The last message that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    timestamp: u64,
    sum: u32,
    /// So many that are the same to the letter came at that time, this one included.
    count: u32,
}

impl Mark {
    fn of(message: &Message) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&[u8::from(message.stderr)]);
        hasher.update(&message.text);
        Self { timestamp: message.timestamp, sum: hasher.finalize(), count: 1 }
    }

    fn same(&self, other: &Self) -> bool {
        (self.timestamp, self.sum) == (other.timestamp, other.sum)
    }

    fn text(&self) -> String {
        format!("after {} {:x} {}", self.timestamp, self.sum, self.count)
    }
}

/// From where the engine is to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Since(u64),
    After(Mark),
}

impl Place {
    fn parse(state: &str) -> Option<Self> {
        let mut words = state.split(' ');
        let place = match words.next()? {
            "since" => Self::Since(words.next()?.parse().ok()?),
            "after" => Self::After(Mark {
                timestamp: words.next()?.parse().ok()?,
                sum: u32::from_str_radix(words.next()?, 16).ok()?,
                count: words.next()?.parse().ok()?,
            }),
            _ => return None,
        };
        words.next().is_none().then_some(place)
    }
}

/// The look for the last message that was taken, among those that come again.
#[derive(Debug)]
struct Search {
    mark: Mark,
    seen: u32,
    /// Later ones, which are new if it does not come.
    kept: Vec<Message>,
    bytes: usize,
    /// More came than can be kept.
    over: bool,
}

impl Follow {
    /// `state`: what stood on record; none: from the end, or from the beginning.
    pub fn new(
        id: &str,
        socket: &str,
        described: &Described,
        state: Option<String>,
        from_the_end: bool,
    ) -> Self {
        let state = state.filter(|state| Place::parse(state).is_some());
        let fresh = state.is_none();
        let state = state.unwrap_or_else(|| format!("since {}", if from_the_end { now_ns() } else { 0 }));
        let own = [("id", id), ("container", &described.name), ("image", &described.image)];
        let own = own.into_iter().filter(|(_, value)| !value.is_empty());
        let mut labels: Vec<(String, String)> =
            own.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let given = described.labels.iter().take(super::docker::MAX_LABELS);
        labels.extend(given.map(|(name, value)| (format!("label.{name}"), value.clone())));
        Self {
            id: id.to_owned(),
            socket: socket.to_owned(),
            tty: described.tty,
            labels,
            queue: Queue::new(state, fresh),
            running: None,
            again: None,
            ended: false,
            search: None,
            recent: VecDeque::new(),
            lost: Vec::new(),
        }
    }

    /// The name of its chunks: as that of the file which Docker would keep.
    pub fn name(&self) -> String {
        format!("{}/{id}/{id}-json.log", self.socket, id = self.id)
    }

    pub fn is_of(&self, socket: &str) -> bool {
        self.socket == socket
    }

    /// The engine has it no more: without an end of its output, some of it may be lost with it.
    pub fn removed(&mut self, lost: &mut Vec<&'static str>) {
        if !self.ended && self.running.is_none() {
            self.ended = true;
            lost.push("deleted");
        }
    }

    /// All that it put out was taken, and nothing more comes.
    pub fn is_over(&self) -> bool {
        self.ended && self.running.is_none() && self.queue.bytes() == 0
    }

    /// The end of the output is among what was handed out.
    pub fn is_at_its_end(&self) -> bool {
        self.ended && self.running.is_none() && self.queue.is_handed_out()
    }

    /// Takes what came, and connects where there is no connection. `runs`: the container does.
    ///
    /// # Errors
    /// Why the engine gives nothing, for a person.
    pub fn fill(&mut self, permit: &Arc<Permit>, runs: bool, now: Instant) -> Result<(), String> {
        if self.running.is_none() {
            if (self.ended && !runs) || self.again.is_some_and(|again| now < again) {
                return Ok(());
            }
            self.connect(permit, now);
        }
        let mut trouble = Ok(());
        while self.queue.bytes() < AHEAD {
            let Some(running) = &mut self.running else { break };
            match running.messages.try_recv() {
                Ok(messages) => {
                    (running.heard, running.spoke) = (now, true);
                    messages.into_iter().for_each(|message| self.came(message));
                }
                Err(TryRecvError::Empty) => {
                    let patience = if running.spoke { SILENT } else { SLOW };
                    if now.saturating_duration_since(running.heard) >= patience {
                        self.give_up_search();
                    }
                    break;
                }
                Err(TryRecvError::Disconnected) => {
                    let finished = running.task.is_finished();
                    trouble = self.disconnected(finished, now);
                    break;
                }
            }
        }
        trouble
    }

    fn connect(&mut self, permit: &Arc<Permit>, now: Instant) {
        let since = match Place::parse(self.queue.reached()) {
            Some(Place::After(mark)) if mark.timestamp > now_ns().saturating_add(SET_BACK) => {
                // What came between the two times can't be asked for.
                self.lost.push("clock");
                self.search = None;
                now_ns()
            }
            Some(Place::After(mark)) => {
                self.search = Some(Search { mark, seen: 0, kept: Vec::new(), bytes: 0, over: false });
                mark.timestamp.saturating_sub(u64::try_from(OVERLAP.as_nanos()).unwrap_or(0))
            }
            Some(Place::Since(since)) => since,
            None => 0,
        };
        let (sender, messages) = channel(AHEAD_READ);
        let follow =
            output::follow(permit.clone(), self.socket.clone(), self.id.clone(), since, self.tty, sender);
        let task = tokio::runtime::Handle::current().spawn(follow);
        self.ended = false;
        self.again = Some(now + AGAIN);
        self.running = Some(Running { messages, task, heard: now, spoke: false });
    }

    fn disconnected(&mut self, finished: bool, now: Instant) -> Result<(), String> {
        if !finished {
            // It is about to say how it ended.
            return Ok(());
        }
        let Some(mut running) = self.running.take() else { return Ok(()) };
        self.again = Some(now + AGAIN);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let ended = std::future::Future::poll(std::pin::Pin::new(&mut running.task), &mut cx);
        match ended {
            std::task::Poll::Ready(Ok(Ok(()))) => {
                // The engine has sent all that it has.
                self.give_up_search();
                self.ended = true;
                Ok(())
            }
            std::task::Poll::Ready(Ok(Err(error))) => {
                self.search = None;
                let name = self.labels.iter().find(|(name, _)| name == "container");
                let name = name.map_or(self.id.as_str(), |(_, name)| name.as_str());
                Err(format!("{name}: {error}"))
            }
            _ => {
                self.search = None;
                Err(format!("{}: the connection to its engine was lost", self.id))
            }
        }
    }

    fn came(&mut self, message: Message) {
        let Some(search) = &mut self.search else { return self.take(message) };
        let here = Mark::of(&message);
        if search.mark.same(&here) {
            search.seen += 1;
            // All before it was taken too.
            let passed: Vec<Mark> = search.kept.drain(..).map(|m| Mark::of(&m)).chain([here]).collect();
            (search.bytes, search.over) = (0, false);
            if search.seen >= search.mark.count {
                self.search = None;
            }
            passed.into_iter().for_each(|mark| self.remember(mark));
            return;
        }
        if here.timestamp <= search.mark.timestamp {
            return self.remember(here);
        }
        if search.bytes + message.text.len() > MAX_KEPT {
            search.over = true;
        } else if !search.over {
            search.bytes += message.text.len();
            search.kept.push(message);
        }
        let overlap = u64::try_from(OVERLAP.as_nanos()).unwrap_or(0);
        if here.timestamp > search.mark.timestamp.saturating_add(2 * overlap) {
            self.give_up_search();
        }
    }

    /// The last message that was taken does not come: what is later is new.
    fn give_up_search(&mut self) {
        let Some(search) = self.search.take() else { return };
        if search.seen == 0 || search.over {
            self.lost.push("rotated");
        }
        for message in search.kept {
            self.take(message);
        }
    }

    fn take(&mut self, message: Message) {
        let mut mark = Mark::of(&message);
        mark.count += self.recent.iter().filter(|before| before.same(&mark)).count() as u32;
        self.remember(mark);
        if message.cut {
            self.lost.push("long-line");
        }
        if let Some(line) = as_a_file_has_it(&message) {
            self.queue.push(Entry { line, state: Some(mark.text()) });
        }
    }

    fn remember(&mut self, mark: Mark) {
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(mark);
    }
}

/// `{"log":"…\n","stream":"stderr","time":"…"}`
fn as_a_file_has_it(message: &Message) -> Option<Vec<u8>> {
    #[derive(Serialize)]
    struct Line<'a> {
        log: &'a str,
        stream: &'a str,
        time: String,
    }
    let line = Line {
        log: &String::from_utf8_lossy(&message.text),
        stream: if message.stderr { "stderr" } else { "stdout" },
        time: jiff::Timestamp::from_nanosecond(i128::from(message.timestamp)).ok()?.to_string(),
    };
    let mut bytes = serde_json::to_vec(&line).ok()?;
    bytes.push(b'\n');
    Some(bytes)
}

fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn message(at: u64, text: &str) -> Message {
        Message { stderr: false, timestamp: at, text: format!("{text}\n").into_bytes(), cut: false }
    }

    fn follow(state: Option<&str>) -> Follow {
        let described = Described {
            log_path: String::new(),
            driver: "local".into(),
            tty: false,
            name: "c".into(),
            image: "i".into(),
            labels: Vec::new(),
        };
        Follow::new("id", "/socket", &described, state.map(str::to_owned), false)
    }

    /// As a connection does, without one.
    fn search(follow: &mut Follow) {
        if let Some(Place::After(mark)) = Place::parse(follow.queue.reached()) {
            follow.search = Some(Search { mark, seen: 0, kept: Vec::new(), bytes: 0, over: false });
        }
    }

    fn texts(follow: &mut Follow) -> Vec<String> {
        follow.queue.rewind();
        let (bytes, _) = follow.queue.read(Instant::now(), usize::MAX).unwrap_or_default();
        let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let text = |line: &[u8]| {
            let value: serde_json::Value = serde_json::from_slice(line).unwrap();
            value["log"].as_str().unwrap().trim_end().to_owned()
        };
        lines.map(text).collect()
    }

    #[test]
    fn what_comes_again_is_left_out() {
        let mut before = follow(None);
        let all: Vec<Message> = [(10, "a"), (11, "b"), (13, "d"), (12, "c"), (13, "same"), (13, "same")]
            .map(|(at, text)| message(at * SECOND, text))
            .to_vec();
        for taken in 0..=all.len() {
            let mut first = follow(None);
            all.iter().take(taken).for_each(|m| first.came(m.clone()));
            let mut second = follow(Some(first.queue.reached()));
            search(&mut second);
            all.iter().for_each(|m| second.came(m.clone()));
            second.give_up_search();
            let got = [texts(&mut first), texts(&mut second)].concat();
            assert_eq!(got, ["a", "b", "d", "c", "same", "same"], "{taken} were taken");
            assert_eq!(second.lost, Vec::<&str>::new());
        }
        before.came(message(1, "x"));
        assert_eq!(before.queue.reached(), format!("after 1 {:x} 1", crc32fast::hash(b"\0x\n")));
    }

    #[test]
    fn what_the_engine_threw_away_is_counted() {
        let mut first = follow(None);
        first.came(message(10 * SECOND, "taken"));
        for (rest, given_up) in [(vec![12, 13], true), (vec![12, 13, 40, 41], false), (vec![], true)] {
            let mut second = follow(Some(first.queue.reached()));
            search(&mut second);
            second.came(message(9 * SECOND, "old"));
            for at in &rest {
                second.came(message(at * SECOND, &at.to_string()));
            }
            if given_up {
                second.give_up_search();
            }
            let expected: Vec<String> = rest.iter().map(ToString::to_string).collect();
            assert_eq!(texts(&mut second), expected);
            assert_eq!(second.lost, ["rotated"]);
        }
        // More than is kept while it is looked for.
        let mut second = follow(Some(first.queue.reached()));
        search(&mut second);
        for at in 0..20 {
            second.came(message(11 * SECOND + at, &"x".repeat(10 << 10)));
        }
        assert!(second.search.as_ref().unwrap().bytes <= MAX_KEPT);
        second.came(message(10 * SECOND, "taken"));
        second.came(message(12 * SECOND, "new"));
        assert_eq!((texts(&mut second), second.lost.len()), (vec!["new".to_owned()], 0), "it came after all");
    }

    proptest! {
        #[test]
        fn any_state_is_answered(state in ".{0,60}") {
            let _ = Place::parse(&state);
        }

        /// However often the connection breaks, each message is taken once.
        #[test]
        fn each_once(times in prop::collection::vec(0u64..6, 1..40), breaks in prop::collection::vec(0usize..40, 0..6)) {
            let all: Vec<Message> =
                times.iter().enumerate().map(|(i, t)| message(100 * SECOND + t * SECOND / 2, &format!("{}", i % 7))).collect();
            let mut got = Vec::new();
            let mut state: Option<String> = None;
            for upto in breaks.iter().map(|b| b % (all.len() + 1)).chain([all.len()]) {
                let mut follow = follow(state.as_deref());
                search(&mut follow);
                all.iter().take(upto).for_each(|m| follow.came(m.clone()));
                if upto == all.len() {
                    follow.give_up_search();
                }
                got.extend(texts(&mut follow));
                state = Some(follow.queue.reached().to_owned());
            }
            let expected: Vec<String> = (0..all.len()).map(|i| format!("{}", i % 7)).collect();
            prop_assert_eq!(got, expected);
        }
    }
}
