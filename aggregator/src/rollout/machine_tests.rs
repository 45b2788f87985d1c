use proptest::prelude::*;

use super::super::plan::Stage;
use super::*;

const NEW: &str = "new";
const SECOND: i64 = 1_000;

fn plan(stages: &str) -> Plan {
    Plan {
        stages: Stage::list(stages).unwrap(),
        soak_ms: 10 * SECOND,
        timeout_ms: 60 * SECOND,
        max_failures: 0,
    }
}

fn name(i: usize) -> String {
    format!("n{i:02}")
}

/// How a node takes what it is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nature {
    Good,
    /// Refuses it on trial and runs what it ran.
    Refuses,
    /// Takes it and fails with it.
    Breaks,
    /// Never says a word.
    Silent,
}

/// Nodes as they would be: they see offers, and are seen.
struct Fleet {
    nodes: BTreeMap<String, (Nature, Seen)>,
}

impl Fleet {
    fn new(natures: &[Nature]) -> Self {
        let node = |(i, nature): (usize, &Nature)| {
            let seen = Seen {
                connected: true,
                digest: "old".to_owned(),
                state: "running".to_owned(),
                outcome: None,
            };
            (name(i), (*nature, seen))
        };
        Self { nodes: natures.iter().enumerate().map(node).collect() }
    }

    fn seen(&self) -> BTreeMap<String, Seen> {
        let node = |(name, (_, seen)): (&String, &(Nature, Seen))| {
            let seen = if seen.connected { seen.clone() } else { Seen { connected: false, ..seen.clone() } };
            (name.clone(), seen)
        };
        self.nodes.iter().map(node).collect()
    }

    fn connect(&mut self, node: &str, connected: bool) {
        self.nodes.get_mut(node).unwrap().1.connected = connected;
    }

    /// Those of these nodes that are connected act on what they are offered.
    fn act(&mut self, machine: &Machine, which: impl Fn(usize) -> bool) {
        for (i, (node, (nature, seen))) in self.nodes.iter_mut().enumerate() {
            if !seen.connected || !which(i) {
                continue;
            }
            let Some(offer) = machine.offer(node) else { continue };
            let taken = Some(Outcome { attempt: offer.attempt, refused: None });
            let refused = Some(("PKT-0060".to_owned(), "no".to_owned()));
            match nature {
                Nature::Silent => {}
                Nature::Refuses if offer.new => {
                    seen.outcome = Some(Outcome { attempt: offer.attempt, refused });
                }
                Nature::Breaks if offer.new => {
                    offer.digest.clone_into(&mut seen.digest);
                    seen.state = "quarantined".to_owned();
                    seen.outcome = taken;
                }
                _ => {
                    offer.digest.clone_into(&mut seen.digest);
                    seen.state = "running".to_owned();
                    seen.outcome = taken;
                }
            }
        }
    }
}

/// Runs until nothing changes any more, at most so many seconds; all nodes act each second.
fn settle(
    machine: &mut Machine,
    fleet: &mut Fleet,
    now: &mut i64,
    limit: usize,
    seconds: usize,
) -> Vec<Note> {
    let mut notes = Vec::new();
    for _ in 0..seconds {
        *now += SECOND;
        notes.extend(machine.tick(*now, &fleet.seen(), limit).0);
        fleet.act(machine, |_| true);
    }
    notes
}

fn states(machine: &Machine) -> Vec<State> {
    machine.agents.values().map(|agent| agent.state).collect()
}

#[test]
fn stage_by_stage_with_a_soak_between() {
    let mut fleet = Fleet::new(&[Nature::Good; 30]);
    let mut machine = Machine::new(plan("1,10%,all"), NEW.to_owned());
    let mut now = 0;
    let mut full = Vec::new();
    for second in 0..60 {
        settle(&mut machine, &mut fleet, &mut now, 100, 1);
        if full.last().is_none_or(|(_, stage, n)| (*stage, *n) != (machine.stage, machine.agents.len())) {
            full.push((second, machine.stage, machine.agents.len()));
        }
    }
    let sizes: Vec<_> = full.iter().map(|(_, stage, n)| (*stage, *n)).collect();
    // The next stage's nodes are chosen with the look after the one that left the stage.
    assert_eq!(sizes, [(0, 1), (1, 1), (1, 3), (2, 3), (2, 30)]);
    assert!(full[1].0 - full[0].0 >= 10 && full[3].0 - full[2].0 >= 10, "{full:?}");
    assert_eq!(machine.phase, Phase::Complete);
    // Whoever comes later is told too.
    let late = Fleet::new(&[Nature::Good; 31]).nodes.remove(&name(30)).unwrap();
    fleet.nodes.insert(name(30), late);
    settle(&mut machine, &mut fleet, &mut now, 100, 3);
    assert_eq!((machine.phase, states(&machine)), (Phase::Complete, vec![State::Done; 31]));
}

#[test]
fn a_failure_halts_and_going_on_tells_it_again() {
    for (bad, code) in
        [(Nature::Refuses, "PKT-0060"), (Nature::Breaks, "PKT-0081"), (Nature::Silent, NO_WORD)]
    {
        let mut fleet = Fleet::new(&[Nature::Good, bad, Nature::Good, Nature::Good]);
        let mut machine = Machine::new(plan("1,2,all"), NEW.to_owned());
        let mut now = 0;
        settle(&mut machine, &mut fleet, &mut now, 100, 200);
        assert_eq!((machine.phase, machine.agents.len()), (Phase::Halted, 2), "{bad:?}");
        assert!(machine.reason.contains(code) && machine.reason.contains("n01"), "{}", machine.reason);
        assert_eq!(machine.offer("n01"), None);
        // Mended there.
        fleet.nodes.get_mut("n01").unwrap().0 = Nature::Good;
        assert!(machine.resume(now) && !machine.resume(now));
        settle(&mut machine, &mut fleet, &mut now, 100, 60);
        assert_eq!((machine.phase, states(&machine)), (Phase::Complete, vec![State::Done; 4]), "{bad:?}");
        assert_eq!(machine.agents["n01"].attempt, 2);
    }
}

#[test]
fn so_many_may_fail() {
    let mut fleet = Fleet::new(&[Nature::Good, Nature::Refuses, Nature::Good, Nature::Refuses, Nature::Good]);
    let mut machine = Machine::new(Plan { max_failures: 1, ..plan("2,all") }, NEW.to_owned());
    let mut now = 0;
    settle(&mut machine, &mut fleet, &mut now, 1, 60);
    assert_eq!(machine.phase, Phase::Halted);
    // One at a time: the last one was never told.
    let wanted = [State::Done, State::Failed, State::Done, State::Failed, State::Waiting];
    assert_eq!(states(&machine), wanted);
}

#[test]
fn one_that_was_well_and_fails_in_the_soak_halts() {
    let mut fleet = Fleet::new(&[Nature::Good; 3]);
    let mut machine = Machine::new(plan("1,all"), NEW.to_owned());
    let mut now = 0;
    settle(&mut machine, &mut fleet, &mut now, 100, 5);
    assert_eq!(states(&machine), [State::Done]);
    fleet.connect("n00", false);
    settle(&mut machine, &mut fleet, &mut now, 100, 30);
    assert_eq!((machine.phase, machine.stage), (Phase::Running, 0), "away for a while is no failure");
    fleet.connect("n00", true);
    settle(&mut machine, &mut fleet, &mut now, 100, 8);
    assert_eq!(machine.stage, 0, "the soak began anew");
    fleet.nodes.get_mut("n00").unwrap().1.state = "backing-off".to_owned();
    settle(&mut machine, &mut fleet, &mut now, 100, 65);
    assert_eq!((machine.phase, machine.agents["n00"].code.as_str()), (Phase::Halted, NO_WORD));
}

#[test]
fn offline_nodes_hold_nothing_up_and_are_told_when_they_come() {
    let mut fleet = Fleet::new(&[Nature::Good; 4]);
    for node in ["n00", "n03"] {
        fleet.connect(node, false);
    }
    let mut machine = Machine::new(plan("1,all"), NEW.to_owned());
    let mut now = 0;
    settle(&mut machine, &mut fleet, &mut now, 100, 60);
    assert_eq!(machine.phase, Phase::Complete);
    assert_eq!(machine.agents.keys().collect::<Vec<_>>(), ["n01", "n02"]);
    fleet.connect("n03", true);
    settle(&mut machine, &mut fleet, &mut now, 100, 3);
    assert_eq!(machine.agents["n03"].state, State::Done);
}

#[test]
fn back_to_what_ran_before() {
    let mut fleet = Fleet::new(&[Nature::Good, Nature::Good, Nature::Refuses, Nature::Good]);
    fleet.nodes.get_mut("n01").unwrap().1.digest.clear();
    NEW.clone_into(&mut fleet.nodes.get_mut("n03").unwrap().1.digest);
    let mut machine = Machine::new(plan("all"), NEW.to_owned());
    let mut now = 0;
    settle(&mut machine, &mut fleet, &mut now, 100, 30);
    assert_eq!(machine.phase, Phase::Halted);
    fleet.connect("n00", false);
    assert!(machine.roll_back(now) && !machine.roll_back(now) && !machine.pause("") && !machine.resume(now));
    settle(&mut machine, &mut fleet, &mut now, 1, 30);
    assert_eq!(machine.phase, Phase::Reverting, "one is away");
    fleet.connect("n00", true);
    settle(&mut machine, &mut fleet, &mut now, 1, 5);
    assert_eq!(machine.phase, Phase::Reverted);
    let run: Vec<&str> = fleet.nodes.values().map(|(_, seen)| seen.digest.as_str()).collect();
    assert_eq!(run, ["old", "", "old", NEW], "what ran it before was left alone");
}

#[test]
fn paused_tells_nobody_else() {
    let mut fleet = Fleet::new(&[Nature::Good; 6]);
    let mut machine = Machine::new(plan("3,all"), NEW.to_owned());
    let mut now = SECOND;
    machine.tick(now, &fleet.seen(), 2);
    assert!(machine.pause("lunch") && !machine.pause("again"));
    settle(&mut machine, &mut fleet, &mut now, 2, 100);
    assert_eq!(states(&machine), [State::Done, State::Done, State::Waiting]);
    assert!(machine.resume(now));
    settle(&mut machine, &mut fleet, &mut now, 2, 60);
    assert_eq!(machine.phase, Phase::Complete);
}

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    /// So many seconds pass, and these nodes act.
    Pass(i64, u32),
    Away(usize, bool),
    Restart,
    Pause,
    Resume,
    RollBack,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (1i64..30, any::<u32>()).prop_map(|(seconds, who)| Step::Pass(seconds, who)),
        3 => (0usize..20, any::<bool>()).prop_map(|(node, away)| Step::Away(node, away)),
        2 => Just(Step::Restart),
        1 => Just(Step::Pause),
        1 => Just(Step::Resume),
        1 => Just(Step::RollBack),
    ]
}

fn nature() -> impl Strategy<Value = Nature> {
    prop_oneof![
        8 => Just(Nature::Good),
        1 => Just(Nature::Refuses),
        1 => Just(Nature::Breaks),
        1 => Just(Nature::Silent)
    ]
}

/// As the store would give it back.
fn restarted(machine: &Machine, now: i64) -> Machine {
    let text = serde_json::to_string(machine).unwrap();
    let mut again: Machine = serde_json::from_str(&text).unwrap();
    for (node, agent) in &machine.agents {
        let text = serde_json::to_string(agent).unwrap();
        again.agents.insert(node.clone(), serde_json::from_str(&text).unwrap());
    }
    again.resumed(now);
    again
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_promises_hold_whatever_happens(
        natures in prop::collection::vec(nature(), 1..20),
        stages in prop::sample::select(vec!["1,10%,all", "all", "1", "2,50%,all", "1,2,3,all", "30%,100%"]),
        max_failures in 0usize..3,
        limit in 1usize..5,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut fleet = Fleet::new(&natures);
        let mut machine = Machine::new(Plan { max_failures, ..plan(stages) }, NEW.to_owned());
        let mut now = 0;
        // Since when all that have a place and did not fail have been well, as the test itself sees it.
        let mut well_since: Option<i64> = None;
        for step in steps {
            match step {
                Step::Away(node, away) => {
                    if let Some(name) = fleet.nodes.keys().nth(node % natures.len()).cloned() {
                        fleet.connect(&name, !away);
                    }
                }
                Step::Restart => machine = restarted(&machine, now),
                Step::Pause => { machine.pause("test"); }
                Step::Resume => { machine.resume(now); }
                Step::RollBack => { machine.roll_back(now); }
                Step::Pass(seconds, who) => {
                    now += seconds * SECOND;
                    fleet.act(&machine, |i| who >> (i % 32) & 1 == 1);
                    let before = machine.clone();
                    let seen = fleet.seen();
                    let (notes, changed) = machine.tick(now, &seen, limit);
                    let told = notes.iter().filter(|n| matches!(n, Note::Told(_))).count();
                    // Places and what is under way are bounded.
                    let under_way = states(&machine).iter().filter(|s| s.is_under_way()).count();
                    let was = states(&before).iter().filter(|s| s.is_under_way()).count();
                    prop_assert!(under_way <= limit.max(was), "{under_way} under way");
                    let places = machine.plan.stages[machine.stage].of(natures.len());
                    prop_assert!(machine.agents.len() <= places, "{} in {places} places", machine.agents.len());
                    // Nobody is told while it doesn't run, nor after too many failures.
                    let runs = matches!(before.phase, Phase::Running | Phase::Complete);
                    prop_assert!(told == 0 || runs);
                    let failed = states(&machine).iter().filter(|s| **s == State::Failed).count();
                    if runs && failed > max_failures {
                        prop_assert_eq!((machine.phase, told), (Phase::Halted, 0));
                    }
                    // A stage is left by a soak alone.
                    let all_well = machine.agents.iter().all(|(node, agent)| match agent.state {
                        State::Failed => true,
                        State::Waiting => !seen[node].connected,
                        State::Done => {
                            seen[node].connected && seen[node].digest == NEW && seen[node].state == "running"
                        }
                        _ => false,
                    });
                    well_since = all_well.then(|| well_since.unwrap_or(now));
                    if machine.stage > before.stage || (machine.phase == Phase::Complete && before.phase == Phase::Running) {
                        let since = well_since.unwrap_or(now);
                        prop_assert!(now - since >= machine.plan.soak_ms, "left after {} ms", now - since);
                        prop_assert!(states(&machine).contains(&State::Done));
                    }
                    prop_assert!(machine.stage >= before.stage);
                    // What changed is what is written down.
                    for (node, agent) in &machine.agents {
                        prop_assert!(changed.contains(node) || before.agents.get(node) == Some(agent));
                    }
                    // Offers are of those alone that were told.
                    for node in fleet.nodes.keys() {
                        if let Some(offer) = machine.offer(node) {
                            prop_assert!(machine.agents[node].state.is_under_way() && offer.attempt > 0);
                        }
                    }
                }
            }
        }
        // In the end, with all there and all good, all of them have it.
        let names: Vec<String> = fleet.nodes.keys().cloned().collect();
        for name in &names {
            fleet.connect(name, true);
            fleet.nodes.get_mut(name).unwrap().0 = Nature::Good;
        }
        if machine.phase.is_live() && machine.phase != Phase::Reverting {
            settle(&mut machine, &mut fleet, &mut now, limit, 200);
            machine.resume(now);
            settle(&mut machine, &mut fleet, &mut now, limit, 400);
            prop_assert_eq!(machine.phase, Phase::Complete, "{:?}", machine);
        } else {
            settle(&mut machine, &mut fleet, &mut now, limit, 200);
            prop_assert_eq!(machine.phase, Phase::Reverted);
        }
    }
}
