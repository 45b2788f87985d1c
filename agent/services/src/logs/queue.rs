//! Lines of a source that gives each one once, in order: they wait here until they are committed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Queue {
    /// Stands for all that is committed.
    state: String,
    /// The state on record is another one.
    dirty: bool,
    /// Not committed.
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Of these, so many were handed out in this collect.
    taken: usize,
    prepared: Option<(usize, bool)>,
    held_since: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Entry {
    /// With its newline.
    pub line: Vec<u8>,
    /// What stands for all up to here; none: what stood for what was before.
    pub state: Option<String>,
}

impl Queue {
    /// `fresh`: the state is not on record yet.
    pub fn new(state: String, fresh: bool) -> Self {
        Self {
            state,
            dirty: fresh,
            entries: VecDeque::new(),
            bytes: 0,
            taken: 0,
            prepared: None,
            held_since: None,
        }
    }

    /// What stands for all that came.
    pub fn reached(&self) -> &str {
        let last = self.entries.iter().rev().find_map(|entry| entry.state.as_ref());
        last.unwrap_or(&self.state)
    }

    pub fn into_state(self) -> String {
        self.state
    }

    /// Of the lines that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn push(&mut self, entry: Entry) {
        self.bytes += entry.line.len();
        self.entries.push_back(entry);
    }

    /// All lines were handed out, so far.
    pub fn is_handed_out(&self) -> bool {
        self.taken == self.entries.len()
    }

    /// What was handed out and not committed is handed out again.
    pub fn rewind(&mut self) {
        self.taken = 0;
        self.prepared = None;
    }

    /// The next lines, at least one where there is one, and how long the first of them has been held back.
    pub fn read(&mut self, now: Instant, most: usize) -> Option<(Vec<u8>, Duration)> {
        let mut bytes = Vec::new();
        let fresh = self.taken == 0;
        for entry in self.entries.iter().skip(self.taken) {
            if !bytes.is_empty() && bytes.len() + entry.line.len() > most {
                break;
            }
            bytes.extend_from_slice(&entry.line);
            self.taken += 1;
        }
        let waited = self.held_since.filter(|_| fresh).map_or(Duration::ZERO, |since| now - since);
        (!bytes.is_empty()).then_some((bytes, waited))
    }

    /// The state that stands for what was handed out, less the last `held` bytes of it; none where it has not changed.
    pub fn prepare(&mut self, held: u64) -> Option<String> {
        let (mut keep, mut back) = (self.taken, 0);
        while back < held && keep > 0 {
            keep -= 1;
            back += self.entries.get(keep).map_or(0, |entry| entry.line.len() as u64);
        }
        self.prepared = Some((keep, held > 0));
        let last = self.entries.iter().take(keep).rev().find_map(|entry| entry.state.as_ref());
        match last {
            Some(state) => Some(state.clone()),
            None => self.dirty.then(|| self.state.clone()),
        }
    }

    /// Gives how many bytes are done with.
    pub fn commit(&mut self, now: Instant) -> u64 {
        let Some((count, held)) = self.prepared.take() else { return 0 };
        let mut done = 0;
        for entry in self.entries.drain(..count.min(self.entries.len())) {
            done += entry.line.len();
            if let Some(state) = entry.state {
                self.state = state;
            }
        }
        self.bytes -= done;
        self.taken = 0;
        self.dirty = false;
        self.held_since = match (held, self.held_since) {
            (true, Some(since)) if count == 0 => Some(since),
            (true, _) => Some(now),
            (false, _) => None,
        };
        done as u64
    }
}
