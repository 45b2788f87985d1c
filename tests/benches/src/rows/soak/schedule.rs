//! What is done to the fleet and when, the same for one length, size and seed.
//!
//! A round is about two hours. First comes what ends processes or leaves much memory behind, then what a process lives through,
//! then, for nearly half of it, load alone: a leap of memory where a trend is looked for would be taken for one. What leaks a
//! little at each fault shows over several rounds, in the first agent, which is never ended.

use std::fmt;
use std::time::Duration;

use e2e::Dice;

/// How long things take, from the length of the whole: a short run is a small picture of a long one.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub total: Duration,
    /// Between two samples.
    pub step: Duration,
    /// Of a process, before its memory says anything.
    pub warm_up: Duration,
    /// The shortest stretch after that with a trend.
    pub least: Duration,
    /// How long the aggregator is away.
    pub outage: Duration,
    /// How long an agent is stopped.
    pub stall: Duration,
    /// How often a node's series are replaced in a row.
    pub churns: u32,
}

impl Pace {
    pub fn of(total: Duration) -> Self {
        let part = |of: u32, most: u64| (total / of).min(Duration::from_secs(most));
        Self {
            total,
            step: part(60, 60),
            warm_up: part(24, 300),
            least: part(6, 1200),
            // Longer than the interval of a collect, or nothing waits.
            outage: part(20, 180).max(Duration::from_secs(20)),
            stall: part(20, 30),
            churns: if total < Duration::from_secs(3600) { 2 } else { 6 },
        }
    }
}

/// An agent is meant by its place, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Another load on the simulated GPUs.
    Scenario { agent: usize, name: &'static str },
    /// Another interval, and back.
    Reload { agent: usize },
    /// All series of the simulation get another label, some times in a row.
    Churn { agent: usize },
    /// SIGSTOP, and SIGCONT: its connections stall.
    Stall { agent: usize },
    /// One of `tests/hostile`, dropped in, and taken out once the agent has dealt with it.
    Hostile { agent: usize, plugin: &'static str, end: End },
    /// SIGTERM, and started again.
    Stop { agent: usize },
    /// SIGKILL, and started again.
    Kill { agent: usize },
    /// The aggregator ends by SIGTERM and stays away.
    Outage,
    /// The aggregator ends by SIGKILL.
    AggregatorKill,
}

/// What becomes of a hostile plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Quarantined,
    /// It runs on, and what it may not have is counted.
    Refused,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Scenario { agent, name } => write!(f, "{}: scenario {name}", node(agent)),
            Self::Reload { agent } => write!(f, "{}: configuration reloaded", node(agent)),
            Self::Churn { agent } => write!(f, "{}: series replaced", node(agent)),
            Self::Stall { agent } => write!(f, "{}: stalled", node(agent)),
            Self::Hostile { agent, plugin, .. } => write!(f, "{}: hostile plugin {plugin}", node(agent)),
            Self::Stop { agent } => write!(f, "{}: SIGTERM", node(agent)),
            Self::Kill { agent } => write!(f, "{}: SIGKILL", node(agent)),
            Self::Outage => write!(f, "aggregator: away"),
            Self::AggregatorKill => write!(f, "aggregator: SIGKILL"),
        }
    }
}

/// A node's name by its place.
pub fn node(agent: usize) -> String {
    format!("soak-{}", agent + 1)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub at: Duration,
    pub fault: Fault,
}

/// All of it, in order of time.
pub fn schedule(pace: &Pace, agents: usize, seed: u64) -> Vec<Planned> {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let rounds = (pace.total.as_secs_f64() / 7200.0).round().max(1.0) as u32;
    let length = pace.total / rounds;
    let mut all = Vec::new();
    for round in 0..rounds {
        let begin = length * round;
        let hard = hard(&mut dice, agents);
        place(&mut all, &mut dice, hard, begin + length / 25, length / 4);
        let soft = soft(&mut dice, agents);
        place(&mut all, &mut dice, soft, begin + length * 3 / 10, length * 22 / 100);
        let load =
            load(&mut dice, agents, &["failure", "high_load", "normal", "degraded", "high_load", "normal"]);
        place(&mut all, &mut dice, load, begin + length * 53 / 100, length * 39 / 100);
    }
    all
}

fn hard(dice: &mut Dice, agents: usize) -> Vec<Fault> {
    let mut others = others(dice, agents);
    let faults = vec![
        Fault::Stop { agent: others() },
        Fault::Kill { agent: others() },
        Fault::Hostile { agent: others(), plugin: "leak_series", end: End::Refused },
        Fault::Outage,
        Fault::AggregatorKill,
    ];
    shuffled(dice, faults)
}

fn soft(dice: &mut Dice, agents: usize) -> Vec<Fault> {
    let mut others = others(dice, agents);
    let mut all = in_turn(dice, agents);
    let mut faults = vec![
        Fault::Stall { agent: all() },
        Fault::Stall { agent: all() },
        Fault::Churn { agent: all() },
        Fault::Reload { agent: all() },
    ];
    for plugin in ["loop", "trap_in_collect"] {
        faults.push(Fault::Hostile { agent: others(), plugin, end: End::Quarantined });
    }
    faults.extend(load(dice, agents, &["high_load", "degraded", "normal"]));
    shuffled(dice, faults)
}

fn load(dice: &mut Dice, agents: usize, scenarios: &[&'static str]) -> Vec<Fault> {
    let mut all = in_turn(dice, agents);
    scenarios.iter().map(|&name| Fault::Scenario { agent: all(), name }).collect()
}

/// Spreads them over `length` from `begin`, each somewhere in the first half of its share.
fn place(all: &mut Vec<Planned>, dice: &mut Dice, faults: Vec<Fault>, begin: Duration, length: Duration) {
    let share = length / u32::try_from(faults.len().max(1)).unwrap_or(1);
    for (number, fault) in (0..).zip(faults) {
        let jitter = share * u32::try_from(dice.below(1000)).unwrap_or(0) / 2000;
        all.push(Planned { at: begin + share * number + jitter, fault });
    }
}

/// One agent after the other, from any of them.
fn in_turn(dice: &mut Dice, agents: usize) -> impl FnMut() -> usize + use<> {
    let mut turn = any(dice, agents);
    move || {
        turn += 1;
        turn % agents.max(1)
    }
}

/// The same without the first, if there are others.
fn others(dice: &mut Dice, agents: usize) -> impl FnMut() -> usize + use<> {
    let mut next = in_turn(dice, agents.saturating_sub(1));
    move || if agents < 2 { 0 } else { 1 + next() }
}

fn any(dice: &mut Dice, choices: usize) -> usize {
    dice.below(choices.max(1) as u64) as usize
}

fn shuffled(dice: &mut Dice, mut faults: Vec<Fault>) -> Vec<Fault> {
    for at in (1..faults.len()).rev() {
        faults.swap(at, any(dice, at + 1));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_schedule_in_order_and_spares_the_first_agent() {
        for hours in [0.05, 2.0, 24.0] {
            let pace = Pace::of(Duration::from_secs_f64(hours * 3600.0));
            let all = schedule(&pace, 4, 7);
            assert_eq!(all, schedule(&pace, 4, 7));
            assert_ne!(all, schedule(&pace, 4, 8));
            assert!(all.windows(2).all(|two| two[0].at <= two[1].at));
            assert!(all.last().unwrap().at < pace.total);
            let ended = |fault| match fault {
                Fault::Stop { agent } | Fault::Kill { agent } | Fault::Hostile { agent, .. } => Some(agent),
                _ => None,
            };
            assert!(all.iter().filter_map(|one| ended(one.fault)).all(|agent| (1..4).contains(&agent)));
            assert_eq!(all.iter().filter(|one| one.fault == Fault::Outage).count(), all.len() / 20);
        }
    }

    #[test]
    fn one_agent_is_enough() {
        assert!(!schedule(&Pace::of(Duration::from_secs(7200)), 1, 1).is_empty());
    }

    #[test]
    fn two_hours_are_sampled_each_minute_and_minutes_each_few_seconds() {
        let long = Pace::of(Duration::from_secs(7200));
        assert_eq!((long.step, long.outage, long.stall), seconds(60, 180, 30));
        let short = Pace::of(Duration::from_secs(360));
        assert_eq!((short.step, short.outage, short.stall), seconds(6, 20, 18));
    }

    fn seconds(a: u64, b: u64, c: u64) -> (Duration, Duration, Duration) {
        (Duration::from_secs(a), Duration::from_secs(b), Duration::from_secs(c))
    }
}
