//! What is written down, and what follows from it, without a registry and without nodes: those are in the end-to-end tests.

use picket_artifact::Digest;

use super::machine::Agent;
use super::*;
use crate::ingest::RolloutSink as _;

const ADA: Asker<'static> = Asker { name: "ada", role: "admin", is_admin: true };

struct Bench {
    dir: tempfile::TempDir,
    clock: Clock,
    rollouts: Arc<Rollouts>,
}

fn open(dir: &Path, clock: &Clock) -> Arc<Rollouts> {
    let audit = Arc::new(Audit::open(dir, clock.clone()).unwrap());
    let settings = Settings { policy: dir.join("policy.toml"), ..Settings::default() };
    Rollouts::open(dir, settings, audit, clock.clone()).unwrap()
}

fn agent(state: State, attempt: u32, former: &str) -> Agent {
    Agent {
        state,
        attempt,
        stage: 0,
        since_ms: 0,
        well: false,
        former: former.to_owned(),
        code: String::new(),
        reason: String::new(),
    }
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("policy.toml"), "policy = 1\n[default]\nallow_unsigned = true\n")
            .unwrap();
        let clock = Clock::manual(1_000_000);
        let rollouts = open(dir.path(), &clock);
        Self { dir, clock, rollouts }
    }

    fn restart(self) -> Self {
        let Self { dir, clock, rollouts } = self;
        drop(rollouts);
        let rollouts = open(dir.path(), &clock);
        Self { dir, clock, rollouts }
    }

    /// A rollout that has begun, of this component.
    async fn begun(
        &self,
        id: &str,
        component: &[u8],
        evidence: &Evidence,
        agents: &[(&str, Agent)],
    ) -> String {
        let digest = Digest::of(component);
        self.rollouts.artifacts.keep(&digest, component, evidence).unwrap();
        let plan = Plan {
            stages: Stage::list("1,all").unwrap(),
            soak_ms: 1_000,
            timeout_ms: 600_000,
            max_failures: 0,
        };
        let mut machine = Machine::new(plan, digest.to_string());
        machine.agents = agents.iter().map(|(name, agent)| ((*name).to_owned(), agent.clone())).collect();
        let rollout = Rollout {
            id: id.to_owned(),
            plugin: "count".to_owned(),
            reference: "r.example/count:2".to_owned(),
            resolved: "r.example/count:2@sha256:…".to_owned(),
            version: "2.0.0".to_owned(),
            signed_by: "release".to_owned(),
            size: component.len() as u64,
            selector: NodeSelector::default(),
            created_ms: self.clock.now_ms(),
            created_by: "ada".to_owned(),
            changed_ms: 0,
            machine,
        };
        self.rollouts.put(rollout, BTreeSet::new()).await.unwrap();
        self.rollouts.publish();
        digest.to_string()
    }

    fn events(&self) -> Vec<String> {
        let page = self.rollouts.audit.page(0, 1000).unwrap();
        let text = String::from_utf8(page).unwrap();
        let entries = text.lines().filter_map(|line| line.split_once(' '));
        entries
            .map(|(_, json)| serde_json::from_str::<Value>(json).unwrap())
            .map(|entry| format!("{} {}", entry["actor"].as_str().unwrap(), entry["event"].as_str().unwrap()))
            .collect()
    }
}

#[tokio::test]
async fn what_was_offered_is_offered_after_a_restart_and_to_nobody_else() {
    let bench = Bench::new();
    let component = b"\0asm\x0d\0\x01\0".to_vec();
    let agents = [("n1", agent(State::Told, 1, "old")), ("n2", agent(State::Waiting, 0, "old"))];
    let evidence = Evidence { signature: Some(b"sig".to_vec()), bundle: None };
    let digest = bench.begun("r1", &component, &evidence, &agents).await;
    let before = bench.rollouts.offers(&node("n1"));
    let [offer] = before.offers.as_slice() else { panic!("{before:?}") };
    assert_eq!((offer.digest.as_str(), offer.attempt, offer.size), (digest.as_str(), 1, 8));
    assert_eq!(offer.signature.as_deref(), Some(&b"sig"[..]));
    let bench = bench.restart();
    assert_eq!(bench.rollouts.offers(&node("n1")), before);
    assert!(bench.rollouts.offers(&node("n2")).offers.is_empty());
    let chunk = |name: &str, digest: &str, offset| {
        let fetch = v1::PluginFetch { digest: digest.to_owned(), offset };
        bench.rollouts.chunk(&node(name), &fetch)
    };
    assert_eq!(chunk("n1", &digest, 0).content, component);
    assert_eq!(chunk("n1", &digest, 3).content, component[3..]);
    for (name, digest) in [("n2", digest.as_str()), ("n3", &digest), ("n1", "../../identity"), ("n1", "")] {
        let refused = chunk(name, digest, 0);
        assert!(refused.content.is_empty() && refused.refused.contains("not offered"), "{name} {digest}");
    }
}

#[tokio::test]
async fn what_a_person_does_is_told_first_and_survives() {
    let bench = Bench::new();
    let component = b"\0asm\x0d\0\x01\0".to_vec();
    let agents = [("n1", agent(State::Told, 1, "old")), ("n2", agent(State::Done, 1, ""))];
    bench.begun("r1", &component, &Evidence::default(), &agents).await;
    bench.rollouts.pause(ADA, "r1", "lunch").await.unwrap();
    let again = bench.rollouts.pause(ADA, "r1", "lunch").await.unwrap_err();
    assert!(again.to_string().contains("is paused"), "{again}");
    let bench = bench.restart();
    let paused = bench.rollouts.get("r1").unwrap();
    assert_eq!((paused.machine.phase, paused.machine.reason.as_str()), (Phase::Paused, "lunch"));
    bench.rollouts.resume(ADA, "r1").await.unwrap();
    // Revoked meanwhile: it does not go on, and a look at the policy halts what does.
    let digest = &paused.machine.digest;
    let revoked =
        format!("policy = 1\n[default]\nallow_unsigned = true\n[revoked]\ndigests = [\"sha256:{digest}\"]\n");
    std::fs::write(bench.dir.path().join("policy.toml"), revoked).unwrap();
    bench.rollouts.step().await.unwrap();
    let halted = bench.rollouts.get("r1").unwrap();
    assert_eq!(halted.machine.phase, Phase::Halted);
    assert!(halted.machine.reason.contains("PKT-0015"), "{}", halted.machine.reason);
    assert!(bench.rollouts.offers(&node("n1")).offers.is_empty());
    assert!(bench.rollouts.resume(ADA, "r1").await.unwrap_err().to_string().contains("PKT-0015"));
    // Away from it nodes may go.
    bench.rollouts.roll_back(ADA, "r1").await.unwrap();
    let bench = bench.restart();
    let reverting = bench.rollouts.get("r1").unwrap();
    assert_eq!(reverting.machine.phase, Phase::Reverting);
    let states: Vec<State> = reverting.machine.agents.values().map(|a| a.state).collect();
    assert_eq!(states, [State::ToRevert, State::ToRevert]);
    let events = bench.events();
    for wanted in ["ada rollout.paused", "ada rollout.resumed", " rollout.halted", "ada rollout.rollback"] {
        assert!(events.iter().any(|event| event == wanted), "{wanted} is not among {events:?}");
    }
    assert_eq!(bench.rollouts.audit.state().problem, "");
    assert!(matches!(bench.rollouts.get("r2"), Err(RolloutError::Unknown(_))));
}

#[tokio::test]
async fn back_to_what_is_revoked_nobody_goes() {
    let bench = Bench::new();
    let former = "a".repeat(64);
    let agents = [("n1", agent(State::Done, 1, &former))];
    bench.begun("r1", b"\0asm\x0d\0\x01\0", &Evidence::default(), &agents).await;
    let revoked = format!("policy = 1\n[revoked]\ndigests = [\"sha256:{former}\"]\n");
    std::fs::write(bench.dir.path().join("policy.toml"), revoked).unwrap();
    let refused = bench.rollouts.roll_back(ADA, "r1").await.unwrap_err().to_string();
    assert!(refused.contains(&former), "{refused}");
}

#[tokio::test]
async fn refusals_say_what_to_do_and_are_told() {
    let bench = Bench::new();
    let wish = |reference: &str, stages: &str, soak: &str, selector: &str| Wish {
        reference: reference.to_owned(),
        plugin: "count".to_owned(),
        selector: selector.to_owned(),
        stages: stages.to_owned(),
        soak: Some(soak.to_owned()),
        timeout: None,
        max_failures: 0,
    };
    for (wish, wanted) in [
        (wish("registry.example/count:1", "all", "1s", ""), "[[rollout.registries]]"),
        (wish("count", "all", "1s", ""), "HOST/REPOSITORY"),
        (wish("registry.example/count:1", "some", "1s", ""), "no stage"),
        (wish("registry.example/count:1", "all", "ever", ""), "soak"),
        (wish("registry.example/count:1", "all", "1s", "rack"), "no selector"),
        (Wish { plugin: "../x".to_owned(), ..wish("a/b:1", "all", "1s", "") }, "../x"),
    ] {
        let refused = bench.rollouts.start(ADA, wish).await.unwrap_err().to_string();
        assert!(refused.contains(wanted), "{refused:?} does not say {wanted:?}");
    }
    assert_eq!(bench.events(), vec!["ada rollout.refused"; 6]);
    assert!(bench.rollouts.list(None).is_empty());
}
