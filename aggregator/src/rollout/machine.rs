//! What becomes of a rollout: a state machine without a clock, a disk or a network of its own.
//!
//! ```text
//! running ─▶ complete          a node:  waiting ─▶ told ─▶ done
//!   │  ▲ ╲                                          ╰────▶ failed
//!   ▼  │  ▶ halted             back:    to-revert ─▶ reverting ─▶ reverted
//! paused                                                ╰───────▶ revert-failed
//! any ─▶ reverting ─▶ reverted
//! ```
//!
//! [`Machine::tick`] looks at the fleet and changes the state; what is offered to a node follows from the state alone
//! ([`Machine::offer`]). So whoever writes the state down before it offers anything may stop and start again at any point:
//! the same is offered again, which nodes take for what it is. The promises, tested by chance:
//!
//! - no more nodes have been told than the stage has places, and no more than the limit are under way at a time;
//! - after more failures than are allowed nobody else is told;
//! - a stage is left only after all its nodes that have not failed were well, all at a time, for as long as was asked.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::plan::Plan;

/// The code of a node that said nothing in time, or does not stay well.
const NO_WORD: &str = "PKT-0100";
/// The code of a node on which something else runs.
const OTHER: &str = "PKT-0101";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    Running,
    /// By a person: nobody else is told.
    Paused,
    /// By failures: nobody else is told, and what was offered and not taken yet is withdrawn.
    Halted,
    /// All that were there have it; who comes later is told.
    Complete,
    /// Nodes are told to run what they ran before.
    Reverting,
    Reverted,
    /// Another rollout of the same plugin took its place.
    Superseded,
}

impl Phase {
    pub const ALL: [Self; 7] = [
        Self::Running,
        Self::Paused,
        Self::Halted,
        Self::Complete,
        Self::Reverting,
        Self::Reverted,
        Self::Superseded,
    ];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Halted => "halted",
            Self::Complete => "complete",
            Self::Reverting => "reverting",
            Self::Reverted => "reverted",
            Self::Superseded => "superseded",
        }
    }

    /// Something can still come of it.
    pub const fn is_live(self) -> bool {
        !matches!(self, Self::Reverted | Self::Superseded)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Has a place in the stage.
    Waiting,
    Told,
    Done,
    Failed,
    ToRevert,
    Reverting,
    Reverted,
    RevertFailed,
}

impl State {
    pub const ALL: [Self; 8] = [
        Self::Waiting,
        Self::Told,
        Self::Done,
        Self::Failed,
        Self::ToRevert,
        Self::Reverting,
        Self::Reverted,
        Self::RevertFailed,
    ];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Told => "told",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::ToRevert => "to-revert",
            Self::Reverting => "reverting",
            Self::Reverted => "reverted",
            Self::RevertFailed => "revert-failed",
        }
    }

    const fn is_under_way(self) -> bool {
        matches!(self, Self::Told | Self::Reverting)
    }
}

/// One node of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    pub state: State,
    /// How often it was told.
    pub attempt: u32,
    /// The stage that it was told in.
    pub stage: usize,
    /// When `state` or `well` changed last.
    pub since_ms: i64,
    /// It was last seen connected and running it.
    pub well: bool,
    /// The digest of what ran before; empty: nothing did.
    pub former: String,
    /// Why it failed.
    pub code: String,
    pub reason: String,
}

/// A node, as it is seen now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    pub connected: bool,
    /// Of the plugin as the node reports it; empty: it has none.
    pub digest: String,
    /// The node's word for the plugin's state.
    pub state: String,
    /// What the node says of the offer.
    pub outcome: Option<Outcome>,
}

/// A node's last word on an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub attempt: u32,
    /// None: it was taken.
    pub refused: Option<(String, String)>,
}

/// What is to be offered to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer<'a> {
    pub attempt: u32,
    /// Empty: what was taken before is to run no more.
    pub digest: &'a str,
    /// It is the new version, which can be fetched.
    pub new: bool,
}

/// What happened, for the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    Told(String),
    Done(String),
    Failed(String),
    /// Told to go back.
    Reverting(String),
    Reverted(String),
    RevertFailed(String),
    Stage(usize),
    Phase(Phase),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub plan: Plan,
    /// Of the new version, hex.
    pub digest: String,
    pub phase: Phase,
    /// Why it halted or is paused.
    pub reason: String,
    pub stage: usize,
    /// Since when all of the stage are well.
    pub well_since_ms: Option<i64>,
    /// Those that have or had a place.
    #[serde(skip)]
    pub agents: BTreeMap<String, Agent>,
}

impl Machine {
    pub fn new(plan: Plan, digest: String) -> Self {
        Self {
            plan,
            digest,
            phase: Phase::Running,
            reason: String::new(),
            stage: 0,
            well_since_ms: None,
            agents: BTreeMap::new(),
        }
    }

    /// All of it but its agents, which may be many: it is looked at every second.
    pub fn head(&self) -> Self {
        Self {
            plan: self.plan.clone(),
            digest: self.digest.clone(),
            reason: self.reason.clone(),
            agents: BTreeMap::new(),
            ..*self
        }
    }

    /// After a restart: what was not seen meanwhile is nobody's failure.
    pub fn resumed(&mut self, now_ms: i64) {
        self.well_since_ms = None;
        for agent in self.agents.values_mut() {
            agent.well = false;
            agent.since_ms = now_ms;
        }
    }

    /// What this node is to be offered now.
    pub fn offer(&self, node: &str) -> Option<Offer<'_>> {
        let agent = self.agents.get(node)?;
        let attempt = agent.attempt;
        match (agent.state, self.phase) {
            (State::Told, Phase::Running | Phase::Paused | Phase::Complete) => {
                Some(Offer { attempt, digest: &self.digest, new: true })
            }
            (State::Reverting, Phase::Reverting) => {
                Some(Offer { attempt, digest: &agent.former, new: false })
            }
            _ => None,
        }
    }

    /// Looks at the fleet: the nodes that the selector matches. Gives what happened and which agents are others now.
    pub fn tick(
        &mut self,
        now_ms: i64,
        fleet: &BTreeMap<String, Seen>,
        limit: usize,
    ) -> (Vec<Note>, BTreeSet<String>) {
        let before = self.agents.clone();
        let mut notes = Vec::new();
        match self.phase {
            Phase::Running => {
                self.absorb(now_ms, fleet, &mut notes);
                if !self.halts(&mut notes) {
                    self.choose(now_ms, fleet);
                    self.tell(now_ms, fleet, limit, &mut notes);
                    self.advance(now_ms, fleet, &mut notes);
                }
            }
            Phase::Complete => {
                self.absorb(now_ms, fleet, &mut notes);
                if !self.halts(&mut notes) {
                    self.choose(now_ms, fleet);
                    self.tell(now_ms, fleet, limit, &mut notes);
                }
            }
            Phase::Paused | Phase::Halted => self.absorb(now_ms, fleet, &mut notes),
            Phase::Reverting => self.revert(now_ms, fleet, limit, &mut notes),
            Phase::Reverted | Phase::Superseded => {}
        }
        let changed = self.agents.iter().filter(|(node, agent)| before.get(*node) != Some(agent));
        let mut changed: BTreeSet<String> = changed.map(|(node, _)| node.clone()).collect();
        changed.extend(before.into_keys().filter(|node| !self.agents.contains_key(node)));
        (notes, changed)
    }

    /// Nobody else is told until it goes on.
    pub fn pause(&mut self, reason: &str) -> bool {
        let can = matches!(self.phase, Phase::Running | Phase::Complete);
        if can {
            self.phase = Phase::Paused;
            reason.clone_into(&mut self.reason);
            self.well_since_ms = None;
        }
        can
    }

    /// Goes on; those that failed are told again, with a place of their own.
    pub fn resume(&mut self, now_ms: i64) -> bool {
        let can = matches!(self.phase, Phase::Paused | Phase::Halted);
        if can {
            self.phase = Phase::Running;
            self.reason.clear();
            self.well_since_ms = None;
            for agent in self.agents.values_mut() {
                if agent.state == State::Failed {
                    agent.state = State::Waiting;
                    agent.code.clear();
                    agent.reason.clear();
                }
                agent.since_ms = now_ms;
            }
        }
        can
    }

    /// All that were told go back to what they ran before.
    pub fn roll_back(&mut self, now_ms: i64) -> bool {
        let can = self.phase.is_live() && self.phase != Phase::Reverting;
        if can {
            self.phase = Phase::Reverting;
            self.reason.clear();
            self.well_since_ms = None;
            self.agents.retain(|_, agent| agent.attempt > 0);
            for agent in self.agents.values_mut() {
                // What ran it before anybody was told is left alone.
                let untouched = agent.former == self.digest;
                agent.state = if untouched { State::Reverted } else { State::ToRevert };
                agent.since_ms = now_ms;
                agent.code.clear();
                agent.reason.clear();
            }
        }
        can
    }

    fn absorb(&mut self, now_ms: i64, fleet: &BTreeMap<String, Seen>, notes: &mut Vec<Note>) {
        let nothing = Seen::default();
        for (node, agent) in &mut self.agents {
            let seen = fleet.get(node).unwrap_or(&nothing);
            let ours = seen.connected && seen.digest == self.digest;
            let well = ours && seen.state == "running";
            let late = now_ms.saturating_sub(agent.since_ms) > self.plan.timeout_ms;
            let refused = seen.outcome.as_ref().filter(|outcome| outcome.attempt == agent.attempt);
            let refused = refused.and_then(|outcome| outcome.refused.clone());
            let quarantined = ours && seen.state == "quarantined";
            let failed = |code: &str, reason: String| Some((code.to_owned(), reason));
            let failure = match agent.state {
                State::Told => match refused {
                    Some(refused) if !well => Some(refused),
                    _ if quarantined => {
                        failed("PKT-0081", "it failed too often and is quarantined".to_owned())
                    }
                    // While nothing is offered nothing can be late.
                    _ if late && !well && self.phase != Phase::Halted => {
                        failed(NO_WORD, format!("it does not run within {} s", self.plan.timeout_ms / 1000))
                    }
                    _ => None,
                },
                // Later on the node's own operator may do as he likes.
                State::Done if self.phase == Phase::Running || self.phase == Phase::Paused => {
                    if quarantined {
                        failed("PKT-0081", "it failed too often and is quarantined".to_owned())
                    } else if seen.connected && !seen.digest.is_empty() && !ours {
                        failed(OTHER, format!("another version runs there now, sha256 {}", seen.digest))
                    } else if !well && !agent.well && late {
                        failed(NO_WORD, format!("it is not well for {} s", self.plan.timeout_ms / 1000))
                    } else {
                        None
                    }
                }
                _ => continue,
            };
            if let Some((code, reason)) = failure {
                agent.state = State::Failed;
                agent.since_ms = now_ms;
                agent.well = false;
                agent.code = code;
                agent.reason = reason;
                notes.push(Note::Failed(node.clone()));
                continue;
            }
            if agent.state == State::Told && well {
                agent.state = State::Done;
                agent.since_ms = now_ms;
                notes.push(Note::Done(node.clone()));
            }
            if agent.well != well {
                agent.well = well;
                agent.since_ms = now_ms;
            }
        }
    }

    /// After too many failures nobody else is told.
    fn halts(&mut self, notes: &mut Vec<Note>) -> bool {
        let failed = self.agents.values().filter(|agent| agent.state == State::Failed).count();
        if failed <= self.plan.max_failures {
            return false;
        }
        let allowed = self.plan.max_failures;
        self.halt(&format!("{failed} failed, {allowed} may"), notes);
        true
    }

    fn halt(&mut self, why: &str, notes: &mut Vec<Note>) {
        let last = self.agents.iter().filter(|(_, agent)| agent.state == State::Failed);
        let last = last.max_by_key(|(_, agent)| agent.since_ms);
        self.reason = match last {
            Some((node, agent)) => format!("{why}: on {node} {} {}", agent.code, agent.reason),
            None => why.to_owned(),
        };
        self.phase = Phase::Halted;
        self.well_since_ms = None;
        notes.push(Note::Phase(Phase::Halted));
    }

    fn target(&self, stage: usize, fleet: &BTreeMap<String, Seen>) -> usize {
        let gone = self.agents.keys().filter(|node| !fleet.contains_key(*node)).count();
        self.plan.stages.get(stage).map_or(0, |s| s.of(fleet.len() + gone))
    }

    /// Gives the stage's free places to nodes that are connected.
    fn choose(&mut self, now_ms: i64, fleet: &BTreeMap<String, Seen>) {
        // Who went before it was ever told makes room for another.
        let connected = |node: &String| fleet.get(node).is_some_and(|seen| seen.connected);
        self.agents
            .retain(|node, agent| agent.state != State::Waiting || agent.attempt > 0 || connected(node));
        let mut free = self.target(self.stage, fleet).saturating_sub(self.agents.len());
        for (node, seen) in fleet {
            if free == 0 {
                return;
            }
            if !seen.connected || self.agents.contains_key(node) {
                continue;
            }
            let has_it = seen.digest == self.digest;
            let agent = Agent {
                state: if has_it { State::Done } else { State::Waiting },
                attempt: 0,
                stage: self.stage,
                since_ms: now_ms,
                well: false,
                former: seen.digest.clone(),
                code: String::new(),
                reason: String::new(),
            };
            self.agents.insert(node.clone(), agent);
            free -= 1;
        }
    }

    fn tell(&mut self, now_ms: i64, fleet: &BTreeMap<String, Seen>, limit: usize, notes: &mut Vec<Note>) {
        self.begin(now_ms, fleet, limit, (State::Waiting, State::Told), Note::Told, notes);
    }

    /// Moves connected nodes on while there is room.
    fn begin(
        &mut self,
        now_ms: i64,
        fleet: &BTreeMap<String, Seen>,
        limit: usize,
        (from, to): (State, State),
        note: fn(String) -> Note,
        notes: &mut Vec<Note>,
    ) {
        let mut room = limit.saturating_sub(self.agents.values().filter(|a| a.state.is_under_way()).count());
        for (node, agent) in &mut self.agents {
            if room == 0 {
                return;
            }
            if agent.state == from && fleet.get(node).is_some_and(|seen| seen.connected) {
                agent.state = to;
                agent.attempt += 1;
                agent.since_ms = now_ms;
                agent.well = false;
                notes.push(note(node.clone()));
                room -= 1;
            }
        }
    }

    fn advance(&mut self, now_ms: i64, fleet: &BTreeMap<String, Seen>, notes: &mut Vec<Note>) {
        let mut done = 0;
        let settled = self.agents.iter().all(|(node, agent)| match agent.state {
            State::Done => {
                done += 1;
                agent.well
            }
            State::Failed => true,
            // It failed before, and is told again when it connects.
            State::Waiting => fleet.get(node).is_none_or(|seen| !seen.connected),
            _ => false,
        });
        let all_chosen = |m: &Self| {
            m.agents.len() >= m.target(m.stage, fleet)
                || fleet.iter().all(|(node, seen)| !seen.connected || m.agents.contains_key(node))
        };
        if !settled || done == 0 || !all_chosen(self) {
            self.well_since_ms = None;
            let failed = self.agents.values().any(|agent| agent.state == State::Failed);
            if settled && failed && all_chosen(self) {
                // However many may fail: what nobody took has no way to go on by itself.
                self.halt("no node of the stage took it", notes);
            }
            return;
        }
        let since = *self.well_since_ms.get_or_insert(now_ms);
        if now_ms.saturating_sub(since) < self.plan.soak_ms {
            return;
        }
        self.well_since_ms = None;
        loop {
            if self.stage + 1 >= self.plan.stages.len() {
                self.phase = Phase::Complete;
                notes.push(Note::Phase(Phase::Complete));
                return;
            }
            self.stage += 1;
            notes.push(Note::Stage(self.stage));
            // One that brings nobody new was soaked with the one before.
            if self.target(self.stage, fleet) > self.agents.len() {
                return;
            }
        }
    }

    fn revert(&mut self, now_ms: i64, fleet: &BTreeMap<String, Seen>, limit: usize, notes: &mut Vec<Note>) {
        for (node, agent) in &mut self.agents {
            if agent.state != State::Reverting {
                continue;
            }
            let Some(seen) = fleet.get(node).filter(|seen| seen.connected) else { continue };
            let Some(outcome) = seen.outcome.as_ref().filter(|o| o.attempt == agent.attempt) else {
                continue;
            };
            match &outcome.refused {
                None => {
                    agent.state = State::Reverted;
                    notes.push(Note::Reverted(node.clone()));
                }
                Some((code, reason)) => {
                    agent.state = State::RevertFailed;
                    agent.code.clone_from(code);
                    agent.reason.clone_from(reason);
                    notes.push(Note::RevertFailed(node.clone()));
                }
            }
            agent.since_ms = now_ms;
        }
        let states = (State::ToRevert, State::Reverting);
        self.begin(now_ms, fleet, limit, states, Note::Reverting, notes);
        let open = |agent: &Agent| matches!(agent.state, State::ToRevert | State::Reverting);
        if !self.agents.values().any(open) {
            self.phase = Phase::Reverted;
            notes.push(Note::Phase(Phase::Reverted));
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
