//! The containers whose output is asked of their engines: which there are, and who of them is followed.
//!
//! An engine is asked in a task of its own and what it says is taken when it is there: one that hangs delays no reading.
//!
//! A container is read in one way for all its life. The file is the better one (nobody has to be asked, and what is not read yet
//! stays there), so a container whose file the patterns match and can be opened is left to it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::find;
use super::follow::Follow;
use crate::ServiceLimits;
use crate::containers::Permit;
use crate::containers::output::{Described, Look, look};
use crate::grants::PathSet;

/// Containers that one plugin may follow.
const MAX_FOLLOWED: usize = 64;
/// How often the engines are asked which containers there are.
const LOOK: Duration = Duration::from_secs(2);
/// Logging drivers whose output no engine gives: there is none, or it is in the journal, which is read itself.
const NONE: &str = "none";
const JOURNALD: &str = "journald";
const JSON_FILE: &str = "json-file";

#[derive(Debug)]
pub(super) struct Engines {
    permit: Arc<Permit>,
    limits: ServiceLimits,
    looks: Arc<Mutex<Option<Vec<Look>>>>,
    under_way: Option<tokio::task::JoinHandle<()>>,
    looked: Option<Instant>,
    /// Ids that were seen, and whether they run.
    running: HashMap<String, bool>,
    /// Those that are read otherwise, or not at all, and whose they are.
    others: HashMap<String, String>,
    pub followed: BTreeMap<String, Follow>,
    /// On record: how far containers were read, by id, and engines that were looked at before.
    pub restored: BTreeMap<String, String>,
    pub known: BTreeSet<String>,
    /// Cursors of their own, to be recorded.
    pub news: Vec<(String, String)>,
    pub failures: Vec<(&'static str, String)>,
    pub lost: Vec<&'static str>,
}

impl Drop for Engines {
    fn drop(&mut self) {
        if let Some(task) = &self.under_way {
            task.abort();
        }
    }
}

pub(super) fn key(id: &str) -> String {
    format!("container {id}")
}

/// What a reading knows that decides how a container is read.
pub(super) struct Ways<'a> {
    pub patterns: &'a PathSet,
    pub from_the_end: bool,
    /// The journal is read.
    pub journal: bool,
}

impl Engines {
    pub fn new(permit: Arc<Permit>, limits: ServiceLimits) -> Self {
        Self {
            permit,
            limits,
            looks: Arc::default(),
            under_way: None,
            looked: None,
            running: HashMap::new(),
            others: HashMap::new(),
            followed: BTreeMap::new(),
            restored: BTreeMap::new(),
            known: BTreeSet::new(),
            news: Vec::new(),
            failures: Vec::new(),
            lost: Vec::new(),
        }
    }

    pub fn is_of(&self, permit: &Arc<Permit>) -> bool {
        Arc::ptr_eq(&self.permit, permit)
    }

    /// Whether this container's output comes from its engine.
    pub fn has(&self, id: &str) -> bool {
        self.followed.contains_key(id) || self.restored.contains_key(id)
    }

    /// Takes what the engines said, asks them again when it is time, and takes the output that came.
    pub fn turn(&mut self, ways: &Ways<'_>, now: Instant) {
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(looks) = &looks {
            self.forget(looks);
        }
        for (socket, seen) in looks.into_iter().flatten() {
            match seen {
                Ok(seen) => {
                    let here: HashSet<String> = seen.iter().map(|seen| seen.id.clone()).collect();
                    for seen in seen {
                        self.running.insert(seen.id.clone(), seen.runs);
                        if let Some(described) = &seen.described
                            && !self.followed.contains_key(&seen.id)
                            && !self.others.contains_key(&seen.id)
                        {
                            self.meet(&socket, &seen.id, seen.runs, described, ways);
                        }
                    }
                    if self.known.insert(socket.clone()) {
                        self.news.push((format!("engine {socket}"), "1".to_owned()));
                    }
                    self.leave(&socket, &here);
                }
                Err(error) => self.failures.push(("engine", error.to_string())),
            }
        }
        let Self { running, followed, .. } = self;
        running.retain(|id, _| followed.contains_key(id));
        let idle = self.under_way.as_ref().is_none_or(tokio::task::JoinHandle::is_finished);
        if idle && self.looked.is_none_or(|at| now.saturating_duration_since(at) >= LOOK) {
            self.looked = Some(now);
            self.ask();
        }
        for follow in self.followed.values_mut() {
            let runs = self.running.get(&follow.id).copied().unwrap_or(false);
            if let Err(why) = follow.fill(&self.permit, runs, now) {
                self.failures.push(("engine", why));
            }
            self.lost.append(&mut follow.lost);
        }
    }

    fn ask(&mut self) {
        let (permit, limits, looks) = (self.permit.clone(), self.limits.clone(), self.looks.clone());
        let known: HashSet<String> = self.followed.keys().chain(self.others.keys()).cloned().collect();
        self.under_way = Some(tokio::runtime::Handle::current().spawn(async move {
            let found = look(&permit, &limits, &known).await;
            *looks.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        }));
    }

    /// A container that was not seen before.
    fn meet(&mut self, socket: &str, id: &str, runs: bool, described: &Described, ways: &Ways<'_>) {
        // A container that has not begun has no file yet: it is met when it has.
        if described.driver == JSON_FILE && described.log_path.is_empty() && !runs {
            return;
        }
        let state = self.restored.remove(id);
        let file = !described.log_path.is_empty() && find::open(ways.patterns, &described.log_path).is_ok();
        let elsewhere = described.driver == NONE || (described.driver == JOURNALD && ways.journal) || file;
        if elsewhere && state.is_none() {
            self.others.insert(id.to_owned(), socket.to_owned());
            return;
        }
        if self.followed.len() >= MAX_FOLLOWED {
            let why = format!("more than {MAX_FOLLOWED} containers; the output of {id} is not read");
            self.failures.push(("too-many", why));
            self.restored.extend(state.map(|state| (id.to_owned(), state)));
            return;
        }
        let from_the_end = ways.from_the_end && !self.known.contains(socket);
        self.followed.insert(id.to_owned(), Follow::new(id, socket, described, state, from_the_end));
    }

    /// What was read before the agent began and is on no engine any more: the end of its output may be lost with it.
    fn forget(&mut self, looks: &[Look]) {
        if self.restored.is_empty() || looks.iter().any(|(_, seen)| seen.is_err()) {
            return;
        }
        let here: HashSet<&str> =
            looks.iter().flat_map(|(_, seen)| seen.iter().flatten()).map(|seen| seen.id.as_str()).collect();
        let Self { restored, lost, news, .. } = self;
        restored.retain(|id, _| {
            let kept = here.contains(id.as_str());
            if !kept {
                lost.push("deleted");
                news.push((key(id), String::new()));
            }
            kept
        });
    }

    /// What an engine has no more is over when all that came of it is committed.
    fn leave(&mut self, socket: &str, here: &HashSet<String>) {
        self.others.retain(|id, place| place != socket || here.contains(id));
        let gone = |follow: &Follow| follow.is_of(socket) && !here.contains(&follow.id);
        for follow in self.followed.values_mut().filter(|follow| gone(follow)) {
            self.running.remove(&follow.id);
            follow.removed(&mut self.lost);
        }
        let over: Vec<String> = self
            .followed
            .values()
            .filter(|follow| gone(follow) && follow.is_over())
            .map(|follow| follow.id.clone())
            .collect();
        for id in over {
            self.followed.remove(&id);
            self.news.push((key(&id), String::new()));
        }
    }
}
